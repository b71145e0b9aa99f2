"""SGD and Adam whose own hyper-parameters are meta-learned: a rate and decays for each tensor, by hypergradient.

Step sizes and decays as differentiable quantities: Dougal Maclaurin, David Duvenaud, Ryan Adams. Gradient-based
hyperparameter optimization through reversible learning. ICML 2015, arXiv:1502.03492.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from quickstudy.inner import Params

State = dict[str, Any]


class _PerTensor(nn.Module):
    """A number for all tensors, and what those with a known name add to it."""

    def __init__(self, value: float, names: Sequence[str]):
        super().__init__()
        self.shared = nn.Parameter(torch.tensor(value))
        self.own = nn.ParameterDict({_key(name): nn.Parameter(torch.zeros(())) for name in names})

    def of(self, name: str) -> Tensor:
        return self.shared + self.own[_key(name)] if _key(name) in self.own else self.shared


def _key(name: str) -> str:
    return "/" + name.replace(".", "/")  # attribute names of a module hold no dot, and some are taken


def _logit(p: float) -> float:
    return math.log(p / (1 - p))


class TunedSGD(nn.Module):
    """v ← μv + g, θ ← θ − lr·v with a learned lr and μ for each tensor.

    Args:
        names: of the tensors with numbers of their own; any other takes those that all share.
        lr: where rates start, above 0; their logarithms are learned.
        momentum: where μ starts, in (0, 1); its logit is learned.

    Raises:
        ValueError: lr or momentum outside of these.
    """

    def __init__(self, names: Sequence[str] = (), *, lr: float = 0.01, momentum: float = 0.9):
        super().__init__()
        if lr <= 0 or not 0 < momentum < 1:
            raise ValueError(f"lr={lr}, momentum={momentum}; required is lr above 0 and momentum between 0 and 1")
        self.names, self.lr, self.momentum = list(names), lr, momentum
        self.log_lr, self.logit_momentum = _PerTensor(math.log(lr), names), _PerTensor(_logit(momentum), names)

    def init(self, params: Params) -> State:
        """The velocities."""
        return {name: torch.zeros_like(p) for name, p in params.items()}

    def step(self, params: Params, grads: Mapping[str, Tensor], state: State) -> tuple[Params, State]:
        """One step of all parameters."""
        state = {name: torch.sigmoid(self.logit_momentum.of(name)) * v + grads[name] for name, v in state.items()}
        return {name: p - torch.exp(self.log_lr.of(name)) * state[name] for name, p in params.items()}, state


class TunedAdam(nn.Module):
    """Adam with learned rates and decays for each tensor.

    Diederik Kingma, Jimmy Ba. Adam: a method for stochastic optimization. ICLR 2015, arXiv:1412.6980, algorithm 1.
    Differs from the paper: ε is inside of the root, √(v̂ + ε²), whose derivative at v̂ = 0 is finite.

    Args:
        names: of the tensors with numbers of their own; any other takes those that all share.
        lr: where rates start, above 0; their logarithms are learned.
        betas: where both decays start, in (0, 1); their logits are learned.
        eps: ε, fixed.

    Raises:
        ValueError: lr, betas or eps outside of these.
    """

    def __init__(
        self,
        names: Sequence[str] = (),
        *,
        lr: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ):
        super().__init__()
        if lr <= 0 or eps <= 0 or not all(0 < beta < 1 for beta in betas):
            raise ValueError(
                f"lr={lr}, betas={betas}, eps={eps}; required is lr and eps above 0, betas between 0 and 1"
            )
        self.names, self.lr, self.betas, self.eps = list(names), lr, betas, eps
        self.log_lr = _PerTensor(math.log(lr), names)
        self.logit_betas = nn.ModuleList([_PerTensor(_logit(beta), names) for beta in betas])

    def init(self, params: Params) -> State:
        """Both moments, and the products of the decays so far, which correct for their start at 0."""
        zeros = {name: torch.zeros_like(p) for name, p in params.items()}
        ones = {name: p.new_ones(2) for name, p in params.items()}
        return {"m": zeros, "v": dict(zeros), "left": ones}

    def step(self, params: Params, grads: Mapping[str, Tensor], state: State) -> tuple[Params, State]:
        """One step of all parameters."""
        new: Params = {}
        after: State = {"m": {}, "v": {}, "left": {}}
        for name, p in params.items():
            g = grads[name]
            beta = torch.sigmoid(torch.stack([part.of(name) for part in self.logit_betas]))  # pyright: ignore
            m = beta[0] * state["m"][name] + (1 - beta[0]) * g
            v = beta[1] * state["v"][name] + (1 - beta[1]) * g * g
            left = beta * state["left"][name]
            root = (v / (1 - left[1]) + self.eps**2).sqrt()  # ε inside: the root at 0 has no derivative
            new[name] = p - torch.exp(self.log_lr.of(name)) * (m / (1 - left[0])) / root
            after["m"][name], after["v"][name], after["left"][name] = m, v, left
        return new, after
