"""The text of a table as cells: encoding, separator, quotes, decimal commas, and whether the first row holds names."""

import csv
import io
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

MISSING = frozenset({
    *("", "?", "-", "--", ".", "na", "n/a", "nan", "-nan", "null", "none", "nil", "missing"),
    *("<na>", "#na", "#n/a", "#n/a n/a", "#num!", "#div/0!", "#value!", "#ref!", "#name?", "#null!"),
    *("1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan"),
})  # fmt: skip
"""What stands for a missing value in a table, in small letters or capitals."""

BLANK = frozenset({"", "?", "na", "n/a", "#n/a", "nan", "<na>", "null"})
"""What stands for a missing label or text, where words such as none and missing are more often meant."""

TEXT_NAMES = frozenset({
    *("text", "texts", "sentence", "sentences", "utterance", "utterances", "message", "messages", "question"),
    *("questions", "query", "queries", "comment", "comments", "review", "reviews", "document", "documents", "content"),
})  # fmt: skip
"""What the single column of a file of texts is called, in small letters or capitals."""

_SEPARATORS = (",", ";", "\t", "|")
_LOOKED_AT = 200  # rows by which the separator is chosen
_NAMED_SEPARATOR = re.compile(r'"?sep=([^\w"\r\n])"?', re.IGNORECASE)  # the first line that spreadsheets write
_DECIMAL_COMMA = re.compile(r"[+-]?(\d*|\d{1,3}(\.\d{3})+),\d+")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(\.\d{3})+")


@dataclass(frozen=True)
class Cells:
    """A table as it was written.

    Attributes:
        rows: the cells of each row that is not blank, at least one row, all of one length; without blanks at their
            ends.
        separator: a single character.
    """

    rows: list[list[str]]
    separator: str


def cells_of(path: Path) -> Cells:
    """Take a file apart.

    Raises:
        ValueError: no text, nothing in it, rows of different lengths, cells that are too long.
        OSError: the file cannot be opened at all.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is no text in UTF-8 ({error}); required is a table: save it as CSV in UTF-8"
        ) from error
    lines = list(io.StringIO(text, newline=""))
    named = _NAMED_SEPARATOR.fullmatch(lines[0].rstrip("\r\n")) if lines else None
    passed = 0 if named is None else 1
    if not "".join(lines[passed:]).strip():
        raise ValueError(f"{path} is empty; required is a table with at least one row: check the file")
    separator = _separator(path, lines) if named is None else named[1]
    rows = _split(path, lines[passed:], separator, passed)
    width = len(rows[0][1])
    wrong = next(((line, cells) for line, cells in rows if len(cells) != width), None)
    if wrong is not None:
        raise ValueError(
            f"line {wrong[0]} of {path} has {len(wrong[1])} cells and the first has {width}, separated by "
            f"{separator!r}; required is one cell for each column: put texts that hold the separator into quotes"
        )
    return Cells([cells for _, cells in rows], separator)


def with_decimal_points(column: Sequence[str]) -> list[str]:
    """The cells of a column with 1,5 as 1.5 and 1.234,5 as 1234.5; all others as they are.

    Where a number with a decimal comma is among them, 1.234 is a number with a point between thousands.
    """
    if not any(map(_DECIMAL_COMMA.fullmatch, column)):
        return list(column)
    numbers = (_DECIMAL_COMMA, _THOUSANDS)
    return [
        cell.replace(".", "").replace(",", ".") if any(number.fullmatch(cell) for number in numbers) else cell
        for cell in column
    ]


def has_header(cells: Cells, expected: Collection[str] = ()) -> bool:
    """Whether the first row holds names: it holds an expected one, or by what is below it.

    A text above a column of numbers is a name. So are texts, one in each column, that are distinct and do not come
    again below; no name is asked of the index of a DataFrame and of empty columns. The cell of a single column of
    texts is one only if it says so (``TEXT_NAMES``).
    """
    if any(cell in expected for cell in cells.rows[0]):
        return True
    columns = list(zip(*cells.rows, strict=True))
    if cells.separator != ",":
        columns = [with_decimal_points(column) for column in columns]
    named = [column for i, column in enumerate(columns) if column[0] or (any(column) and not _is_index(i, column[1:]))]
    first = [column[0] for column in named]
    below = [[cell for cell in column[1:] if not is_missing(cell)] for column in named]
    texts = [not is_missing(cell) and not is_number(cell) for cell in first]
    if any(text and column and all(map(is_number, column)) for text, column in zip(texts, below, strict=True)):
        return True
    if len(columns) == 1:
        return first[0].casefold() in TEXT_NAMES
    again = any(cell in column for cell, column in zip(first, below, strict=True))
    return len(cells.rows) > 1 and all(texts) and len(set(first)) == len(first) and not again


def counts_rows(column: Sequence[str]) -> bool:
    """Whether each row has a whole number of its own, as also a part of a shuffled DataFrame has."""
    return all(cell.isascii() and cell.isdigit() for cell in column) and len(set(column)) == len(column)


def is_missing(cell: str, missing: Collection[str] = MISSING) -> bool:
    """Whether the cell stands for a missing value."""
    return cell.casefold() in missing


def is_number(cell: str) -> bool:
    """Whether the cell spells a number, with a decimal point."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _is_index(i: int, column: Sequence[str]) -> bool:
    return i == 0 and counts_rows(column)


def _separator(path: Path, lines: list[str]) -> str:
    """The one that gives every row the same number of cells, the most of them; else the first row the most."""
    cut = len(lines) > _LOOKED_AT
    widths: dict[str, list[int]] = {}
    for separator in _SEPARATORS:
        rows = _split(path, lines[:_LOOKED_AT], separator)
        widths[separator] = [len(cells) for _, cells in (rows[:-1] if cut else rows)]  # the last may be cut in quotes
    even = [separator for separator, found in widths.items() if len(set(found)) == 1 and found[0] > 1]
    return max(even or _SEPARATORS, key=lambda separator: widths[separator][0])


def _split(path: Path, lines: list[str], separator: str, passed: int = 0) -> list[tuple[int, list[str]]]:
    """(line number, cells) of each row that is not blank; ``passed`` lines are above."""
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True)
    try:
        found = [(reader.line_num + passed, [cell.strip() for cell in cells]) for cells in reader]
    except csv.Error as error:
        raise ValueError(
            f"line {reader.line_num + passed} of {path} cannot be read ({error}); required is a table of text with "
            f"cells of at most {csv.field_size_limit():,} characters: shorten it, or close its quotes"
        ) from error
    return [(line, cells) for line, cells in found if any(cells)]
