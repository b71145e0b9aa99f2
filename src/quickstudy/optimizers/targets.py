"""The parameters of a learned optimizer: what a step needs of each, and what is refused."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_PRECISIONS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


class Target(NamedTuple):
    """A parameter that is optimised.

    Attributes:
        p: it.
        name: "" where the optimizer was given none.
        lr: of its group.
        label: what errors call it.
    """

    p: nn.Parameter
    name: str
    lr: float
    label: str

    @property
    def gradient(self) -> Tensor:
        """Of one that has a gradient."""
        assert self.p.grad is not None
        return self.p.grad

    @property
    def precision(self) -> torch.dtype:
        """What its steps are computed in."""
        return precision(self.p)


def precision(p: Tensor) -> torch.dtype:
    """What is computed in for a parameter: float64 if it is that, and float32 for all others."""
    return torch.float64 if p.dtype == torch.float64 else torch.float32


def mean_squares(targets: list[Target]) -> Tensor:
    """Of the gradients of T parameters on one device and of one precision, (T,); not finite where an element is not."""
    gradients, wanted = [target.gradient for target in targets], targets[0].precision
    wider = None if all(g.dtype == wanted for g in gradients) else wanted
    norms = torch._foreach_norm(gradients, 2, dtype=wider)  # pyright: ignore[reportPrivateImportUsage]
    squares = torch.stack(list(norms)).square()
    return squares / squares.new_tensor([target.p.numel() for target in targets])


def require_rate(lr: Any) -> None:
    """Refuse what is no factor of a step.

    Raises:
        ValueError: negative, infinite or NaN.
    """
    if not 0 <= float(lr) < math.inf:
        raise ValueError(f"lr={lr}; required is a finite factor of the rule's steps of at least 0, by custom 1")


def require_real(target: Target) -> None:
    """Refuse what cannot be stepped.

    Raises:
        ValueError: integers, complex numbers, or numbers of 8 bits.
    """
    if target.p.dtype in _PRECISIONS:
        return
    advice = (
        "optimise torch.view_as_real of it" if target.p.is_complex() else "leave it out, or bring it to one of these"
    )
    raise ValueError(
        f"{target.label} is of type {target.p.dtype}; required is one of "
        f"{', '.join(str(known) for known in _PRECISIONS)}: {advice}"
    )


def require_dense(target: Target) -> None:
    """Refuse sparse gradients.

    Raises:
        ValueError: naming the parameter.
    """
    if target.gradient.layout != torch.strided:
        raise ValueError(
            f"the gradient of {target.label} is sparse; required are dense gradients: build the layer with "
            "sparse=False, as Embedding(..., sparse=False)"
        )
