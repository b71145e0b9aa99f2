"""The commands that make a model file and change what it knows: adapt, add, forget."""

import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text as RichText

from quickstudy.console import err, out, plain_table, print_json
from quickstudy.files import require_file_path
from quickstudy.given import IN_CSV, Columns, Given, examples_of_class, labelled_examples
from quickstudy.model_facts import facts_of, in_words, warnings_of
from quickstudy.process import use_threads

if TYPE_CHECKING:
    from quickstudy.estimators import FewShotClassifier, FewShotRegressor

DEFAULTS = {"images": "characters", "tables": "tables", "texts": "texts", "sounds": "sounds"}
"""The learner for each kind of examples, if none is named."""

ModelFile = Annotated[Path, typer.Argument(metavar="MODEL", help="A model file, as `quickstudy adapt` writes it.")]
Support = Annotated[Path | None, typer.Option(help="A folder of images: one folder per class.")]
Sounds = Annotated[Path | None, typer.Option(help="A folder of recordings: one folder per class.")]
Table = Annotated[Path | None, typer.Option(help="A CSV file with a header, one row per example.")]
Texts = Annotated[Path | None, typer.Option(help="A CSV file with a column of texts.")]
Label = Annotated[str | None, typer.Option(help="The column of the class, in a CSV file.")]
Text = Annotated[str | None, typer.Option(help="The column of the texts, where a CSV file has several.")]
Header = Annotated[
    bool | None, typer.Option("--header/--no-header", help="Whether a CSV file begins with names; else found out.")
]
Out = Annotated[Path | None, typer.Option("--out", help="Where to write; by default into the same file.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Threads = Annotated[int, typer.Option(help="Threads for torch; 0 takes every processor.")]


def adapt(
    file: Annotated[Path, typer.Option("--out", help="The model file to write, such as model.safetensors.")],
    learner: Annotated[
        str | None, typer.Option(help="A name, a learner file or a run folder; by default one for the examples' kind.")
    ] = None,
    support: Support = None,
    table: Table = None,
    texts: Texts = None,
    sounds: Sounds = None,
    label: Label = None,
    text: Text = None,
    header: Header = None,
    target: Annotated[str | None, typer.Option(help="The column of a number to predict, instead of --label.")] = None,
    encoder: Annotated[str | None, typer.Option(help="Of texts: hashing, all-MiniLM-L6-v2 or a folder.")] = None,
    false_alarms: Annotated[float, typer.Option(help="Share of known examples that may be called unknown.")] = 0.05,
    json: Json = False,
    threads: Threads = 0,
) -> None:
    """Learn from labelled examples and write one model file."""
    use_threads(threads)
    require_file_path(file, "--out")
    with notes():
        sources = {"--support": support, "--table": table, "--texts": texts, "--sounds": sounds}
        given = labelled_examples(sources, Columns(label, text, header), target=target)
        model = _fitted(given, learner or DEFAULTS[given.kind], encoder, false_alarms)
    for text in given.notes:
        note(text)
    model.save(file)
    _show(model, file, f"learnt from {given.origin}", json)


def add(
    model: ModelFile,
    files: Annotated[list[Path] | None, typer.Argument(help="Images or recordings of one class, see --class.")] = None,
    name: Annotated[str | None, typer.Option("--class", help="The class of FILES, a known or a new one.")] = None,
    table: Table = None,
    texts: Texts = None,
    label: Label = None,
    text: Text = None,
    header: Header = None,
    repeats: Annotated[bool, typer.Option("--repeats", help="Take rows of a CSV file that are known already.")] = False,
    file: Out = None,
    json: Json = False,
    threads: Threads = 0,
) -> None:
    """Teach a model further examples, of known or of new classes; nothing that it knows is touched."""
    use_threads(threads)
    require_file_path(file or model, "--out" if file else "MODEL")
    known = _classifier(model)
    with notes():
        if table is None and texts is None:
            given = examples_of_class(files or [], name, known.reader_)
        elif files or name:
            raise ValueError("FILES with --class and a CSV file were given; required is one of both: leave one out")
        else:
            given = labelled_examples({"--table": table, "--texts": texts}, Columns(label, text, header))
        _require_kind(given.kind, known.reader_.kind, str(model))
        if not repeats or given.kind not in IN_CSV:
            _refuse_known(known, given)
        known.partial_fit(given.x, _like(given.y, known))
    for text in given.notes:
        note(text)
    known.save(file or model)
    _show(known, file or model, f"learnt {len(given.y)} more from {given.origin}", json)


def forget(
    model: ModelFile,
    label: Annotated[str, typer.Argument(help="The class to forget, with all its examples.")],
    file: Out = None,
    json: Json = False,
) -> None:
    """Take a class out of a model."""
    require_file_path(file or model, "--out" if file else "MODEL")
    known = _classifier(model)
    known.forget(_like([label], known)[0])
    known.save(file or model)
    _show(known, file or model, f"without {label}", json)


def _fitted(
    given: Given, learner: str, encoder: str | None, false_alarms: float
) -> "FewShotClassifier | FewShotRegressor":
    from quickstudy.estimators import FewShotClassifier, FewShotRegressor
    from quickstudy.packing import open_packed
    from quickstudy.readers import TextReader

    if not 0 < false_alarms < 1:
        raise ValueError(f"--false-alarms {false_alarms:g}; required is a share between 0 and 1, such as 0.05")
    if encoder is not None and given.kind != "texts":
        raise ValueError("--encoder is for texts: give --texts FILE.csv, or leave it out")
    _require_kind(given.kind, open_packed(learner).reader.kind, f"learner {learner}")
    reader = None if encoder is None else TextReader(encoder)
    if given.numbers:
        return FewShotRegressor(learner, reader=reader).fit(given.x, given.y)
    return FewShotClassifier(learner, reader=reader, false_alarms=false_alarms).fit(given.x, given.y)


def _classifier(path: Path) -> "FewShotClassifier":
    from quickstudy.estimators import FewShotClassifier

    return FewShotClassifier.load(path)


def _require_kind(given: str, read: str, who: str) -> None:
    if given != read:
        other = f"learner such as {DEFAULTS[given]}" if who.startswith("learner") else "model"
        raise ValueError(f"{given} were given, and {who} reads {read}: give it {read}, or choose another {other}")


def _refuse_known(model: "FewShotClassifier", given: Given) -> None:
    known = model.support_.x.flatten(1)
    for place, x in zip(given.places, model.reader_.read(given.x).to(known).flatten(1), strict=True):
        same = (known == x).all(1).nonzero().flatten().tolist()
        if same:
            which = f"row {place['row']} of {place['file']}" if "row" in place else place["file"]
            other = "take such rows once more with --repeats" if "row" in place else "forget that class first"
            label = model._learnt.labels[same[0]]
            raise ValueError(
                f"{which} is in the model already, as {label!r}; required are further examples: leave it out, or "
                f"{other}"
            )


def _like(labels: list[Any], model: "FewShotClassifier") -> list[Any]:
    """Labels from the command line as the model knows them: 3 and not "3" where its classes are numbers."""
    known = {str(label): label for label in model.classes_.tolist()}
    return [known.get(str(label), label) for label in labels]


def _show(model: "FewShotClassifier | FewShotRegressor", path: Path, title: str, json: bool) -> None:
    facts = facts_of(model, path)
    for text in warnings_of(facts):
        note(text)
    if json:
        print_json(facts)
        return
    if "classes" in facts:
        say(title)
        table = plain_table("")
        table.add_column("class", overflow="fold")
        table.add_column("examples", justify="right")
        for row in facts["classes"]:
            table.add_row(RichText(str(row["name"])), str(row["examples"]))
        out.print(table)
        for line in in_words(facts):
            say(line)
    else:
        say(f"{title}: {facts['examples']} examples")
    say(f"model: {path}")


def note(text: str) -> None:
    """One line on standard error, however long."""
    err.print(f"note: {text}", highlight=False, markup=False, soft_wrap=True)


def say(text: str) -> None:
    """One line on standard output, however long."""
    out.print(text, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def notes() -> Iterator[None]:
    """Warnings that are meant for the person, one line each on standard error."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for text, times in Counter(str(warning.message) for warning in caught).items():
        note(text + f" ({times} times)" * (times > 1))
