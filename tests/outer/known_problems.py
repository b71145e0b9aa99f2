"""Problems and a rule whose meta-gradient is known."""

import torch
from torch import Tensor, nn

from quickstudy.optimizers import Problems

START = 3.0


class Drift(nn.Module):
    """θ ← θ − a, whatever the gradient: after t steps θ_t = θ_0 − t·a."""

    def __init__(self, a: float = 0.05):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a, dtype=torch.float64))

    def init(self, params):
        return {}

    def step(self, params, grads, state):
        return {name: p - self.a for name, p in params.items()}, state


class HalfSquares:
    """f(θ) = ½θ² from θ_0 = 3."""

    def sample(self, n: int, *, generator: torch.Generator) -> Problems:
        start = {"theta": torch.full((n, 1), START, dtype=torch.float64)}
        return Problems(start, (), lambda p, given, batch: 0.5 * p["theta"].square().sum(), lambda generator: ())


def known_gradient(a: float, steps: int) -> float:
    """∂/∂a mean_t ½(θ_0 − t·a)² = −mean_t t(θ_0 − t·a). F is quadratic in a, so smoothing leaves its gradient alone."""
    return -sum(t * (START - t * a) for t in range(1, steps + 1)) / steps


def flat_gradient(loss: Tensor, rule: nn.Module) -> Tensor:
    """∂loss/∂(the rule's weights), in one vector."""
    weights = list(rule.parameters())
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights, materialize_grads=True)])
