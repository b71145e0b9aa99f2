"""adapt, add, forget, predict and export through the command: what they print, and what they say to bad input."""

import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from typer.testing import CliRunner

import quickstudy as q
from quickstudy.cli import app
from quickstudy.data.root import MissingData
from quickstudy.estimators.model_file import KEY
from quickstudy.learners import NearestNeighbour
from quickstudy.model_facts import in_words, warnings_of
from quickstudy.packing import Packed, pack
from quickstudy.readers import ArrayReader, ImageReader
from quickstudy.saving import SavedFileError, read_tensors, write_tensors


def call(*arguments: object):
    """The command within this process; what it raised is what the entry point turns into one line."""
    return CliRunner().invoke(app, [str(a) for a in arguments])


def printed(*arguments: object):
    """The one line of JSON on standard output."""
    done = call(*arguments, "--json")
    assert done.exit_code == 0, done.output
    assert done.stdout.count("\n") == 1
    return json.loads(done.stdout)


def refused(message: str, *arguments: object) -> None:
    """The command fails with a ValueError that a person can act on, and prints nothing on standard output."""
    done = call(*arguments)
    assert done.exit_code == 1
    assert done.stdout == ""
    assert isinstance(done.exception, ValueError), done.exception
    with pytest.raises(ValueError, match=message):
        raise done.exception


def drawing(path: Path, kind: str, i: int) -> Path:
    """A cross, a ring or a bar of ink on white, a little different for each ``i``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("L", (60, 60), "white")
    pen = ImageDraw.Draw(image)
    if kind == "cross":
        pen.line((10 + i, 10, 50, 50 - i), fill=0, width=4)
        pen.line((50, 10 + i, 10, 50), fill=0, width=4)
    elif kind == "ring":
        pen.ellipse((10, 10 + i, 50 - i, 50), outline=0, width=4)
    else:
        pen.line((28 + i, 8, 28, 52 - i), fill=0, width=4)
    image.save(path)
    return path


def table(path: Path, rows: int = 24, header: str = "width,colour,kind", **changes: str) -> Path:
    """A CSV file: numbers with a gap, categories, two classes."""
    lines = [header]
    for i in range(rows):
        kind = "oak" if i % 2 else "elm"
        width = "" if i == 4 else f"{(5 if kind == 'oak' else 1) + 0.1 * (i % 7):.1f}"
        lines.append(f"{changes.get('width', width)},{'red' if i % 3 else 'blue'},{changes.get('kind', kind)}")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A learner of drawings that needs no network."""
    path = tmp_path_factory.mktemp("learner") / "small.safetensors"
    pack(Packed(NearestNeighbour(), ImageReader(size=12), card={"name": "small"}), path)
    return path


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    """Ten drawings each of a cross and a ring."""
    root = tmp_path_factory.mktemp("shapes")
    for i in range(10):
        for kind in ("cross", "ring"):
            drawing(root / kind / f"{i}.png", kind, i)
    return root


@pytest.fixture(scope="module")
def known(small, shapes, tmp_path_factory) -> Path:
    """A model of these drawings."""
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    assert call("adapt", "--learner", small, "--support", shapes, "--out", path).exit_code == 0
    return path


@pytest.fixture
def model(known, tmp_path) -> Path:
    """A copy of it that may be changed."""
    return Path(shutil.copy(known, tmp_path / "model.safetensors"))


def test_from_a_folder_to_answers(tmp_path):
    for i in range(2):
        for kind in ("cross", "ring", "bar"):
            drawing(tmp_path / "support" / kind / f"{i}.png", kind, i)
    path = tmp_path / "model.safetensors"
    facts = printed("adapt", "--learner", "characters", "--support", tmp_path / "support", "--out", path)
    assert facts["model"] == str(path)
    assert facts["classes"] == [{"name": name, "examples": 2} for name in ("bar", "cross", "ring")]
    queries = [drawing(tmp_path / f"{kind}.png", kind, 4) for kind in ("ring", "bar", "cross")]
    found = printed("predict", path, *queries, "--top", 2)
    assert [row["label"] for row in found] == ["ring", "bar", "cross"]
    assert [row["file"] for row in found] == list(map(str, queries))
    assert all(len(row["ranking"]) == 2 and row["probability"] == row["ranking"][0]["probability"] for row in found)
    assert "unknown" not in found[0]


