"""Run an optimizer on many problems side by side: update rules, and torch's own optimizers as their baselines."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from quickstudy.inner import Params, UpdateRule
from quickstudy.optimizers.problem import Problems, step_many

_FLOOR = 1e-12  # losses below it count as it: 32 bits of a loss near 0 say nothing more

BASELINES: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda params: torch.optim.SGD(params, lr=1.0),
    "momentum": lambda params: torch.optim.SGD(params, lr=1.0, momentum=0.9),
    "Nesterov": lambda params: torch.optim.SGD(params, lr=1.0, momentum=0.9, nesterov=True),
    "RMSprop": lambda params: torch.optim.RMSprop(params, lr=1.0),
    "Adam": lambda params: torch.optim.Adam(params, lr=1.0),
    "AdamW": lambda params: torch.optim.AdamW(params, lr=1.0),
}
"""torch's own optimizers; the learning rate is set for each parameter group, all else is torch's default: betas of 0.9
and 0.999 (Adam, AdamW), a decay of squared gradients of 0.99 (RMSprop), a weight decay of 0.01 times the learning rate
(AdamW); momentum is 0.9."""


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

    Raises:
        ValueError: steps that are not increasing numbers of at least 0.
    """
    return run_rule(rule, problems, at=at, generator=generator)[curve]


def losses_of_optimizer(
    name: str,
    rates: Sequence[float],
    problems: Problems,
    *,
    at: Sequence[int],
    generator: torch.Generator,
    curve: bool = False,
) -> Tensor:
    """The same for a baseline at several learning rates side by side, (rates, len(at), n) or (rates, last + 1, n).

    Raises:
        ValueError: an unknown baseline, no learning rates, or steps as above.
    """
    return run_optimizer(name, rates, problems, at=at, generator=generator)[curve]


def run_rule(
    rule: UpdateRule, problems: Problems, *, at: Sequence[int], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Both results of ``losses_of_rule`` from one run."""
    with torch.no_grad():
        state = rule.init(problems.params)

    def step(params: Params, grads: Params) -> Params:
        nonlocal state
        params, state = step_many(rule, params, grads, state)
        return params

    return _run(step, problems.params, problems, at, generator)


def run_optimizer(
    name: str, rates: Sequence[float], problems: Problems, *, at: Sequence[int], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Both results of ``losses_of_optimizer`` from one run.

    The problems of one rate are slices of tensors that hold all of them: torch's optimizers treat elements alike, so
    that problems are one more axis to them.
    """
    if name not in BASELINES:
        raise ValueError(f"there is no baseline {name!r}; choose among {', '.join(BASELINES)}")
    if not rates or not all(0 < rate < math.inf for rate in rates):
        raise ValueError(f"rates={tuple(rates)}; required is at least one learning rate, each above 0")
    n, r = len(problems), len(rates)

    def repeated(tree: Any) -> Any:
        return pytree.tree_map_only(Tensor, lambda t: t.repeat(r, *[1] * (t.ndim - 1)), tree)  # (r · n, ...)

    side_by_side = Problems(
        params=repeated(problems.params),
        given=repeated(problems.given),
        loss=problems.loss,
        draw=lambda generator: repeated(problems.draw(generator)),
        judged_on=repeated(problems.judged_on),
    )
    slices = [{key: p[i * n : (i + 1) * n] for key, p in side_by_side.params.items()} for i in range(r)]
    groups = [{"params": list(part.values()), "lr": rate} for part, rate in zip(slices, rates, strict=True)]
    optimizer = BASELINES[name](groups)

    def step(params: Params, grads: Params) -> Params:
        for i, part in enumerate(slices):
            for key, p in part.items():
                p.grad = grads[key][i * n : (i + 1) * n]
        optimizer.step()
        return params  # changed in place, through its slices

    judged, curve = _run(step, side_by_side.params, side_by_side, at, generator)
    # (..., r · n) → (r, ..., n)
    return judged.view(-1, r, n).transpose(0, 1), curve.view(-1, r, n).transpose(0, 1)


def _run(
    step: Callable[[Params, Params], Params],
    params: Params,
    problems: Problems,
    at: Sequence[int],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Losses on what problems are judged on after ``at`` steps, and on the stream's batches at every step."""
    if not at or list(at) != sorted(set(at)) or at[0] < 0:
        raise ValueError(f"steps {list(at)}; required are increasing numbers of at least 0")

    def summed(params: Params, batch: Any) -> tuple[Tensor, Tensor]:
        losses = problems.losses(params, batch)
        return losses.sum(), losses

    judged, curve = [], []
    for t in range(at[-1] + 1):
        if t in at:
            judged.append(problems.judge(params))
        batch = problems.draw(generator)
        if t == at[-1]:
            with torch.no_grad():
                curve.append(problems.losses(params, batch))
            break
        grads, (_, losses) = torch.func.grad_and_value(summed, has_aux=True)(params, batch)
        curve.append(losses.detach())
        with torch.no_grad():
            params = step(params, grads)
    return torch.stack(judged), torch.stack(curve)


def log_losses(losses: Tensor, first: Tensor) -> Tensor:
    """Natural logarithms; a loss that is no number, infinite or above the first one counts as that.

    Whoever minds that loss would take the start instead. A mean of logarithms would otherwise be that of the one
    problem in a hundred that blew up, at any learning rate near the edge of what is stable, where the best ones are.

    Args:
        losses: (..., n).
        first: of the same problems before the first step, (n,).
    """
    return torch.where(is_lost(losses, first), first, losses).clamp(min=_FLOOR).log()


def is_lost(losses: Tensor, first: Tensor) -> Tensor:
    """Whether each problem diverged, (..., n): its loss is no finite number, or above the first one."""
    return ~(losses <= first)
