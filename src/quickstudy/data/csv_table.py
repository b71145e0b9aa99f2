"""A table in a text file: the separator and the header are found, missing values are told apart, cells stay texts.

Whether a column holds numbers or categories is learnt by ``quickstudy.readers.TableReader``, which takes the rows.
"""

import warnings
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from quickstudy.data.csv_cells import BLANK, MISSING, cells_of, counts_rows, has_header, is_missing, with_decimal_points

__all__ = ["BLANK", "MISSING", "Row", "Table", "read_csv", "read_labelled_csv", "read_table"]

Cell = str | None
Row = dict[str | int, Cell]
Use = Literal["classes", "numbers", "nothing"]


@dataclass(frozen=True)
class Table:
    """A table, with the column of the labels taken out of it where one was named.

    Attributes:
        rows: as ``read_csv`` returns them, without that column; places are counted among the columns that remain.
        labels: one for each row, as it was written; none where no column was named, or it was passed over.
        column: where they were: a name, or a place in a file without a header; None where no column was named.
        guessed: that the first row holds names was neither said nor shown by a name that was expected.
    """

    rows: list[Row]
    labels: list[str]
    column: str | int | None
    guessed: bool


def read_csv(path: Path | str, *, header: bool | None = None) -> list[Row]:
    """Read a table: UTF-8, cells separated by comma, semicolon, tabulator or |, quoted or not.

    The first row is taken for a header where it holds a text above a column of numbers, or where all its cells are
    texts that are distinct and do not come again below. A single column of texts has a header only where it is called
    "text" or the like. Numbers such as 1,5 and 1.234,5 in a file with another separator than the comma are read as 1.5
    and 1234.5. A first column without a name that holds a whole number of its own for each row, as the index of a
    DataFrame does, is left out with a warning; columns with neither name nor cells are left out.

    Args:
        path: the file.
        header: whether the first row holds the names; None finds out.

    Returns:
        For each row its cells as texts by the name of their column, or by its place (0, 1, ...) without a header; None
        where a value is missing (see ``MISSING``). At least one row.

    Raises:
        ValueError: no table, rows of different lengths, a name twice; the message names the file and the line.
        OSError: the file cannot be opened at all.
    """
    return read_table(path, header=header).rows


def read_labelled_csv(path: Path | str, *, label: str | int = -1, header: bool | None = None) -> Table:
    """Read a table and take the labels out of it.

    Args:
        path, header: see ``read_csv``.
        label: the column of the labels, by its name or its place, also as a text: from 0, and negative ones count from
            the end; by default the last.

    Raises:
        ValueError: what ``read_csv`` refuses, a column that is not there, a row without a label, nothing but labels.
    """
    return read_table(path, label=label, header=header)


def read_table(
    path: Path | str,
    *,
    label: str | int | None = None,
    use: Use = "classes",
    header: bool | None = None,
    expected: Collection[str] = (),
    missing: Collection[str] = MISSING,
) -> Table:
    """Read a table as ``read_csv`` and ``read_labelled_csv`` do, and say whether a header was guessed.

    Args:
        path, label, header: as for them; without a label no column is taken out.
        use: what the labels are for. "classes": they stay as they are written; "numbers": with decimal points;
            "nothing": the column is passed over unread.
        expected: names that only a header can hold, beside the label's.
        missing: what stands for a missing value in the rows, in small letters.

    Raises:
        ValueError, OSError: as they do.
    """
    path = Path(path)
    cells = cells_of(path)
    named = {*expected, *([label] if isinstance(label, str) and not _is_place(label) else [])}
    guess = header is None
    found = has_header(cells, named) if header is None else header
    columns = [list(column) for column in zip(*cells.rows, strict=True)]
    names: list[str | int] = [column[0] for column in columns] if found else [*range(len(columns))]
    if found:
        columns = [column[1:] for column in columns]
        if not columns[0]:
            raise ValueError(f"{path} holds a header and no row; required is at least one example: add rows")
        names, columns = _named(path, names, columns)
    place = None if label is None else _place(path, names, label)
    labels = [] if place is None else columns.pop(place)
    column = None if place is None else names.pop(place)
    if not names:
        raise ValueError(f"{path} holds labels alone; required is at least one more column: add what they tell of")
    if not found:  # a file without labels must give the same places
        names = [*range(len(names))]
    comma = cells.separator != ","
    if use == "numbers" and comma:
        labels = with_decimal_points(labels)
    kept = [] if use == "nothing" else [_label(path, i + 1, cell) for i, cell in enumerate(labels)]
    values = [_values(with_decimal_points(cells) if comma else cells, missing) for cells in columns]
    rows: list[Row] = [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]
    guessed = guess and found and not named & set(cells.rows[0])
    return Table(rows, kept, column, guessed)


def _named(path: Path, names: list[str | int], columns: list[list[str]]) -> tuple[list[str | int], list[list[str]]]:
    """The columns that hold examples; each has a name of its own."""
    there = [i for i, name in enumerate(names) if name or any(columns[i])]
    if there[:1] == [0] and not names[0] and len(there) > 1 and counts_rows(columns[0]):
        warnings.warn(
            f"{path}: the first column has no name and numbers the rows, as the index of a DataFrame does; it was left "
            "out: give it a name if it says something of the examples",
            stacklevel=4,
        )
        there = there[1:]
    names, columns = [names[i] for i in there], [columns[i] for i in there]
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise ValueError(
            f"{path} has more than one column {twice[0]!r}; required is a name of its own for each: rename one of them"
        )
    return names, columns


def _place(path: Path, names: list[str | int], label: str | int) -> int:
    """The column that is meant by a name or a place."""
    if isinstance(label, str) and label in names:
        return names.index(label)
    try:
        return range(len(names))[int(label)]
    except (ValueError, IndexError) as error:
        raise ValueError(
            f"{path} has no column {label!r} for the labels; required is one of {', '.join(map(repr, names))}, or a "
            f"place from 0 to {len(names) - 1}: correct it"
        ) from error


def _is_place(label: str) -> bool:
    return label.removeprefix("-").isdecimal()


def _label(path: Path, row: int, cell: str) -> str:
    if is_missing(cell, BLANK):
        raise ValueError(f"row {row} of {path} has no label; required is one for each: fill it in, or remove the row")
    return cell


def _values(column: Sequence[str], missing: Collection[str]) -> list[Cell]:
    return [None if is_missing(cell, missing) else cell for cell in column]
