"""Siamese networks against the paper's formulas in slow loops."""

import math

import pytest
import torch
from torch import nn

import quickstudy as q
from quickstudy.learners import Siamese


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_default_dtype(torch.float32)


def support_of(x: torch.Tensor, labels: list[int], way: int) -> q.Labelled:
    return q.Labelled(x, q.one_hot(torch.tensor(labels), way))


def siamese(**arguments) -> Siamese:
    learner = Siamese(nn.Linear(3, 4), units=5, features=4, **arguments)
    with torch.no_grad():
        learner.alpha.copy_(torch.randn(5))
    return learner


@torch.no_grad()
def slow_odds(learner: Siamese, a: torch.Tensor, b: torch.Tensor) -> float:
    """p/(1 − p) as a logarithm, one number after the other."""
    one, two = (learner.embed(learner.backbone(x)).sigmoid().tolist() for x in (a, b))
    parts = zip(learner.alpha.tolist(), one, two, strict=True)
    return float(learner.bias) + sum(alpha * abs(u - v) for alpha, u, v in parts)


@pytest.mark.parametrize("match", ["best", "mean"])
@torch.no_grad()
def test_a_query_belongs_to_its_best_match(match):
    learner = siamese(match=match)
    labels = [0, 1, 1, 2, 1]
    support, x = support_of(torch.randn(5, 3), labels, 3), torch.randn(4, 3)
    found = learner.predict(learner.adapt(support), x)
    for m in range(4):
        for k in range(3):
            odds = [slow_odds(learner, x[m], s) for s, label in zip(support.x, labels, strict=True) if label == k]
            wanted = max(odds) if match == "best" else sum(odds) / len(odds)
            assert float(found[m, k]) == pytest.approx(wanted)


def test_the_verification_loss_balances_same_and_different_pairs():
    learner = siamese()
    support_labels, query_labels = [0, 1, 2, 2, -1], [2, 0, -1, 1]
    support, query = support_of(torch.randn(5, 3), support_labels, 3), support_of(torch.randn(4, 3), query_labels, 3)
    losses = {True: [], False: []}
    for x, a in zip(query.x, query_labels, strict=True):
        for s, b in zip(support.x, support_labels, strict=True):
            if -1 not in (a, b):
                p = 1 / (1 + math.exp(-slow_odds(learner, x, s)))
                losses[a == b].append(-math.log(p if a == b else 1 - p))
    assert {same: len(of) for same, of in losses.items()} == {True: 4, False: 8}
    wanted = sum(losses[True]) / 4 / 2 + sum(losses[False]) / 8 / 2
    assert float(learner.meta_loss(q.Episode(support, query)).detach()) == pytest.approx(wanted)


def test_identical_examples_are_of_one_class_from_the_start():
    learner = Siamese(nn.Identity(), units=5, features=3)
    support = support_of(torch.stack([torch.zeros(3), torch.full((3,), 50.0)]), [0, 1], 2)
    odds = learner.predict(learner.adapt(support), support.x)
    assert bool((odds.diagonal() > 0).all())
    assert odds.argmax(-1).tolist() == [0, 1]


@pytest.mark.parametrize("match", ["best", "mean"])
@pytest.mark.parametrize("fill", [0.0, 1.0, 1e9])
def test_degenerate_episodes_give_finite_numbers(match, fill):
    x = torch.full((6, 3), fill)
    learner = siamese(match=match)
    support, query = support_of(x, [0, 0, 1, 1, 1, -1], 3), support_of(x[:1], [1], 3)
    logits = learner.predict(learner.adapt(support), query.x)
    assert int(logits.argmin()) == 2
    torch.testing.assert_close(logits[0, 0], logits[0, 1])
    assert torch.isfinite(learner.loss(logits, query.y))
    gradients = torch.autograd.grad(learner.meta_loss(q.Episode(support, query)), list(learner.parameters()))
    assert all(bool(torch.isfinite(g).all()) for g in gradients)


def test_pairs_of_one_kind_alone_still_have_a_loss():
    learner = siamese()
    x = torch.randn(2, 3)
    for labels in ([0, 0], [1, 1]):
        loss = learner.meta_loss(q.Episode(support_of(x, [0, 0], 2), support_of(x, labels, 2)))
        assert bool(torch.isfinite(loss))
        assert bool(loss > 0)


def test_a_large_support_set_is_served():
    learner = siamese()
    support = support_of(torch.randn(1000, 3), [i % 5 for i in range(1000)], 5)
    logits = learner.predict(learner.adapt(support), torch.randn(3, 3))
    gradients = torch.autograd.grad(logits.sum(), list(learner.parameters()))
    assert all(bool(torch.isfinite(t).all()) for t in (logits, *gradients))


def test_what_is_refused():
    with pytest.raises(ValueError, match="out_features; required is their number: pass features="):
        Siamese(nn.Identity())
    with pytest.raises(ValueError, match=r"units=0, match='best'; required are 1 unit or more"):
        Siamese(nn.Identity(), units=0, features=3)
    with pytest.raises(ValueError, match=r"match='first'; required .* best or mean"):
        Siamese(nn.Identity(), match="first", features=3)  # pyright: ignore
    one = support_of(torch.ones(2, 3), [0, 0], 1)
    with pytest.raises(ValueError, match="over two classes or more"):
        siamese().adapt(one)
    with pytest.raises(ValueError, match="over two classes or more"):
        siamese().meta_loss(q.Episode(one, one))
