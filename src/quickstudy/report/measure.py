"""What the report measures: scores over shots and ways, example episodes, an embedding, sine waves.

Every function draws from a generator or seed that is handed in, so a report can be made again.
"""

import copy
import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from quickstudy.episode import Episode, Labelled, TaskDistribution, one_hot
from quickstudy.evaluation import Comparison, compare, evaluating
from quickstudy.learner import Learner, device_of, fit_to
from quickstudy.learners import MAML
from quickstudy.runs import Settings
from quickstudy.tasks import ClassTasks, Sinusoid

SHOTS = (1, 2, 3, 5, 10, 20)
WAYS = (2, 5, 10, 20, 50)
_TABLE_IMAGES, _POINT_IMAGES = 8000, 1500  # forward passes for one score of one or two learners; more share twice that
_LEAST_EPISODES = 10


@dataclass(frozen=True)
class Example:
    """An episode with what the learner said.

    Attributes:
        classes: the name of each class of the task, (way,).
        support: x (way·shot, *input), rows ordered by class.
        query: x (way·queries, *input), rows ordered by class.
        predicted: (way·queries,) the class of each query according to the learner.
        true: (way·queries,).
    """

    classes: list[Any]
    support: Tensor
    query: Tensor
    predicted: list[int]
    true: list[int]


@dataclass(frozen=True)
class Embedding:
    """Examples of a few classes in the plane of their two largest principal components.

    Attributes:
        group: the group the classes come from; None for tasks without groups.
        classes: their names.
        x: (n, *input) the examples.
        label: (n,) the class of each.
        position: (n, 2).
        explained: the share of the variance, in [0, 1], along each of the two components.
    """

    group: Any
    classes: list[Any]
    x: Tensor
    label: list[int]
    position: Tensor
    explained: tuple[float, float]


@dataclass(frozen=True)
class Wave:
    """One sine wave and two predictions of it.

    Attributes:
        x, y: (n,) the true curve, sorted by x.
        support_x, support_y: (shot,).
        before: (n,) the prediction without inner steps; None for a learner that has none.
        after: (n,) the prediction after adaptation.
    """

    x: Tensor
    y: Tensor
    support_x: Tensor
    support_y: Tensor
    before: Tensor | None
    after: Tensor


def unseen_tasks(settings: Settings) -> TaskDistribution:
    """The meta-test part in its smallest shape, from which every other one is made."""
    return settings.part("test", way=2, shot=1, queries=1)


def largest_way(tasks: ClassTasks) -> int:
    """The most classes that one task can have."""
    if tasks.within_group and tasks.class_groups is not None:
        return max(Counter(tasks.class_groups).values())
    return len(tasks)


def permitted_ways(learners: Sequence[Learner], tasks: ClassTasks, settings: Settings) -> list[int]:
    """The ways of ``WAYS`` that the data hold and that all learners serve; all classes where they are fewer than 5."""
    if any(isinstance(learner, MAML) and learner.head is None for learner in learners):
        return [settings.way] if settings.way <= largest_way(tasks) else []
    largest = largest_way(tasks)
    return sorted({min(5, largest), *(way for way in WAYS if way <= largest)})


def permitted_shots(tasks: ClassTasks) -> list[int]:
    """The shots of ``SHOTS`` that leave at least one query."""
    return [shot for shot in SHOTS if shot < int(tasks.counts.min())]


def table(learners: Mapping[str, Learner], tasks: ClassTasks, *, way: int, episodes: int, seed: int) -> Comparison:
    """1-shot scores for a table: 15 queries per class up to 5-way, 5 above."""
    return _measure(learners, tasks, way, 1, 15 if way <= 5 else 5, _TABLE_IMAGES, episodes, seed)


def over_shots(
    learners: Mapping[str, Learner], tasks: ClassTasks, *, way: int, episodes: int, seed: int
) -> dict[int, Comparison]:
    """Scores at each permitted shot."""
    return {
        shot: _measure(learners, tasks, way, shot, 5, _POINT_IMAGES, episodes, seed) for shot in permitted_shots(tasks)
    }


