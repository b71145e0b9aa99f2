"""Fixed trials as episodes."""

import numpy as np
import torch

from quickstudy.data.trials import Trial
from quickstudy.episode import check_episode
from quickstudy.tasks.trials import as_episode


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
