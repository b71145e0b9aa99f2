"""One step of an inner loop, which every mode runs in its own way."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from quickstudy.inner.rules import Params, UpdateRule

InnerLoss = Callable[[Params], Tensor]
_checking: ContextVar[bool] = ContextVar("checking", default=False)


@contextmanager
def finite_losses() -> Iterator[None]:
    """Within it, every inner step looks at its loss and raises where that is NaN or infinite.

    Looking costs a synchronisation with the device and is not possible under ``vmap``, so it is done when a result has
    turned out not to be finite, to say where that began.
    """
    token = _checking.set(True)
    try:
        yield
    finally:
        _checking.reset(token)


@dataclass(frozen=True)
class Walk:
    """An inner loop: a rule, and the inner loss in its parts."""

    rule: UpdateRule
    losses: tuple[InnerLoss, ...]
    accumulate: bool = False

    def parts(self, t: int) -> tuple[InnerLoss, ...]:
        """The parts of the inner loss that step ``t`` takes."""
        return self.losses if self.accumulate else (self.losses[t % len(self.losses)],)

    def gradient(self, t: int, params: Params) -> Mapping[str, Tensor]:
        """∇L at step ``t``, summed over its parts."""
        first, *others = self.parts(t)
        grads = self.gradient_of(first, t, params)
        for loss in others:
            more = self.gradient_of(loss, t, params)
            grads = {name: g + more[name] for name, g in grads.items()}
        return grads

    def gradient_of(self, part: InnerLoss, t: int, params: Params) -> Mapping[str, Tensor]:
        """The gradient of one part of the inner loss."""
        if _checking.get():
            _require_finite(part, t, params)
        return torch.func.grad(part)(params)

    def step(self, t: int, params: Params, state: Any) -> tuple[Params, Any]:
        """One step, differentiable."""
        return self.rule.step(params, self.gradient(t, params), state)

    def steps(
        self, numbers: Iterable[int], params: Params, state: Any, *, constant_gradients: bool = False
    ) -> tuple[Params, Any]:
        """Several steps with the graph of all."""
        for t in numbers:
            if constant_gradients:
                with torch.no_grad():
                    grads = self.gradient(t, params)
                params, state = self.rule.step(params, grads, state)
            else:
                params, state = self.step(t, params, state)
        return params, state


def _require_finite(loss: InnerLoss, t: int, params: Params) -> None:
    with torch.no_grad():
        value = float(loss(params).detach())
    if not abs(value) < float("inf"):
        raise FloatingPointError(
            f"the inner loss is {value} at inner step {t + 1}; required is a finite number: lower inner_lr, or look at "
            "the examples of this task"
        )