def test_what_a_person_sees(small, shapes, tmp_path):
    path = tmp_path / "model.safetensors"
    done = call("adapt", "--learner", small, "--support", shapes, "--out", path)
    assert "cross" in done.stdout
    assert f"model: {path}" in done.stdout
    assert "calibrated on cross-validation on the support set, 20 examples: expected calibration error" in done.stdout
    assert "nothing is learnt of unknown ones" in done.stdout
    assert "on your own examples, each left out in turn: 100 % right" in done.stdout
    bars = [drawing(tmp_path / f"bar{i}.png", "bar", i) for i in range(3)]
    done = call("add", path, *bars, "--class", "bar")
    assert "AUROC of unknown classes" in done.stdout
    done = call("predict", path, shapes / "ring" / "0.png", "--unknown", "--coverage", 0.9)
    assert "%" in done.stdout
    assert "set" in done.stdout
    (tmp_path / "few" / "[red]").mkdir(parents=True)
    shutil.copy(shapes / "ring" / "0.png", tmp_path / "few" / "[red]")
    drawing(tmp_path / "few" / "bar" / "0.png", "bar", 0)
    done = call("adapt", "--learner", small, "--support", tmp_path / "few", "--out", path)  # an example of each class
    assert done.exit_code == 0
    assert "not calibrated" in done.stdout
    assert "[red]" in done.stdout  # a name, and no markup
    assert "[red]" in call("predict", path, shapes / "ring" / "0.png").stdout


def test_unknown_and_sets(model, tmp_path):
    far = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60), dtype=np.uint8)).save(far)
    near = drawing(tmp_path / "ring.png", "ring", 5)
    bars = [drawing(tmp_path / f"bar{i}.png", "bar", i) for i in range(4)]
    assert call("add", model, *bars, "--class", "bar").exit_code == 0
    rows = printed("predict", model, near, far, "--unknown", "--coverage", 0.9)
    assert [row["unknown"] for row in rows] == [False, True]
    assert [row["label"] for row in rows] == ["ring", None]
    assert rows[0]["unknown_score"] < rows[1]["unknown_score"]
    assert rows[0]["set"] == ["ring"]
    assert "unknown" in call("predict", model, far, "--unknown").stdout
    refused(r"--false-alarms 0.1 says nothing without --unknown", "predict", model, far, "--false-alarms", 0.1)
    assert printed("predict", model, near, "--unknown", "--false-alarms", 0.5)[0]["unknown"] in (True, False)


def test_further_examples_and_classes(model, tmp_path):
    bars = [drawing(tmp_path / f"bar{i}.png", "bar", i) for i in range(3)]
    facts = printed("add", model, *bars[:2], "--class", "bar")
    assert {"name": "bar", "examples": 2} in facts["classes"]
    assert printed("predict", model, bars[2])[0]["label"] == "bar"
    other = tmp_path / "other.safetensors"
    assert len(printed("forget", model, "ring", "--out", other)["classes"]) == 2
    assert len(printed("forget", model, "cross")["classes"]) == 2
    names = [row["label"] for row in printed("predict", other, bars[2])[0]["ranking"]]
    assert sorted(names) == ["bar", "cross"]


def test_tables(tmp_path):
    path = tmp_path / "model.safetensors"
    facts = printed("adapt", "--table", table(tmp_path / "trees.csv"), "--label", "kind", "--out", path)
    assert facts["learner"] == "tables"
    fresh = tmp_path / "fresh.csv"
    fresh.write_text("colour,width\nred,5.2\ngreen,\nblue,1.1\n")  # other order, a new colour, a gap
    rows = printed("predict", path, fresh)
    assert [row["row"] for row in rows] == [1, 2, 3]
    assert [rows[0]["label"], rows[2]["label"]] == ["oak", "elm"]
    assert " row 2 " in call("predict", path, fresh).stdout
    both = call("predict", path, fresh, shutil.copy(fresh, tmp_path / "b.csv")).stdout
    assert "b.csv, row 3" in " ".join(both.split())
    again = printed("predict", path, tmp_path / "trees.csv", "--label", "kind")  # which is passed over
    assert len(again) == 24
    more = ("add", path, "--table", table(tmp_path / "more.csv", kind="ash"), "--label", "kind")
    refused(r"row 1 of .*more\.csv is in the model already, as 'elm'.*leave it out, or .*--repeats", *more)
    assert printed(*more, "--repeats")["examples"] == 48
    assert printed("add", path, "--table", table(tmp_path / "w.csv", width="9"), "--label", "kind")["examples"] == 72


