"""A learner by a run folder, a file or a name."""

import pytest
import torch
from torch import nn

import quickstudy as q
from quickstudy.learners import SimpleShot
from quickstudy.opening import open_learner, shipped


def test_a_folder_and_a_file_are_opened(tmp_path):
    learner = SimpleShot(q.MLP(4, (3,), 2))
    q.save(learner, tmp_path / "learner.safetensors")
    for name in (tmp_path, tmp_path / "learner.safetensors", str(tmp_path)):
        found = open_learner(name)
        assert isinstance(found, SimpleShot)
        assert not found.training


@pytest.mark.parametrize("name", ["characters", "characters_background"])
def test_what_ships_is_small_in_single_precision_and_has_a_card(name):
    learner, path = open_learner(name), shipped()[name]
    assert path.stat().st_size <= 3_000_000
    assert all(p.dtype == torch.float32 for p in learner.parameters())
    card = path.with_suffix(".md").read_text()
    assert all(word in card for word in ("Licence", "Trained on", "Recipe", "Seed", "Not for"))


def test_the_learner_for_characters_ships_and_tells_drawn_shapes_apart():
    learner = open_learner("characters")
    x = torch.zeros(3, 1, 28, 28)
    x[0, :, 13:15, 4:24] = 1  # a line across
    x[1, :, 4:24, 13:15] = 1  # a line down
    x[2, :, 6:22, 6:22] = 1  # a ring
    x[2, :, 8:20, 8:20] = 0
    support = q.Labelled(x, torch.eye(3))
    moved = nn.functional.pad(x, (1, -1, 2, -2))
    with torch.no_grad():
        assert learner.predict(learner.adapt(support), moved).argmax(1).tolist() == [0, 1, 2]


def test_the_name_of_the_baseline_is_a_learner():
    assert isinstance(open_learner("nearest_neighbour"), q.NearestNeighbour)


def test_a_name_that_is_nothing_is_refused_with_the_names():
    with pytest.raises(ValueError, match=r"mammal does not exist.*characters.*nearest_neighbour"):
        open_learner("mammal")
    with pytest.raises(ValueError, match="train one first: quickstudy train --learner protonet"):
        open_learner("protonet")
