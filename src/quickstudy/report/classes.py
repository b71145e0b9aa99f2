"""The sections of a run on class tasks: example episodes, accuracy against shots and ways, an embedding."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from quickstudy.evaluation import Comparison
from quickstudy.learner import Learner
from quickstudy.learners import MAML
from quickstudy.report import figures, marks, measure
from quickstudy.report.page import Answer, Grid, Picture, Plane, Section, Thumbnail, point_table
from quickstudy.runs import Settings
from quickstudy.tasks import ClassTasks


def sections(
    learners: Mapping[str, Learner],
    tasks: ClassTasks,
    settings: Settings,
    comparisons: Mapping[str, Comparison] | None,
    *,
    episodes: int,
    seed: int,
) -> tuple[Mapping[str, Comparison], list[Section]]:
    """The scores for the tables (``comparisons`` where given), and the sections."""
    name, learner = next(iter(learners.items()))
    ways = measure.permitted_ways(list(learners.values()), tasks, settings)
    if not ways:
        raise ValueError(
            f"{name} or a rival was built for {settings.way}-way tasks alone, and the meta-test part permits "
            f"{measure.largest_way(tasks)}-way tasks at most; required is a learner that serves other ways: train it "
            "with another head"
        )
    way = 5 if 5 in ways else max(ways)
    scores = comparisons or {
        f"{k}-way 1-shot": measure.table(learners, tasks, way=k, episodes=episodes, seed=seed)
        for k in (way, 20)
        if k in ways
    }
    found = [
        _examples(name, learner, tasks, way, seed),
        _curves(learners, tasks, ways, way, episodes, seed),
        _embedding(name, learner, tasks, seed),
    ]
    return scores, found


def _examples(name: str, learner: Learner, tasks: ClassTasks, way: int, seed: int) -> Section:
    title, anchor = "Example episodes", "examples"
    if not _are_images(tasks):
        shape = " × ".join(str(n) for n in tasks.x.shape[1:])
        return Section(title, anchor, [f"The examples (shape {shape}) are no images, so none are drawn."])
    generator = torch.Generator().manual_seed(seed)
    found = measure.examples(learner, tasks, n=2, way=way, queries=2, generator=generator)
    grids = [_grid(number, example) for number, example in enumerate(found, 1)]
    answers = [answer for grid in grids for row in grid.queries for answer in row]
    words = (
        f"Two {way}-way 1-shot episodes of the meta-test part, the first that were drawn. From one support image of "
        f"each class, {name} names the class of each query below it: {sum(a.right for a in answers)} of {len(answers)} "
        "are right. ✓ is right; ✗ with a dashed frame is a mistake, and the letter is the class that was named."
    )
    return Section(title, anchor, [words], grids=grids)


def _grid(number: int, example: measure.Example) -> Grid:
    way, queries = len(example.classes), len(example.true) // len(example.classes)
    answers = [
        Answer(marks.picture(x), _letter(true), _letter(said), said == true)
        for x, said, true in zip(_unit(example.query), example.predicted, example.true, strict=True)
    ]
    return Grid(
        f"Episode {number}: {sum(answer.right for answer in answers)} of {len(answers)} right",
        [(_letter(k), _name(name)) for k, name in enumerate(example.classes)],
        [marks.picture(x) for x in _unit(example.support)],
        [[answers[k * queries + i] for k in range(way)] for i in range(queries)],
    )


def _curves(
    learners: Mapping[str, Learner], tasks: ClassTasks, ways: list[int], way: int, episodes: int, seed: int
) -> Section:
    by_shot = measure.over_shots(learners, tasks, way=way, episodes=episodes, seed=seed)
    by_way = measure.over_ways(learners, tasks, ways=ways, episodes=episodes, seed=seed)
    below = min(s.mean - s.ci95 for c in (*by_shot.values(), *by_way.values()) for s in c.scores.values())
    lowest = min(90, int(10 * below) * 10) if below > 0.6 else 0  # good scores would be flat lines at the top
    shots = figures.score_curve(
        by_shot,
        x_label="support examples per class (shot)",
        label=_in_words(f"{way}-way accuracy against shots", by_shot),
        lowest=lowest,
        chance=None if lowest else [1 / way for _ in by_shot],
    )
    classes = figures.score_curve(
        by_way,
        x_label="classes per task (way)",
        label=_in_words("1-shot accuracy against ways", by_way),
        lowest=lowest,
        chance=None if lowest else [1 / k for k in by_way],
    )
    caption = [
        f"Accuracy on {way}-way tasks with more and more support examples per class, and on 1-shot tasks with more and "
        "more classes.",
        f"Bars are ci95, over {_episodes(by_shot)} episodes for each shot and {_episodes(by_way)} for each way.",
        *(["All learners see the same episodes."] if len(learners) > 1 else []),
        *([f"The accuracy axis starts at {lowest} %."] if lowest else []),
    ]
    picture = Picture([shots, classes], " ".join(caption), marks.keys(list(learners), chance=not lowest))
    tables = [
        point_table(f"{way}-way accuracy against shots", "shot", by_shot, queries="queries per class", folded=True),
        point_table("1-shot accuracy against ways", "way", by_way, queries="queries per class", folded=True),
    ]
    return Section("Accuracy against shots and ways", "curves", pictures=[picture], tables=tables)


def _in_words(title: str, found: Mapping[int, Comparison]) -> str:
    """A figure for those who do not see it: the curve of the first learner."""
    first = {at: next(iter(comparison.scores.items())) for at, comparison in found.items()}
    name = next(iter(first.values()))[0]
    return f"{title}. {name}: " + ", ".join(f"{100 * s.mean:.1f} % at {at}" for at, (_, s) in first.items()) + "."


def _episodes(found: Mapping[int, Comparison]) -> str:
    counts = [score.episodes for comparison in found.values() for score in comparison.scores.values()]
    low, high = min(counts), max(counts)
    return f"{low}" if low == high else f"{low} to {high}"


def _embedding(name: str, learner: Learner, tasks: ClassTasks, seed: int) -> Section:
    title, anchor = "Embedding of unseen classes", "embedding"
    generator = torch.Generator().manual_seed(seed)
    found = measure.embedding(learner, tasks, classes=12, per_class=6, generator=generator)
    if found is None:
        return Section(title, anchor, [f"{name} has no embedding of two dimensions or more, so none is drawn."])
    first, second = (100 * share for share in found.explained)
    where = "of the meta-test part" if found.group is None else f"of {found.group}, a group of the meta-test part"
    when = ", before any adaptation," if isinstance(learner, MAML) else ""
    words = (
        f"{len(found.classes)} classes {where}; none of them was seen in meta-training. Each example stands where the "
        f"network of {name}{when} puts it, projected on the two largest principal components of these embeddings. They "
        f"hold {first:.0f} % (across) and {second:.0f} % (upwards) of their variance; the other "
        f"{max(0.0, 100 - first - second):.0f} % cannot be seen here. A good embedding keeps the examples of a class "
        "together."
    )
    return Section(title, anchor, [words], plane=_plane(found, images=_are_images(tasks)))


def _plane(found: measure.Embedding, *, images: bool) -> Plane:
    x = _unit(found.x) if images else found.x
    ink = images and marks.is_ink(x)
    low, high = found.position.amin(0), found.position.amax(0)
    across, upwards = (high - low).clamp(min=1e-12).tolist()
    width, tile = 600.0, 36.0
    height = min(width, max(0.45 * width, width * upwards / across))
    points, legend = [], {}
    for example, k, (u, v) in zip(x, found.label, (found.position - low).tolist(), strict=True):
        colour, kind = marks.look(k)
        image = marks.picture(example, colour if ink else None) if images else ""
        place = tile + (width - 2 * tile) * u / across, tile + (height - 2 * tile) * (1 - v / upwards)
        swatch, marker = marks.swatch(colour, kind), marks.marker(kind, colour, x=place[0], y=place[1], size=7)
        points.append(Thumbnail(image, _name(found.classes[k]), _letter(k), colour, swatch, marker, *place))
        legend.setdefault(k, points[-1])
    label = f"Examples of {len(found.classes)} unseen classes in the plane of two principal components"
    return Plane(points, list(legend.values()), width, height, tile, images and not ink, label)


def _are_images(tasks: ClassTasks) -> bool:
    return tasks.x.ndim == 4 and tasks.x.shape[1] in (1, 3)


def _unit(x: Tensor) -> Tensor:
    """Images in [0, 1]; others, such as normalised ones, are stretched to it."""
    low, high = float(x.min()), float(x.max())
    return x if low >= 0 and high <= 1 else (x - low) / max(high - low, 1e-12)


def _name(name: Any) -> str:
    """With a place to break the line after each slash and underscore, as long names need on a phone."""
    return re.sub("(?<=[/_])", "\u200b", str(name))


def _letter(k: int) -> str:
    return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[k] if k < 26 else f"{k + 1}"
