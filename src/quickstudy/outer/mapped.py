"""Values of many tasks whose derivative was taken task by task, so that one task's graph lives at a time.

A meta-loss is a mean over tasks: the graph of one task is not needed once its gradient is added up. So a strategy
returns the values and the sum of the tasks' gradients, and the backward pass hands that sum on. Where the values were
weighted unequally afterwards, the tasks are run once more, with their weights.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class Gradient:
    """A sum of gradients with respect to the leaves that tasks reach."""

    leaves: dict[int, Tensor] = field(default_factory=dict)
    sums: dict[int, Tensor] = field(default_factory=dict)

    def add(self, leaves: Sequence[Tensor], grads: Sequence[Tensor | None]) -> None:
        """Add one task's gradient (or several tasks')."""
        for leaf, g in zip(leaves, grads, strict=True):
            if g is not None:
                self.leaves[id(leaf)] = leaf
                self.sums[id(leaf)] = self.sums[id(leaf)] + g if id(leaf) in self.sums else g


Run = Callable[[Tensor | None], tuple[Tensor, Gradient]]
"""Run all tasks, each gradient times its weight (1 for None): their values (n,), and the sum of the gradients."""


def differentiable(run: Run, draws: Tensor | None = None) -> Tensor:
    """The values of ``run``, with their derivative.

    Args:
        run: see there.
        draws: the state of torch's generator before the first task, if that was run already.
    """
    draws = torch.get_rng_state() if draws is None else draws
    values, gradient = run(None)
    if not gradient.leaves:
        return values
    leaves = list(gradient.leaves.values())
    return _Mapped.apply(values, _Again(run, draws, leaves), [gradient.sums[id(t)] for t in leaves], *leaves)


@dataclass
class _Again:
    """The same tasks with weights, and the same random draws."""

    run: Run
    draws: Tensor
    leaves: list[Tensor]

    def __call__(self, weights: Tensor) -> list[Tensor]:
        with torch.random.fork_rng(), torch.enable_grad():
            torch.set_rng_state(self.draws)
            _, gradient = self.run(weights)
        return [gradient.sums.get(id(t), torch.zeros_like(t)) for t in self.leaves]


class _Mapped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, again: _Again, sums: list[Tensor], *leaves: Tensor) -> Tensor:
        ctx.again, ctx.sums = again, sums
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if torch.is_grad_enabled():
            raise RuntimeError(
                "the tasks of a meta-batch are differentiated once, one after the other; for derivatives of a "
                "meta-gradient call the function on one task at a time"
            )
        (weights,) = cotangents
        if bool((weights == weights[0]).all()):
            return None, None, None, *(weights[0] * g for g in ctx.sums)
        return None, None, None, *ctx.again(weights)


def leaves_of(output: Tensor) -> list[Tensor]:
    """The leaves that a tensor's graph reaches, in the order in which they are met."""
    return _walk(output)[0]


def reaches_before(output: Tensor, marker: int) -> bool:
    """Whether tasks share more than leaves: the graph has nodes that are older than the marker, computed before; or a
    leaf has hooks, which are to see the sum over tasks, once."""
    leaves, oldest = _walk(output)
    return oldest < marker or any(leaf._backward_hooks for leaf in leaves)


def marker() -> int:
    """A number that all nodes of graphs built from now on (in this thread) exceed."""
    with torch.enable_grad():
        node = torch.zeros((), requires_grad=True).view(()).grad_fn
    assert node is not None
    return node._sequence_nr()


def _walk(output: Tensor) -> tuple[list[Tensor], int]:
    found, oldest = [], 1 << 62
    seen, ahead = set(), [output.grad_fn]
    if output.grad_fn is None:
        return ([output], oldest) if output.requires_grad else ([], oldest)
    while ahead:
        node: Any = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name() == "torch::autograd::AccumulateGrad":
            found.append(node.variable)
            continue
        oldest = min(oldest, node._sequence_nr())
        ahead.extend(parent for parent, _ in node.next_functions)
    return found, oldest
