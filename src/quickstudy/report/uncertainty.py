"""How sure a learner is: a few points of a curve, the true curve, and what the particles make of it, as a PNG."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from quickstudy.report.marks import COLOURS

_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.usetex": False,
    "text.color": "#24292f",
    "axes.edgecolor": "#8b949e",
    "axes.labelcolor": "#24292f",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "grid.color": "#24292f",
    "grid.alpha": 0.1,
    "grid.linewidth": 0.6,
    "grid.linestyle": "-",
    "xtick.color": "#57606a",
    "ytick.color": "#57606a",
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
}


@dataclass(frozen=True)
class Band:
    """One task as it is drawn; every tensor is one-dimensional but ``particles``.

    Args:
        title: above the panel.
        x: (m,) where the curves are drawn, in order.
        y: (m,) the true curve.
        mean: (m,) the prediction.
        lower, upper: (m,) the interval.
        particles: (particles, m) what each of them predicts.
        support_x, support_y: (n,) the points that were seen.
    """

    title: str
    x: Tensor
    y: Tensor
    mean: Tensor
    lower: Tensor
    upper: Tensor
    particles: Tensor
    support_x: Tensor
    support_y: Tensor


def draw(bands: Sequence[Band], path: str | Path, *, interval: str = "90 % interval", columns: int = 2) -> None:
    """Write one PNG with a panel for each task, all with the same axes.

    Args:
        bands: the tasks, at least one.
        path: of the file; an existing one is replaced.
        interval: what the legend calls the band.
        columns: panels beside each other.

    Raises:
        ValueError: no tasks, or no columns.
    """
    if not bands or columns < 1:
        raise ValueError(f"{len(bands)} tasks in {columns} columns; required is at least one of each")
    columns = min(columns, len(bands))
    rows = -(-len(bands) // columns)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(3.7 * columns, 0.45 + 2.3 * rows), layout="constrained")
        panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for i, panel in enumerate(panels.flat):
            if i < len(bands):
                _panel(panel, bands[i], interval)
                panel.tick_params(labelbottom=i + columns >= len(bands))
                panel.set_xlabel("x" if i + columns >= len(bands) else "")
                panel.set_ylabel("" if i % columns else "y")
            else:
                panel.set_axis_off()
        handles, names = panels.flat[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=min(len(names), 3 * columns - 1))
        figure.savefig(path, format="png", dpi=120, metadata={"Software": None})


def _panel(axes: Axes, band: Band, interval: str) -> None:
    colour, points = COLOURS[0], COLOURS[1]
    axes.fill_between(band.x, band.lower, band.upper, color=colour, alpha=0.17, linewidth=0, label=interval)
    for i, particle in enumerate(band.particles):
        name = "particles" if i == 0 else None
        axes.plot(band.x, particle, color=colour, alpha=0.5, linewidth=0.7, label=name)
    axes.plot(band.x, band.mean, color=colour, linewidth=2, label="mean")
    axes.plot(band.x, band.y, color="#24292f", linestyle=(0, (4, 2)), linewidth=1.3, label="true curve")
    axes.plot(
        band.support_x,
        band.support_y,
        color=points,
        marker="o",
        markersize=6,
        markeredgecolor="white",
        markeredgewidth=0.8,
        linestyle="none",
        label="points seen",
        zorder=5,
    )
    axes.set_xlim(float(band.x.min()), float(band.x.max()))
    axes.set_title(band.title)
