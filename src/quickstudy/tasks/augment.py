"""Random changes of examples that keep their class, for meta-training."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class InTurn:
    """Several changes, one after the other.

    Args:
        changes: (examples, generator) → changed examples.
    """

    changes: tuple[Callable[[Tensor, torch.Generator], Tensor], ...]

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """(m, channels, h, w) → the same shape."""
        for change in self.changes:
            x = change(x, generator)
        return x


@dataclass(frozen=True)
class RandomElastic:
    """Bend each image at random, as different hands draw the same shape (Simard et al., ICDAR 2003).

    Args:
        strength: standard deviation of the displacements at the knots, as a fraction of half the image.
        knots: of the grid of displacements along each side; between them they are interpolated smoothly.

    Differs from the paper: displacements are drawn at a few knots, where the paper draws one for each pixel and smooths
    them by a Gaussian.
    """

    strength: float = 0.05
    knots: int = 5

    def times(self, factor: float) -> "RandomElastic":
        """The same, stronger or weaker."""
        return RandomElastic(self.strength * factor, self.knots)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """(m, channels, h, w) → the same shape."""
        m, _, h, w = x.shape
        at_knots = self.strength * torch.randn(m, 2, self.knots, self.knots, generator=generator)
        bend = F.interpolate(at_knots, size=(h, w), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
        still = F.affine_grid(torch.eye(2, 3).expand(m, 2, 3), [m, 1, h, w], align_corners=False)  # (m, h, w, 2)
        return F.grid_sample(x, (still + bend).to(x.dtype), align_corners=False)


@dataclass(frozen=True)
class RandomAffine:
    """Rotate, scale, shear and shift each image at random, with bilinear interpolation and dark borders.

    Args:
        degrees: largest rotation to either side.
        scale: largest relative change of either side's length.
        shear: largest shear.
        shift: largest shift, as a fraction of the image.
    """

    degrees: float = 10.0
    scale: float = 0.15
    shear: float = 0.15
    shift: float = 0.08

    def times(self, factor: float) -> "RandomAffine":
        """The same, stronger or weaker."""
        return RandomAffine(*(factor * amount for amount in (self.degrees, self.scale, self.shear, self.shift)))

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """(m, channels, h, w) → the same shape."""
        m = len(x)
        u = torch.rand(6, m, generator=generator) * 2 - 1  # (6, m) in [-1, 1)
        angle = u[0] * self.degrees * torch.pi / 180
        cos, sin = angle.cos(), angle.sin()
        sx, sy, k = 1 + u[1] * self.scale, 1 + u[2] * self.scale, u[3] * self.shear
        rows = (
            cos * sx,
            sx * (k * cos - sin),
            2 * u[4] * self.shift,
            sin * sy,
            sy * (k * sin + cos),
            2 * u[5] * self.shift,
        )
        grid = F.affine_grid(torch.stack(rows, 1).view(m, 2, 3), list(x.shape), align_corners=False)
        return F.grid_sample(x, grid.to(x.dtype), align_corners=False)
