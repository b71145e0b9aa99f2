"""The supervised contrastive loss against equation (2) in slow loops, and degenerate tasks."""

import math

import pytest
import torch
from torch import nn

import quickstudy as q
from quickstudy.learners import SupervisedContrastive
from quickstudy.learners.supervised_contrastive import contrastive_loss
from tests.contract import CASES, one


def test_the_loss_is_equation_2():
    torch.manual_seed(0)
    z = torch.nn.functional.normalize(torch.randn(7, 3, dtype=torch.float64), dim=1)
    label = [0, 1, 0, 2, 1, 0, -1]  # class 2 has one member, the last row is padding
    y = torch.tensor([[float(k == c) for c in range(3)] for k in label], dtype=torch.float64)
    s, each = 5.0, []
    for i in range(6):
        others = [a for a in range(6) if a != i]
        same = [p for p in others if label[p] == label[i]]
        if same:
            below = sum(math.exp(s * float(z[i] @ z[a])) for a in others)
            each.append(-sum(math.log(math.exp(s * float(z[i] @ z[p])) / below) for p in same) / len(same))
    assert float(contrastive_loss(z, y, s)) == pytest.approx(sum(each) / len(each), rel=1e-12)


def test_the_answer_is_the_nearest_normalised_mean():
    torch.manual_seed(0)
    episode, learner = one(CASES["supervised_contrastive"]), CASES["supervised_contrastive"].build()
    prediction = learner.predict(learner.adapt(episode.support), episode.query.x)
    with torch.no_grad():
        for m, x in enumerate(episode.query.x):
            a = learner.backbone(x[None])[0]
            for k in range(5):
                members = [learner.backbone(s[None])[0] for s, r in zip(*episode.support, strict=True) if r[k] == 1]
                centre = sum(v / v.norm() for v in members)
                expected = learner.scale * float(a @ centre / a.norm() / centre.norm())
                assert float(prediction[m, k]) == pytest.approx(expected, rel=1e-5)


def test_a_task_without_companions_has_loss_0_and_identical_or_zero_examples_stay_finite():
    z = torch.eye(3)
    assert float(contrastive_loss(z, torch.eye(3), 20.0)) == 0
    network = nn.Linear(4, 3)
    learner = SupervisedContrastive(network)
    for x in (torch.ones(8, 4), torch.zeros(8, 4)):
        if not x.any():
            nn.init.zeros_(network.bias)  # zero-norm embeddings
        y = q.one_hot(torch.arange(8) % 2, way=2)
        loss = learner.meta_loss(q.Episode(q.Labelled(x[:4], y[:4]), q.Labelled(x[4:], y[4:])))
        gradient = torch.autograd.grad(loss, list(network.parameters()))
        assert torch.isfinite(loss)
        assert all(bool(torch.isfinite(g).all()) for g in gradient)


def test_a_class_without_support_gets_no_probability_and_one_class_is_refused():
    learner = SupervisedContrastive(nn.Identity())
    support = q.Labelled(torch.eye(3)[:2], torch.eye(3)[:2])
    probability = learner.predict(learner.adapt(support), torch.tensor([[0.9, 0.1, 0.0]])).softmax(-1)
    assert float(probability[0, 2]) == 0
    assert int(probability.argmax()) == 0
    with pytest.raises(ValueError, match="one-hot rows over two classes or more"):
        learner.adapt(q.Labelled(torch.eye(3), torch.ones(3, 1)))


def test_scale_must_be_positive():
    with pytest.raises(ValueError, match=r"scale=0; required is a number above 0"):
        SupervisedContrastive(nn.Identity(), scale=0)
