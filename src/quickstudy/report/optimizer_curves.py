"""Losses of optimizers against steps: medians over problems, the middle half of them as bands, names at the ends."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator, StrMethodFormatter

from quickstudy.report.figures import STYLE, svg
from quickstudy.report.marks import COLOURS

_POINTS = 120  # of a curve, at most
_LINE = 0.08  # height of a name, as a share of the axis
_HEADROOM = 10.0  # a loss so many times that at the start leaves the picture


@dataclass(frozen=True)
class Curve:
    """One optimizer.

    Attributes:
        name: what stands at the end of its line.
        losses: (steps + 1, problems).
        place: of its colour, the same in every picture.
        bold: a thick line with a band.
    """

    name: str
    losses: np.ndarray
    place: int
    bold: bool


def curves(shown: Sequence[Curve], *, y_label: str, label: str) -> Markup:
    """All of them on a logarithmic axis; ``label`` is the text alternative."""
    with matplotlib.rc_context(STYLE):
        figure = draw(shown, y_label=y_label)
        return svg(figure, label)


def draw(shown: Sequence[Curve], *, y_label: str) -> Figure:
    """The figure itself."""
    figure = Figure(figsize=(4.4, 3.3), layout="constrained")
    figure.patch.set_visible(False)
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    last = len(shown[0].losses) - 1
    at = np.unique(np.linspace(0, last, min(last + 1, _POINTS)).round().astype(int))
    ends: list[tuple[float, Curve]] = []
    inside: list[float] = []
    for curve in sorted(shown, key=lambda curve: curve.bold):  # thick lines above thin ones
        low, middle, high = quartiles(curve.losses)[:, at]
        limit = _HEADROOM * middle[0] if np.isfinite(middle[0]) else np.inf
        seen = np.where(middle < limit, middle, np.nan)
        colour = COLOURS[curve.place % len(COLOURS)]
        if curve.bold:
            band = np.isfinite(seen)
            axes.fill_between(
                at, np.where(band, low, np.nan), np.where(band, high, np.nan), color=colour, alpha=0.2, linewidth=0
            )
            inside += [*low[band], *np.minimum(high, limit)[band]]
        axes.plot(at, seen, color=colour, linewidth=2.4 if curve.bold else 1.1, zorder=3 if curve.bold else 2)
        found = seen[np.isfinite(seen)]
        inside += [*found]
        if len(found):
            ends.append((float(found[-1]), curve))
    axes.set_yscale("log")
    positive = [v for v in inside if v > 0]
    if positive:
        axes.set_ylim(0.8 * min(positive), 1.25 * max(positive))
    _few_numbers(axes)
    axes.set_xlim(0, last)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_xlabel("steps")
    axes.set_ylabel(y_label)
    _name_lines(axes, ends)
    return figure


def quartiles(losses: np.ndarray) -> np.ndarray:
    """The lower quartile, the median and the upper one over problems (last axis), (3, steps + 1).

    Each is the loss of some problem, as between a finite loss and an infinite one there is no middle; NaN counts as
    infinite.
    """
    return np.quantile(np.where(np.isnan(losses), np.inf, losses), (0.25, 0.5, 0.75), axis=-1, method="lower")


def _few_numbers(axes: Axes) -> None:
    """At least two numbers on a logarithmic axis, and not a crowd."""
    low, high = axes.get_ylim()
    decades = np.log10(high / low)
    subs = (1.0,) if decades > 3 else (1.0, 3.0) if decades > 1.3 else (1.0, 2.0, 3.0, 5.0, 7.0)
    axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axes.yaxis.set_major_formatter(lambda v, _: f"{v:.10g}" if v >= 1e-3 else f"{v:.0e}")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())


def _name_lines(axes: Axes, ends: Sequence[tuple[float, Curve]]) -> None:
    """The names right of the lines, none over another, each joined to its line's end."""
    low, high = np.log(axes.get_ylim())
    ends = [(value, curve) for value, curve in ends if value > 0]  # an exact 0 has no place on the axis
    places = [(float(np.log(value)) - low) / (high - low) for value, _ in ends]
    order = np.argsort(places)
    for i, y in zip(order, apart([places[i] for i in order], _LINE), strict=True):
        curve, whole = ends[i][1], axes.transAxes
        colour = COLOURS[curve.place % len(COLOURS)]
        name = curve.name.encode("latin-1", "replace").decode("latin-1")  # the font draws no other letters for certain
        weight = "bold" if curve.bold else "normal"
        axes.text(1.035, y, name, transform=whole, color=colour, va="center", weight=weight)
        axes.plot([1.0, 1.03], [places[i], y], transform=whole, color=colour, linewidth=0.7, clip_on=False)


def apart(places: Sequence[float], least: float) -> list[float]:
    """Increasing numbers moved as little as this takes, so that neighbours differ by ``least``."""
    blocks: list[list[float]] = []  # of each: the mean of where its members would begin, and how many they are
    for i, place in enumerate(places):
        blocks.append([place - i * least, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, n), (b, m) = blocks[-2:]
            blocks[-2:] = [[(n * a + m * b) / (n + m), n + m]]
    starts = [start for start, members in blocks for _ in range(int(members))]
    return [start + i * least for i, start in enumerate(starts)]
