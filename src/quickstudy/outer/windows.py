"""Some steps of an update rule on optimisation problems: what every estimator of its meta-gradient looks at.

A window carries everything (parameters, the rule's state, the loss so far) through ``unroll`` as one dict of tensors,
so that each of its modes serves: with the full graph, in bounded memory, or without second derivatives.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from quickstudy.inner import AnyMode, Params, UpdateRule, unroll
from quickstudy.optimizers.problem import Batch, Problems, step_many

Objective = Literal["log", "loss"]
_TINY = 1e-12


@dataclass(frozen=True)
class Window:
    """Some steps of a rule on some problems.

    Attributes:
        value: (n,) the mean objective after each step, that of the limit from where a problem diverged, and 0 for those
            without a finite loss at their start; with a graph if asked for.
        params, state, alive: at the end, without a graph.
    """

    value: Tensor
    params: Params
    state: Any
    alive: Tensor


def walk(
    rule: UpdateRule,
    problems: Problems,
    params: Params,
    state: Any,
    alive: Tensor,
    limit: Tensor,
    batches: Sequence[Batch],
    *,
    mode: AnyMode,
    objective: Objective,
    weights: Sequence[float] | None = None,
) -> Window:
    """Take as many steps as there are batches but one; losses are those of each step's result on the next batch.

    Args:
        rule: the update rule, one that treats elements alike, so that problems are one more axis to it.
        problems: n of them.
        params: where they are, (n, *shape) by name.
        state: of the rule.
        alive: (n,) 1 for problems that have not diverged, 0 for others.
        limit: (n,) the loss beyond which a problem counts as diverged; it then stands still.
        batches: steps + 1.
        mode: as for ``unroll``.
        objective: "log" for logarithms of losses, "loss" for losses.
        weights: of each step's result in the mean; 1 each by default.
    """
    steps = len(batches) - 1
    weights = [1.0] * steps if weights is None else list(weights)
    leaves, spec = pytree.tree_flatten(state)
    recording = _Recording(rule, spec, limit, objective, weights, linear=mode == "first_order")
    start = {
        **{f"params.{name}": p for name, p in params.items()},
        **{f"state.{i}": leaf for i, leaf in enumerate(leaves)},
        "one": torch.ones_like(alive),
        "total": torch.zeros_like(alive),
        "alive": alive,
        "t": alive.new_zeros(()),
    }

    def loss_on(batch: Batch):
        def loss(carried: Params) -> Tensor:
            return (carried["one"] * problems.losses(of_problem(carried), batch)).sum()

        return loss

    end = unroll(recording, [loss_on(batch) for batch in batches[:-1]], start, steps=steps, mode=mode)
    last = problems.losses(of_problem(end), batches[-1])
    fine = (end["alive"] > 0) & torch.isfinite(last.detach()) & (last.detach() < limit)
    lost = _measured(limit, objective)
    total = end["total"] + weights[-1] * torch.where(fine, _measured(last, objective), lost)
    value = torch.where(torch.isfinite(limit), total, 0.0) / steps
    ended = {name: p.detach() for name, p in end.items()}
    new_state = pytree.tree_unflatten([ended[f"state.{i}"] for i in range(len(leaves))], spec)
    return Window(value, of_problem(ended), new_state, fine.to(alive.dtype))


def of_problem(carried: Params) -> Params:
    """The problems' own parameters among what a window carries."""
    return {name.removeprefix("params."): p for name, p in carried.items() if name.startswith("params.")}


class _Recording:
    """An update rule on everything that a window carries. The gradient of ``one`` is the loss of each problem."""

    def __init__(
        self,
        rule: UpdateRule,
        spec: Any,
        limit: Tensor,
        objective: Objective,
        weights: Sequence[float],
        *,
        linear: bool,
    ):
        self.rule, self.spec, self.limit, self.linear = rule, spec, limit, linear
        self.objective: Objective = objective
        self.weights = limit.new_tensor([0.0, *weights])  # no step of this window has changed the first loss

    def init(self, params: Params) -> None:
        return None

    def step(self, params: Params, grads: Mapping[str, Tensor], state: Any) -> tuple[Params, None]:
        """One step of the rule; problems whose loss is beyond all bounds stand still from then on."""
        of_problems, losses = of_problem(params), grads["one"]
        g = {name: grads[f"params.{name}"] for name in of_problems}
        now = losses.detach()
        fine = (params["alive"].detach() > 0) & torch.isfinite(now) & (now < self.limit)
        if self.linear:  # gradients are constants here, and so are losses: their change to first order
            moved = (_per_problem(g[name].detach() * (p - p.detach())) for name, p in of_problems.items())
            losses = losses + sum(moved)
        measured = torch.where(fine, _measured(losses, self.objective), _measured(self.limit, self.objective))
        g = {name: torch.where(_over(fine, one), one, 0.0) for name, one in g.items()}
        count = sum(name.startswith("state.") for name in params)
        inner = pytree.tree_unflatten([params[f"state.{i}"] for i in range(count)], self.spec)
        stepped, inner = step_many(self.rule, of_problems, g, inner)
        leaves = pytree.tree_leaves(inner)
        return {
            **{f"params.{name}": torch.where(_over(fine, p), stepped[name], p) for name, p in of_problems.items()},
            **{f"state.{i}": leaf for i, leaf in enumerate(leaves)},
            "one": params["one"],
            "total": params["total"] + self.weights[params["t"].long()] * measured,
            "alive": fine.to(now.dtype),
            "t": params["t"].detach() + 1,
        }, None


def _measured(losses: Tensor, objective: Objective) -> Tensor:
    return losses if objective == "loss" else torch.log(losses.clamp(min=_TINY))


def _over(one: Tensor, like: Tensor) -> Tensor:
    """(n,) with axes of size 1 behind it, as many as ``like`` has."""
    return one.view(-1, *[1] * (like.ndim - 1))


def _per_problem(x: Tensor) -> Tensor:
    return x.flatten(1).sum(1)
