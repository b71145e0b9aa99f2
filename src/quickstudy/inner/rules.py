"""Update rules: how one inner step turns parameters and gradients into new parameters."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

Params = dict[str, Tensor]


class UpdateRule(Protocol):
    """A pure optimizer on a dict of parameters; whatever tensors it holds can be meta-learned."""

    def init(self, params: Params) -> Any:
        """The state before the first step."""
        ...

    def step(self, params: Params, grads: Mapping[str, Tensor], state: Any) -> tuple[Params, Any]:
        """New parameters and new state; nothing is changed in place."""
        ...


@dataclass(frozen=True)
class SGD:
    """θ ← θ − lr·g.

    Args:
        lr: step size, at least 0.
    """

    lr: float

    def __post_init__(self) -> None:
        if self.lr < 0:
            raise ValueError(f"lr={self.lr}; required is a step size of at least 0")

    def init(self, params: Params) -> None:
        """SGD has no state."""

    def step(self, params: Params, grads: Mapping[str, Tensor], state: None) -> tuple[Params, None]:
        """One descent step on every parameter."""
        return {name: p - self.lr * grads[name] for name, p in params.items()}, None
