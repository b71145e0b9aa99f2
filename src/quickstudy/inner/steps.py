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
        if not _checking.get():
            return torch.func.grad(part)(params)
        with torch.no_grad():
            _require_finite("loss", part(params).detach(), t)
        grads = torch.func.grad(part)(params)
        for g in grads.values():
            _require_finite("gradient", g.detach().abs().max(), t)
        return grads

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


def _require_finite(what: str, value: Tensor, t: int) -> None:
    if not bool(torch.isfinite(value)):
        raise FloatingPointError(
            f"the inner {what} is {float(value)} at inner step {t + 1}; required is a finite number: lower inner_lr, "
            "or look at the examples of this task"
        )
