"""`train`, `evaluate` and `compare` on a person's own folder."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from quickstudy.cli import app
from quickstudy.runs import RunFolder
from tests.data.small_fsdd import tone, wav

FEW = ["--way", 2, "--queries", 1, "--steps", 2, "--width", 8, "--validation-episodes", 2, "--threads", 1]
JUDGED = ["--queries", 1, "--way", 2, "--episodes", 3, "--threads", 1, "--json"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path_factory.mktemp("cache")))


def call(*arguments: object):
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=True)


def photos(root: Path, classes: int = 10) -> Path:
    """Coloured noise, two photos of each class in one of five groups."""
    for i in range(classes):
        folder = root / f"G{i % 5}" / f"c{i}"
        folder.mkdir(parents=True)
        for j in range(2):
            noise = np.random.default_rng(100 * i + j).integers(0, 255, (40, 30, 3), dtype=np.uint8)
            Image.fromarray(noise).save(folder / f"{j}.png")
    return root


def test_train_and_evaluate_on_a_folder_of_photos(tmp_path, monkeypatch):
    photos(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    form = ["--image-size", 20, "--channels", 3]
    done = call(
        "train",
        "--out",
        "run",
        "--tasks",
        "folder",
        "--root",
        "photos",
        "--split",
        "groups",
        *form,
        *FEW,
        "--no-report",
    )
    assert done.exit_code == 0, done.output + str(done.exception)
    settings = RunFolder(tmp_path / "run").settings()
    assert (settings.root, settings.split) == (str(tmp_path / "photos"), "groups")
    assert (settings.image_size, settings.channels, settings.kind) == (20, 3, "images")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    done = call("evaluate", tmp_path / "run", *JUDGED)
    assert done.exit_code == 0, done.output + str(done.exception)
    assert {name: json.loads(done.stdout)[name] for name in ("way", "shot", "episodes")} == {
        "way": 2,
        "shot": 1,
        "episodes": 3,
    }
    every = call("evaluate", tmp_path / "run", "--part", "all", *JUDGED[:2], "--way", 10, *JUDGED[4:])
    assert json.loads(every.stdout)["way"] == 10
    given = ["--tasks", "folder", "--root", tmp_path / "photos"]
    done = call("compare", "nearest_neighbour", tmp_path / "run", *given, *JUDGED)
    assert done.exit_code == 0, done.output + str(done.exception)
    plain = call("evaluate", "nearest_neighbour", *given, *form, *JUDGED)
    assert plain.exit_code == 0, plain.output + str(plain.exception)


def test_a_folder_of_sounds(tmp_path):
    pytest.importorskip("soundfile")
    for digit in range(10):
        (tmp_path / "words" / str(digit)).mkdir(parents=True)
        for take in range(2):
            content = wav(tone(digit, "theo", take))
            (tmp_path / "words" / str(digit) / f"{take}.wav").write_bytes(content)
    done = call(
        "train", "--out", tmp_path / "run", "--tasks", "folder", "--root", tmp_path / "words", *FEW, "--no-report"
    )
    assert done.exit_code == 0, done.output + str(done.exception)
    assert RunFolder(tmp_path / "run").settings().kind == "sounds"
    done = call("train", "--out", tmp_path / "run", "--resume", "--threads", 1, "--no-report")
    assert done.exit_code == 0, done.output + str(done.exception)
    config = RunFolder(tmp_path / "run").config
    config.write_text(config.read_text().replace('"kind": "sounds"', '"kind": ""'))  # a run of an earlier version
    done = call("train", "--out", tmp_path / "run", "--resume", "--threads", 1, "--no-report")
    assert done.exit_code == 0, done.output + str(done.exception)
    done = call("evaluate", tmp_path / "run", *JUDGED)
    assert done.exit_code == 0, done.output + str(done.exception)


@pytest.mark.parametrize(("arguments", "words"), [
    (["--tasks", "folder"], r"tasks folder needs its root.*--root DIR"),
    (["--tasks", "folder", "--root", "none"], "none is not a folder"),
    (["--tasks", "folder", "--root", "photos"], "the 10 classes give 6 to train.*at least 5 each"),
    (["--tasks", "folder", "--root", "photos", "--way", 2], r"has 2 examples; required are shot \+ queries = 1 \+ 15"),
    (["--tasks", "folder", "--root", "photos", "--split", "drawers"], "split 'drawers' of a folder is not known"),
    (["--tasks", "glyphs", "--image-size", 64], "image_size=64 and channels=1 were given, and glyphs has"),
    (["--tasks", "folder", "--root", "photos", "--channels", 2], "1 channel .grey. or 3"),
])  # fmt: skip
def test_what_a_person_can_put_right(arguments, words, tmp_path, monkeypatch):
    photos(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    for done in (
        call("train", "--out", "run", *arguments, "--no-report", "--threads", 1),
        call("evaluate", "nearest_neighbour", *arguments, "--threads", 1),
    ):
        assert done.exit_code == 1
        with pytest.raises(ValueError, match=words):
            raise done.exception or AssertionError


def test_the_form_of_images_does_not_go_with_trials():
    done = call("evaluate", "nearest_neighbour", "--trials", ".", "--image-size", 64)
    assert "--image-size and --trials were given" in str(done.exception)