def test_columns_that_changed(tmp_path):
    path = tmp_path / "model.safetensors"
    trees = table(tmp_path / "trees.csv")
    assert call("adapt", "--table", trees, "--label", "kind", "--out", path).exit_code == 0
    refused(
        r"has the column 'kind', which the model does not know;.*--label kind, or remove it", "predict", path, trees
    )
    blank = tmp_path / "blank.csv"
    blank.write_text(trees.read_text().replace("oak", "").replace("elm", "NA"))
    assert len(printed("predict", path, blank, "--label", "kind")) == 24  # labels that are passed over are not read
    refused("width", "predict", path, table(tmp_path / "renamed.csv", header="length,colour,kind"), "--label", "kind")
    refused(r"no column 'species' for the labels", "predict", path, trees, "--label", "species")


def test_a_number_to_predict(tmp_path):
    rows = "\n".join(f"{i % 5},{i},{3 * i + i % 5}" for i in range(20))
    (tmp_path / "houses.csv").write_text(f"rooms,area,price\n{rows}\n")
    path = tmp_path / "model.safetensors"
    assert printed("adapt", "--table", tmp_path / "houses.csv", "--target", "price", "--out", path)["examples"] == 20
    (tmp_path / "new.csv").write_text("rooms,area\n2,7\n3,8\n")
    rows = printed("predict", path, tmp_path / "new.csv")
    assert math.isclose(rows[0]["prediction"], 23, abs_tol=1)
    assert "prediction" in call("predict", path, tmp_path / "new.csv").stdout
    refused("predicts numbers, which no class", "predict", path, tmp_path / "new.csv", "--unknown")
    refused(r"holds a FewShotRegressor; required is a FewShotClassifier", "forget", path, "x")
    (tmp_path / "houses.csv").write_text("rooms,price\n1,2\n2,many\n")
    refused(
        r"row 2 of .*'many' where a number.*--label in place of --target",
        *("adapt", "--table", tmp_path / "houses.csv", "--target", "price", "--out", path),
    )


def test_tables_without_a_header(tmp_path):
    path = tmp_path / "model.safetensors"
    (tmp_path / "plain.csv").write_text("".join(f"{i},{i % 2},{'xy'[i % 2]}\n" for i in range(10)))
    facts = printed("adapt", "--table", tmp_path / "plain.csv", "--label", "2", "--out", path)
    assert facts["examples"] == 10
    refused(r"has 3 columns, which the model knows 2 of.*--label PLACE", "predict", path, tmp_path / "plain.csv")
    assert len(printed("predict", path, tmp_path / "plain.csv", "--label", "-1")) == 10


def test_what_was_guessed_of_a_file_is_said(tmp_path):
    path = tmp_path / "model.safetensors"
    said = tmp_path / "said.csv"
    said.write_text(",said,intent\n" + "".join(f"{i},turn it {('on', 'off')[i % 2]} {i},{i % 2}\n" for i in range(9)))
    done = call("adapt", "--texts", said, "--label", "2", "--text", "said", "--out", path)
    assert isinstance(done.exception, ValueError)  # places are counted without the index
    done = call("adapt", "--texts", said, "--label", "intent", "--out", path)
    assert done.exit_code == 0, done.output
    assert "numbers the rows, as the index of a DataFrame" in done.stderr
    assert "taken for the names" not in done.stderr  # --label named one of them
    plain = tmp_path / "plain.csv"
    plain.write_text("turn it on please\nturn it off please\n")
    assert len(printed("predict", path, plain)) == 2
    named = tmp_path / "named.csv"
    named.write_text("sentence\nturn it on please\n")
    done = call("predict", path, named)
    assert "note: the first row of" in done.stderr
    assert "--no-header if it is one" in done.stderr
    assert len(json.loads(call("predict", path, named, "--no-header", "--json").stdout)) == 2
    assert "taken for" not in call("predict", path, named, "--header").stderr


