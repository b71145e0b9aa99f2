"""Tables of numbers and categories with missing values, as rows of numbers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from quickstudy.readers.columns import Column, Values, learn
from quickstudy.readers.examples import is_dataframe, require_examples
from quickstudy.readers.reader import Reader
from quickstudy.readers.rows import columns_of


@dataclass(frozen=True)
class TableReader(Reader):
    """A row of numbers for each row of a table; ``fit`` learns the columns, ``read`` expects the same.

    A column of numbers (booleans count as 0 and 1, texts that all spell numbers as these) gives its numbers; where some
    were missing at ``fit``, the median stands for what is missing, and one more number says where that is. Any other
    column is one of categories and gives a number for each of them, 1 where a row has it; missing is a category of its
    own where it was so at ``fit``, and a category that ``fit`` has not seen is none of them. A column with nothing in
    it at ``fit`` gives no numbers. Nothing is brought to a common scale: learners for tables do that themselves, in
    double precision, and so the numbers are float64.

    Args:
        columns: what ``fit`` has learnt; None before.

    A table is a pandas DataFrame, a list of dicts or a list of rows, in which None and NaN are missing values, or a 2-D
    array; an array of numbers must be finite, as everywhere in scikit-learn.
    """

    kind: ClassVar[str] = "tables"
    columns: tuple[Column, ...] | None = None

    def __post_init__(self) -> None:
        if self.columns is None:
            return
        given = cast(Sequence[Any], self.columns)
        try:
            columns = tuple(column if isinstance(column, Column) else Column(**column) for column in given)
        except TypeError as error:
            raise ValueError(
                f"columns={self.columns!r} are no columns ({error}): leave them out and call fit"
            ) from error
        object.__setattr__(self, "columns", columns)

    def fit(self, X: Any) -> "TableReader":
        """The reader that knows the columns of ``X``.

        Raises:
            ValueError: no row, no column, nothing but missing values, cells that are neither numbers nor texts.
        """
        found = columns_of(X)
        if not found or not len(found[0].cells):
            raise ValueError(
                f"the table has {_rows(X)} rows and {len(found)} columns; required is at least one of each: check "
                "what was selected"
            )
        columns = tuple(learn(values) for values in found)
        if all(column.kind == "nothing" for column in columns):
            raise ValueError(
                f"all {len(columns)} columns are missing throughout; required is at least one with values: check how "
                "the table was read"
            )
        return replace(self, columns=columns)

    def read(self, X: Any) -> Tensor:
        if self.columns is None:
            raise ValueError("the reader knows no columns yet; required is fit(X) before read(X)")
        require_examples(_rows(X), "rows")
        ordered = _in_order(self.columns, columns_of(X))
        encoded = [column.encode(values) for column, values in zip(self.columns, ordered, strict=True)]
        return torch.from_numpy(np.hstack(encoded))  # (n, numbers) float64: seconds since 1970 do not fit into float32


def _rows(X: Any) -> int:
    """How many rows, also of a table without columns."""
    if is_dataframe(X) or isinstance(X, (list, tuple, np.ndarray, Tensor)):
        return len(X)
    return len(columns_of(X)[0].cells)  # any other sequence of rows, or an error


def _in_order(columns: tuple[Column, ...], given: list[Values]) -> list[Values]:
    """The given columns in the order of those at ``fit``: by name, or by place where one of both has no names."""
    names = [column.name for column in columns]
    if not (_are_named(names) and _are_named([values.name for values in given])):
        if len(given) != len(columns):
            raise ValueError(
                f"X has {len(given)} columns, and at fit it had {len(columns)}; required are the same columns: bring X "
                "into that form, or fit again"
            )
        return given
    by_name = {values.name: values for values in given}
    missing = [name for name in names if name not in by_name]
    new = [name for name in by_name if name not in set(names)]
    if missing or new:
        parts = [f"{word} {_list(found)}" for word, found in (("missing are", missing), ("new are", new)) if found]
        raise ValueError(
            f"the columns are not those of fit: {', '.join(parts)}; required are the {len(names)} columns of fit, in "
            "any order: add or leave out, or fit again"
        )
    return [by_name[name] for name in names]


def _are_named(names: Sequence[str | int]) -> bool:
    return list(names) != list(range(len(names)))


def _list(names: list[str | int]) -> str:
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
