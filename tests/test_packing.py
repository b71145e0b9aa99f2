"""Packed learners: what a name, a path or a Learner is resolved to."""

from pathlib import Path

import pytest
import torch

import quickstudy as q
from quickstudy.backbones import LocalDescriptors, SmallResNet
from quickstudy.learners import LocalMatching, Ridge
from quickstudy.packing import Packed, names, open_packed, pack
from quickstudy.readers import ArrayReader, ImageReader, SoundReader, TableReader, TextReader
from quickstudy.trust import calibrate


def test_names():
    assert names()[:3] == ["tables", "texts", "sounds"]
    assert {"characters", "characters_background"} <= set(names())
    assert isinstance(open_packed("tables").learner, Ridge)
    assert open_packed("tables", regression=True).learner.regression  # pyright: ignore
    assert isinstance(open_packed("texts").reader, TextReader)
    assert isinstance(open_packed("sounds").reader, SoundReader)
    assert isinstance(open_packed("sounds", regression=True).learner, Ridge)
    assert isinstance(open_packed("tables").reader, TableReader)


@pytest.mark.parametrize("name", ["characters", "characters_background"])
def test_what_ships_is_packed(name):
    packed = open_packed(name)
    assert isinstance(packed.learner, LocalMatching)
    assert packed.reader == ImageReader(size=28, channels=1)
    assert packed.trust is not None
    assert {"name", "licence", "recipe", "seed", "data"} <= set(packed.card)


def test_a_learner_is_read_by_its_network():
    assert open_packed(q.ProtoNet(q.Conv4(3, 8, image_size=32))).reader == ImageReader(size=32, channels=3)
    assert open_packed(q.ProtoNet(q.MLP(4, (8,), 8))).reader == ArrayReader()
    places = LocalDescriptors(SmallResNet(3, 8, (8, 8)), image_size=32)
    assert open_packed(LocalMatching(places)).reader == ImageReader(size=32, channels=3)


def test_a_pack_comes_back_and_is_a_learner_file(tmp_path):
    torch.manual_seed(0)
    x = torch.rand(160, 4, generator=torch.Generator().manual_seed(0))
    tasks = q.ClassTasks(x, [i // 20 for i in range(160)], way=2, shot=2, queries=5)
    learner = q.ProtoNet(q.MLP(4, (8,), 8)).eval()
    generator = torch.Generator().manual_seed(1)
    trust = calibrate(learner, tasks, ways=(2,), shots=(2,), episodes=30, generator=generator, source="made")
    pack(Packed(learner, ArrayReader((4,)), trust, {"name": "mine"}), tmp_path / "mine.safetensors")
    again = open_packed(tmp_path / "mine.safetensors")
    assert (again.reader, again.trust, again.card) == (ArrayReader((4,)), trust, {"name": "mine"})
    assert isinstance(q.load(tmp_path / "mine.safetensors"), q.ProtoNet)


def test_a_file_is_read_once_until_it_changes(tmp_path, monkeypatch):
    path, read = tmp_path / "mine.safetensors", []
    pack(Packed(q.ProtoNet(q.MLP(4, (8,), 8)), ArrayReader((4,)), card={"name": "first"}), path)
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda file: (read.append(file), read_bytes(file))[1])
    assert open_packed(path) is open_packed(path)
    assert read == [path]
    pack(Packed(q.ProtoNet(q.MLP(4, (8,), 8)), ArrayReader((4,)), card={"name": "the second"}), path)
    assert open_packed(path).card == {"name": "the second"}
    assert read == [path] * 2


def test_facts_that_are_none_and_names_that_are_none(tmp_path):
    path = tmp_path / "mine.safetensors"
    q.save(q.ProtoNet(q.MLP(4, (8,), 8)), path, facts={"reader": {"kind": "arrays"}, "trust": {"score": "x"}})
    with pytest.raises(ValueError, match="no stored trust"):
        open_packed(path)
    q.save(q.ProtoNet(q.MLP(4, (8,), 8)), path, facts={"reader": {"kind": "smells"}})
    with pytest.raises(ValueError, match="'smells' is not known"):
        open_packed(path)
    with pytest.raises(
        ValueError, match=r"learner 'nobody'; required is a Learner, .* tables, texts, sounds, characters"
    ):
        open_packed("nobody")


def test_a_name_is_a_name_also_where_a_folder_is_called_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("tables", "characters"):
        (tmp_path / name).mkdir()
        assert open_packed(name).card["name"] == name
    with pytest.raises(ValueError, match=r"holds no run|does not exist"):
        open_packed("./characters")


def test_a_packed_learner_is_taken_as_it_is():
    packed = open_packed("characters")
    assert open_packed(packed) is packed
