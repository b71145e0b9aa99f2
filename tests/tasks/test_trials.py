"""Fixed trials as episodes."""

import numpy as np
import pytest
import torch
from torch import nn

import quickstudy as q
from quickstudy.backbones import WithLinear
from quickstudy.data.trials import Trial
from quickstudy.episode import check_episode
from quickstudy.tasks.trials import as_episode, image_size_for


def test_a_trial_is_an_episode_with_fractions_and_one_hot_rows():
    random = np.random.default_rng(0)
    support, query = (random.integers(0, 256, (n, 1, 4, 4), dtype=np.uint8) for n in (4, 3))
    trial = Trial("run1", support, np.array([0, 0, 1, 2]), query, np.array([2, 0, 2]), ("a", "b", "c"))
    episode = as_episode(trial)
    check_episode(episode)
    assert np.array_equal((episode.support.x.numpy() * 255).round(), support)
    assert np.array_equal((episode.query.x.numpy() * 255).round(), query)
    assert episode.support.y.tolist() == [[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert episode.query.y.argmax(-1).tolist() == [2, 0, 2]
    assert episode.query.y.shape == (3, 3)
    assert episode.support.x.dtype == episode.support.y.dtype == torch.float32


@pytest.mark.parametrize(
    ("learner", "size"),
    [
        (q.ProtoNet(q.Conv4(image_size=32, width=8)), 32),
        (q.MAML(q.Conv4(image_size=20, width=8)), 20),
        (q.MAML(WithLinear(q.Conv4(image_size=24, width=8), 3), head=None), 24),
        (q.ProtoNet(q.MLP(784, (8,), 8)), 28),
        (q.ProtoNet(nn.Sequential()), 28),
        (q.NearestNeighbour(), 28),
    ],
)
def test_the_size_of_the_images_is_that_of_the_network(learner, size):
    assert image_size_for(learner) == size


def test_a_network_for_colours_is_refused():
    with pytest.raises(
        ValueError, match=r"images of 3 channels, and trials are read as grey .* use a learner for grey"
    ):
        image_size_for(q.ProtoNet(q.Conv4(3, 8)))
