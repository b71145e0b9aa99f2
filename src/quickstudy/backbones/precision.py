"""Training in bfloat16, where a processor multiplies it faster."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

Precision = Literal["float32", "bfloat16"]


def require_precision(precision: str) -> None:
    """Refuse a precision that there is not.

    Raises:
        ValueError: neither "float32" nor "bfloat16".
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision={precision!r}; choose among {', '.join(map(repr, get_args(Precision)))}")


def training_precision(module: nn.Module, precision: str, x: Tensor) -> AbstractContextManager[Any]:
    """Products in bfloat16 while the module trains; parameters, statistics and evaluation keep their own precision.

    Not for inner loops: their second derivatives do not survive it.
    """
    if not (module.training and precision == "bfloat16"):
        return nullcontext()  # a disabled autocast would switch off the caller's
    return torch.autocast(x.device.type, torch.bfloat16)
