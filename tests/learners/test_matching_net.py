"""Matching Networks against the paper's equations in slow loops."""

import math

import pytest
import torch
from torch import nn

import quickstudy as q
from quickstudy.learners import MatchingNet
from tests.contract import CASES, one


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_default_dtype(torch.float32)


def answer(learner: MatchingNet, support: q.Labelled, x: torch.Tensor) -> torch.Tensor:
    return learner.predict(learner.adapt(support), x)


def support_of(x: torch.Tensor, labels: list[int], way: int) -> q.Labelled:
    return q.Labelled(x, q.one_hot(torch.tensor(labels), way))


@torch.no_grad()
def test_it_is_equation_1_with_unequal_shots():
    learner = MatchingNet(nn.Linear(3, 4), scale=3.0)
    support, x = support_of(torch.randn(4, 3), [1, 0, 1, 1], 2), torch.randn(5, 3)
    found = answer(learner, support, x).exp()
    for m in range(5):
        f = learner.backbone(x[m])
        kernel = []
        for i in range(4):
            g = learner.backbone(support.x[i])
            kernel.append(math.exp(3 * float(f @ g / (f.norm() * g.norm()))))
        y = [sum(a for a, label in zip(kernel, (1, 0, 1, 1), strict=True) if label == k) for k in (0, 1)]
        torch.testing.assert_close(found[m], torch.tensor(y) / sum(kernel))


def test_the_loss_is_the_negative_log_of_the_attention_on_the_right_class():
    learner, episode = CASES["matching_net"].build(), one(CASES["matching_net"])
    logits = answer(learner, episode.support, episode.query.x)  # pyright: ignore
    torch.testing.assert_close(logits.exp().sum(-1), torch.ones(len(logits)))
    slow = -(logits * episode.query.y).sum(-1).mean()
    torch.testing.assert_close(learner.loss(logits, episode.query.y), slow)


@torch.no_grad()
def test_full_context_is_equations_3_to_6():
    """The same with ``nn.LSTM`` for g, and one number after the other for f."""
    learner = MatchingNet(nn.Linear(3, 4), full_context=True, steps=3, features=4)
    support, x = support_of(torch.randn(6, 3), [0, 2, 1, 1, 2, 0], 3), torch.randn(2, 3)
    both = nn.LSTM(4, 4, bidirectional=True)
    for name, part in (("", learner.along), ("_reverse", learner.back)):
        assert part is not None
        getattr(both, f"weight_ih_l0{name}").copy_(part.read.weight)
        getattr(both, f"weight_hh_l0{name}").copy_(part.recur.weight)
        getattr(both, f"bias_ih_l0{name}").copy_(part.read.bias)
        getattr(both, f"bias_hh_l0{name}").zero_()
    inner = learner.backbone(support.x)
    g = both(inner)[0].view(6, 2, 4).sum(1) + inner
    torch.testing.assert_close(learner.adapt(support).g, g)
    read, recur = learner.attend.read, learner.attend.recur.weight
    for m in range(2):
        f = learner.backbone(x[m])
        h, c = torch.zeros(4), torch.zeros(4)
        for _ in range(3):
            weights = torch.stack([h @ row for row in g]).softmax(0)
            r = torch.stack([w * row for w, row in zip(weights, g, strict=True)]).sum(0)
            i, forget, new, out = (read(f) + recur @ torch.cat([h, r])).view(4, 4)
            c = forget.sigmoid() * c + i.sigmoid() * new.tanh()
            h = out.sigmoid() * c.tanh() + f
        kernel = torch.stack([h @ row / (h.norm() * row.norm()) for row in g]).softmax(0)
        torch.testing.assert_close(answer(learner, support, x)[m].exp(), kernel @ support.y)


def test_full_context_depends_on_the_order_of_the_support_set():
    learner = MatchingNet(nn.Linear(3, 4), full_context=True, features=4)
    (sx, sy), x = support_of(torch.randn(4, 3), [0, 1, 2, 0], 3), torch.randn(2, 3)
    there, back = answer(learner, q.Labelled(sx, sy), x), answer(learner, q.Labelled(sx.flip(0), sy.flip(0)), x)
    assert not torch.allclose(there, back)


@pytest.mark.parametrize("full_context", [False, True])
@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_degenerate_episodes_give_finite_numbers(full_context, fill):
    x = torch.full((6, 3), fill)  # of zero norm, or identical
    learner = MatchingNet(nn.Linear(3, 4, bias=False), full_context=full_context, features=4)
    support = support_of(x, [0, 0, 1, 1, 1, -1], 3)
    logits = answer(learner, support, x[:1])
    loss = learner.loss(logits, q.one_hot(torch.tensor([1]), 3))
    if not full_context:  # whose LSTMs tell the first example from the last
        torch.testing.assert_close(logits[0, :2].exp(), torch.tensor([0.4, 0.6]))  # equal attention to each example
    assert int(logits.argmin()) == 2
    gradients = torch.autograd.grad(loss, list(learner.parameters()), allow_unused=True)
    assert all(bool(torch.isfinite(g).all()) for g in gradients if g is not None)


@pytest.mark.parametrize("full_context", [False, True])
def test_a_large_support_set_and_the_largest_scale_are_served_in_single_precision(full_context):
    learner = MatchingNet(nn.Linear(3, 4), scale=40.0, full_context=full_context, steps=2, features=4).float()
    support = q.Labelled(torch.randn(1000, 3).float(), q.one_hot(torch.arange(1000) % 5, 5).float())
    logits = answer(learner, support, torch.randn(3, 3).float())
    loss = learner.loss(logits, support.y[:3])
    gradients = torch.autograd.grad(loss, list(learner.parameters()))
    assert all(bool(torch.isfinite(t).all()) for t in (logits, *gradients))


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"scale=41, steps=5; required are 0 < scale ≤ 40"):
        MatchingNet(nn.Identity(), scale=41)
    with pytest.raises(ValueError, match="steps=0; required"):
        MatchingNet(nn.Identity(), full_context=True, steps=0)
    with pytest.raises(ValueError, match="out_features; required is their number: pass features="):
        MatchingNet(nn.Identity(), full_context=True)
    with pytest.raises(ValueError, match="over two classes or more"):
        MatchingNet(nn.Identity()).adapt(support_of(torch.ones(2, 3), [0, 0], 1))
