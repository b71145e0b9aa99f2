"""Numbers as they are, for learners on networks that no other reader knows."""

import math
import os
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from quickstudy.readers.examples import is_dataframe, require_examples, shown
from quickstudy.readers.reader import Reader


@dataclass(frozen=True)
class ArrayReader(Reader):
    """Arrays, tensors, DataFrames of numbers and nested lists as float32, without any scaling.

    Args:
        shape: of one example; examples that are flat but have as many numbers are brought into it. None takes any, and
            ``fit`` keeps that of the training examples.
    """

    kind: ClassVar[str] = "arrays"
    shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.shape is None:
            return
        try:
            shape = tuple(int(side) for side in self.shape)
        except (TypeError, ValueError) as error:
            raise ValueError(f"shape={self.shape!r}; required are whole numbers, as in shape=(1, 28, 28)") from error
        if min(shape, default=1) < 1:
            raise ValueError(f"shape={shape}; required are sides of at least 1: give the shape of one example")
        object.__setattr__(self, "shape", shape)  # a list where it comes from JSON

    def fit(self, X: Any) -> "ArrayReader":
        """With the shape of the examples of ``X`` where none was given."""
        return self if self.shape is not None else replace(self, shape=tuple(self.read(X).shape[1:]))

    def read(self, X: Any) -> Tensor:
        values = _as_numbers(X)
        require_examples(len(values), "rows")
        if self.shape is not None and tuple(values.shape[1:]) != self.shape:
            if values[0].size != math.prod(self.shape):
                raise ValueError(
                    f"examples of shape {values.shape[1:]} were given; required are examples of shape {self.shape}, as "
                    "the learner was taught: bring them into that shape"
                )
            values = values.reshape(len(values), *self.shape)  # (n, prod(shape)) -> (n, *shape)
        with np.errstate(over="ignore"):  # what leaves the range of float32 is refused just below
            found = np.array(values, dtype=np.float32)  # a copy: what is kept must not change with X
        if not np.isfinite(found).all():
            bad = int((~np.isfinite(found)).reshape(len(found), -1).any(1).sum())
            raise ValueError(
                f"{bad} of {len(found)} examples hold NaN, infinity or a value too large for dtype('float32'); "
                "required are finite numbers: clean or impute them first"
            )
        return torch.from_numpy(found)


def refuse_pictures(X: Any) -> None:
    """Refuse paths, bytes and Pillow's images, which another reader reads; anything else is let pass.

    Raises:
        ValueError: the first example is one of these.
    """
    if isinstance(X, (str, bytes, os.PathLike)):
        first = X
    elif isinstance(X, (list, tuple)) or (isinstance(X, np.ndarray) and X.ndim == 1):
        first = X[0] if len(X) else None
    else:
        return
    picture = any(cls.__module__.partition(".")[0] == "PIL" for cls in type(first).__mro__)
    if picture or isinstance(first, (str, bytes, os.PathLike)):
        raise ValueError(
            f"{shown(first)} of type {type(first).__name__} was given to ArrayReader, which reads numbers; required "
            "are n examples of one shape: for images pass reader=ImageReader(size=..., channels=...) with what the "
            "network takes, and for sounds and texts SoundReader() or TextReader()"
        )


def _as_numbers(X: Any) -> np.ndarray:
    """(n, *input) of any numeric type."""
    refuse_pictures(X)
    try:
        values = X.numpy(force=True) if isinstance(X, Tensor) else X.to_numpy() if is_dataframe(X) else np.asarray(X)
        values = values.astype(np.float64) if values.dtype.kind == "O" else values
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"X forms no array of numbers ({error}); required are n examples of one shape: (n, *input)"
        ) from error
    if values.ndim == 0 or values.dtype.kind not in "biuf":
        raise ValueError(
            f"X is an array of shape {values.shape} and type {values.dtype}; required are numbers, (n, *input): turn "
            "texts and categories into numbers, or choose the reader for them"
        )
    return values
