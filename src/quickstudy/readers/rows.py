"""Tables in the forms that people have them in, taken apart into columns."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from quickstudy.readers.columns import Values, is_missing
from quickstudy.readers.examples import is_dataframe, shown

FORMS = "a DataFrame, a 2-D array, a list of dicts or a list of rows"


def columns_of(X: Any) -> list[Values]:
    """The columns of a table, with their names or else their places.

    Raises:
        ValueError: no table, rows of different lengths, a name twice, dates; NaN or infinity in an array of numbers.
    """
    if is_dataframe(X):
        return _of_dataframe(X)
    if isinstance(X, Tensor):
        X = X.numpy(force=True)
    if isinstance(X, np.ndarray):
        return _of_array(X)
    if isinstance(X, (str, bytes)) or not isinstance(X, Sequence):
        raise ValueError(f"X is of type {type(X).__name__}; required is {FORMS}")
    if len(X) and all(isinstance(row, Mapping) for row in X):
        return _of_dicts(X)
    return _of_rows(X)


def _of_array(X: np.ndarray) -> list[Values]:
    if X.ndim != 2 or X.dtype.kind not in "biufOUS":
        raise ValueError(
            f"X is an array of shape {X.shape} and type {X.dtype}; required are rows of numbers or texts, (n, "
            "columns): put one row alone into a list, [x]"
        )
    if X.dtype.kind in "OUS":
        return [Values(j, _cells(X[:, j].tolist())) for j in range(X.shape[1])]
    if X.dtype.kind == "f" and not np.isfinite(X).all():
        i, j = np.argwhere(~np.isfinite(X))[0]
        raise ValueError(
            f"X holds {X[i, j]} in row {i}, column {j}: an array must not contain NaN or infinity; required are finite "
            "numbers: impute them, or pass a DataFrame or dicts, where what is missing may be missing"
        )
    numbers = X.astype(np.float64)
    return [Values(j, numbers[:, j]) for j in range(X.shape[1])]


def _of_rows(X: Sequence[Any]) -> list[Values]:
    for i, row in enumerate(X):
        if isinstance(row, (str, bytes, Mapping)) or not isinstance(row, (Sequence, np.ndarray, Tensor)):
            raise ValueError(f"row {i} is {shown(row)} of type {type(row).__name__}; required is {FORMS}")
        if len(row) != len(X[0]):
            raise ValueError(
                f"row {i} has {len(row)} cells and row 0 has {len(X[0])}; required is one for each column: put None "
                "where one is missing"
            )
    rows = [row.tolist() if isinstance(row, (np.ndarray, Tensor)) else list(row) for row in X]
    return [Values(j, _cells([row[j] for row in rows])) for j in range(len(rows[0]) if rows else 0)]


def _of_dicts(X: Sequence[Mapping[Any, Any]]) -> list[Values]:
    names = list(dict.fromkeys(name for row in X for name in row))
    _refuse_twice([_name(name) for name in names])
    return [Values(_name(name), _cells([row.get(name) for row in X])) for name in names]


def _of_dataframe(X: Any) -> list[Values]:
    names = [_name(name) for name in X.columns.tolist()]
    _refuse_twice(names)
    return [_of_series(name, X.iloc[:, j]) for j, name in enumerate(names)]


def _of_series(name: str | int, series: Any) -> Values:
    kind = series.dtype.kind
    if kind in "mMc":
        raise ValueError(
            f"column {name!r} is of type {series.dtype}; required are numbers and categories: make numbers of it, "
            "such as the days since a day, or leave it out"
        )
    gone = series.isna().to_numpy(dtype=bool)
    if kind in "biuf":
        cells = np.full(len(gone), np.nan)
        cells[~gone] = series[~gone].to_numpy(dtype=np.float64)
        return Values(name, cells)
    cells = [None if missing else cell for missing, cell in zip(gone.tolist(), series.tolist(), strict=True)]
    return Values(name, cells, categorical=str(series.dtype) == "category")


def _cells(cells: list[Any]) -> list[Any]:
    return [None if is_missing(cell) else cell.decode() if isinstance(cell, bytes) else cell for cell in cells]


def _name(name: Any) -> str | int:
    """As JSON holds it: whole numbers and texts stay, everything else is written out."""
    return int(name) if isinstance(name, (int, np.integer)) and not isinstance(name, bool) else str(name)


def _refuse_twice(names: list[str | int]) -> None:
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise ValueError(
            f"the columns {', '.join(map(repr, twice[:5]))} are there more than once; required is a name of its own "
            "for each: rename or leave out one of them"
        )