def test_a_decimal_comma_in_labels_and_in_numbers_to_learn(tmp_path):
    path = tmp_path / "model.safetensors"
    sizes = tmp_path / "sizes.csv"
    sizes.write_text("width;size\n" + "".join(f"{i},5;{1 + i // 5},5\n" for i in range(10)))
    facts = printed("adapt", "--table", sizes, "--label", "size", "--out", path)
    assert [row["name"] for row in facts["classes"]] == ["1,5", "2,5"]
    assert printed("adapt", "--table", sizes, "--target", "size", "--out", path)["examples"] == 10
    (tmp_path / "new.csv").write_text("width\n9.5\n")
    assert 2 < printed("predict", path, tmp_path / "new.csv")[0]["prediction"] < 3


def test_the_calibration_of_a_learner_is_told_from_what_own_examples_say(tmp_path):
    path = tmp_path / "model.safetensors"
    for i in range(6):
        for kind in ("cross", "ring"):
            drawing(tmp_path / "support" / kind / f"{i}.png", kind, i)
    facts = printed("adapt", "--learner", "characters", "--support", tmp_path / "support", "--out", path)
    assert facts["trust"]["measured_on"] == "other tasks"
    assert facts["own_examples"]["examples"] == 12
    assert facts["own_examples"]["accuracy"] > 0.9
    said = "\n".join(in_words(facts))
    assert "expected calibration error there" in said
    assert "on your own examples, each left out in turn: " in said
    assert " % right" in said


def test_examples_that_cannot_be_told_apart_are_warned_of(small, tmp_path):
    noise = np.random.default_rng(0)
    for i in range(12):
        folder = tmp_path / "support" / "abc"[i % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (12, 12), dtype=np.uint8)).save(folder / f"{i}.png")
    done = call("adapt", "--learner", small, "--support", tmp_path / "support", "--out", tmp_path / "m.safetensors")
    assert done.exit_code == 0, done.output
    assert re.search(r"note: \d+ % of your own examples, each left out in turn, were answered rightly", done.stderr)
    assert "unknown classes are told from 8 % of false alarms on: predict --unknown --false-alarms 0.08" in done.stdout
    assert "5 % takes 19 examples" in done.stdout
    facts = {"own_examples": {"examples": 9, "accuracy": 1.0, "expected_calibration_error": 0.2}}
    assert [text.split(":")[0] for text in warnings_of(facts)] == [
        "on your own examples probabilities are off by 20 points on average"
    ]


