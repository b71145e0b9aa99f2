"""The commands that use a model file: predict and export."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text as RichText

from quickstudy.commands_model import Header, Json, ModelFile, Text, Threads, note, notes, say
from quickstudy.console import err, out, plain_table, print_json
from quickstudy.files import require_file_path
from quickstudy.given import Columns, examples_of_files
from quickstudy.process import use_threads


def predict(
    model: ModelFile,
    files: Annotated[list[Path], typer.Argument(help="Images or recordings; of tables and texts CSV files.")],
    unknown: Annotated[bool, typer.Option("--unknown", help="Say which examples are of no known class.")] = False,
    coverage: Annotated[
        float | None, typer.Option(help="Also give sets of classes that hold the true one this often, such as 0.9.")
    ] = None,
    false_alarms: Annotated[
        float | None, typer.Option(help="Share of known examples that may be called unknown; by default the model's.")
    ] = None,
    top: Annotated[int, typer.Option(help="How many classes of each ranking are given.")] = 5,
    label: Annotated[str | None, typer.Option(help="A column of a CSV file that is passed over.")] = None,
    text: Text = None,
    header: Header = None,
    json: Json = False,
    threads: Threads = 0,
) -> None:
    """Answer for new examples."""
    from quickstudy.estimators import FewShotClassifier, load_model
    from quickstudy.estimators.answers import answers

    use_threads(threads)
    if false_alarms is not None and not unknown:
        raise ValueError(f"--false-alarms {false_alarms:g} says nothing without --unknown: add it, or leave both out")
    if top < 1:
        raise ValueError(f"--top {top}; required is at least 1: how many classes are named for each example")
    opened = load_model(model)
    with notes():
        given = examples_of_files(files, opened.reader_, Columns(label, text, header))
    for said in given.notes:
        note(said)
    if isinstance(opened, FewShotClassifier):
        found = answers(opened, given.x, unknown=unknown, coverage=coverage, false_alarms=false_alarms, top=top)
        rows: Any = [{**place, **answer.as_dict()} for place, answer in zip(given.places, found, strict=True)]
    elif unknown or coverage is not None:
        raise ValueError(
            f"{model} predicts numbers, which no class can be unknown to: leave --unknown and --coverage out"
        )
    else:
        numbers = opened.predict(given.x).tolist()
        rows = [{**place, "prediction": number} for place, number in zip(given.places, numbers, strict=True)]
    if json:
        print_json(rows)
    else:
        _print_answers(rows)


def export(
    model: ModelFile,
    onnx: Annotated[Path, typer.Option(help="The ONNX file to write.")],
    tolerance: Annotated[float, typer.Option(help="The largest difference between both that is let pass.")] = 1e-4,
    json: Json = False,
) -> None:
    """Write a model as an ONNX file, after comparing what both answer."""
    from quickstudy.estimators import load_model
    from quickstudy.estimators.exporting import export_onnx

    require_file_path(onnx, "--onnx")
    with err.status("exporting"):
        done = export_onnx(load_model(model), onnx, tolerance=tolerance)
    if json:
        facts = {"largest_difference": done.largest_difference, "opset": done.opset, "outputs": list(done.outputs)}
        print_json({"onnx": str(done.path), **facts})
        return
    say(f"{done.path}: {', '.join(done.outputs)}; ONNX operators of version {done.opset}")
    say(f"largest difference to the model's own answers: {done.largest_difference:.1e}")


def _print_answers(rows: list[dict[str, Any]]) -> None:
    table = plain_table("")
    first = rows[0]
    table.add_column("example", overflow="fold")
    if "prediction" in first:
        table.add_column("prediction", justify="right")
    else:
        table.add_column("class", overflow="fold")
        table.add_column("probability", justify="right")
        table.add_column("next", overflow="fold")
    if "set" in first:
        table.add_column("set", overflow="fold")
    files = len({row["file"] for row in rows})
    for row in rows:
        table.add_row(*map(RichText, (_place(row, files), *_cells(row))))
    out.print(table)


def _cells(row: dict[str, Any]) -> Iterator[str]:
    if "prediction" in row:
        yield str(row["prediction"]) if isinstance(row["prediction"], list) else f"{row['prediction']:g}"
        return
    best, *others = row["ranking"]
    if row.get("unknown"):
        others = [best, *others]
        yield "unknown"
        yield ""
    else:
        yield str(best["label"])
        yield f"{100 * best['probability']:.1f} %"
    yield f"{others[0]['label']} {100 * others[0]['probability']:.1f} %" if others else ""
    if "set" in row:
        yield ", ".join(map(str, row["set"])) or "none"


def _place(row: dict[str, Any], files: int) -> str:
    if "row" not in row:
        return row["file"]
    return f"row {row['row']}" if files == 1 else f"{row['file']}, row {row['row']}"
