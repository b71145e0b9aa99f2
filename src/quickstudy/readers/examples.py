"""The containers in which people keep examples: lists, arrays, columns of a table."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor


def is_dataframe(X: Any) -> bool:
    """Whether it is a pandas DataFrame; pandas is not imported for the question."""
    return _is_of_pandas(X, "DataFrame")


def as_items(X: Any, noun: str) -> list[Any]:
    """One item for each example.

    Args:
        X: a list, a tuple, an array (n,) or (n, 1), a Series, or a DataFrame of one column.
        noun: what an error calls the items: "images", "texts".

    Raises:
        ValueError: a single item, or another kind of thing.
    """
    if is_dataframe(X):
        if X.shape[1] != 1:
            raise ValueError(
                f"a DataFrame of {X.shape[1]} columns was given; required is one column of {noun}: "
                "choose it, as in X['name']"
            )
        return X.iloc[:, 0].tolist()
    if _is_of_pandas(X, "Series"):
        return X.tolist()
    if isinstance(X, np.ndarray) and (X.ndim == 1 or (X.ndim == 2 and X.shape[1] == 1)):
        return X.ravel().tolist()
    if isinstance(X, (str, bytes, bytearray, os.PathLike)) or not isinstance(X, Sequence):
        shape = f" of shape {X.shape}" if isinstance(X, (np.ndarray, Tensor)) else ""
        raise ValueError(
            f"X is {_a(X)}{shape}; required is a list of {noun}, one for each example: put one alone into a list, [x]"
        )
    return list(X)


def require_examples(n: int, noun: str) -> None:
    """Refuse to read nothing.

    Raises:
        ValueError: ``n`` is 0.
    """
    if n == 0:
        raise ValueError(f"there are 0 {noun}; required is at least one example: check what was selected")


def shown(value: Any, width: int = 60) -> str:
    """A value as an error shows it, however long it is."""
    text = repr(value)
    return text if len(text) <= width else f"{text[: width - 3]}..."


def _is_of_pandas(X: Any, name: str) -> bool:
    return any(cls.__name__ == name and cls.__module__.partition(".")[0] == "pandas" for cls in type(X).__mro__)


def _a(X: Any) -> str:
    name = type(X).__name__
    return f"a single {name}" if isinstance(X, (str, bytes, bytearray, os.PathLike)) else f"of type {name}"
