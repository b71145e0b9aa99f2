"""The command: what it prints, where, and with which exit status."""

import functools
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import quickstudy as q
from quickstudy.cli import app
from quickstudy.commands_judge import tasks_for
from quickstudy.data import glyphs, omniglot
from quickstudy.data.download import download_omniglot
from quickstudy.runs import RunFolder
from tests.data import small_omniglot
from tests.data.loopback import serving
from tests.small_glyphs import small_glyphs

SINUSOID = [
    "--tasks", "sinusoid", "--learner", "maml", "--width", "8", "--shot", "5", "--queries", "5", "--inner-lr", "0.01",
    "--validation-episodes", "5", "--no-report", "--threads", "1",
]  # fmt: skip
SCORE = {"ci95", "episodes", "way", "shot", "queries", "transductive", "seed"}
SMALL = ["--way", "3", "--queries", "3", "--episodes", "4", "--threads", "1"]


pytestmark = pytest.mark.usefixtures("made_glyphs")


def call(*arguments: object):
    """The command within this process; an error is raised, as the entry point would catch it."""
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=True)


def printed(*arguments: object) -> dict:
    """The one JSON object on standard output."""
    done = call(*arguments)
    assert done.exit_code == 0, done.output
    assert done.stdout.count("\n") == 1
    return json.loads(done.stdout)


