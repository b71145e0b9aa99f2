"""One column of a table: a number for each example, or one of several categories, learnt from the training examples."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from typing import Any, Literal

import numpy as np

from quickstudy.readers.examples import shown

MOST_CATEGORIES = 1000
_ODD = 0.2  # of the cells of a column: so few that are no numbers look like mistakes


@dataclass(frozen=True)
class Values:
    """A column as it was given.

    Args:
        name: of the column; its place for tables without names.
        cells: a float vector with NaN where something is missing, or a list with None there.
        categorical: whether the table itself says that these are categories.
    """

    name: str | int
    cells: np.ndarray | list[Any]
    categorical: bool = False


@dataclass(frozen=True)
class Column:
    """What was learnt of a column, as plain JSON values.

    Args:
        name: of the column; its place for tables without names.
        kind: "number"; "category"; "nothing" for a column in which everything was missing, which gives no numbers.
        median: of the numbers at ``fit``; stands for what is missing.
        missing: whether something was missing at ``fit``; then one more number says where (1) something is.
        categories: the texts of the categories, sorted; each gives one number, 1 where an example has it.
    """

    name: str | int
    kind: Literal["number", "category", "nothing"]
    median: float = 0.0
    missing: bool = False
    categories: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in ("number", "category", "nothing") or not math.isfinite(self.median):
            raise ValueError(
                f"a column of kind {self.kind!r} with median={self.median!r} is not known; required are 'number' with "
                "a finite median, 'category' or 'nothing'"
            )
        object.__setattr__(self, "categories", tuple(map(str, self.categories)))  # a list where it comes from JSON

    def encode(self, values: Values) -> np.ndarray:
        """(n, numbers of this column) float64."""
        if self.kind == "nothing":
            return np.empty((len(values.cells), 0))
        if self.kind == "number":
            cells = _as_numbers(values)
            gone = np.isnan(cells)
            filled = np.where(gone, self.median, cells)[:, None]  # (n, 1)
            return np.hstack((filled, gone[:, None])) if self.missing else filled
        place = {category: i for i, category in enumerate(self.categories)}
        found = np.zeros((len(values.cells), len(place) + self.missing))
        for i, text in enumerate(_as_texts(values)):
            j = len(place) if text is None and self.missing else place.get(text, -1) if text is not None else -1
            if j >= 0:
                found[i, j] = 1.0
        return found


def learn(values: Values) -> Column:
    """What the training examples say of a column.

    Where nearly all cells are numbers and the others make categories of them, a warning names the first of the others.

    Raises:
        ValueError: cells that are neither numbers nor texts, infinite numbers, more than 1,000 categories.
    """
    if isinstance(values.cells, list) and (values.categorical or not _are_numbers(values.cells)):
        if not values.categorical:
            _warn_of_odd_cells(values)
        texts = _as_texts(values)
        categories = sorted({text for text in texts if text is not None})
        if not categories:
            return Column(values.name, "nothing")
        if len(categories) > MOST_CATEGORIES:
            raise ValueError(
                f"column {values.name!r} holds {len(categories):,} different texts, such as {shown(categories[0])}; "
                f"required are at most {MOST_CATEGORIES:,} categories: leave out names and numbers of records, and "
                "read free text with TextReader"
            )
        return Column(values.name, "category", missing=None in texts, categories=tuple(categories))
    cells = _as_numbers(values)
    there = cells[~np.isnan(cells)]
    if len(there) == 0:
        return Column(values.name, "nothing")
    return Column(values.name, "number", median=float(np.median(there)), missing=len(there) < len(cells))


def is_missing(value: Any) -> bool:
    """None, NaN, NaT and what pandas puts there."""
    if value is None:
        return True
    if isinstance(value, (str, bytes)):
        return False
    try:
        return bool(value != value)
    except TypeError:  # pandas.NA refuses to be compared
        return True
    except ValueError:  # an array: it is there, though no cell of a table
        return False


def _are_numbers(cells: Sequence[Any]) -> bool:
    """Whether every cell that is there is a number, or a text that spells one."""
    return all(cell is None or _number(cell) is not None for cell in cells)


def _warn_of_odd_cells(values: Values) -> None:
    there = [i for i, cell in enumerate(values.cells) if cell is not None]
    odd = [i for i in there if _number(values.cells[i]) is None]
    if odd and len(odd) <= _ODD * len(there):
        warnings.warn(
            f"column {values.name!r} holds {shown(values.cells[odd[0]])} in row {odd[0]}, counted from 0, and "
            f"{len(there) - len(odd)} of its {len(there)} cells are numbers: it is read as one of categories; correct "
            "the cell, or leave it blank, for a column of numbers",
            stacklevel=4,
        )


def _number(cell: Any) -> float | None:
    if isinstance(cell, (Real, Decimal, np.bool_)):
        return float(cell)
    if isinstance(cell, str) and "_" not in cell:  # Python would read 1_000, which is a name elsewhere
        try:
            value = float(cell)
        except ValueError:
            return None
        return None if math.isnan(value) else value
    return None


def _as_numbers(values: Values) -> np.ndarray:
    """(n,) float64, NaN where something is missing."""
    if isinstance(values.cells, np.ndarray):
        cells = values.cells
    else:
        found = [math.nan if cell is None else _number(cell) for cell in values.cells]
        wrong = next((i for i, value in enumerate(found) if value is None), None)
        if wrong is not None:
            raise ValueError(
                f"column {values.name!r} holds {shown(values.cells[wrong])} in row {wrong}, and it held numbers at "
                "fit; required is a number, or None where it is missing: correct the cell, or fit again"
            )
        cells = np.array(found, dtype=np.float64)
    wide = np.abs(cells) > np.finfo(np.float32).max
    if wide.any():
        i = int(wide.argmax())
        raise ValueError(
            f"column {values.name!r} holds {cells[i]:g} in row {i}; required are finite numbers within the range of "
            "float32: correct the cell, or leave it missing"
        )
    return cells


def _as_texts(values: Values) -> list[str | None]:
    """The categories as texts, equal for 1, 1.0 and numpy's; None where something is missing."""
    if isinstance(values.cells, np.ndarray):
        return [None if math.isnan(cell) else _text(values, i, float(cell)) for i, cell in enumerate(values.cells)]
    return [None if cell is None else _text(values, i, cell) for i, cell in enumerate(values.cells)]


def _text(values: Values, i: int, cell: Any) -> str:
    if isinstance(cell, str):
        return str(cell)
    if isinstance(cell, (bool, np.bool_)):
        return str(bool(cell))
    if isinstance(cell, Real):
        number = float(cell)
        return str(int(number)) if number.is_integer() else repr(number)
    if values.categorical:  # what the categories of a categorical column are is the person's own affair
        return str(cell)
    raise ValueError(
        f"column {values.name!r} holds {shown(cell)} of type {type(cell).__name__} in row {i}; required are numbers, "
        "texts, or None where something is missing: make numbers of dates (days since a day), and leave other things "
        "out"
    )
