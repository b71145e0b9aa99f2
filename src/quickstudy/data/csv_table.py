"""A table in a text file: the separator and the header are found, missing values are told apart, cells stay texts.

Whether a column holds numbers or categories is learnt by ``quickstudy.readers.TableReader``, which takes the rows.
"""

import csv
import io
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

MISSING = frozenset({"", "?", "na", "n/a", "#n/a", "nan", "null"})
"""What stands for a missing value, in small letters or capitals."""

_SEPARATORS = (",", ";", "\t", "|")
_LOOKED_AT = 200  # rows by which the separator is chosen
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+")

Cell = str | None
Row = dict[str | int, Cell]


@dataclass(frozen=True)
class LabelledRows:
    """A table with the column of the labels taken out of it.

    Args:
        rows: as ``read_csv`` returns them, without that column; places are counted among the columns that remain.
        labels: one for each row.
        column: where they were: a name, or a place in a file without a header.
    """

    rows: list[Row]
    labels: list[str]
    column: str | int


def read_csv(path: Path | str, *, header: bool | None = None) -> list[Row]:
    """Read a table: UTF-8, cells separated by comma, semicolon, tabulator or |, quoted or not.

    The first row is taken for a header where it holds a text above a column of numbers, or where all its cells are
    texts that are distinct and do not come again below. Numbers such as 1,5 in a file with another separator than the
    comma are read as 1.5.

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
    path = Path(path)
    lines = _parse(path)
    if header is None:
        header = _has_header([cells for _, cells in lines])
    names: list[str | int] = [*lines[0][1]] if header else [*range(len(lines[0][1]))]
    body = lines[1:] if header else lines
    if not body:
        raise ValueError(f"{path} holds a header and no row; required is at least one example: add rows")
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise ValueError(
            f"{path} has more than one column {twice[0]!r}; required is a name of its own for each: rename one of them"
        )
    return [{name: _cell(cell) for name, cell in zip(names, cells, strict=True)} for _, cells in body]


def read_labelled_csv(path: Path | str, *, label: str | int = -1, header: bool | None = None) -> LabelledRows:
    """Read a table and take the labels out of it.

    Args:
        path, header: see ``read_csv``.
        label: the column of the labels, by its name or its place, also as a text: from 0, and negative ones count from
            the end; by default the last.

    Raises:
        ValueError: what ``read_csv`` refuses, a column that is not there, a row without a label, nothing but labels.
    """
    path = Path(path)
    rows = read_csv(path, header=header)
    names = list(rows[0])
    column = _column(path, names, label)
    labels = [_label(path, i + 1, row.pop(column)) for i, row in enumerate(rows)]
    if len(names) == 1:
        raise ValueError(f"{path} holds labels alone; required is at least one more column: add what they tell of")
    if isinstance(column, int):  # no header: a file without labels must give the same places
        places: list[Row] = [{i: cell for i, cell in enumerate(row.values())} for row in rows]  # noqa: C416
        return LabelledRows(places, labels, column)
    return LabelledRows(rows, labels, column)


def _parse(path: Path) -> list[tuple[int, list[str]]]:
    """(line number, cells) of each row that is not blank, all of one length."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is no text in UTF-8 ({error}); required is a table: save it as CSV in UTF-8"
        ) from error
    lines = list(io.StringIO(text, newline=""))
    if not text.strip():
        raise ValueError(f"{path} is empty; required is a table with at least one row: check the file")
    separator = _separator(path, lines)
    rows = _split(path, lines, separator)
    width = len(rows[0][1])
    wrong = next(((line, cells) for line, cells in rows if len(cells) != width), None)
    if wrong is not None:
        raise ValueError(
            f"line {wrong[0]} of {path} has {len(wrong[1])} cells and the first has {width}, separated by "
            f"{separator!r}; required is one cell for each column: put texts that hold the separator into quotes"
        )
    comma = separator != ","
    return [(line, [_decimal(cell) for cell in cells] if comma else cells) for line, cells in rows]


def _separator(path: Path, lines: list[str]) -> str:
    """The one that gives every row the same number of cells, the most of them; else the first row the most."""
    cut = len(lines) > _LOOKED_AT
    widths: dict[str, list[int]] = {}
    for separator in _SEPARATORS:
        rows = _split(path, lines[:_LOOKED_AT], separator)
        widths[separator] = [len(cells) for _, cells in (rows[:-1] if cut else rows)]  # the last may be cut in quotes
    even = [separator for separator, found in widths.items() if len(set(found)) == 1 and found[0] > 1]
    return max(even or _SEPARATORS, key=lambda separator: widths[separator][0])


def _split(path: Path, lines: list[str], separator: str) -> list[tuple[int, list[str]]]:
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True)
    try:
        return [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if any(map(str.strip, cells))]
    except csv.Error as error:
        raise ValueError(
            f"line {reader.line_num} of {path} cannot be read ({error}); required is a table of text with cells of at "
            f"most {csv.field_size_limit():,} characters: shorten it, or close its quotes"
        ) from error


def _has_header(rows: list[list[str]]) -> bool:
    first, below = rows[0], rows[1:]
    columns = [[cell for cell in column if not _is_missing(cell)] for column in zip(*below, strict=True)]
    texts = [not _is_missing(cell) and not _is_number(cell) for cell in first]
    if any(text and column and all(map(_is_number, column)) for text, column in zip(texts, columns, strict=False)):
        return True
    again = any(cell in column for cell, column in zip(first, columns, strict=False))
    return bool(below) and all(texts) and len(set(first)) == len(first) and not again


def _column(path: Path, names: list[str | int], label: str | int) -> str | int:
    """The column that is meant by a name or a place."""
    if isinstance(label, str) and label in names:
        return label
    try:
        return names[int(label)]
    except (ValueError, IndexError) as error:
        raise ValueError(
            f"{path} has no column {label!r} for the labels; required is one of {', '.join(map(repr, names))}, or a "
            f"place from 0 to {len(names) - 1}: correct it"
        ) from error


def _label(path: Path, row: int, cell: Cell) -> str:
    if cell is None:
        raise ValueError(f"row {row} of {path} has no label; required is one for each: fill it in, or remove the row")
    return cell


def _cell(cell: str) -> Cell:
    return None if _is_missing(cell) else cell


def _is_missing(cell: str) -> bool:
    return cell.casefold() in MISSING


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _decimal(cell: str) -> str:
    return cell.replace(",", ".") if _DECIMAL_COMMA.fullmatch(cell) else cell
