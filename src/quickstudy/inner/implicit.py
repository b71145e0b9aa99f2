"""The implicit mode: differentiate the minimum that the inner steps approach, not the steps.

Aravind Rajeswaran, Chelsea Finn, Sham Kakade, Sergey Levine. Meta-Learning with Implicit Gradients. NeurIPS 2019,
arXiv:1909.04630. Where the inner objective stands still, r(φ, θ) = 0, and the implicit function theorem says

    dφ/dθ = −(∂r/∂φ)⁻¹ ∂r/∂θ,   for the pull ½λ‖φ − θ‖²:   (I + ∇²L(φ)/λ)⁻¹          (lemma 1)

so the meta-gradient needs one linear system with the Hessian, solved by products with it. Memory does not grow with the
inner steps; the result is exact as far as φ is the minimum.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from quickstudy.inner.capture import Recorder, Substitute, grad_transforms, is_batched, needs_grad
from quickstudy.inner.rules import Params, Stationary
from quickstudy.inner.steps import Walk

_ONCE = "mode='implicit' is differentiated once; use mode='reverse' for derivatives of a meta-gradient"


class DidNotConverge(RuntimeError):
    """The linear system of an implicit meta-gradient was not solved to its tolerance."""


@dataclass(frozen=True)
class Implicit:
    """How the linear system of the implicit mode is solved.

    Args:
        solver: "cg", conjugate gradients (the inner objective must be convex around φ); or "neumann", the series
            η Σᵢ (I − ηH)ⁱ v, which needs η below 2 over the largest eigenvalue of H.
        tolerance: relative residual ‖Hu − v‖ / ‖v‖ that is reached, or an error says so.
        iterations: products with the Hessian at most.
        step: η of the Neumann series.
        strict: raise if the tolerance is not reached within ``iterations``, or if conjugate gradients meet a direction
            in which the objective is not convex; otherwise take what there is, as the paper does with 5 iterations.
    """

    solver: Literal["cg", "neumann"] = "cg"
    tolerance: float = 1e-6
    iterations: int = 100
    step: float = 0.1
    strict: bool = True

    def __post_init__(self) -> None:
        if self.solver not in ("cg", "neumann"):
            raise ValueError(f"solver={self.solver!r}; choose 'cg' or 'neumann'")
        if self.tolerance <= 0 or self.iterations < 1 or self.step <= 0:
            raise ValueError(
                f"tolerance={self.tolerance}, iterations={self.iterations}, step={self.step}; required are a tolerance "
                "and a step above 0, and 1 iteration or more"
            )


def implicit(walk: Walk, params: Params, steps: int, options: Implicit) -> Params:
    """φ after ``steps`` steps, with the derivative of the minimum; see ``unroll``."""
    rule = walk.rule
    if not isinstance(rule, Stationary):
        raise ValueError(
            f"{type(rule).__name__} does not say where it stands still, which implicit differentiation needs: use "
            "Proximal(SGD(lr), strength), or mode='recompute'"
        )
    if len(walk.losses) > 1 and not walk.accumulate:
        raise ValueError("implicit differentiation needs one inner objective: pass one loss, or accumulate=True")
    names = list(params)
    with torch.no_grad():
        phi, _ = walk.steps(range(steps), params, rule.init(params))
    if not torch.is_grad_enabled():
        return phi
    if grad_transforms() > 1:
        raise RuntimeError(_ONCE)

    def residual(at: Sequence[Tensor], start: Sequence[Tensor]) -> list[Tensor]:
        named, first = (dict(zip(names, x, strict=True)) for x in (at, start))
        found = rule.residual(named, walk.gradient(0, named), rule.init(first))
        return [found[name] for name in names]

    recorder = Recorder([*params.values(), *phi.values()])
    with torch.no_grad(), recorder:
        residual(list(phi.values()), list(params.values()))
    captured = list(recorder.captured.values())
    if any(is_batched(t) for t in (*params.values(), *phi.values(), *captured)):
        raise RuntimeError(
            "mode='implicit' solves each task to a tolerance of its own, which vmap cannot: use strategy='loop' or "
            "'threads'"
        )
    results = _Minimum.apply(residual, options, len(names), captured, *params.values(), *captured, *phi.values())
    return dict(zip(names, results, strict=True))


class _Minimum(torch.autograd.Function):
    """φ that was computed before, with the derivative of the minimum."""

    @staticmethod
    def forward(
        residual: Callable[..., Any], options: Implicit, n: int, captured: list[Tensor], *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        return tuple(phi.clone() for phi in tensors[-n:])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.residual, ctx.options, ctx.n, ctx.captured = inputs[:4]
        ctx.save_for_backward(*inputs[4:])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if torch.is_grad_enabled() and grad_transforms() == 0:
            raise RuntimeError(_ONCE)
        saved = [t.detach() for t in ctx.saved_tensors]
        start, captured, phi = saved[: ctx.n], saved[ctx.n : -ctx.n], saved[-ctx.n :]
        moving = [i for i, t in enumerate(ctx.captured) if t.is_floating_point() and needs_grad(t)]

        def residual(at: Sequence[Tensor], start: Sequence[Tensor], those: Sequence[Tensor]) -> list[Tensor]:
            given = dict(zip(moving, those, strict=True))
            swaps: dict[int, Any] = {id(t): given.get(i, captured[i]) for i, t in enumerate(ctx.captured)}
            with Substitute(swaps):
                return ctx.residual(at, start)

        with torch.no_grad():
            those = [captured[i] for i in moving]
            _, hessian, *_ = torch.func.vjp(lambda at: residual(at, start, those), phi)
            u = _solve(lambda v: list(hessian(v)[0]), list(cotangents), ctx.options)
            _, pull, *_ = torch.func.vjp(lambda start, those: residual(phi, start, those), start, those)
            to_start, to_those = pull([-x for x in u])
        to_captured: list[Tensor | None] = [None] * len(captured)
        for i, gradient in zip(moving, to_those, strict=True):
            to_captured[i] = gradient
        return (None, None, None, None, *to_start, *to_captured, *[None] * ctx.n)


def _solve(product: Callable[[list[Tensor]], list[Tensor]], v: list[Tensor], options: Implicit) -> list[Tensor]:
    """u with H u = v, given products with H."""
    norm = _dot(v, v) ** 0.5
    if norm == 0:
        return v
    solver = {"cg": _conjugate_gradient, "neumann": _neumann}[options.solver]
    u, error = solver(product, v, norm, options)
    if not error <= options.tolerance and options.strict:
        raise DidNotConverge(
            f"{options.solver} left a relative residual of {error:.1e} after {options.iterations} iterations; required "
            f"is {options.tolerance:g}: allow more iterations, a larger tolerance, or strict=False; a stronger pull "
            "(strength) makes the system easier"
        )
    return u


def _conjugate_gradient(
    product: Callable[[list[Tensor]], list[Tensor]], v: list[Tensor], norm: float, options: Implicit
) -> tuple[list[Tensor], float]:
    """Hestenes & Stiefel 1952."""
    u, r, p = [torch.zeros_like(x) for x in v], list(v), list(v)
    rr = norm**2
    for _ in range(options.iterations):
        hp = product(p)
        curvature = _dot(p, hp)
        if not curvature > 0:
            if not options.strict:  # what the convex part gave counts; at the very start, the size of the curvature
                u = u if rr < norm**2 or not curvature < 0 else [-rr / curvature * x for x in p]
                break
            raise DidNotConverge(
                f"conjugate gradients met the curvature {curvature:.1e}: the inner objective is not convex; raise "
                "the pull (strength), take more inner steps, or use solver='neumann'"
            )
        a = rr / curvature
        u = [x + a * y for x, y in zip(u, p, strict=True)]
        r = [x - a * y for x, y in zip(r, hp, strict=True)]
        before, rr = rr, _dot(r, r)
        if rr**0.5 <= options.tolerance * norm:
            break
        p = [x + rr / before * y for x, y in zip(r, p, strict=True)]
    return u, rr**0.5 / norm


def _neumann(
    product: Callable[[list[Tensor]], list[Tensor]], v: list[Tensor], norm: float, options: Implicit
) -> tuple[list[Tensor], float]:
    """u = η Σᵢ (I − ηH)ⁱ v; what is left over, (I − ηH)ⁱ v, is the residual."""
    u, left = [torch.zeros_like(x) for x in v], list(v)
    error = 1.0
    for _ in range(options.iterations):
        u = [x + options.step * y for x, y in zip(u, left, strict=True)]
        left = [x - options.step * y for x, y in zip(left, product(left), strict=True)]
        error = _dot(left, left) ** 0.5 / norm
        if error <= options.tolerance or not error < 1e6:
            break
    return u, error


def _dot(a: list[Tensor], b: list[Tensor]) -> float:
    return float(sum((x * y).sum() for x, y in zip(a, b, strict=True)))
