"""The task distributions that the command knows by name."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import quickstudy as q
from quickstudy.data import ClassData, fsdd, glyphs, omniglot
from quickstudy.data.root import data_root
from quickstudy.tasks.named import TASKS, class_tasks, named_data
from tests.small_glyphs import small_glyphs


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(glyphs, "load", small_glyphs)


def small_omniglot(root=None, *, rotations: bool = False) -> ClassData:
    """Two characters of every alphabet, an example is the number of its class."""
    alphabets = [*omniglot.BACKGROUND, *omniglot.EVALUATION]
    turns = [f"/rot{angle:03d}" for angle in omniglot.ANGLES] if rotations else [""]
    names = [f"{a}/character{i:02d}{turn}" for a in alphabets for i in (1, 2) for turn in turns]
    y = np.arange(len(names)).repeat(3)
    return ClassData(y[:, None].astype(np.uint8), y, tuple(names), tuple(n.split("/")[0] for n in names))


def small_spoken(root=None) -> ClassData:
    """Three made images of every digit of every speaker."""
    names = [f"{speaker}/{digit}" for speaker in fsdd.SPEAKERS for digit in range(10)]
    y = np.arange(len(names)).repeat(3)
    return ClassData(y[:, None].astype("f4"), y, tuple(names), tuple(n.split("/")[0] for n in names))


def test_glyphs_parts_hold_other_scripts(small):
    parts = {part: q.named_tasks("glyphs", part, way=3, queries=2) for part in ("train", "validation", "test")}
    groups = [set(tasks.class_groups) for tasks in parts.values()]  # pyright: ignore
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]
    episodes = parts["test"].sample(2, generator=torch.Generator())
    assert episodes.support.x.shape == (2, 3, 1, 28, 28)
    assert float(episodes.support.x.max()) <= 1


def test_settings_reach_the_tasks(small):
    tasks = q.named_tasks("glyphs", "train", way=(2, 4), shot=3, queries=2, within_group=True)
    assert isinstance(tasks, q.ClassTasks)
    assert (tasks.way, tasks.shot, tasks.queries, tasks.within_group) == ((2, 4), (3, 3), 2, True)
    same = q.named_tasks("glyphs", "train", split="scripts", way=2, queries=2)
    assert isinstance(same, q.ClassTasks)
    assert same.checksum() == tasks.checksum()


def test_sinusoids_take_shot_and_queries():
    assert q.named_tasks("sinusoid", "test", shot=3, queries=4, way=5, within_group=False) == q.Sinusoid(3, 4)


@pytest.mark.parametrize(("split", "rotations", "turned"), [
    (None, None, True), ("vinyals", None, True), ("vinyals", False, False), ("official", None, False),
    ("official", True, True),
])  # fmt: skip
def test_omniglot_is_turned_as_its_split_asks(split, rotations, turned, monkeypatch):
    monkeypatch.setattr(omniglot, "load", small_omniglot)
    seen = []
    monkeypatch.setattr(omniglot, "split", lambda data, name, part, root: seen.append((data, name, part, root)) or data)
    named_data("omniglot", "test", split=split, rotations=rotations)
    data, name, part, root = seen[0]
    assert (name, part, root) == (split or "vinyals", "test", None)
    assert (len(data.classes) == 50 * 2 * 4) is turned


def test_official_omniglot_parts_hold_other_alphabets(monkeypatch):
    monkeypatch.setattr(omniglot, "load", small_omniglot)
    parts = {
        part: q.named_tasks("omniglot", part, split="official", way=2, queries=2)
        for part in ("train", "validation", "test", "background")
    }
    groups = {part: set(tasks.class_groups) for part, tasks in parts.items()}  # pyright: ignore
    assert {part: len(found) for part, found in groups.items()} == {
        "train": 25,
        "validation": 5,
        "test": 20,
        "background": 30,
    }
    assert groups["train"] | groups["validation"] == groups["background"]
    assert not groups["background"] & groups["test"]


def test_class_names_and_groups_are_kept():
    data = small_glyphs(classes=2, examples=3)
    tasks = class_tasks(data, way=2, queries=2)
    assert dict(zip(tasks.classes, tasks.class_groups or (), strict=True)) == dict(
        zip(data.classes, data.groups, strict=True)
    )
    for i, name in enumerate(tasks.classes):
        own = data.x[data.y == data.classes.index(name)]
        assert np.array_equal(np.asarray(tasks.x[tasks.rows_of(i)]), own)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: q.named_tasks("mnist", "train"),
            "tasks 'mnist' are not known; choose among omniglot, omniglot_trials, glyphs, sinusoid",
        ),
        (lambda: q.named_tasks("omniglot_trials", "test", shot=5), "shot=5, queries=1; trials have 1 of each"),
        (lambda: q.named_tasks("glyphs", "train", split="random"), "split 'random' of glyphs.*choose 'scripts'"),
        (lambda: q.named_tasks("glyphs", "exam"), "part 'exam'.*'train', 'validation', 'test'"),
        (lambda: q.named_tasks("sinusoid", "exam"), "part 'exam' of sinusoid.*choose among train, validation, test"),
        (lambda: q.named_tasks("omniglot", "exam", split="official"), "no part 'exam': choose one of train"),
        (lambda: q.named_tasks("omniglot", "train", split="mine"), "split 'mine' is unknown: choose one of official"),
    ],
)
def test_unknown_names_are_refused_with_the_choices(call, words, small, monkeypatch):
    monkeypatch.setattr(omniglot, "load", small_omniglot)
    with pytest.raises(ValueError, match=words):
        call()


def test_the_names_are_those_that_are_served(small, monkeypatch):
    monkeypatch.setattr(omniglot, "load", small_omniglot)
    monkeypatch.setattr(fsdd, "load", small_spoken)
    for name in TASKS:
        if name == "folder":
            continue  # has no data of its own, see below
        split = "official" if name == "omniglot" else None
        shape = {"way": 2} if name == "omniglot_trials" else {"way": 2, "shot": 1, "queries": 2}
        tasks = q.named_tasks(name, "validation", split=split, **shape)
        assert tasks.sample(1, generator=torch.Generator()).support.x.shape[0] == 1


def test_plots_and_fonts_are_imported_only_where_they_are_used():
    heavy = ("matplotlib", "fontTools", "PIL", "quickstudy.data.glyphs", "quickstudy.data.omniglot")
    code = f"import sys, quickstudy; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(
    not (data_root() / "omniglot" / "vinyals").is_dir(), reason="the Omniglot archives are not in the data folder"
)
def test_real_omniglot_has_the_published_numbers_of_classes(generator):
    parts = {part: q.named_tasks("omniglot", part) for part in ("train", "validation", "test")}
    assert [len(tasks) for tasks in parts.values()] == [4 * 1028, 4 * 172, 4 * 423]  # pyright: ignore
    names = [set(tasks.classes) for tasks in parts.values()]  # pyright: ignore
    assert len(names[0] | names[1] | names[2]) == 4 * 1623
    episodes = parts["test"].sample(2, generator=generator)
    assert episodes.support.x.shape == (2, 5, 1, 28, 28)
    assert float(episodes.support.x.mean()) < 0.5  # bright ink on a dark ground
    official = q.named_tasks("omniglot", "test", split="official", way=20, shot=1, queries=1, within_group=True)
    assert len(official) == 659  # pyright: ignore