def test_files_that_are_folders(model, small, shapes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(r"--out \. is a folder; .*such as NAME", "adapt", "--learner", small, "--support", shapes, "--out", ".")
    refused(r"--out .* is a folder", "forget", model, "ring", "--out", tmp_path)
    refused(r"MODEL .* is a folder", "add", tmp_path, shapes / "ring" / "0.png", "--class", "x")
    refused(r"--onnx .* is a folder", "export", model, "--onnx", tmp_path)


def test_texts(tmp_path):
    lines = [
        f"turn the {what} {i},{name}" for i in range(5) for what, name in (("light on", "lamp"), ("music up", "hifi"))
    ]
    (tmp_path / "said.csv").write_text("sentence,intent\n" + "\n".join(lines) + "\n")
    path = tmp_path / "model.safetensors"
    facts = printed("adapt", "--texts", tmp_path / "said.csv", "--label", "intent", "--out", path)
    assert facts["learner"] == "texts"
    (tmp_path / "new.csv").write_text("sentence\nmusic please\nlight please\n")
    assert [row["label"] for row in printed("predict", path, tmp_path / "new.csv")] == ["hifi", "lamp"]
    (tmp_path / "two.csv").write_text("who,sentence\nme,music\nyou,light\n")
    assert len(printed("predict", path, tmp_path / "two.csv", "--text", "sentence")) == 2
    refused(r"no column of .*two.csv.*'who', 'sentence'.*--text COLUMN", "predict", path, tmp_path / "two.csv")
    refused(r"the column 'x' of", "predict", path, tmp_path / "two.csv", "--text", "x")
    (tmp_path / "gap.csv").write_text("who,text\nme,music\nyou,\n")
    refused(r"row 2 of .*gap.csv has no text", "predict", path, tmp_path / "gap.csv")
    (tmp_path / "long.csv").write_text(f"text,who\n{'word ' * 5000},me\nshort one,me\n")
    refused("25,000|24,999", "predict", path, tmp_path / "long.csv")
    (tmp_path / "megabyte.csv").write_text(f"text,who\n{'x' * 1_000_000},me\nshort one,me\n")
    refused(r"line 2 of .*megabyte.csv.*shorten", "predict", path, tmp_path / "megabyte.csv")
    refused(
        "is no folder on this machine",
        *("adapt", "--texts", tmp_path / "said.csv", "--label", "intent", "--encoder", "none", "--out", path),
    )


def test_sounds(tmp_path):
    soundfile = pytest.importorskip("soundfile", reason="the extra audio is not installed")
    seconds = np.arange(4000) / 8000
    for i in range(3):
        for name, pitch in (("low", 300), ("high", 1800)):
            (tmp_path / "words" / name).mkdir(parents=True, exist_ok=True)
            wave = 0.5 * np.sin(2 * np.pi * (pitch + 30 * i) * seconds)
            soundfile.write(tmp_path / "words" / name / f"{i}.wav", wave, 8000)
    path = tmp_path / "model.safetensors"
    assert printed("adapt", "--sounds", tmp_path / "words", "--out", path)["learner"] == "sounds"
    soundfile.write(tmp_path / "new.wav", 0.5 * np.sin(2 * np.pi * 1750 * seconds), 8000)
    assert printed("predict", path, tmp_path / "new.wav")[0]["label"] == "high"
    (tmp_path / "empty.wav").write_bytes(b"")
    refused("empty.wav", "predict", path, tmp_path / "empty.wav")
    (tmp_path / "words" / "low" / "9.wav").write_bytes(b"")
    refused(r"9.wav is empty \(0 bytes\)", "adapt", "--sounds", tmp_path / "words", "--out", path)


def test_export(model, tmp_path):
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    facts = printed("export", model, "--onnx", tmp_path / "model.onnx")
    assert facts["largest_difference"] <= 1e-4
    assert facts["outputs"][0] == "probabilities"
    refused("differs by up to", "export", model, "--onnx", tmp_path / "none.onnx", "--tolerance", -1)
    assert not (tmp_path / "none.onnx").exists()


def test_export_in_words(model, monkeypatch):
    from quickstudy.estimators import exporting

    done = exporting.Exported(Path("model.onnx"), 2.5e-6, 20, ("probabilities", "logits"))
    monkeypatch.setattr(exporting, "export_onnx", lambda *_, **__: done)
    said = call("export", model, "--onnx", "model.onnx").stdout.splitlines()
    assert said == [
        "model.onnx: probabilities, logits; ONNX operators of version 20",
        "largest difference to the model's own answers: 2.5e-06",
    ]


def test_folders_that_cannot_be_learnt_from(small, shapes, tmp_path):
    adapt = ("adapt", "--learner", small, "--out", tmp_path / "model.safetensors", "--support")
    done = call(*adapt, tmp_path / "nowhere")
    assert isinstance(done.exception, MissingData)
    (tmp_path / "empty").mkdir()
    refused("empty is empty", *adapt, tmp_path / "empty")
    shutil.copytree(shapes / "ring", tmp_path / "one" / "ring")
    refused("single class 'ring'.*add a folder for another class", *adapt, tmp_path / "one")
    shutil.copytree(shapes, tmp_path / "twice")
    shutil.copy(tmp_path / "twice" / "ring" / "0.png", tmp_path / "twice" / "cross" / "99.png")
    refused("have the same content, and are of two classes", *adapt, tmp_path / "twice")
    shutil.copytree(shapes, tmp_path / "cut")
    whole = (shapes / "ring" / "0.png").read_bytes()
    (tmp_path / "cut" / "ring" / "0.png").write_bytes(whole[: len(whole) // 2])
    refused(r"ring/0.png cannot be read as an image.*replace it or leave it out", *adapt, tmp_path / "cut")
    assert not (tmp_path / "model.safetensors").exists()


def test_the_same_file_twice_in_a_class_counts_once(small, shapes, tmp_path):
    shutil.copytree(shapes, tmp_path / "again")
    shutil.copy(tmp_path / "again" / "ring" / "0.png", tmp_path / "again" / "ring" / "copy.png")
    path = tmp_path / "model.safetensors"
    done = call("adapt", "--learner", small, "--support", tmp_path / "again", "--out", path, "--json")
    assert json.loads(done.stdout)["examples"] == 20
    assert done.stderr.startswith("note: 1 of 21 files")
    assert "copy.png" in done.stderr


def test_sources_and_learners_that_do_not_fit(small, shapes, tmp_path):
    trees = table(tmp_path / "trees.csv")
    to = ("--out", tmp_path / "model.safetensors")
    refused("no examples were given; required is one of --support, --table", "adapt", *to)
    refused("--support and --table were given", "adapt", "--support", shapes, "--table", trees, *to)
    refused("--label and --support, a folder that names", "adapt", "--support", shapes, "--label", "kind", *to)
    refused("--table needs the column that is to be learnt", "adapt", "--table", trees, *to)
    refused("give one of both", "adapt", "--table", trees, "--label", "kind", "--target", "width", *to)
    refused("no column 'species'", "adapt", "--table", trees, "--label", "species", *to)
    refused("a table is read with all its columns", "adapt", "--table", trees, "--label", "kind", "--text", "kind", *to)
    refused(
        "tables were given, and learner .*small.* reads images",
        "adapt",
        "--learner",
        small,
        "--table",
        trees,
        "--label",
        "kind",
        *to,
    )
    refused(
        "images were given, and learner tables reads tables", "adapt", "--learner", "tables", "--support", shapes, *to
    )
    refused("'none'; required is a Learner", "adapt", "--learner", "none", "--support", shapes, *to)
    refused("--encoder is for texts", "adapt", "--support", shapes, "--encoder", "hashing", *to)
    refused("--false-alarms 2; required is a share", "adapt", "--support", shapes, "--false-alarms", 2, *to)
    refused("does not exist", "adapt", "--table", tmp_path / "none.csv", "--label", "kind", *to)
    one = tmp_path / "one.csv"
    refused("all of one class, 'oak'", "adapt", "--table", table(one, kind="oak"), "--label", "kind", *to)


def test_examples_that_cannot_be_answered(model, small, shapes, tmp_path):
    refused("is a folder; required are files", "predict", model, shapes)
    refused("does not exist; required is a file", "predict", model, tmp_path / "none.png")
    refused("trees.csv cannot be read as an image", "predict", model, table(tmp_path / "trees.csv"))
    refused("--label and a model that reads images", "predict", model, shapes / "ring" / "0.png", "--label", "x")
    refused("--top 0; required is at least 1", "predict", model, shapes / "ring" / "0.png", "--top", 0)
    whole = (shapes / "ring" / "0.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:60])
    refused("cut.png cannot be read as an image", "predict", model, shapes / "ring" / "0.png", tmp_path / "cut.png")
    refused("coverage=1", "predict", model, shapes / "ring" / "0.png", "--coverage", 1.0)
    trees = tmp_path / "trees.safetensors"
    assert call("adapt", "--table", table(tmp_path / "trees.csv"), "--label", "kind", "--out", trees).exit_code == 0
    refused("ring/0.png is no text in UTF-8", "predict", trees, shapes / "ring" / "0.png")
    few = tmp_path / "few.safetensors"
    for kind in ("bar", "ring"):
        drawing(tmp_path / "few" / kind / "0.png", kind, 0)
    assert call("adapt", "--learner", small, "--support", tmp_path / "few", "--out", few).exit_code == 0
    refused("nothing to calibrate on to tell unknown classes", "predict", few, shapes / "ring" / "0.png", "--unknown")
    refused("nothing to calibrate on to form sets", "predict", few, shapes / "ring" / "0.png", "--coverage", 0.9)


def test_what_cannot_be_added_or_forgotten(model, shapes, tmp_path):
    before = model.read_bytes()
    bar = drawing(tmp_path / "bar.png", "bar", 0)
    shutil.copy(bar, tmp_path / "copy.png")
    refused("label 'square' is not known; required is one of 'cross', 'ring'", "forget", model, "square")
    refused("only 'ring' would be left; required are two classes", "forget", model, "cross")
    refused("required are FILES and their class", "add", model, bar)
    refused("required are FILES and their class", "add", model, "--class", "bar")
    refused("copy.png has the same content as .*bar.png", "add", model, bar, tmp_path / "copy.png", "--class", "bar")
    refused("is in the model already, as 'ring'", "add", model, shapes / "ring" / "0.png", "--class", "bar")
    trees = table(tmp_path / "trees.csv")
    refused("leave one out", "add", model, bar, "--class", "bar", "--table", trees)
    refused("tables were given, and .* reads images", "add", model, "--table", trees, "--label", "kind")
    assert model.read_bytes() == before
    path = tmp_path / "trees.safetensors"
    assert call("adapt", "--table", trees, "--label", "kind", "--out", path).exit_code == 0
    refused("give --table FILE.csv --label COLUMN", "add", path, bar, "--class", "bar")


def test_numbers_as_class_names_stay_numbers(tmp_path):
    x = np.random.default_rng(0).normal(size=(6, 3, 1, 1)).astype(np.float32)
    images = np.clip(np.broadcast_to(abs(x[:, :1]) / 2, (6, 1, 12, 12)), 0, 0.5)
    path = tmp_path / "model.safetensors"
    q.FewShotClassifier(NearestNeighbour(), reader=ImageReader(size=12)).fit(images, [1, 2, 3] * 2).save(path)
    assert [row["name"] for row in printed("forget", path, 3)["classes"]] == [1, 2]
    bar = drawing(tmp_path / "bar.png", "bar", 0)
    assert [row["name"] for row in printed("add", path, bar, "--class", 2)["classes"]] == [1, 2]


def test_model_files_that_are_cut_edited_newer_or_foreign(model, small, shapes, tmp_path):
    ring, whole = shapes / "ring" / "0.png", model.read_bytes()
    for content, message in (
        (whole[: len(whole) // 2], "is cut or is no safetensors file: use a whole copy"),
        (whole[:-1] + bytes([whole[-1] ^ 1]), "was altered after it was written"),
        (b"", "is cut or is no safetensors file"),
    ):
        model.write_bytes(content)
        for command in (("predict", model, ring), ("forget", model, "ring"), ("export", model, "--onnx", "x.onnx")):
            refused(message, *command)
    model.write_bytes(whole)
    header, tensors = read_tensors(model, KEY)
    write_tensors(model, tensors, KEY, {**header, "format": 2})
    refused("has format 2, and this version of quickstudy reads format 1", "predict", model, ring)
    refused("is a learner: hand it to quickstudy.load", "predict", small, ring)
    refused("cannot be read", "predict", tmp_path / "none.safetensors", ring)
    assert issubclass(SavedFileError, ValueError)


def test_a_model_of_arrays_is_for_python(tmp_path):
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)).numpy()
    q.FewShotClassifier(NearestNeighbour(), reader=ArrayReader()).fit(x, [0, 1] * 4).save(tmp_path / "m.safetensors")
    np.save(tmp_path / "x.npy", x)
    refused(
        "reads arrays of numbers.*use this one in Python", "predict", tmp_path / "m.safetensors", tmp_path / "x.npy"
    )


def test_an_error_is_one_line_and_status_1(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", "from quickstudy.cli import main; main()", "adapt", "--support", tmp_path, "--out", "m"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {tmp_path} is empty")
    assert done.stderr.count("\n") == 1
