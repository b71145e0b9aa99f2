"""Judge learners honestly: every score says on what it was measured."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from quickstudy.backbones.norm import uses_batch_statistics
from quickstudy.episode import Episode, TaskDistribution, check_episode, is_regression, task, to_device
from quickstudy.learner import Learner

Metric = Callable[[Tensor, Tensor], Tensor]


def accuracy(prediction: Tensor, y: Tensor) -> Tensor:
    """The fraction of rows, in [0, 1], whose largest logit is the true class; padding rows do not count."""
    real = y.sum(-1) > 0
    return ((prediction.argmax(-1) == y.argmax(-1)) & real).sum() / real.sum().clamp(min=1)


def mean_squared_error(prediction: Tensor, y: Tensor) -> Tensor:
    """The mean squared difference, in squared units of the target."""
    return (prediction - y).square().mean()


def mean_ci95(values: Tensor) -> tuple[float, float]:
    """The mean of ``values`` (n,) and 1.96·sd/√n (NaN for a single value)."""
    values = values.double()
    return float(values.mean()), float(1.96 * values.std() / math.sqrt(len(values))) if len(values) > 1 else math.nan


def number(value: float) -> float | None:
    """``value`` as JSON can hold it: None for NaN and infinities."""
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class Score:
    """A mean over episodes, with everything that must be known to compare it.

    Attributes:
        mean: of the metric; an accuracy is a fraction in [0, 1].
        ci95: 1.96·sd/√episodes.
        per_episode: (episodes,) the metric of each.
        metric: its name.
        way, shot, queries: classes per task, support and query examples per class (for regression: way 0, and points
            per task); a pair (lowest, highest) where they varied.
        seed: of the generator that drew the episodes.
        transductive: whether a prediction may depend on the other queries of its task.
        seconds: wall-clock time, drawing of tasks included.
    """

    mean: float
    ci95: float
    per_episode: Tensor = field(repr=False)
    metric: str
    way: int | tuple[int, int]
    shot: int | tuple[int, int]
    queries: int | tuple[int, int]
    seed: int
    transductive: bool
    seconds: float

    @property
    def episodes(self) -> int:
        """The number of episodes."""
        return len(self.per_episode)

    def as_dict(self) -> dict[str, Any]:
        """What the command prints as JSON: the metric under its own name, all settings, null for what is not finite."""
        settings = ("episodes", "way", "shot", "queries", "transductive", "seed", "seconds")
        values = {self.metric: number(self.mean), "ci95": number(self.ci95)}
        return values | {name: getattr(self, name) for name in settings}

    def __str__(self) -> str:
        mode = "transductive" if self.transductive else "inductive"
        return (
            f"{self.metric} {self.mean:.4f} ± {self.ci95:.4f} ({self.protocol}, {self.episodes} episodes, "
            f"seed {self.seed}, {mode})"
        )

    @property
    def protocol(self) -> str:
        """The shape of the tasks in words."""
        shape = f"{_words(self.way)}-way {_words(self.shot)}-shot" if self.way else f"{_words(self.shot)}-shot"
        return f"{shape} {_words(self.queries)}-query"


@dataclass(frozen=True)
class Comparison:
    """Scores on the same episodes.

    Attributes:
        scores: name → score.
        differences: (a, b) → mean and ci95 of a's metric minus b's, episode by episode.
    """

    scores: dict[str, Score]
    differences: dict[tuple[str, str], tuple[float, float]]

    def as_dict(self) -> dict[str, Any]:
        """What the command prints as JSON."""
        pairs = [
            {"a": a, "b": b, "mean": number(mean), "ci95": number(ci95)}
            for (a, b), (mean, ci95) in self.differences.items()
        ]
        return {"scores": {name: score.as_dict() for name, score in self.scores.items()}, "differences": pairs}

    def __str__(self) -> str:
        lines = [f"{name}: {score}" for name, score in self.scores.items()]
        lines += [f"{a} − {b}: {mean:+.4f} ± {ci95:.4f}" for (a, b), (mean, ci95) in self.differences.items()]
        return "\n".join(lines)


def is_transductive(learner: Learner) -> bool:
    """Whether in evaluation mode a prediction may depend on the other queries of its task."""
    return learner.transductive or uses_batch_statistics(learner)


def evaluate(
    learner: Learner,
    tasks: TaskDistribution,
    *,
    episodes: int,
    generator: torch.Generator,
    metric: Metric | None = None,
) -> Score:
    """Adapt to fresh tasks and judge the predictions on their queries.

    Episodes are drawn one by one, so the score does not depend on any batch size.

    Args:
        learner: put into evaluation mode for the time of the call.
        tasks: what to draw from.
        episodes: how many, at least 1.
        generator: draws them; the same seed gives the same episodes.
        metric: (prediction, y) → scalar; by default ``accuracy``, or ``mean_squared_error`` for regression targets.

    Raises:
        ValueError: fewer than one episode, or an episode that ``check_episode`` refuses.
    """
    start = time.perf_counter()
    metric, tally, seed = metric or default_metric(learner, tasks), _Tally(), generator.initial_seed()
    with evaluating(learner):
        values = [_judge(learner, e, metric, tally) for e in _draw(tasks, episodes, generator)]
    return tally.score(values, metric, seed, is_transductive(learner), time.perf_counter() - start)


def compare(
    learners: Mapping[str, Learner],
    tasks: TaskDistribution,
    *,
    episodes: int,
    generator: torch.Generator,
    metric: Metric | None = None,
) -> Comparison:
    """Evaluate several learners on the very same episodes.

    Args:
        learners: name → learner.
        tasks, episodes, generator, metric: as for ``evaluate``.

    Returns:
        the scores, and the difference of each pair with its ci95 over episodes.
    """
    if not learners:
        raise ValueError("compare() was given no learner; required is at least one: {'name': learner}")
    state = generator.get_state()
    scores = {}
    for name, learner in learners.items():
        generator.set_state(state)
        scores[name] = evaluate(learner, tasks, episodes=episodes, generator=generator, metric=metric)
    differences = {(a, b): mean_ci95(scores[a].per_episode - scores[b].per_episode) for a, b in combinations(scores, 2)}
    return Comparison(scores, differences)


def evaluate_episodes(learner: Learner, episodes: list[Episode], *, seed: int = 0, metric: Metric = accuracy) -> Score:
    """``evaluate`` on a fixed list of tasks, such as published trials; their ways and shots may differ."""
    if not episodes:
        raise ValueError("there are no episodes to evaluate; required is at least one")
    start, tally = time.perf_counter(), _Tally()
    with evaluating(learner):
        values = [_judge(learner, episode, metric, tally) for episode in episodes]
    return tally.score(values, metric, seed, is_transductive(learner), time.perf_counter() - start)


def default_metric(learner: Learner, tasks: TaskDistribution) -> Metric:
    """Mean squared error where targets are numbers, accuracy elsewhere."""
    probe = tasks.sample(1, generator=torch.Generator().manual_seed(0))
    return mean_squared_error if learner.regression or is_regression(probe.query.y) else accuracy


@contextmanager
def evaluating(learner: Learner) -> Iterator[None]:
    """Evaluation mode without gradients; the learner's mode is restored afterwards."""
    mode = learner.training
    learner.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        learner.train(mode)


