"""How good an optimizer is: final losses on fresh problems, and baselines that are tuned as hard as possible."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from quickstudy.inner import Params, UpdateRule
from quickstudy.optimizers.problem import ProblemDistribution, Problems, step_many

_FLOOR = 1e-12  # losses below it count as it: 64 bits of a loss near 0 say nothing more

BASELINES: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda params: torch.optim.SGD(params, lr=1.0),
    "momentum": lambda params: torch.optim.SGD(params, lr=1.0, momentum=0.9),
    "Nesterov": lambda params: torch.optim.SGD(params, lr=1.0, momentum=0.9, nesterov=True),
    "RMSprop": lambda params: torch.optim.RMSprop(params, lr=1.0),
    "Adam": lambda params: torch.optim.Adam(params, lr=1.0),
    "AdamW": lambda params: torch.optim.AdamW(params, lr=1.0),
}
"""torch's own optimizers; the learning rate is set for each parameter group."""

RATES = tuple(10 ** (-4 + 0.3125 * i) for i in range(17))
"""Learning rates that a baseline is tuned over: from 1e-4 to 10."""


def losses_of_rule(
    rule: UpdateRule, problems: Problems, *, at: Sequence[int], generator: torch.Generator, curve: bool = False
) -> Tensor:
    """The losses after some numbers of steps.

    Args:
        rule: one that treats elements alike.
        problems: n of them.
        at: steps, increasing.
        generator: draws the batches.
        curve: at every step instead, from 0 to the last of ``at``, on the batches of the stream.

    Returns:
        (len(at), n), or (last + 1, n) of a curve.
    """
    params = problems.params
    with torch.no_grad():
        state = rule.init(params)

        def step(params: Params, grads: Params) -> Params:
            nonlocal state
            params, state = step_many(rule, params, grads, state)
            return params

        return _run(step, params, problems, at, generator, curve)


def losses_of_optimizer(
    name: str,
    rates: Sequence[float],
    problems: Problems,
    *,
    at: Sequence[int],
    generator: torch.Generator,
    curve: bool = False,
) -> Tensor:
    """The same for a baseline at several learning rates side by side, (rates, len(at), n).

    torch's optimizers treat elements alike, so that problems are one more axis to them as well.
    """
    n, r = len(problems), len(rates)
    starts = [{key: p.clone().requires_grad_() for key, p in problems.params.items()} for _ in rates]
    groups = [{"params": list(start.values()), "lr": rate} for start, rate in zip(starts, rates, strict=True)]
    optimizer = BASELINES[name](groups)

    def repeated(tree: Any) -> Any:
        return torch.utils._pytree.tree_map(lambda t: t.repeat(r, *[1] * (t.ndim - 1)), tree)

    side_by_side = Problems(
        params={key: torch.cat([start[key].detach() for start in starts]) for key in starts[0]},
        given=repeated(problems.given),
        loss=problems.loss,
        draw=lambda generator: repeated(problems.draw(generator)),
        judged_on=repeated(problems.judged_on),
    )

    def step(params: Params, grads: Params) -> Params:
        for i, start in enumerate(starts):
            for key, p in start.items():
                p.grad = grads[key][i * n : (i + 1) * n]
        optimizer.step()
        return {key: torch.cat([start[key].detach() for start in starts]) for key in params}

    found = _run(step, side_by_side.params, side_by_side, at, generator, curve)  # (len(at), rates · n)
    return found.view(len(found), r, n).transpose(0, 1)


def _run(
    step: Callable[[Params, Params], Params],
    params: Params,
    problems: Problems,
    at: Sequence[int],
    generator: torch.Generator,
    curve: bool,
) -> Tensor:
    if not at or list(at) != sorted(set(at)) or at[0] < 0:
        raise ValueError(f"steps {list(at)}; required are increasing numbers of at least 0")

    def summed(params: Params, batch: Any) -> tuple[Tensor, Tensor]:
        losses = problems.losses(params, batch)
        return losses.sum(), losses

    found = []
    for t in range(at[-1] + 1):
        if t in at and not curve:
            found.append(problems.judge(params))
        if t == at[-1] and not curve:
            break
        grads, (_, losses) = torch.func.grad_and_value(summed, has_aux=True)(params, problems.draw(generator))
        if curve:
            found.append(losses.detach())
        with torch.no_grad():
            params = step(params, grads)
    return torch.stack(found)


