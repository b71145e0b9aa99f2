"""pack: a run as one file with its reader, its calibration and a model card."""

import json

import pytest
from typer.testing import CliRunner

import quickstudy as q
from quickstudy.cli import app
from quickstudy.commands_pack import pack as pack_command
from quickstudy.data import glyphs
from quickstudy.packing import open_packed
from quickstudy.runs import RunFolder
from tests.small_glyphs import small_glyphs

FEW = [
    "--way",
    3,
    "--queries",
    3,
    "--steps",
    2,
    "--width",
    8,
    "--no-report",
    "--threads",
    1,
    "--validation-episodes",
    2,
]


pytestmark = pytest.mark.usefixtures("made_glyphs")


def call(*arguments: object):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run on glyphs, one without meta-validation, and one on sinusoids."""
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(glyphs, "load", small_glyphs)
        assert call("train", "--out", root / "glyphs", *FEW).exit_code == 0
        maml = ["--learner", "maml", "--tasks", "sinusoid", "--inner-lr", 0.01, "--shot", 5]
        assert call("train", "--out", root / "sinusoid", *maml, *FEW).exit_code == 0
    return root


def test_a_run_becomes_a_file_that_explains_itself(runs, tmp_path):
    file = tmp_path / "mine.safetensors"
    done = call("pack", runs / "glyphs", "--out", file, "--licence", "CC-BY-4.0", "--episodes", 4, "--json")
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert facts["licence"] == "CC-BY-4.0"
    assert facts["name"] == "mine"
    assert facts["seed"] == "0"
    assert facts["calibrated"]
    assert "on 4 meta-validation tasks (3-way 1-shot 3-query, seed 0)" in facts["accuracy"]
    packed = open_packed(file)
    assert packed.reader.kind == "images"
    assert packed.trust is not None
    assert {c.way for c in packed.trust.calibrations} <= {2, 5, 10, 20}
    assert packed.card["recipe"].startswith("learner protonet, tasks glyphs, ")
    assert "width 8" in packed.card["recipe"]
    assert isinstance(q.load(file), q.ProtoNet)  # an ordinary learner file
    page = (tmp_path / "mine.md").read_text()
    for part in ("# mine", "**Recipe**", "**Seed**: 0", "**Data**: glyphs", "**Accuracy**", "**Licence**: CC-BY-4.0"):
        assert part in page
    assert str(tmp_path) not in page


def test_the_same_run_gives_the_same_file(runs, tmp_path):
    for name in ("a", "b"):
        assert (
            call("pack", runs / "glyphs", "--out", tmp_path / f"{name}.pt", "--name", "x", "--episodes", 2).exit_code
            == 0
        )
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


def test_runs_that_leave_nothing_to_calibrate_on(runs, tmp_path):
    file = tmp_path / "sine.safetensors"
    done = call("pack", runs / "sinusoid", "--out", file, "--episodes", 2)
    assert done.exit_code == 0, done.output
    assert "no tasks of classes to calibrate on" in done.stderr
    assert "mean squared error on 2 meta-validation tasks" in done.stdout
    assert open_packed(file).trust is None
    config = RunFolder(tmp_path / "all")
    config.start(RunFolder(runs / "glyphs").settings(), overwrite=False, facts={})
    text = config.config.read_text().replace('"train_part": "train"', '"train_part": "trainval"')
    config.config.write_text(text)
    config.learner.write_bytes((runs / "glyphs" / "learner.safetensors").read_bytes())
    done = call("pack", config.path, "--out", file, "--json")
    assert "trained on trainval: no meta-validation tasks are left" in done.stderr
    assert json.loads(done.stdout)["accuracy"] == "not measured: no meta-validation tasks"
    assert not json.loads(done.stdout)["calibrated"]


def test_errors(runs, tmp_path):
    with pytest.raises(ValueError, match=r"holds no run \(there is no config.json\)"):
        pack_command(tmp_path, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=r"--out .*x.md would be both learner and model card"):
        pack_command(runs / "glyphs", tmp_path / "x.md")
    with pytest.raises(ValueError, match=r"--episodes 0; required is at least 1"):
        pack_command(runs / "glyphs", tmp_path / "x.safetensors", episodes=0)
    assert list(tmp_path.iterdir()) == []
