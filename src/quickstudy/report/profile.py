"""Plots of a profile: peak memory and time of a meta-step against the number of inner steps, as PNG."""

import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from quickstudy.files import write_atomically
from quickstudy.profiling import MODES, Measured, Profile
from quickstudy.report.marks import look

_INK = "#30343a"
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "lines.linewidth": 2.0,
    "lines.markersize": 5.5,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "axes.titlesize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": _INK,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.6,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "text.color": _INK,
    "text.usetex": False,
}


def write(profile: Profile, folder: Path) -> list[Path]:
    """Write ``memory.png`` and ``time.png``; returns their paths."""
    clock = profile.clock
    plots: dict[str, tuple[str, Callable[[Measured], float | None]]] = {
        "memory.png": ("peak memory above the baseline (MB)", lambda row: _times(row.peak_bytes, 1e-6)),
        "time.png": (f"{clock} time of a meta-step (ms)", lambda row: _times(profile.seconds(row), 1e3)),
    }
    paths = []
    for name, (label, value) in plots.items():
        buffer = io.BytesIO()
        with matplotlib.rc_context(_STYLE):
            draw(profile, label, value).savefig(buffer, format="png", dpi=160, metadata={"Software": None})
        write_atomically(folder / name, buffer.getvalue())
        paths.append(folder / name)
    return paths


def draw(profile: Profile, label: str, value: Callable[[Measured], float | None]) -> Figure:
    """One line for each mode, named at its end; both axes logarithmic.

    Args:
        profile: what was measured.
        label: of the vertical axis.
        value: of a row, None where it has none.
    """
    setup = profile.setup
    figure = Figure(figsize=(6.2, 3.9), layout="constrained")
    axes = figure.add_subplot()
    ends: list[tuple[float, str, str]] = []
    for mode in dict.fromkeys(row.mode for row in profile.rows):
        rows = [(row.steps, value(row)) for row in profile.rows if row.mode == mode]
        found = [(steps, v) for steps, v in rows if v is not None and v > 0]
        if not found:
            continue
        colour, marker = look(MODES.index(mode))
        axes.plot(*zip(*found, strict=True), color=colour, marker=marker, markeredgecolor="white", label=mode)
        ends.append((found[-1][1], mode, colour))
    axes.set_xscale("log")
    axes.set_yscale("log")
    steps = sorted({row.steps for row in profile.rows})
    axes.set_xticks(steps, [f"{s:,}" for s in steps])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("inner steps")
    axes.set_ylabel(label)
    if ends:
        axes.set_ylim(*_round_ends([v for line in axes.get_lines() for v in np.asarray(line.get_ydata())]))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda v, _: f"{v:,.10g}")
    axes.yaxis.set_minor_locator(NullLocator())
    each = f"{setup.way}-way {setup.shot}-shot, {setup.queries} queries per class"
    tasks = f", {setup.tasks} tasks" if setup.tasks > 1 else ""
    axes.set_title(f"{setup.learner} on {setup.network}: {each}{tasks}", loc="left")
    _name_lines(axes, ends, steps[-1])
    return figure


def _name_lines(axes: Axes, ends: list[tuple[float, str, str]], last: int) -> None:
    """The names right of the lines, from the lowest up, none over another."""
    low, high = axes.get_ylim()
    least = (high / low) ** 0.062  # of one line of text, on the logarithmic axis
    at = 0.0
    for value, mode, colour in sorted(ends):
        at = max(value, at * least)
        axes.annotate(
            mode.replace("_", " "),
            (last, at),
            xytext=(9, 0),
            textcoords="offset points",
            color=colour,
            va="center",
            weight="bold",
            annotation_clip=False,
        )


def _round_ends(values: Sequence[float]) -> tuple[float, float]:
    """The nearest of 1, 2, 5, 10, ... below and above all values."""
    exponent = math.floor(math.log10(min(values)))
    steps = [float(f"{digit}e{k}") for k in range(exponent, exponent + 20) for digit in (1, 2, 5)]
    return max(s for s in steps if s <= min(values)), min(s for s in steps if s > max(values))


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