def over_ways(
    learners: Mapping[str, Learner], tasks: ClassTasks, *, ways: Sequence[int], episodes: int, seed: int
) -> dict[int, Comparison]:
    """1-shot scores at each way; 5 queries per class, fewer at large ways."""
    return {
        way: _measure(learners, tasks, way, 1, max(1, min(5, 30 // way)), _POINT_IMAGES, episodes, seed) for way in ways
    }


def as_trained(learners: Mapping[str, Learner], settings: Settings, episodes: int, seed: int) -> Comparison:
    """Scores on the meta-test part in the shape of training."""
    generator = torch.Generator().manual_seed(seed)
    return compare(learners, settings.part("test"), episodes=episodes, generator=generator)


def regression_over_shots(
    learners: Mapping[str, Learner], settings: Settings, *, shots: Sequence[int], episodes: int, seed: int
) -> dict[int, Comparison]:
    """Mean squared errors at each shot."""
    return {
        shot: compare(
            learners,
            settings.part("test", shot=shot),
            episodes=episodes,
            generator=torch.Generator().manual_seed(seed),
        )
        for shot in shots
    }


def examples(
    learner: Learner, tasks: ClassTasks, *, n: int, way: int, queries: int, generator: torch.Generator
) -> list[Example]:
    """The first ``n`` 1-shot episodes that the generator draws, with the names of their classes."""
    found = []
    queries = min(queries, int(tasks.counts.min()) - 1)
    for _ in range(n):
        episode, classes = _named_episode(tasks, way, queries, generator)
        predicted = _predict(learner, episode).argmax(-1)
        found.append(
            Example(
                classes,
                episode.support.x,
                episode.query.x,
                predicted.tolist(),
                episode.query.y.argmax(-1).tolist(),
            )
        )
    return found


def embedding(
    learner: Learner, tasks: ClassTasks, *, classes: int, per_class: int, generator: torch.Generator
) -> Embedding | None:
    """The embedding of some classes of the largest group; None for a learner without ``backbone`` or ``network``."""
    from sklearn.decomposition import PCA  # here, because it would take a second of the start of every command

    network = getattr(learner, "backbone", getattr(learner, "network", None))
    if not isinstance(network, nn.Module):
        return None
    group, members = _largest_group(tasks)
    chosen = sorted(members[i] for i in torch.randperm(len(members), generator=generator)[:classes].tolist())
    rows, label = [], []
    for k, index in enumerate(chosen):
        own = tasks.rows_of(index)
        own = own[torch.randperm(len(own), generator=generator)[:per_class]]
        rows.append(own)
        label += [k] * len(own)
    x = tasks.examples(torch.cat(rows))
    with evaluating(learner):
        z = network(x.to(device_of(learner))).flatten(1).double().cpu()  # (n, d)
    if min(z.shape) < 2 or not bool(torch.isfinite(z).all()) or float(z.var(0).sum()) == 0:
        return None
    pca = PCA(n_components=2, svd_solver="full").fit(z.numpy())
    position = torch.from_numpy(pca.transform(z.numpy()))
    first, second = (float(share) for share in pca.explained_variance_ratio_)
    return Embedding(group, [tasks.classes[i] for i in chosen], x, label, position, (first, second))


def waves(learner: Learner, tasks: Sinusoid, *, n: int, generator: torch.Generator) -> list[Wave]:
    """``n`` fresh sine waves; the true curve is seen through 300 queries."""
    episodes = dataclasses.replace(tasks, queries=300).sample(n, generator=generator)
    before = unadapted(learner)
    found = []
    for (sx, sy), (qx, qy) in zip(zip(*episodes.support, strict=True), zip(*episodes.query, strict=True), strict=True):
        order = qx[:, 0].argsort()
        episode = Episode(Labelled(sx, sy), Labelled(qx[order], qy[order]))
        found.append(
            Wave(
                qx[order, 0],
                qy[order, 0],
                sx[:, 0],
                sy[:, 0],
                None if before is None else _predict(before, episode)[:, 0],
                _predict(learner, episode)[:, 0],
            )
        )
    return found


def unadapted(learner: Learner) -> MAML | None:
    """The same learner without inner steps, sharing its parameters; None for one that has no inner steps."""
    if not isinstance(learner, MAML):
        return None
    other = copy.copy(learner)
    other.inner_steps = 0
    return other


def _measure(
    learners: Mapping[str, Learner],
    tasks: ClassTasks,
    way: int,
    shot: int,
    queries: int,
    images: int,
    episodes: int,
    seed: int,
) -> Comparison:
    queries = min(queries, int(tasks.counts.min()) - shot)
    steps = max(int(getattr(learner, "inner_steps", 0)) for learner in learners.values())
    passes = way * (shot * (1 + 3 * steps) + queries)  # a gradient step costs about three forward passes
    images = images * 2 // max(2, len(learners))
    return compare(
        learners,
        tasks.replace(way=way, shot=shot, queries=queries),
        episodes=min(episodes, max(_LEAST_EPISODES, images // passes)),
        generator=torch.Generator().manual_seed(seed),
    )


def _predict(learner: Learner, episode: Episode) -> Tensor:
    support, query = fit_to(episode, learner)
    with evaluating(learner):
        return learner.answer(support, query.x).cpu()


def _named_episode(tasks: ClassTasks, way: int, queries: int, generator: torch.Generator) -> tuple[Episode, list[Any]]:
    """A 1-shot task as ``ClassTasks`` draws them, and the names of its classes."""
    members = list(range(len(tasks)))
    if tasks.within_group and tasks.class_groups is not None:
        large = [group for group, size in Counter(tasks.class_groups).items() if size >= way]
        group = large[int(torch.randint(len(large), (), generator=generator))]
        members = [i for i in members if tasks.class_groups[i] == group]
    chosen = [members[i] for i in torch.randperm(len(members), generator=generator)[:way].tolist()]
    rows = []
    for index in chosen:
        own = tasks.rows_of(index)
        rows.append(own[torch.randperm(len(own), generator=generator)[: 1 + queries]])
    drawn = torch.stack(rows)  # (way, 1 + queries)
    label = torch.arange(way)
    support = Labelled(tasks.examples(drawn[:, 0]), one_hot(label, way))
    query = Labelled(tasks.examples(drawn[:, 1:].flatten()), one_hot(label.repeat_interleave(queries), way))
    return Episode(support, query), [tasks.classes[i] for i in chosen]


def _largest_group(tasks: ClassTasks) -> tuple[Any, list[int]]:
    if tasks.class_groups is None:
        return None, list(range(len(tasks)))
    group, _ = Counter(tasks.class_groups).most_common(1)[0]
    return group, [i for i, own in enumerate(tasks.class_groups) if own == group]
