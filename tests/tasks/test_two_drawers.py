"""Trials of two drawers: who drew what can be read from the pixels."""

import pytest
import torch

import quickstudy as q
from quickstudy.tasks import TwoDrawers


def characters(drawers: int = 5, within: bool = True, **settings) -> q.ClassTasks:
    """12 characters in two alphabets; pixel 0 is the character, pixel 1 the drawer."""
    pairs = [(c, d) for c in range(12) for d in range(drawers)]
    return q.ClassTasks(
        torch.tensor(pairs, dtype=torch.float32),
        [c for c, _ in pairs],
        groups=[c // 6 for c, _ in pairs],
        within_group=within,
        **{"way": 4, "shot": 1, "queries": 1, **settings},
    )


def test_a_trial_is_one_alphabet_with_one_drawer_for_support_and_another_for_the_queries(generator):
    episodes = TwoDrawers(characters()).sample(200, generator=generator)
    sx, qx = episodes.support.x, episodes.query.x
    assert sx.shape == qx.shape == (200, 4, 2)
    assert torch.equal(sx[..., 0], qx[..., 0])
    assert torch.equal(episodes.support.y, torch.eye(4).expand(200, 4, 4))
    assert torch.equal(episodes.query.y, episodes.support.y)
    assert bool((sx[:, :1, 1] == sx[..., 1]).all())
    assert bool((qx[:, :1, 1] == qx[..., 1]).all())
    assert bool((sx[..., 1] != qx[..., 1]).all())
    alphabets = sx[..., 0] // 6
    assert bool((alphabets == alphabets[:, :1]).all())
    assert set(alphabets.flatten().tolist()) == {0, 1}
    assert len({tuple(row.unique().tolist()) for row in sx[..., 0]}) > 20  # characters vary
    assert set(sx[..., 1].flatten().tolist()) == set(range(5))


def test_the_same_generator_gives_the_same_trials():
    tasks = TwoDrawers(characters())
    first, second = (tasks.sample(3, generator=torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(first.query.x, second.query.x)


def test_what_cannot_be_trials_is_refused():
    x = torch.arange(7.0).view(7, 1)
    uneven = q.ClassTasks(x, [0, 0, 0, 1, 1, 2, 2], way=2, shot=1, queries=1)
    with pytest.raises(ValueError, match="classes have 2 to 3 examples; required is one by each of the same two"):
        TwoDrawers(uneven)
    with pytest.raises(ValueError, match=r"way=\(2, 4\); required is one number"):
        TwoDrawers(characters(way=(2, 4)))
