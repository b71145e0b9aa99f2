"""From θ to φ: some steps of an update rule on an inner loss, differentiable with respect to θ and to the rule."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from quickstudy.inner.implicit import Implicit, implicit
from quickstudy.inner.recompute import recompute
from quickstudy.inner.rules import Params, UpdateRule
from quickstudy.inner.steps import InnerLoss, Walk

Mode = Literal["reverse", "recompute", "first_order", "truncated", "implicit"]


@dataclass(frozen=True)
class Truncated:
    """Differentiate the last steps alone; the ones before count as a constant shift of θ.

    Amirreza Shaban et al., Truncated Back-propagation for Bilevel Optimization, AISTATS 2019, arXiv:1810.10667, for a θ
    that is the initialisation: with ``last`` = 0 this is first-order MAML, with all steps it is exact.

    Args:
        last: how many steps are differentiated, at least 0.
    """

    last: int = 1

    def __post_init__(self) -> None:
        if self.last < 0:
            raise ValueError(f"last={self.last}; required is a number of steps of at least 0")


AnyMode = Mode | Truncated | Implicit
_BY_NAME: dict[str, Truncated | Implicit] = {"truncated": Truncated(), "implicit": Implicit()}


def as_mode(mode: AnyMode) -> AnyMode:
    """The mode, with its default options where it has some.

    Raises:
        ValueError: there is no such mode.
    """
    if isinstance(mode, Truncated | Implicit) or mode in ("reverse", "recompute", "first_order"):
        return mode
    if mode in _BY_NAME:
        return _BY_NAME[mode]
    raise ValueError(
        f"mode={mode!r}; choose 'reverse', 'recompute', 'first_order', 'truncated' or 'implicit', or pass "
        "Truncated(last=...) or Implicit(...)"
    )


def unroll(
    rule: UpdateRule,
    loss: Callable[[Params], Tensor] | Sequence[Callable[[Params], Tensor]],
    params: Params,
    *,
    steps: int,
    mode: AnyMode = "reverse",
    accumulate: bool = False,
) -> Params:
    """φ = u(…u(θ, ∇L(θ))…), ``steps`` times.

    Args:
        rule: the update u; tensors it holds (learned rates, ...) receive derivatives as well.
        loss: parameters → scalar inner loss L, a pure function. Several of them are parts of a support set that is too
            large for one pass: step t takes part t mod their number, or all of them one after the other with
            ``accumulate``.
        params: θ by name; floating point, not necessarily parameters of a module.
        steps: inner steps, at least 0; with 0 the parameters come back unchanged.
        mode: how φ is differentiated.
            "reverse": exact; keeps the graph of all steps, so memory grows by activations.
            "recompute": exact; keeps the parameters and the rule's state of each step, and rebuilds one step (one part)
            at a time on the way back. Not differentiable a second time.
            "first_order": every inner gradient counts as a constant (FOMAML, Finn et al. 2017, section 5.2).
            "truncated" or ``Truncated(last)``: exact over the last steps, see there.
            "implicit" or ``Implicit(...)``: φ counts as the minimum of the inner objective, see there.
        accumulate: each step's gradient is the sum over all parts, of which only one graph lives at a time with
            "recompute".

    Returns:
        φ, with the names and shapes of ``params``.

    Raises:
        ValueError: a negative number of steps, an unknown mode, parameters that are not floating point, no parts.
        FloatingPointError: an inner loss that is NaN or infinite, within ``finite_losses()``.
    """
    walk = Walk(rule, _parts(loss), accumulate)
    if steps < 0:
        raise ValueError(f"steps={steps}; required is a number of inner steps of at least 0")
    for name, p in params.items():
        if not p.is_floating_point():
            raise ValueError(
                f"parameter {name!r} is of type {p.dtype}; required are floating point numbers: leave it out"
            )
    mode = as_mode(mode)
    if steps == 0:
        return dict(params)
    if mode == "recompute":
        return recompute(walk, params, steps)
    if isinstance(mode, Implicit):
        return implicit(walk, params, steps, mode)
    exact_from = {"reverse": 0, "first_order": steps}.get(mode, 0) if isinstance(mode, str) else steps - mode.last
    state = rule.init(params)
    if isinstance(mode, Truncated) and exact_from > 0:
        with torch.no_grad():
            now, at = params, state
            for t in range(exact_from):
                now, at = walk.step(t, now, at)
        params = {name: _shifted(p, now[name]) for name, p in params.items()}
        state = tree_map(_shifted, state, at)
        return walk.steps(range(exact_from, steps), params, state)[0]
    return walk.steps(range(steps), params, state, constant_gradients=mode == "first_order")[0]


def trajectory(
    rule: UpdateRule,
    loss: Callable[[Params], Tensor] | Sequence[Callable[[Params], Tensor]],
    params: Params,
    *,
    steps: int,
    mode: Literal["reverse", "first_order"] = "reverse",
    accumulate: bool = False,
) -> list[Params]:
    """φ_0 = θ, φ_1, ..., φ_steps, all differentiable; arguments as for ``unroll``.

    Raises:
        ValueError: a mode that keeps no more than the last φ.
    """
    if mode not in ("reverse", "first_order"):
        raise ValueError(f"mode={mode!r} gives the last parameters alone; every step needs 'reverse' or 'first_order'")
    walk = Walk(rule, _parts(loss), accumulate)
    state, path = rule.init(params), [dict(params)]
    for t in range(steps):
        params, state = walk.steps((t,), params, state, constant_gradients=mode == "first_order")
        path.append(params)
    return path


def _parts(loss: Callable[[Params], Tensor] | Sequence[Callable[[Params], Tensor]]) -> tuple[InnerLoss, ...]:
    parts = (loss,) if callable(loss) else tuple(loss)
    if not parts:
        raise ValueError("no inner loss was given; required is one function of the parameters, or one for each part")
    return parts


def _shifted(start: Any, now: Any) -> Any:
    """``now``, with the derivative of ``start``."""
    if isinstance(start, Tensor) and isinstance(now, Tensor) and start.is_floating_point():
        return start + (now - start).detach()
    return now
