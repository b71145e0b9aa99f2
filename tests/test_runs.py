"""The folder of a run."""

import dataclasses
import json
import math

import pytest

import quickstudy as q
from quickstudy.runs import RunFolder, Settings


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    made = RunFolder(tmp_path / "run")
    made.start(Settings(seed=3, way=4), overwrite=False, facts={"versions": {"quickstudy": "x"}})
    return made


def test_settings_come_back_and_facts_stand_beside_them(folder):
    assert folder.settings() == Settings(seed=3, way=4)
    config = json.loads(folder.config.read_text())
    assert config["settings"] == dataclasses.asdict(Settings(seed=3, way=4))
    assert config["versions"] == {"quickstudy": "x"}


def test_a_folder_with_a_run_is_not_touched_unless_it_may_be_replaced(folder):
    folder.record(step=1, loss=0.5)
    before = folder.config.read_bytes()
    with pytest.raises(
        ValueError, match=r"already holds a run; go on with it \(--resume\), replace it \(--overwrite\)"
    ):
        folder.start(Settings(), overwrite=False, facts={})
    assert folder.config.read_bytes() == before
    (folder.path / "notes.txt").write_text("my own")
    folder.start(Settings(), overwrite=True, facts={})
    assert folder.settings() == Settings()
    assert folder.records() == []
    assert (folder.path / "notes.txt").read_text() == "my own"


def test_records_are_lines_of_json_and_a_cut_last_line_is_left_out(folder):
    for step in (1, 2):
        folder.record(step=step, loss=step / 2)
    folder.metrics.write_text(folder.metrics.read_text() + '{"step": 3, "lo')
    assert folder.records() == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 1.0}]
    folder.forget_after(1)
    folder.record(step=2, loss=7)
    assert [json.loads(line) for line in folder.metrics.read_text().splitlines()] == [
        {"step": 1, "loss": 0.5},
        {"step": 2, "loss": 7},
    ]


def test_numbers_that_are_not_finite_are_null_in_the_file_and_nan_in_the_records(folder):
    folder.record(step=1, validation=0.5, ci95=math.nan)
    folder.record(step=2, validation=math.inf, ci95=0.1)
    folder.forget_after(2)
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    assert lines == [{"step": 1, "validation": 0.5, "ci95": None}, {"step": 2, "validation": None, "ci95": 0.1}]
    assert [math.isnan(folder.records()[i][name]) for i, name in ((0, "ci95"), (1, "validation"))] == [True, True]


def test_a_run_without_records_has_none(folder):
    assert folder.records() == []
    folder.forget_after(5)
    assert folder.records() == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"settings": {"way"', "is not readable as JSON"),
        ("", "is not readable as JSON"),
        ("{}", "does not hold the settings of a run"),
        ("[1]", "does not hold the settings of a run"),
        ('{"settings": {"weigh": 5}}', "does not hold the settings of a run .*weigh"),
    ],
)
def test_a_spoilt_config_is_named(folder, text, words):
    folder.config.write_text(text)
    with pytest.raises(ValueError, match=rf"config\.json {words}.*restore it, or start again"):
        folder.settings()


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere holds no run .*check the path"):
        RunFolder(tmp_path / "nowhere").settings()


def test_a_part_has_the_training_shape_unless_changed():
    settings = Settings(tasks="sinusoid", shot=4, queries=6)
    assert settings.part("train") == q.Sinusoid(shot=4, queries=6)
    assert settings.part("validation", shot=2) == q.Sinusoid(shot=2, queries=6)
