"""Examples as a person gives them to a command: files, folders of classes, and CSV files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quickstudy.data import csv_table
from quickstudy.data.folder import folder_kind, read_folder
from quickstudy.readers import Reader, TableReader

IN_CSV = ("tables", "texts")
"""The kinds of examples that are rows of CSV files."""

KINDS = {"--support": "images", "--table": "tables", "--texts": "texts", "--sounds": "sounds"}
"""What the examples of each source are."""


@dataclass(frozen=True)
class Columns:
    """What a person says of a CSV file.

    Attributes:
        label: the column of the classes, or of the numbers to learn, by name or place; None for none.
        text: the column of the texts; None for the only one beside the label, or the one that is called "text".
        header: whether the first row holds names; None finds out.
    """

    label: str | None = None
    text: str | None = None
    header: bool | None = None


@dataclass(frozen=True)
class Given:
    """Examples, as a reader takes them.

    Attributes:
        kind: of the reader: "images", "tables", "texts" or "sounds".
        x: one for each example: paths, rows (dicts) or texts.
        y: one label or number for each; empty for examples to be answered.
        origin: where they are from, in words.
        places: file, and row of a CSV file, of each.
        numbers: y holds numbers to predict, and no classes.
        notes: what was guessed of a CSV file and a person should know, a sentence each.
    """

    kind: str
    x: list[Any]
    y: list[Any]
    origin: str
    places: list[dict[str, Any]]
    numbers: bool = False
    notes: tuple[str, ...] = ()


def labelled(path: str | Path, *, label: str | int = -1, text: str | None = None) -> tuple[list[Any], list[Any]]:
    """Examples and labels from one place: ``FewShotClassifier("characters").fit(*labelled("photos"))``.

    Args:
        path: a folder with a folder of images, or of recordings, for each class; or a CSV file.
        label: of a CSV file, the column of the classes, by name or place.
        text: of a CSV file, the column of the texts; without it the rows are those of a table.

    Returns:
        X and y, as estimators take them: paths, rows or texts, and a label for each.

    Raises:
        ValueError: what ``read_folder`` and ``read_csv`` refuse; columns that are not there, missing labels.
    """
    path = Path(path)
    if path.is_dir():
        folder = read_folder(path, folder_kind(path))
        return list(folder.files), list(folder.labels)
    found = _of_csv([path], "tables" if text is None else "texts", Columns(str(label), text), use="classes")
    return found.x, found.y


def labelled_examples(
    sources: Mapping[str, Path | None], columns: Columns | None = None, *, target: str | None = None
) -> Given:
    """Examples with their labels from exactly one source.

    Args:
        sources: "--support" and "--sounds", folders with a folder for each class; "--table" and "--texts", CSV files.
        columns: of a CSV file.
        target: the column of a number to learn; in place of a label.

    Raises:
        ValueError: no source or several, options of another source, columns that are not there, missing labels, and
            what ``read_folder`` and ``read_csv`` refuse.
    """
    columns = columns or Columns()
    named = {option: path for option, path in sources.items() if path is not None}
    if len(named) != 1:
        given = " and ".join(named) or "no examples"
        raise ValueError(f"{given} were given; required is one of {', '.join(sources)}")
    ((option, path),) = named.items()
    kind = KINDS[option]
    if kind not in IN_CSV:
        _refuse_columns(columns, f"{option}, a folder that names its classes", target)
        folder = read_folder(path, "images" if kind == "images" else "sounds")
        return Given(kind, list(folder.files), list(folder.labels), str(path), [{"file": str(f)} for f in folder.files])
    if columns.text is not None and kind == "tables":
        raise ValueError("--text is the column of --texts FILE.csv; a table is read with all its columns: leave it out")
    if (columns.label is None) == (target is None):
        raise ValueError(
            f"{option} needs the column that is to be learnt; required is --label COLUMN for classes, or --target "
            "COLUMN for a number: give one of both"
        )
    if target is not None:
        columns = replace(columns, label=target)
    return _of_csv([path], kind, columns, use="classes" if target is None else "numbers")


def examples_of_files(files: Sequence[Path], reader: Reader, columns: Columns | None = None) -> Given:
    """Examples to be answered: one for each file, or for each row of CSV files.

    Args:
        files: at least one.
        reader: the model's.
        columns: of CSV files; a label is passed over unread.

    Raises:
        ValueError: no such file, a folder, a model that reads arrays, columns that the model does not know, and what
            ``read_csv`` refuses.
    """
    columns = columns or Columns()
    if isinstance(reader, TableReader) and columns.header is None and reader.columns is not None:
        columns = replace(columns, header=any(isinstance(column.name, str) for column in reader.columns))
    if reader.kind in IN_CSV:
        return _of_csv(files, reader.kind, columns, use="nothing", reader=reader)
    if reader.kind == "arrays":
        raise ValueError(
            "the model reads arrays of numbers, and files of numbers are not read by this command; required is a model "
            "of images, sounds, tables or texts: use this one in Python, quickstudy.load_model(path).predict(x)"
        )
    _refuse_columns(columns, f"a model that reads {reader.kind}")
    for path in files:
        _require_file(path)
    count = f"{len(files)} file{'s' * (len(files) != 1)}"
    return Given(reader.kind, list(files), [], count, [{"file": str(path)} for path in files])


def examples_of_class(files: Sequence[Path], name: str | None, reader: Reader) -> Given:
    """Further examples of one class.

    Raises:
        ValueError: no files or no class, files given twice, and what ``examples_of_files`` refuses.
    """
    if reader.kind in IN_CSV:
        option = "--table" if reader.kind == "tables" else "--texts"
        raise ValueError(
            f"the model reads {reader.kind}, and no CSV file of them was given: give {option} FILE.csv --label COLUMN"
        )
    if not files or name is None:
        raise ValueError(
            f"{len(files)} files and --class {name}; required are FILES and their class: --class NAME FILES"
        )
    given = examples_of_files(files, reader)
    first: dict[bytes, Path] = {}
    for path in files:
        other = first.setdefault(path.read_bytes(), path)
        if other is not path:
            raise ValueError(f"{path} has the same content as {other}; required are different examples: name it once")
    return replace(given, y=[name] * len(files))


def _of_csv(
    files: Sequence[Path], kind: str, columns: Columns, *, use: csv_table.Use, reader: Reader | None = None
) -> Given:
    x: list[Any] = []
    y: list[Any] = []
    places: list[dict[str, Any]] = []
    notes: list[str] = []
    expected = [] if columns.text is None else [columns.text]
    missing = csv_table.MISSING if kind == "tables" else csv_table.BLANK
    for path in files:
        _require_file(path)
        table = csv_table.read_table(
            path, label=columns.label, use=use, header=columns.header, expected=expected, missing=missing
        )
        if isinstance(reader, TableReader):
            _refuse_new_columns(path, list(table.rows[0]), reader)
        if table.guessed:
            notes.append(
                f"the first row of {path} was taken for the names of its columns, not for an example: say --no-header "
                "if it is one, and --header to hear no more of it"
            )
        y += [_number(path, i + 1, label) for i, label in enumerate(table.labels)] if use == "numbers" else table.labels
        x += table.rows if kind == "tables" else _texts(path, table.rows, columns.text)
        places += [{"file": str(path), "row": i + 1} for i in range(len(table.rows))]
    return Given(kind, x, y, ", ".join(map(str, files)), places, use == "numbers", tuple(notes))


def _refuse_new_columns(path: Path, names: Sequence[str | int], reader: TableReader) -> None:
    """Say by which option one column too many is passed over; the reader itself refuses any other difference."""
    known = [column.name for column in reader.columns or ()]
    new = [name for name in names if name not in known]
    if len(names) == len(known) + 1 and len(new) == 1:
        what = f"the column {new[0]!r}" if isinstance(new[0], str) else f"{len(names)} columns"
        learnt = "does not know" if isinstance(new[0], str) else f"knows {len(known)} of"
        raise ValueError(
            f"{path} has {what}, which the model {learnt}; required are the columns it was taught: pass a column of "
            f"labels over with --label {new[0] if isinstance(new[0], str) else 'PLACE, counted from 0'}, or remove it"
        )


def _texts(path: Path, rows: list[csv_table.Row], column: str | None) -> list[str]:
    names = list(rows[0])
    named = [name for name in names if str(name) == ("text" if column is None else column)]
    if column is None and len(names) == 1:
        named = names
    if not named:
        asked = "no column" if column is None else f"the column {column!r}"
        raise ValueError(
            f"{asked} of {path} was named for the texts; required is one of {', '.join(map(repr, names))}: give "
            "--text COLUMN"
        )
    texts = []
    for i, row in enumerate(rows):
        text = row[named[0]]
        if text is None:
            raise ValueError(
                f"row {i + 1} of {path} has no text; required is one in each row: fill it in, or remove the row"
            )
        texts.append(text)
    return texts


def _number(path: Path, row: int, value: str) -> float:
    try:
        return float(value)
    except ValueError as error:
        raise ValueError(
            f"row {row} of {path} has {value!r} where a number is to be learnt; required are numbers throughout: give "
            "--label in place of --target if these are classes"
        ) from error


def _require_file(path: Path) -> None:
    if path.is_dir():
        raise ValueError(f"{path} is a folder; required are files: name them, as in {path}/*")
    if not path.is_file():
        raise ValueError(f"{path} does not exist; required is a file: check the path")


def _refuse_columns(columns: Columns, beside: str, target: str | None = None) -> None:
    said = {"--label": columns.label, "--text": columns.text, "--header": columns.header, "--target": target}
    given = [option for option, value in said.items() if value is not None]
    if given:
        raise ValueError(
            f"{' and '.join(given)} and {beside} were given; columns are those of a CSV file: leave {given[0]} out"
        )
