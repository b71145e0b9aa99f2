"""A task as data."""

import pytest
import torch

import quickstudy as q
from quickstudy.episode import check_episode, is_regression, task


def batch() -> q.Episode:
    y = q.one_hot(torch.tensor([[0, 1, 2], [2, 1, 0]]), 3)
    return q.Episode(q.Labelled(torch.arange(12.0).view(2, 3, 2), y), q.Labelled(-torch.arange(12.0).view(2, 3, 2), y))


def test_one_hot_rows_and_padding():
    assert q.one_hot(torch.tensor([1, -1, 0]), 2).tolist() == [[0, 1], [0, 0], [1, 0]]
    assert q.one_hot(torch.tensor([[1], [0]]), 3).shape == (2, 1, 3)
    assert q.one_hot(torch.tensor([0]), 2).dtype == torch.get_default_dtype()


def test_a_task_of_a_meta_batch():
    one = task(batch(), 1)
    assert one.support.x.tolist() == [[6, 7], [8, 9], [10, 11]]
    assert one.query.x.tolist() == [[-6, -7], [-8, -9], [-10, -11]]
    assert one.support.y.argmax(-1).tolist() == one.query.y.argmax(-1).tolist() == [2, 1, 0]


def test_an_episode_passes_through_vmap():
    sums = torch.func.vmap(lambda e: e.support.x.sum() + e.query.y.sum())(batch())
    assert sums.tolist() == [15 + 3, 51 + 3]


def test_a_single_column_is_a_number():
    assert is_regression(torch.zeros(4, 1))
    assert not is_regression(torch.zeros(4, 2))


def test_good_episodes_pass_alone_and_in_a_meta_batch():
    check_episode(batch())
    check_episode(task(batch(), 0))
    numbers = batch()._replace(
        support=q.Labelled(batch().support.x, batch().support.y * 2.5), query=q.Labelled(*batch().query)
    )
    check_episode(numbers, regression=True)
    with pytest.raises(ValueError, match="regression=True"):
        check_episode(numbers)


def test_an_empty_support_set_is_an_episode():
    x, y = batch().query
    check_episode(q.Episode(q.Labelled(x[:, :0], y[:, :0]), q.Labelled(x, y)))