def _draw(tasks: TaskDistribution, episodes: int, generator: torch.Generator) -> Iterator[Episode]:
    if episodes < 1:
        raise ValueError(f"episodes={episodes}; required is at least 1")
    for _ in range(episodes):
        yield task(tasks.sample(1, generator=generator), 0)


def _judge(learner: Learner, episode: Episode, metric: Metric, tally: "_Tally") -> Tensor:
    check_episode(episode, regression=learner.regression)
    tally.add(episode, learner.regression or is_regression(episode.support.y))
    support, query = to_device(episode, device_of(learner))
    adapted = learner.adapt(support, query.x) if learner.transductive else learner.adapt(support)
    return metric(learner.predict(adapted, query.x), query.y).cpu()


def device_of(learner: Learner) -> torch.device:
    """Where the learner's parameters are; the CPU for one without parameters."""
    return next((p.device for p in learner.parameters()), torch.device("cpu"))


class _Tally:
    """The smallest and largest way, shot and queries that were seen."""

    def __init__(self) -> None:
        self.seen: dict[str, set[int]] = {"way": set(), "shot": set(), "queries": set()}

    def add(self, episode: Episode, regression: bool) -> None:
        self.seen["way"].add(0 if regression else episode.support.y.shape[-1])
        for name, (_, y) in (("shot", episode.support), ("queries", episode.query)):
            self.seen[name] |= {len(y)} if regression else {int(k) for k in y.sum(0).tolist()}

    def score(self, values: list[Tensor], metric: Metric, seed: int, transductive: bool, seconds: float) -> Score:
        per_episode = torch.stack(values)
        mean, ci95 = mean_ci95(per_episode)
        name = getattr(metric, "__name__", type(metric).__name__)
        seen = {key: min(s) if len(s) == 1 else (min(s), max(s)) for key, s in self.seen.items()}
        return Score(
            mean, ci95, per_episode, name, **seen, seed=seed, transductive=transductive, seconds=round(seconds, 3)
        )


def _words(value: int | tuple[int, int]) -> str:
    return str(value) if isinstance(value, int) else f"{value[0]}–{value[1]}"
