"""What every candidate is given, and what it must do with it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy import Episode

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Variant:
    """Which derivative of which inner loop.

    Args:
        mode: as in ``quickstudy.inner.unroll``; "recompute" is the same function as "reverse".
        head_only: only the parameters of the last layer, ``linear.*``, adapt (ANIL).
    """

    mode: Literal["reverse", "recompute", "first_order", "truncated", "implicit"] = "reverse"
    head_only: bool = False


EXACT = Variant()


@dataclass(frozen=True)
class Problem:
    """Model-agnostic meta-learning of one network by gradient descent.

    Args:
        network: makes the network as its user would write it, of stock layers; its names of parameters are the ones
            that everybody answers in. The last layer is called ``linear``.
        ours: makes quickstudy's network of the same function, and its head.
        our_name: name in ``network`` → name in our learner; None where ours has no such parameter.
        inner_lr, inner_steps: of the inner loop.
        regression: squared error instead of cross-entropy.
        zero_head: the last layer starts at 0 and is not meta-learned, like quickstudy's shared head.
    """

    network: Callable[[], nn.Module]
    ours: Callable[[], tuple[nn.Module, Any]]
    our_name: Callable[[str], str | None]
    inner_lr: float
    inner_steps: int
    regression: bool = False
    zero_head: bool = False

    def weights(self, seed: int = 0) -> Weights:
        """Initial weights in float64, drawn by the layers themselves."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            found = {name: p.detach().double() for name, p in self.network().named_parameters()}
        if self.zero_head:
            found = {name: torch.zeros_like(p) if name.startswith("linear.") else p for name, p in found.items()}
        return found

    def learned(self, weights: Mapping[str, Tensor]) -> Weights:
        """Those that are meta-learned, whose gradients are compared."""
        return {name: p for name, p in weights.items() if not (self.zero_head and name.startswith("linear."))}

    def loss(self, prediction: Tensor, y: Tensor) -> Tensor:
        """The stock loss; ``y`` holds numbers or integer labels, see ``targets``."""
        return F.mse_loss(prediction, y) if self.regression else F.cross_entropy(prediction, y)

    def targets(self, y: Tensor) -> Tensor:
        """One-hot rows as integer labels, which stock losses want."""
        return y if self.regression else y.argmax(-1)


class Step(Protocol):
    """One way to compute the meta-gradient: the mean over tasks."""

    def load(self, weights: Weights) -> None:
        """Take these weights."""
        ...

    def prepare(self, episodes: Episode) -> Any:
        """The meta-batch as the library wants it; not timed."""
        ...

    def gradient(self, batch: Any) -> Any:
        """The meta-gradient in the library's own form; this is what is timed."""
        ...

    def named(self, gradient: Any) -> Weights:
        """That gradient in float64 on the CPU, by the names of ``Problem.network``."""
        ...


class TorchStep:
    """What steps with a torch module share.

    Args:
        problem: what to compute.
        dtype, device: of the network.
    """

    def __init__(self, problem: Problem, dtype: torch.dtype, device: torch.device):
        self.problem = problem
        self.network = problem.network().to(device, dtype)
        self.theta = dict(self.network.named_parameters())

    @torch.no_grad()
    def load(self, weights: Weights) -> None:
        """Take these weights."""
        for name, p in self.theta.items():
            p.copy_(weights[name])

    def prepare(self, episodes: Episode) -> Any:
        """For each task support x and y, query x and y."""
        (sx, sy), (qx, qy) = episodes
        y = self.problem.targets
        return [(sx[i], y(sy[i]), qx[i], y(qy[i])) for i in range(len(sx))]

    def named(self, gradient: list[Tensor | None]) -> Weights:
        """That gradient in float64 on the CPU."""
        pairs = zip(self.theta.items(), gradient, strict=True)
        return self.problem.learned(
            {name: (torch.zeros_like(p) if g is None else g).detach().cpu().double() for (name, p), g in pairs}
        )

    def clear(self) -> None:
        """Forget the gradients of the step before."""
        for p in self.theta.values():
            p.grad = None

    def grads(self) -> list[Tensor | None]:
        """What backward has left in the parameters."""
        return [p.grad for p in self.theta.values()]
