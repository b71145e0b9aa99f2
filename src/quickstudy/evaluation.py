"""Judge learners honestly: every score says on what it was measured."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from quickstudy.backbones.norm import uses_batch_statistics
from quickstudy.episode import Episode, TaskDistribution, check_episode, task
from quickstudy.learner import Learner, check_prediction, fit_to

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
        seed: that draws the same episodes again; None if the generator had been used before.
        transductive: whether a prediction may depend on the other queries of its task.
        seconds: wall-clock time of adapting and predicting.
    """

    mean: float
    ci95: float
    per_episode: Tensor = field(repr=False)
    metric: str
    way: int | tuple[int, int]
    shot: int | tuple[int, int]
    queries: int | tuple[int, int]
    seed: int | None
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
            f"{'' if self.seed is None else f'seed {self.seed}, '}{mode})"
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
        ValueError: fewer than one episode, an episode that ``check_episode`` refuses, or predictions of a wrong shape.
        FloatingPointError: a prediction that is NaN or infinite.
    """
    return compare({"": learner}, tasks, episodes=episodes, generator=generator, metric=metric).scores[""]


def compare(
    learners: Mapping[str, Learner],
    tasks: TaskDistribution,
    *,
    episodes: int,
    generator: torch.Generator,
    metric: Metric | None = None,
) -> Comparison:
    """Evaluate several learners on the very same episodes: each is drawn once and shown to all of them.

    Args:
        learners: name → learner.
        tasks, episodes, generator, metric: as for ``evaluate``.

    Returns:
        the scores, and the difference of each pair with its ci95 over episodes.
    """
    if not learners:
        raise ValueError("compare() was given no learner; required is at least one: {'name': learner}")
    if episodes < 1:
        raise ValueError(f"episodes={episodes}; required is at least 1")
    seed = _seed_of(generator)
    drawn = (task(tasks.sample(1, generator=generator), 0) for _ in range(episodes))
    scores = _judge_all(learners, drawn, metric, seed)
    differences = {(a, b): mean_ci95(scores[a].per_episode - scores[b].per_episode) for a, b in combinations(scores, 2)}
    return Comparison(scores, differences)


def evaluate_episodes(
    learner: Learner, episodes: Iterable[Episode], *, metric: Metric | None = None, seed: int | None = None
) -> Score:
    """``evaluate`` on given tasks, such as published trials; their ways and shots may differ, and no seed drew them."""
    return _judge_all({"": learner}, episodes, metric, seed)[""]


def _judge_all(
    learners: Mapping[str, Learner], episodes: Iterable[Episode], metric: Metric | None, seed: int | None
) -> dict[str, Score]:
    values: dict[str, list[Tensor]] = {name: [] for name in learners}
    seconds = dict.fromkeys(learners, 0.0)
    seen: dict[str, set[int]] = {"way": set(), "shot": set(), "queries": set()}
    with ExitStack() as stack:
        for learner in learners.values():
            stack.enter_context(evaluating(learner))
        for episode in episodes:
            regression = any(learner.predicts_numbers(episode.query.y) for learner in learners.values())
            check_episode(episode, regression=regression)
            metric = metric or (mean_squared_error if regression else accuracy)
            _tally(seen, episode, regression)
            for name, learner in learners.items():
                start = time.perf_counter()
                values[name].append(_judge(name, learner, episode, metric))
                seconds[name] += time.perf_counter() - start
    if metric is None:
        raise ValueError("there are no episodes to evaluate; required is at least one")
    called = getattr(metric, "__name__", type(metric).__name__)
    shape = {key: min(s) if len(s) == 1 else (min(s), max(s)) for key, s in seen.items()}
    scores = {}
    for name, learner in learners.items():
        per_episode = torch.stack(values[name])
        mean, ci95 = mean_ci95(per_episode)
        facts = {"transductive": is_transductive(learner), "seconds": round(seconds[name], 3)}
        scores[name] = Score(mean, ci95, per_episode, called, **shape, seed=seed, **facts)
    return scores


def _judge(name: str, learner: Learner, episode: Episode, metric: Metric) -> Tensor:
    support, query = fit_to(episode, learner)
    prediction = learner.answer(support, query.x)
    check_prediction(prediction, query.y)
    if not bool(torch.isfinite(prediction).all()):
        raise FloatingPointError(
            f"{name or type(learner).__name__} predicts NaN or infinite values; required are finite numbers: its "
            "weights may have diverged in training"
        )
    return metric(prediction, query.y).cpu()


def _tally(seen: dict[str, set[int]], episode: Episode, regression: bool) -> None:
    by_row = regression or episode.support.y.ndim > 2  # a row of a text is a sentence
    seen["way"].add(0 if by_row else episode.support.y.shape[-1])
    for name, (_, y) in (("shot", episode.support), ("queries", episode.query)):
        seen[name] |= {len(y)} if by_row else {int(k) for k in y.sum(0).tolist()}


def _seed_of(generator: torch.Generator) -> int | None:
    """The seed that gives this generator's draws again; None if it has been used since it was seeded."""
    fresh = torch.Generator(generator.device).manual_seed(generator.initial_seed())
    return generator.initial_seed() if torch.equal(fresh.get_state(), generator.get_state()) else None


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


def _words(value: int | tuple[int, int]) -> str:
    return str(value) if isinstance(value, int) else f"{value[0]}–{value[1]}"
