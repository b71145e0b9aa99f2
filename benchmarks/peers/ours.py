"""quickstudy: ``unrolled`` and backward, by each strategy."""

from typing import Any

import torch
from torch import Tensor

import quickstudy as qs
from peers.problem import EXACT, Problem, Variant, Weights
from quickstudy.inner import SGD, Implicit, Proximal

STRATEGIES = ("loop", "threads", "vmap", "trace", "compile", "auto")
PULL = 10.0  # of the implicit mode, towards θ


class Ours:
    """A ``MAML`` learner of the problem's network.

    Args:
        problem: what to compute.
        dtype, device: of the learner.
        strategy: see ``quickstudy.map_tasks``.
        variant: see there; "implicit" adds a pull to θ, without which it is not defined.
    """

    def __init__(
        self, problem: Problem, dtype: torch.dtype, device: torch.device, *, strategy: str, variant: Variant = EXACT
    ):
        network, head = problem.ours()
        mode: Any = variant.mode
        options: dict[str, Any] = {"inner_lr": problem.inner_lr, "mode": mode}
        if mode == "first_order":
            options = {"inner_lr": problem.inner_lr, "first_order": True}
        if mode == "implicit":
            tolerance = 1e-3 if dtype == torch.float32 else 1e-9
            options = {
                "rule": Proximal(SGD(problem.inner_lr), PULL),
                "mode": Implicit(tolerance=tolerance, iterations=200),
            }
        if variant.head_only:
            options["adapts"] = "linear.*" if head is None else "head.*"
        self.problem, self.strategy = problem, strategy
        self.learner = qs.MAML(network, head=head, inner_steps=problem.inner_steps, **options).to(device, dtype)

    @torch.no_grad()
    def load(self, weights: Weights) -> None:
        """Take these weights."""
        ours = dict(self.learner.named_parameters())
        self.pairs = {name: ours[key] for name in weights if (key := self.problem.our_name(name)) is not None}
        for name, p in self.pairs.items():
            p.copy_(weights[name])

    def prepare(self, episodes: qs.Episode) -> qs.Episode:
        """As it is."""
        return episodes

    def gradient(self, batch: qs.Episode) -> list[Tensor | None]:
        """The default meta-loss and backward."""
        self.learner.zero_grad(set_to_none=True)
        strategy: Any = self.strategy
        qs.unrolled(self.learner, batch, strategy=strategy).backward()
        return [p.grad for p in self.pairs.values()]

    def named(self, gradient: list[Tensor | None]) -> Weights:
        """That gradient in float64 on the CPU."""
        return {
            name: (torch.zeros_like(p) if g is None else g).detach().cpu().double()
            for (name, p), g in zip(self.pairs.items(), gradient, strict=True)
        }
