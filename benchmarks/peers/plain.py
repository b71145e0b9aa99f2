"""Plain PyTorch: the loop that everybody writes, and the vectorised one of ``torch.func``'s tutorial.

The loop calls backward for each task, as learn2learn's clone-and-adapt examples do, so that one task's graph lives at a
time. In float64 it is the reference of every other candidate.
"""

from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from peers.problem import EXACT, Problem, TorchStep, Variant
from quickstudy import Episode


class PlainLoop(TorchStep):
    """``functional_call`` and ``autograd.grad(create_graph=True)``, task by task.

    Args:
        problem, dtype, device: see ``TorchStep``.
        variant: every mode but "implicit".
    """

    def __init__(self, problem: Problem, dtype: torch.dtype, device: torch.device, variant: Variant = EXACT):
        super().__init__(problem, dtype, device)
        self.variant = variant

    def gradient(self, batch: list[tuple[Tensor, Tensor, Tensor, Tensor]]) -> list[Tensor | None]:
        """One backward for each task."""
        self.clear()
        with sdpa_kernel(SDPBackend.MATH):  # the fused one has no second derivative
            for sx, sy, qx, qy in batch:
                fast = self.adapt(sx, sy)
                loss = self.problem.loss(functional_call(self.network, fast, (qx,)), qy) / len(batch)
                loss.backward()
        return self.grads()

    def adapt(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """φ."""
        problem, mode = self.problem, self.variant.mode
        exact_from = {"first_order": problem.inner_steps, "truncated": problem.inner_steps - 1}.get(mode, 0)
        fast = {n: p for n, p in self.theta.items() if n.startswith("linear.") or not self.variant.head_only}
        for t in range(problem.inner_steps):
            loss = problem.loss(functional_call(self.network, {**self.theta, **fast}, (x,)), y)
            grads = torch.autograd.grad(loss, list(fast.values()), create_graph=t >= exact_from)
            fast = {n: p - problem.inner_lr * g for (n, p), g in zip(fast.items(), grads, strict=True)}
        return {**self.theta, **fast}


class FuncVmap(TorchStep):
    """``torch.func.grad`` inside ``torch.func.vmap``, all tasks in one pass."""

    def prepare(self, episodes: Episode) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Support x and y, query x and y, with a task axis."""
        (sx, sy), (qx, qy) = episodes
        return sx, self.problem.targets(sy), qx, self.problem.targets(qy)

    def gradient(self, batch: tuple[Tensor, Tensor, Tensor, Tensor]) -> list[Tensor | None]:
        """One backward for all tasks."""
        self.clear()
        with sdpa_kernel(SDPBackend.MATH):
            vmap(self.task_loss)(*batch).mean().backward()
        return self.grads()

    def task_loss(self, sx: Tensor, sy: Tensor, qx: Tensor, qy: Tensor) -> Tensor:
        """The query loss after adaptation."""
        problem = self.problem

        def loss(params: dict[str, Tensor], x: Tensor, y: Tensor) -> Any:
            return problem.loss(functional_call(self.network, params, (x,)), y)

        fast: dict[str, Tensor] = dict(self.theta)
        for _ in range(problem.inner_steps):
            grads = grad(loss)(fast, sx, sy)
            fast = {n: p - problem.inner_lr * grads[n] for n, p in fast.items()}
        return loss(fast, qx, qy)
