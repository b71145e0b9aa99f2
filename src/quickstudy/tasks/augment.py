"""Random changes of examples that keep their class, for meta-training."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


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
