"""What a page is made of, and how numbers are written on it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from markupsafe import Markup

from quickstudy.evaluation import Comparison
from quickstudy.report.marks import Key


@dataclass(frozen=True)
class Picture:
    """A figure: one SVG or several side by side, with what stands under them."""

    panels: list[Markup]
    caption: str
    keys: list[Key] = field(default_factory=list)


@dataclass(frozen=True)
class Table:
    """A table whose first column names its rows; ``numbers`` says which columns are set flush right."""

    caption: str
    columns: list[str]
    rows: list[list[str]]
    numbers: list[bool]
    folded: bool = False


@dataclass(frozen=True)
class Answer:
    """A query image with its true class, what the learner said, and whether that is right."""

    image: str
    true: str
    said: str
    right: bool


@dataclass(frozen=True)
class Grid:
    """An episode in pictures: a column per class, its support image on top, its queries below.

    Attributes:
        title: over the grid.
        classes: letter and name of each class.
        support: the image of each class.
        queries: rows of one query per class.
    """

    title: str
    classes: list[tuple[str, str]]
    support: list[str]
    queries: list[list[Answer]]


@dataclass(frozen=True)
class Thumbnail:
    """An example in a plane: its image (a data URI, or empty), its class, and where it is.

    Attributes:
        image: empty for an example that is no image; then ``marker`` stands for it, and ``swatch`` in the legend.
        marker: an SVG element that is already at (x, y).
    """

    image: str
    name: str
    letter: str
    colour: str
    swatch: Markup
    marker: Markup
    x: float
    y: float


@dataclass(frozen=True)
class Plane:
    """Examples in a plane, and one of each class for the legend; ``framed`` images get a frame in their colour."""

    points: list[Thumbnail]
    legend: list[Thumbnail]
    width: float
    height: float
    tile: float
    framed: bool
    label: str


@dataclass(frozen=True)
class Section:
    """A heading and what is under it, in this order."""

    title: str
    anchor: str
    words: list[str] = field(default_factory=list)
    grids: list[Grid] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    plane: Plane | None = None
    tables: list[Table] = field(default_factory=list)


def score_table(name: str, comparison: Comparison) -> Table:
    """A row per learner; the difference of each to the first where there are several."""
    scores = comparison.scores
    first, *others = scores
    metric = scores[first].metric
    columns = ["learner", f"{metric.replace('_', ' ')} ± ci95", "tasks", "episodes", "mode", "seconds"]
    rows = []
    for learner, score in scores.items():
        mode = "transductive" if score.transductive else "inductive"
        shape = [score.protocol, f"{score.episodes}", mode, f"{score.seconds:.1f}"]
        rows.append([learner, value(score.mean, score.ci95, metric), *shape])
    if others:
        columns.insert(2, f"minus {first}")
        rows[0].insert(2, "–")
        for row, other in zip(rows[1:], others, strict=True):
            row.insert(2, _difference(comparison, first, other, metric))
    words = {"learner", "tasks", "mode"}
    caption = f"{name}, meta-test, seed {scores[first].seed}"
    return Table(caption, columns, rows, [column not in words for column in columns])


def point_table(caption: str, axis: str, found: Mapping[int, Comparison], *, queries: str, folded: bool) -> Table:
    """A row per point of a curve, a column per learner."""
    names = list(next(iter(found.values())).scores)
    rows = []
    for at, comparison in found.items():
        values = [value(s.mean, s.ci95, s.metric) for s in comparison.scores.values()]
        score = next(iter(comparison.scores.values()))
        rows.append([f"{at}", *values, f"{score.queries}", f"{score.episodes}"])
    columns = [axis, *names, queries, "episodes"]
    return Table(caption, columns, rows, [True] * len(columns), folded=folded)


def value(mean: float, ci95: float, metric: str) -> str:
    """An accuracy in per cent, any other metric in its own unit."""
    scale, digits, unit = (100, 2, " %") if metric == "accuracy" else (1, 4, "")
    spread = "" if math.isnan(ci95) else f" ± {scale * ci95:.{digits}f}"  # NaN: of a single episode
    return f"{scale * mean:.{digits}f}{spread}{unit}"


def duration(seconds: float) -> str:
    """Such as "34 s", "2 min 5 s", "1 h 20 min"."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _difference(comparison: Comparison, first: str, other: str, metric: str) -> str:
    mean, ci95 = comparison.differences[first, other]
    scale, digits = (100, 2) if metric == "accuracy" else (1, 4)
    return f"{-scale * mean:+.{digits}f} ± {scale * ci95:.{digits}f}".replace("-", "−")
