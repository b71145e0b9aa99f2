"""Update rules with meta-learned parameters of their own.

A parameter of the network whose size depends on the task (a head with one row for each class) shares its rates over the
first axis; ``like`` says so by a size of 1 there.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from quickstudy.inner.rules import Params

Like = Mapping[str, Tensor | Sequence[int]]


def _shapes(like: Like) -> dict[str, list[int]]:
    return {name: list(p.shape if isinstance(p, Tensor) else p) for name, p in like.items()}


def _key(name: str) -> str:
    return name.replace(".", "/")  # a module's attribute names cannot hold a dot


class _Named(nn.Module):
    """One learned tensor for each name."""

    def __init__(self, values: Mapping[str, Tensor]):
        super().__init__()
        self.values = nn.ParameterDict({_key(name): nn.Parameter(value) for name, value in values.items()})

    def __getitem__(self, name: str) -> Tensor:
        if _key(name) not in self.values:
            known = [key.replace("/", ".") for key in self.values]
            raise ValueError(f"no learned rate for parameter {name!r}; there are some for {known[:4]}: build it anew")
        return self.values[_key(name)]


class LearnedRates(nn.Module):
    """θ ← θ − α ∘ g with a learned α for each element. A negative one ascends, as in the paper.

    Zhenguo Li et al., Meta-SGD: Learning to Learn Quickly for Few-Shot Learning, 2017, arXiv:1707.09835, equation 3.

    Args:
        like: for each name a tensor or shape that α takes (it broadcasts against the parameter).
        lr: where every α starts.
    """

    def __init__(self, like: Like, lr: float):
        super().__init__()
        self.like, self.lr = _shapes(like), lr
        self.rates = _Named({name: torch.full(shape, float(lr)) for name, shape in self.like.items()})

    def init(self, params: Params) -> None:
        """No state."""

    def step(self, params: Params, grads: Mapping[str, Tensor], state: None) -> tuple[Params, None]:
        """One step with each element's own rate."""
        return {name: p - self.rates[name] * grads[name] for name, p in params.items()}, None


class StepRates(nn.Module):
    """θ ← θ − α_t·g with a learned rate for each tensor and step; the last one serves any further steps.

    Antreas Antoniou, Harrison Edwards, Amos Storkey. How to train your MAML. ICLR 2019, arXiv:1810.09502 (LSLR).

    Args:
        names: of the parameters.
        steps: how many rates each has, at least 1.
        lr: where every rate starts.
    """

    def __init__(self, names: list[str], steps: int, lr: float):
        super().__init__()
        if steps < 1:
            raise ValueError(f"steps={steps}; required is at least 1 step to learn rates for")
        self.names, self.steps, self.lr = list(names), steps, lr
        self.rates = _Named({name: torch.full((steps,), float(lr)) for name in names})

    def init(self, params: Params) -> int:
        """The number of the next step."""
        return 0

    def step(self, params: Params, grads: Mapping[str, Tensor], state: int) -> tuple[Params, int]:
        """One step with the rates of its number."""
        t = min(state, self.steps - 1)
        return {name: p - self.rates[name][t] * grads[name] for name, p in params.items()}, state + 1


class Curvature(nn.Module):
    """θ ← θ − lr · MC(g): the gradient times a learned square matrix along each of its axes.

    Eunbyung Park, Junier Oliva. Meta-Curvature. NeurIPS 2019, arXiv:1902.03356, equation 5: for a convolution's
    gradient, MC(G) = G ×₃ M_f ×₂ M_i ×₁ M_o, with both spatial axes as one (M_f). All matrices start as the identity.

    Args:
        like: for each name a tensor or its shape, that of the parameter; along an axis of size 1 the gradient is only
            scaled, by one number that a parameter of any size along that axis shares.
        lr: step size.
    """

    def __init__(self, like: Like, lr: float):
        super().__init__()
        if lr < 0:
            raise ValueError(f"lr={lr}; required is a step size of at least 0")
        self.like, self.lr = _shapes(like), lr
        axes = {
            name: [*shape[:2], math.prod(shape[2:])] if len(shape) > 2 else shape for name, shape in self.like.items()
        }
        self.matrices = _Named(
            {f"{name}.{axis}": torch.eye(n) for name, sizes in axes.items() for axis, n in enumerate(sizes)}
        )

    def init(self, params: Params) -> None:
        """No state."""

    def step(self, params: Params, grads: Mapping[str, Tensor], state: None) -> tuple[Params, None]:
        """One step along the transformed gradient."""
        return {name: p - self.lr * self._transformed(name, grads[name]) for name, p in params.items()}, None

    def _transformed(self, name: str, grad: Tensor) -> Tensor:
        g: Any = grad.flatten(2) if grad.ndim > 2 else grad  # (out, in, positions), (out, in) or (n,)
        for axis in range(g.ndim):
            m = self.matrices[f"{name}.{axis}"]
            g = g * m.squeeze() if m.numel() == 1 else torch.movedim(torch.movedim(g, axis, -1) @ m.T, -1, axis)
        return g.reshape(grad.shape)
