"""Random quadratics (Andrychowicz et al. 2016, arXiv:1606.04474, section 3.1): f(θ) = ‖Wθ − y‖²."""

from dataclasses import dataclass

import torch
from torch import Tensor

from quickstudy.inner import Params
from quickstudy.optimizers.problem import Batch, Problems, between, require_range


@dataclass(frozen=True)
class Quadratics:
    """Each problem is a matrix W (dim, dim) and a vector y (dim), normal numbers; its gradient has no noise.

    Args:
        dim: of θ; 10 in the paper.
        scale: range of the standard deviation of the start, log-uniform, drawn once for each call of ``sample``.

    Raises:
        ValueError: no dimension, or a range that is none.
    """

    dim: int = 10
    scale: tuple[float, float] = (0.1, 1.0)

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise ValueError(f"dim={self.dim}; required is at least 1: the paper takes 10")
        require_range("scale", self.scale)

    def sample(self, n: int, *, generator: torch.Generator) -> Problems:
        """Draw ``n`` quadratics."""
        scale = between(self.scale, generator)
        w = torch.randn(n, self.dim, self.dim, generator=generator)
        y = torch.randn(n, self.dim, generator=generator)
        start = scale * torch.randn(n, self.dim, generator=generator)
        return Problems(
            params={"theta": start},
            given=(w, y),
            loss=_loss,
            draw=lambda generator: (),
            kind=f"quadratic, {self.dim} dimensions",
        )


def _loss(params: Params, given: tuple[Tensor, Tensor], batch: Batch) -> Tensor:
    w, y = given
    return (w @ params["theta"] - y).square().sum()
