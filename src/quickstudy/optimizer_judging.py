"""How good an optimizer is: final losses on fresh problems, and baselines that are tuned as hard as possible."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from quickstudy.inner import UpdateRule
from quickstudy.optimizer_losses import (
    BASELINES,
    is_lost,
    log_losses,
    losses_of_optimizer,
    run_optimizer,
    run_rule,
)
from quickstudy.optimizers.problem import ProblemDistribution

RATES = tuple(10 ** (-4 + 0.3125 * i) for i in range(17))
"""Learning rates that a baseline is tuned over: from 1e-4 to 10."""


@dataclass(frozen=True)
class Tuned:
    """A baseline at its best.

    Attributes:
        name: of the baseline.
        steps: at which it was judged.
        lr: the best learning rate.
        log_loss: mean log-loss there on the problems it was tuned on.
        at_edge: no smaller one, or no larger one, was tried: the best may lie beyond.
        by_rate: the mean log-loss of each rate that was tried.
    """

    name: str
    steps: int
    lr: float
    log_loss: float
    at_edge: bool = False
    by_rate: dict[float, float] = field(default_factory=dict)


def tune(
    problems: ProblemDistribution,
    *,
    at: Sequence[int],
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    draws: int = 4,
    n: int = 4,
    rates: Sequence[float] = RATES,
    names: Sequence[str] = tuple(BASELINES),
) -> dict[tuple[str, int], Tuned]:
    """The best learning rate of each baseline for each number of steps, by mean log-loss.

    Every rate of every baseline sees the same problems and the same batches. A rate at which one problem diverges is
    out, as its mean is infinite.

    Args:
        problems: what it is tuned on.
        at: numbers of steps; each has its own best rate.
        seeds: of the problems and batches.
        draws: problem shapes for each seed.
        n: problems of each shape.
        rates: to choose from, increasing.
        names: of baselines.

    Returns:
        by (name, steps).

    Raises:
        ValueError: no seeds, draws or problems, and what ``losses_of_optimizer`` refuses.
    """
    if not seeds or min(draws, n) < 1:
        raise ValueError(f"seeds={tuple(seeds)}, draws={draws}, n={n}; required is at least one of each")
    found = {}
    for name in names:
        logs = []
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            for _ in range(draws):
                drawn = problems.sample(n, generator=generator)
                losses = losses_of_optimizer(name, rates, drawn, at=at, generator=generator)
                logs.append(log_losses(losses, drawn.judge(drawn.params)))
        mean = torch.cat(logs, -1).double().mean(-1)  # (rates, len(at))
        for i, steps in enumerate(at):
            best = int(mean[:, i].argmin())
            by_rate = dict(zip(rates, mean[:, i].tolist(), strict=True))
            edge = best in (0, len(rates) - 1)
            found[name, steps] = Tuned(name, steps, rates[best], float(mean[best, i]), edge, by_rate)
    return found


@dataclass(frozen=True)
class Judged:
    """An optimizer on fresh problems.

    Attributes:
        name: of the optimizer.
        steps: after which it was judged.
        log_losses: of each problem, (problems,); that of its start where it diverged.
        lr: of a baseline.
        together: how many problems in a row share a shape (width, depth, batch size, ...), and so are no independent
            draws.
        curve: the loss at every step on the batches of the stream, (steps + 1, problems).
        diverged: problems whose loss at the end was no finite number, or above the first one.
    """

    name: str
    steps: int
    log_losses: Tensor
    lr: float | None = None
    together: int = 1
    curve: Tensor | None = None
    diverged: int = 0

    @property
    def log_loss(self) -> float:
        """The mean over problems."""
        return float(self.log_losses.double().mean())

    def ratio_to(self, other: "Judged") -> tuple[float, float, float]:
        """The geometric mean of this one's loss by the other's on the same problems, and its ci95's ends.

        The ci95 is 1.96·sd/√shapes over the means of problems that share a shape; NaN for a single shape.
        """
        difference = self.log_losses.double() - other.log_losses.double()
        mean = float(difference.mean())
        shapes = difference.view(-1, self.together).mean(1)  # (shapes,)
        half = 1.96 * float(shapes.std()) / math.sqrt(len(shapes)) if len(shapes) > 1 else math.nan
        return math.exp(mean), math.exp(mean - half), math.exp(mean + half)


def judge(
    rules: dict[str, UpdateRule],
    tuned: Sequence[Tuned],
    problems: ProblemDistribution,
    *,
    at: Sequence[int],
    seed: int,
    draws: int = 32,
    n: int = 4,
    curves: bool = False,
) -> list[Judged]:
    """Rules and tuned baselines on the same fresh problems and the same batches.

    Args:
        rules: by name.
        tuned: baselines, each for one number of steps.
        problems: the distribution.
        at: numbers of steps.
        seed: of problems and batches, at least 0.
        draws: problem shapes, at least 2.
        n: problems of each shape; all together are draws · n.
        curves: keep the loss at every step as well.

    Raises:
        ValueError: numbers below these, a rule that is called like a baseline, and what ``losses_of_rule`` refuses.
    """
    if seed < 0 or draws < 2 or n < 1:
        raise ValueError(f"seed={seed}, draws={draws}, n={n}; required is at least 0, 2 and 1")
    twice = sorted(set(rules) & {t.name for t in tuned})
    if twice:
        raise ValueError(f"a rule is called {twice[0]!r}, and so is a baseline: give it another name")
    ends: dict[tuple[str, int], list[Tensor]] = {}
    lost: dict[tuple[str, int], int] = {}
    ways: dict[tuple[str, int], list[Tensor]] = {}
    rates = {(t.name, t.steps): t.lr for t in tuned}

    def keep(name: str, steps: int, judged: Tensor, curve: Tensor, first: Tensor) -> None:
        losses = judged[list(at).index(steps)]
        ends.setdefault((name, steps), []).append(log_losses(losses, first))
        lost[name, steps] = lost.get((name, steps), 0) + int(is_lost(losses, first).sum())
        if curves:
            ways.setdefault((name, steps), []).append(curve[: steps + 1])

    for draw in range(draws):
        start = torch.Generator().manual_seed(1_000_003 * (seed + 1) + draw)
        drawn, stream = problems.sample(n, generator=start), start.get_state()
        first = drawn.judge(drawn.params)

        def batches(stream: Tensor = stream) -> torch.Generator:
            generator = torch.Generator()
            generator.set_state(stream)
            return generator

        for name, rule in rules.items():
            found = run_rule(rule, drawn, at=at, generator=batches())
            for steps in at:
                keep(name, steps, *found, first)
        for name in dict.fromkeys(t.name for t in tuned):
            steps_of = [steps for steps in at if (name, steps) in rates]
            of_rates = [rates[name, steps] for steps in steps_of]
            judged, curve = run_optimizer(name, of_rates, drawn, at=at, generator=batches())
            for i, steps in enumerate(steps_of):
                keep(name, steps, judged[i], curve[i], first)
    return [
        Judged(
            *(name, steps, torch.cat(parts), rates.get((name, steps)), n),
            curve=torch.cat(ways[name, steps], 1) if curves else None,  # (steps + 1, problems)
            diverged=lost[name, steps],
        )
        for (name, steps), parts in ends.items()
    ]
