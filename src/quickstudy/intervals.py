"""Judge intervals: how often they hold the truth, and how wide they are for it."""

import torch
from torch import Tensor


def coverage(lower: Tensor, upper: Tensor, y: Tensor) -> Tensor:
    """The fraction, in [0, 1], of targets that lie in their interval, bounds included.

    A calibrated interval of level 0.9 has a coverage of 0.9 over many tasks; say its mean width along with it, as wide
    intervals cover anything.

    Args:
        lower, upper, y: of one shape.

    Raises:
        ValueError: shapes that differ, or a lower bound above its upper one.
    """
    if not lower.shape == upper.shape == y.shape:
        raise ValueError(
            f"bounds of shape {tuple(lower.shape)} and {tuple(upper.shape)} for targets of shape {tuple(y.shape)}; "
            "required is one interval for each target"
        )
    if bool((lower > upper).any()):
        raise ValueError("a lower bound is above its upper one; required is lower ≤ upper: hand them over so")
    return ((lower <= y) & (y <= upper)).to(torch.get_default_dtype()).mean()
