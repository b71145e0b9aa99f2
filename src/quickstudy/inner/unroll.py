"""From θ to φ: some steps of an update rule on an inner loss, differentiable with respect to θ."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from quickstudy.inner.rules import Params, UpdateRule

Mode = Literal["reverse", "first_order"]


def unroll(
    rule: UpdateRule,
    loss: Callable[[Params], Tensor],
    params: Params,
    *,
    steps: int,
    mode: Mode = "reverse",
) -> Params:
    """φ = u(…u(θ, ∇L(θ))…), ``steps`` times.

    Args:
        rule: the update u.
        loss: parameters → scalar inner loss L; a pure function that reaches every parameter.
        params: θ by name.
        steps: inner steps, at least 0; with 0 the parameters come back unchanged.
        mode: "reverse" keeps the graph of all steps, so that derivatives of φ are exact; "first_order" takes every
            inner gradient as a constant (FOMAML, Finn et al. 2017, section 5.2).

    Returns:
        φ, with the names and shapes of ``params``.
    """
    if steps < 0:
        raise ValueError(f"steps={steps}; required is a number of inner steps of at least 0")
    if mode not in ("reverse", "first_order"):
        raise ValueError(f"mode={mode!r}; choose 'reverse' or 'first_order'")
    state = rule.init(params)
    for _ in range(steps):
        if mode == "first_order":
            with torch.no_grad():
                grads = torch.func.grad(loss)(params)
        else:
            grads = torch.func.grad(loss)(params)
        params, state = rule.step(params, grads, state)
    return params