def command(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own."""
    return subprocess.run(started(*arguments), capture_output=True, text=True, timeout=120, check=False, **options)


def started(*arguments: object) -> list[str]:
    return [sys.executable, "-c", "from quickstudy.cli import main; main()", *map(str, arguments)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A trained ProtoNet, a MAML with batch statistics and a sinusoid run, each in its folder."""
    root = tmp_path_factory.mktemp("runs")
    few = ["--way", 3, "--queries", 3, "--steps", 2, "--width", 8, "--no-report", "--threads", 1]
    few += ["--validation-episodes", 2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(glyphs, "load", small_glyphs)
        assert call("train", "--out", root / "protonet", *few).exit_code == 0
        maml = ["--learner", "maml", "--norm", "batch", "--pool", "stride"]
        assert call("train", "--out", root / "maml", *maml, *few).exit_code == 0
        assert call("train", "--out", root / "sinusoid", *SINUSOID, "--steps", 2).exit_code == 0
    return root


def test_train_leaves_a_run(runs):
    folder = RunFolder(runs / "protonet")
    assert folder.settings().way == 3
    assert folder.settings().backbone == "conv4"
    assert RunFolder(runs / "sinusoid").settings().backbone == "mlp"
    assert isinstance(q.load(folder.learner), q.ProtoNet)
    assert not folder.report.exists()


def test_train_says_where_the_learner_is(tmp_path):
    done = call("train", "--out", tmp_path / "run", *SINUSOID, "--steps", 2)
    assert done.stdout == ""
    assert "learner.safetensors" in done.stderr


def test_evaluate_prints_one_json_object_with_the_whole_protocol(runs):
    found = printed("evaluate", runs / "protonet", "--json", "--seed", 7, *SMALL)
    assert found.keys() >= SCORE | {"accuracy"}
    assert 0 <= found["accuracy"] <= 1
    wanted = {"episodes": 4, "way": 3, "shot": 1, "queries": 3, "transductive": False, "seed": 7}
    assert {name: found[name] for name in wanted} == wanted
    assert printed("evaluate", runs / "maml", "--json", *SMALL)["transductive"] is True


def test_evaluate_says_what_the_library_says(runs):
    found = printed("evaluate", runs / "protonet" / "learner.safetensors", "--tasks", "glyphs", "--json", *SMALL)
    tasks = q.named_tasks("glyphs", "test", way=3, queries=3)
    score = q.evaluate(
        q.load(runs / "protonet" / "learner.safetensors"), tasks, episodes=4, generator=torch.Generator().manual_seed(0)
    )
    assert (found["accuracy"], found["ci95"]) == (score.mean, score.ci95)


def test_evaluate_of_numbers_and_of_the_baseline(runs):
    found = printed("evaluate", runs / "sinusoid", "--json", "--episodes", 3, "--shot", 5)
    assert found["mean_squared_error"] >= 0
    assert found["shot"] == 5
    assert printed("evaluate", "nearest_neighbour", "--tasks", "glyphs", "--json", *SMALL)["accuracy"] > 0.5


def test_evaluate_prints_a_table_for_people(runs):
    done = call("evaluate", runs / "protonet", *SMALL)
    assert done.exit_code == 0
    assert "%" in done.stdout
    assert "inductive" in done.stdout


def test_one_episode_is_still_json(runs):
    assert printed("evaluate", runs / "protonet", "--json", *SMALL[:4], "--episodes", 1)["ci95"] is None


def test_compare_prints_scores_and_paired_differences(runs):
    names = [str(runs / "protonet"), str(runs / "maml"), "nearest_neighbour"]
    found = printed("compare", *names, "--json", *SMALL)
    assert list(found["scores"]) == names
    assert all(score.keys() >= SCORE | {"accuracy"} for score in found["scores"].values())
    a, b = found["scores"][names[0]]["accuracy"], found["scores"][names[2]]["accuracy"]
    difference = next(d for d in found["differences"] if (d["a"], d["b"]) == (names[0], names[2]))
    assert difference["mean"] == pytest.approx(a - b)
    alone = printed("evaluate", names[0], "--json", *SMALL)
    assert alone["accuracy"] == a
    assert call("compare", *names, *SMALL).exit_code == 0


def write_trials(root: Path) -> None:
    """A 2-way and a 3-way trial, the class k with 1 + k shots."""
    random = np.random.default_rng(0)
    for trial, way in (("run1", 2), ("run2", 3)):
        for k in range(way):
            pattern = random.integers(0, 2, (7, 7)).repeat(4, 0).repeat(4, 1)
            for part, shots in (("support", 1 + k), ("query", 2)):
                folder = root / trial / part / f"class{k}"
                folder.mkdir(parents=True)
                for i in range(shots):
                    Image.fromarray((pattern * 255).astype(np.uint8)).save(folder / f"{i}.png")


def test_evaluate_on_fixed_trials(runs, tmp_path):
    write_trials(tmp_path)
    found = printed("evaluate", "nearest_neighbour", "--trials", tmp_path, "--json")
    assert found["accuracy"] == 1.0
    assert (found["episodes"], found["way"], found["shot"], found["queries"]) == (2, [2, 3], [1, 3], 2)
    assert printed("evaluate", runs / "protonet", "--trials", tmp_path, "--json")["episodes"] == 2


def test_trials_are_read_in_the_size_of_the_learner(tmp_path):
    write_trials(tmp_path / "trials")
    q.save(q.ProtoNet(q.Conv4(width=8, image_size=40)), tmp_path / "large")
    assert printed("evaluate", tmp_path / "large", "--trials", tmp_path / "trials", "--json")["episodes"] == 2
    q.save(q.ProtoNet(q.Conv4(3, 8)), tmp_path / "colour")
    with pytest.raises(ValueError, match="images of 3 channels, and trials are read as grey"):
        raise call("evaluate", tmp_path / "colour", "--trials", tmp_path / "trials").exception  # pyright: ignore


def test_sinusoids_are_judged_as_they_were_trained_unless_told_otherwise(runs):
    run = str(runs / "sinusoid")
    found = printed("evaluate", run, "--json", "--episodes", 3)
    assert (found["shot"], found["queries"]) == (5, 5)
    found = printed("evaluate", run, "--json", "--episodes", 3, "--queries", 7)
    assert (found["shot"], found["queries"]) == (5, 7)
    found = printed("compare", run, Path(run) / "learner.safetensors", "--json", "--episodes", 3, "--shot", 2)
    assert {(score["shot"], score["queries"]) for score in found["scores"].values()} == {(2, 5)}
    alone = printed("evaluate", Path(run) / "learner.safetensors", "--tasks", "sinusoid", "--json", "--episodes", 3)
    assert (alone["shot"], alone["queries"]) == (10, 10)


def test_class_tasks_are_5_way_1_shot_with_15_queries_unless_told_otherwise(runs, monkeypatch):
    monkeypatch.setattr(glyphs, "load", functools.partial(small_glyphs, examples=16))
    found = printed("evaluate", runs / "protonet", "--json", "--episodes", 2)
    assert (found["way"], found["shot"], found["queries"]) == (5, 1, 15)  # the run was trained 3-way with 3 queries
    text = call("evaluate", "--help").stdout
    assert all(f"by default {number}" in " ".join(text.replace("│", " ").split()) for number in (5, 1, 15, 1000))


@pytest.fixture
def small(tmp_path, monkeypatch) -> Path:
    """A made Omniglot in the data folder."""
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("QUICKSTUDY_DATA", str(tmp_path))
    monkeypatch.setattr(omniglot, "BACKGROUND", small_omniglot.BACKGROUND)
    monkeypatch.setattr(omniglot, "EVALUATION", small_omniglot.EVALUATION)
    monkeypatch.setattr(omniglot, "VALIDATION", ("Hebrew",))
    small_omniglot.write(tmp_path / "omniglot")
    return tmp_path / "omniglot"


def test_omniglot_without_the_lists_shows_the_splits_that_are_there(small):
    found = printed("data", "omniglot", "--json")["parts"]
    assert [part["split"] for part in found] == ["vinyals"] * 3 + ["official"] * 3
    shutil.rmtree(small / "vinyals")
    done = call("data", "omniglot", "--json")
    assert json.loads(done.stdout)["parts"] == found[3:]
    assert "the Vinyals list train.txt was not found" in done.stderr
    assert call("data", "omniglot").exit_code == 0
    (small / "images_background.zip").unlink()
    with pytest.raises(ValueError, match="images_background was not found"):
        raise call("data", "omniglot").exception  # pyright: ignore


def test_omniglot_is_downloaded_from_where_it_is_said_to_be(small, tmp_path, monkeypatch):
    names = ["images_background.zip", "images_evaluation.zip", *(f"vinyals/{name}" for name in small_omniglot.LISTS)]
    content = {name: (small / name).read_bytes() for name in names}
    accepted = {name: (hashlib.sha256(content[name]).hexdigest(),) for name in names}
    monkeypatch.setattr(
        "quickstudy.commands_data.download_omniglot", functools.partial(download_omniglot, checksums=accepted)
    )
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    expected = printed("data", "omniglot", "--json")
    with serving({f"/here/{name}": content[name] for name in names}) as server:
        urls = ("--url", f"{server.url}/here", "--lists-url", f"{server.url}/here/vinyals")
        assert printed("data", "omniglot", "--download", *urls, "--root", tmp_path / "new", "--json") == expected
        assert sorted(server.asked) == sorted(f"/here/{name}" for name in names)
    assert (tmp_path / "new" / "vinyals" / "val.txt").read_bytes() == content["vinyals/val.txt"]


def test_learners_and_data_are_listed():
    found = printed("learners", "--json")
    assert list(found) == list(q.LEARNERS)
    assert all(line.strip() for line in found.values())
    assert "protonet" in call("learners").stdout
    found = printed("data", "glyphs", "--json")
    assert found["data"] == "glyphs"
    assert {p["part"]: (p["classes"], p["groups"], p["examples"]) for p in found["parts"]} == {
        "train": (8, 2, 64),
        "validation": (8, 2, 64),
        "test": (8, 2, 64),
    }
    assert "64" in call("data", "glyphs").stdout


def test_version_and_help():
    assert call("--version").stdout.strip() == q.__version__
    for name in ("train", "evaluate", "compare", "report", "demo", "data", "learners"):
        assert call(name, "--help").exit_code == 0


def test_tasks_are_taken_from_the_run_unless_they_are_given(runs):
    shape = {"way": 3, "shot": 1, "queries": 2, "within_group": False}
    assert tasks_for([str(runs / "sinusoid")], None, None, None, None, "test", shape) == q.Sinusoid(1, 2)
    given = tasks_for([str(runs / "sinusoid")], "glyphs", None, None, None, "test", shape)
    assert isinstance(given, q.ClassTasks)
    assert given.way == (3, 3)


def test_resume_takes_the_settings_of_the_run_and_refuses_others(tmp_path):
    folder = tmp_path / "run"
    assert call("train", "--out", folder, *SINUSOID, "--steps", 2).exit_code == 0
    assert call("train", "--out", folder, "--resume", "--no-report", "--threads", 1).exit_code == 0
    refused = call("train", "--out", folder, "--resume", "--steps", 5, "--no-report")
    assert "steps=2 there, 5 now" in str(refused.exception)
    assert call("train", "--out", folder, *SINUSOID, "--steps", 3, "--overwrite").exit_code == 0
    assert RunFolder(folder).settings().steps == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evaluate", "nowhere", "--tasks", "glyphs"], "nowhere does not exist; required is a run folder"),
        (["evaluate", "protonet", "--tasks", "glyphs"], "train one first: quickstudy train --learner protonet"),
        (["evaluate", "nearest_neighbour"], "no tasks were given.*add --tasks omniglot"),
        (["evaluate", "nearest_neighbour", "--tasks", "glyphs", "--part", "exam"], "'exam'.*'validation'"),
        (["evaluate", "nearest_neighbour", "--tasks", "glyphs", "--split", "vinyals"], "'vinyals'.*choose 'scripts'"),
        (["evaluate", "nearest_neighbour", "--tasks", "glyphs", "--way", "99"], "8 classes for way=99"),
        (["evaluate", "nearest_neighbour", "--tasks", "glyphs", "--device", "fpu"], "device 'fpu' cannot be used"),
        (["evaluate", "nearest_neighbour", "--tasks", "glyphs", "--episodes", "0", *SMALL[:4]], "episodes=0"),
        (["evaluate", "nearest_neighbour", "--trials", "nowhere"], "nowhere is not a folder"),
        (["evaluate", "nearest_neighbour", "--tasks", "glyphs", "--threads", "-1"], "threads=-1"),
        (["evaluate", "x", "--trials", ".", "--way", "5"], "--way and --trials were given; .*: leave one out"),
        (["evaluate", "x", "--trials", ".", "--tasks", "glyphs"], "--tasks and --trials were given; .*: leave one out"),
        (["evaluate", "x", "--trials", ".", "--shot", "1", "--queries", "2"], "--shot, --queries and --trials were"),
        (["evaluate", "x", "--trials", ".", "--episodes", "9"], "--episodes and --trials were given"),
        (["evaluate", "nearest_neighbour", "--tasks", "sinusoid", "--part", "exam"], "part 'exam' of sinusoid"),
        (["compare", "x", "nearest_neighbour", "x", "--tasks", "glyphs"], "x was given more than once"),
        (["train", "--out", "run", "--width", "0"], "width=0; required is at least 1"),
        (["train", "--out", "run", "--width", "-4", "--tasks", "sinusoid"], "width=-4; required is at least 1"),
        (["data", "omniglot", "--url", "http://127.0.0.1:9"], "add --download"),
        (["data", "omniglot", "--download", "--url", "ftp://x", "--root", "new"], "'ftp://x' is not one"),
        (["data", "glyphs", "--download"], "leave --download out"),
        (["train", "--out", "run", "--tasks", "sinusoid"], "use maml"),
        (["train", "--out", "run", "--resume"], "holds no run"),
        (["report", "nowhere"], "nowhere"),
    ],
)
def test_what_a_person_can_put_right_is_a_value_error_that_says_how(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call(*arguments)
    assert isinstance(done.exception, (ValueError, OSError)), done.output
    with pytest.raises(type(done.exception), match=words):
        raise done.exception
    assert done.stdout == ""


def test_an_error_is_one_line_on_standard_error_and_exit_status_1(tmp_path):
    done = command("evaluate", tmp_path / "[b]owhere", "--tasks", "glyphs", "--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: {tmp_path}/[b]owhere does not exist; required is")


@pytest.mark.parametrize(
    "arguments", [["train"], ["train", "--out", "run", "--way", "five"], ["evaluate"], ["fly"], ["train", "--hat", "1"]]
)
def test_wrong_usage_is_exit_status_2(arguments):
    done = call(*arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert "Usage" in done.stderr


LONG = [*SINUSOID, "--steps", 400, "--validate-every", 100, "--strategy", "loop"]


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> RunFolder:
    """A run that nothing interrupted."""
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "straight")
    assert call("train", "--out", folder.path, *LONG).exit_code == 0
    return folder


@pytest.mark.skipif(os.name != "posix", reason="signals of another kind")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_exits_130_and_resumes_to_the_same_bits(number, straight, tmp_path):
    stopped = RunFolder(tmp_path / "stopped")
    process = subprocess.Popen(
        started("train", "--out", stopped.path, *LONG), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while len(stopped.records()) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    assert "--resume" in err
    assert 0 < stopped.records()[-1]["step"] < 400
    assert call("train", "--out", stopped.path, "--resume", "--no-report", "--threads", 1).exit_code == 0
    assert straight.learner.read_bytes() == stopped.learner.read_bytes()
    assert straight.records() == stopped.records()
