"""FEAT against torch's own attention layer and slow loops over classes."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import quickstudy as q
from quickstudy.learners import FEAT
from tests.contract import CASES, one


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_default_dtype(torch.float32)


def attended(learner: FEAT, points: torch.Tensor) -> torch.Tensor:
    """T over a whole set, by torch's fused operator."""
    read = learner.layer_norm(points) if learner.norm == "pre" else points
    maps = (layer(read)[None] for layer in (learner.query, learner.key, learner.value))
    mixed = learner.out(F.scaled_dot_product_attention(*maps)[0])
    return points + mixed if learner.norm == "pre" else learner.layer_norm(points + mixed)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_feat_is_its_equations(norm):
    episode = one(CASES["feat"])
    learner = FEAT(nn.Linear(6, 5), features=5, norm=norm, temperature=3.0)
    (sx, sy), (qx, _) = episode
    with torch.no_grad():
        z = learner.backbone(sx)
        means = torch.stack([z[sy[:, k] == 1].mean(0) for k in range(5)])
        centres = attended(learner, means)
        expected = -torch.cdist(learner.backbone(qx), centres).square() / 3.0
        torch.testing.assert_close(learner.answer(episode.support, qx), expected)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_the_contrastive_loss_adapts_each_class_by_itself(norm):
    episode = one(CASES["feat"], way=3)
    learner = FEAT(nn.Linear(6, 5), features=5, norm=norm, temperature=3.0, contrastive_weight=0.7)
    with torch.no_grad():
        z = learner.backbone(torch.cat([episode.support.x, episode.query.x]))
        label = torch.cat([episode.support.y, episode.query.y]).argmax(-1)
        adapted = torch.zeros_like(z)
        for k in range(3):
            adapted[label == k] = attended(learner, z[label == k])
        centres = torch.stack([adapted[label == k].mean(0) for k in range(3)])
        expected = F.cross_entropy(-torch.cdist(adapted, centres).square() / 3.0, label)
        torch.testing.assert_close(learner.contrastive_loss(episode), expected)
        plain = learner.eval().meta_loss(episode)
        torch.testing.assert_close(learner.train().meta_loss(episode), plain + 0.7 * expected)
        learner.contrastive_weight = 0.0
        torch.testing.assert_close(learner.meta_loss(episode), plain)


def test_classes_without_support_neither_win_nor_are_looked_at():
    learner = FEAT(nn.Linear(6, 5), features=5)
    episode = one(CASES["feat"], way=3)
    wider = q.Labelled(episode.support.x, F.pad(episode.support.y, (0, 2)))
    prediction = learner.answer(wider, episode.query.x)
    torch.testing.assert_close(prediction[:, :3], learner.answer(episode.support, episode.query.x))
    assert float(prediction.detach().softmax(-1)[:, 3:].max()) == 0
    padded = q.Labelled(episode.query.x, F.pad(episode.query.y, (0, 2)))
    assert bool(torch.isfinite(learner.contrastive_loss(q.Episode(wider, padded))))


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_degenerate_tasks_stay_finite(norm):
    y = q.one_hot(torch.tensor([0, 0, 1, -1]), 3)
    for bias in (True, False):
        learner = FEAT(nn.Linear(3, 4, bias=bias), features=4, norm=norm)
        for x in (torch.zeros(4, 3), torch.ones(4, 3), 1e4 * torch.randn(4, 3)):
            learner.zero_grad()
            learner.meta_loss(q.Episode(q.Labelled(x, y), q.Labelled(x[:1], y[:1]))).backward()
            assert all(bool(torch.isfinite(p.grad).all()) for p in learner.parameters() if p.grad is not None)
    x, y = torch.randn(1000, 3), q.one_hot(torch.arange(1000) % 4, 4)
    assert bool(torch.isfinite(learner.answer(q.Labelled(x, y), x[:1])).all())


def test_dropout_is_for_training_alone():
    learner, episode = FEAT(nn.Linear(6, 5), features=5, dropout=0.5), one(CASES["feat"])
    first, second = (learner.adapt(episode.support).centres for _ in range(2))
    assert not torch.equal(first, second)
    learner.eval()
    first, second = (learner.adapt(episode.support).centres for _ in range(2))
    assert torch.equal(first, second)


def test_errors():
    with pytest.raises(ValueError, match=r"out_features.*pass features="):
        FEAT(nn.Identity())
    with pytest.raises(ValueError, match=r"norm='batch'; choose 'post'"):
        FEAT(nn.Identity(), features=3, norm="batch")  # pyright: ignore[reportArgumentType]
    for arguments in ({"temperature": 0.0}, {"contrastive_weight": -1.0}, {"dropout": 1.0}):
        with pytest.raises(ValueError, match=r"temperature above 0"):
            FEAT(nn.Identity(), features=3, **arguments)
    with pytest.raises(ValueError, match=r"\(2, 1\).*two classes or more"):
        FEAT(nn.Identity(), features=3).adapt(q.Labelled(torch.zeros(2, 3), torch.ones(2, 1)))
