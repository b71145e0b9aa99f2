"""Figures as inline SVG that takes the text colour of the page, so one drawing serves light and dark.

No text but numbers and our own words is drawn here: names of learners and classes stand in the HTML beside a figure,
where the reader's fonts and text size apply.
"""

import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, StrMethodFormatter

from quickstudy.evaluation import Comparison
from quickstudy.report.marks import COLOURS, look
from quickstudy.report.measure import Wave

INK = "#010203"  # stands for the colour of the text until the SVG is written
STYLE: Any = {
    "svg.fonttype": "path",
    "svg.hashsalt": "quickstudy",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "lines.solid_capstyle": "round",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.unicode_minus": True,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.6,
    "grid.linestyle": "-",
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "text.usetex": False,
    "errorbar.capsize": 2.5,
}


def loss_curve(
    steps: Sequence[int], losses: Sequence[float], *, best: int | None, end: int, unit: str, label: str
) -> Markup:
    """Meta-training loss against outer step: every record thin, their moving average bold.

    ``end`` is the last outer step, so that this panel and the next share their axis.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure()
        values = np.asarray(losses, dtype=float)
        if len(steps) >= 40:
            axes.plot(steps, values, color=COLOURS[0], linewidth=0.8, alpha=0.55)
        axes.plot(steps, _smooth(values), color=COLOURS[0], linewidth=2)
        positive = values[np.isfinite(values)]
        if len(positive) and positive.min() > 0 and positive.max() > 50 * np.median(positive):
            axes.set_yscale("log")
        _best_line(axes, best)
        _outer_steps(axes, end)
        axes.set_ylabel(f"meta-training loss ({unit})")
        return svg(figure, label)


def validation_curve(
    steps: Sequence[int],
    mean: Sequence[float],
    ci95: Sequence[float],
    *,
    best: int | None,
    end: int,
    metric: str,
    label: str,
) -> Markup:
    """Meta-validation with its ci95 as a band, the best one as a star."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure()
        scale = 100 if metric == "accuracy" else 1
        values, half = scale * np.asarray(mean, dtype=float), scale * np.asarray(ci95, dtype=float)
        axes.fill_between(steps, values - half, values + half, color=COLOURS[1], alpha=0.22, linewidth=0)
        axes.plot(steps, values, color=COLOURS[1], marker="o", markersize=3.5)
        _best_line(axes, best)
        if best is not None:
            at = list(steps).index(best)
            axes.plot([best], [values[at]], marker="*", markersize=13, color=COLOURS[1], markeredgecolor=INK)
        _outer_steps(axes, end)
        unit = " (%)" if metric == "accuracy" else ""
        axes.set_ylabel(f"meta-validation {metric.replace('_', ' ')}{unit}")
        return svg(figure, label)


def score_curve(
    found: Mapping[int, Comparison],
    *,
    x_label: str,
    label: str,
    lowest: int = 0,
    chance: Sequence[float] | None = None,
) -> Markup:
    """Accuracy with ci95 bars of every learner at every x, from ``lowest`` per cent on; ``chance`` is dotted."""
    at, names = list(found), list(next(iter(found.values())).scores)
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure()
        if chance is not None:
            axes.plot(at, [100 * c for c in chance], color=INK, alpha=0.6, linestyle=":", linewidth=1.4)
        for i, name in enumerate(names):
            aside = 1.025 ** (i - (len(names) - 1) / 2)  # so that bars at the same place can be told apart
            colour, marker = look(i)
            axes.errorbar(
                [x * aside for x in at],
                [100 * comparison.scores[name].mean for comparison in found.values()],
                yerr=[100 * comparison.scores[name].ci95 for comparison in found.values()],
                color=colour,
                marker=marker,
                elinewidth=1.2,
            )
        axes.set_xscale("log")
        axes.set_xticks(at, [str(x) for x in at])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_ylim(lowest, 100 + 0.03 * (100 - lowest))
        axes.set_xlabel(x_label)
        axes.set_ylabel("accuracy (%)")
        return svg(figure, label)


def wave(shown: Wave, *, label: str) -> Markup:
    """A sine wave: true (dotted), before adaptation (dashed), after (solid), support points."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(height=2.5)
        axes.plot(shown.x, shown.y, color=INK, alpha=0.75, linestyle=":", linewidth=2)
        if shown.before is not None:
            axes.plot(shown.x, shown.before, color=COLOURS[2], linestyle="--", linewidth=1.4)
        axes.plot(shown.x, shown.after, color=COLOURS[0], linewidth=2)
        axes.plot(shown.support_x, shown.support_y, color=COLOURS[1], marker="^", linestyle="none", markersize=7)
        axes.set_xlabel("x")
        axes.set_ylabel("y")
        return svg(figure, label)


def _figure(height: float = 2.9) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.4, height), layout="constrained")
    figure.patch.set_visible(False)
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    return figure, axes


def _best_line(axes: Axes, best: int | None) -> None:
    if best is not None:
        axes.axvline(best, color=INK, alpha=0.55, linestyle="--", linewidth=1)


def _outer_steps(axes: Axes, end: int) -> None:
    axes.set_xlim(0, 1.03 * end)
    axes.set_xlabel("outer step")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def _smooth(values: np.ndarray) -> np.ndarray:
    """Centred moving average over a twentieth of the records, over fewer at the ends; none under 40 records."""
    reach = len(values) // 40
    return np.array([values[max(0, i - reach) : i + reach + 1].mean() for i in range(len(values))])


def svg(figure: Figure, label: str) -> Markup:
    """The figure as an element for the page: no addresses, ids of its own, ``label`` as its text alternative."""
    buffer = io.StringIO()
    no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
    text = buffer.getvalue()
    view = re.search(r'viewBox="([^"]+)"', text)
    body = text[text.index(">", text.index("<svg")) + 1 :]
    body = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.DOTALL)
    own = "f" + hashlib.sha256((label + body).encode()).hexdigest()[:8]
    body = re.sub(r'\bid="', f'id="{own}-', body)
    body = body.replace('href="#', f'href="#{own}-').replace("url(#", f"url(#{own}-").replace(INK, "currentColor")
    body = re.sub(r"\n\s*", "\n", body)
    assert view is not None
    return Markup(f'<svg viewBox="{view[1]}" role="img" aria-label="{escape(label)}">{body}')