def log_losses(losses: Tensor) -> Tensor:
    """Natural logarithms; +inf where a loss is not a number."""
    logs = losses.clamp(min=_FLOOR).log()
    return torch.where(torch.isfinite(losses), logs, math.inf)


@dataclass(frozen=True)
class Tuned:
    """A baseline at its best.

    Attributes:
        name: of the baseline.
        steps: at which it was judged.
        lr: the best learning rate.
        log_loss: mean log-loss there on the problems it was tuned on.
    """

    name: str
    steps: int
    lr: float
    log_loss: float


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

    Args:
        problems: what it is tuned on.
        at: numbers of steps; each has its own best rate.
        seeds: of the problems and batches; every rate of every baseline sees the same.
        draws: problem shapes for each seed.
        n: problems of each shape.
        rates: to choose from.
        names: of baselines.

    Returns:
        by (name, steps).
    """
    found = {}
    for name in names:
        logs = []
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            for _ in range(draws):
                drawn = problems.sample(n, generator=generator)
                logs.append(log_losses(losses_of_optimizer(name, rates, drawn, at=at, generator=generator)))
        mean = torch.cat(logs, -1).mean(-1)  # (rates, len(at))
        for i, steps in enumerate(at):
            best = int(mean[:, i].argmin())
            found[name, steps] = Tuned(name, steps, rates[best], float(mean[best, i]))
    return found


@dataclass(frozen=True)
class Judged:
    """An optimizer on fresh problems.

    Attributes:
        name: of the optimizer.
        steps: after which it was judged.
        log_losses: of each problem, (problems,).
        lr: of a baseline.
    """

    name: str
    steps: int
    log_losses: Tensor
    lr: float | None = None

    def ratio_to(self, other: "Judged") -> tuple[float, float, float]:
        """The geometric mean of this one's loss by the other's on the same problems, and its ci95's ends."""
        difference = self.log_losses.double() - other.log_losses.double()
        mean, half = float(difference.mean()), 1.96 * float(difference.std()) / math.sqrt(len(difference))
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
) -> list[Judged]:
    """Rules and tuned baselines on the same fresh problems and the same batches.

    Args:
        rules: by name.
        tuned: baselines, each for one number of steps.
        problems: the distribution.
        at: numbers of steps.
        seed: of problems and batches.
        draws: problem shapes.
        n: problems of each shape; all together are draws · n.
    """
    logs: dict[tuple[str, int], list[Tensor]] = {}
    rates = {(t.name, t.steps): t.lr for t in tuned}
    for draw in range(draws):
        start = torch.Generator().manual_seed(1_000_003 * (seed + 1) + draw)
        drawn, stream = problems.sample(n, generator=start), start.get_state()

        def batches(stream: Tensor = stream) -> torch.Generator:
            generator = torch.Generator()
            generator.set_state(stream)
            return generator

        for name, rule in rules.items():
            found = losses_of_rule(rule, drawn, at=at, generator=batches())
            for i, steps in enumerate(at):
                logs.setdefault((name, steps), []).append(log_losses(found[i]))
        for name in dict.fromkeys(t.name for t in tuned):
            steps_of = [steps for steps in at if (name, steps) in rates]
            found = losses_of_optimizer(
                name, [rates[name, steps] for steps in steps_of], drawn, at=at, generator=batches()
            )
            for i, steps in enumerate(steps_of):
                logs.setdefault((name, steps), []).append(log_losses(found[i, list(at).index(steps)]))
    return [Judged(name, steps, torch.cat(parts), rates.get((name, steps))) for (name, steps), parts in logs.items()]
