"""Relation Networks against equations (1) and (2) in slow loops."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import quickstudy as q
from quickstudy.backbones import ConvMaps
from quickstudy.learners import RelationNet
from quickstudy.learners.relation_net import ConvRelation, VectorRelation


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_default_dtype(torch.float32)


def support_of(x: torch.Tensor, labels: list[int], way: int) -> q.Labelled:
    return q.Labelled(x, q.one_hot(torch.tensor(labels), way))


@pytest.mark.parametrize("combine", ["sum", "mean"])
def test_on_vectors_it_is_equation_1_with_any_relation(combine):
    relation = nn.Sequential(nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 1))
    learner = RelationNet(nn.Linear(3, 4), relation, combine=combine)
    labels = [0, 2, 1, 1]
    support, x = support_of(torch.randn(4, 3), labels, 3), torch.randn(5, 3)
    found = learner.predict(learner.adapt(support), x)
    for m in range(5):
        for k in range(3):
            members = [learner.backbone(s) for s, label in zip(support.x, labels, strict=True) if label == k]
            of_class = torch.stack(members).sum(0) / (len(members) if combine == "mean" else 1)
            torch.testing.assert_close(found[m, k], relation(torch.cat([of_class, learner.backbone(x[m])]))[0])


@torch.no_grad()
def test_the_own_relation_for_vectors_is_an_mlp_on_the_concatenation():
    learner = RelationNet(nn.Linear(3, 4), hidden=6, features=4)
    support, x = support_of(torch.randn(3, 3), [0, 1, 2], 3), torch.randn(2, 3)
    found = learner.predict(learner.adapt(support), x)
    assert isinstance(learner.own_relation, VectorRelation)
    first, _, second, _, last = learner.own_relation.layers
    for m in range(2):
        for k in range(3):
            z = torch.cat([learner.backbone(support.x[k]), learner.backbone(x[m])])
            torch.testing.assert_close(found[m, k], last(F.relu(second(F.relu(first(z)))))[0])


@torch.no_grad()
def test_on_maps_the_blocks_read_the_concatenation_in_depth():
    """Block for block as it is drawn in the paper: each pair is concatenated before its first convolution."""
    learner = RelationNet(ConvMaps(1, 8, image_size=28)).eval()
    assert isinstance(learner.own_relation, ConvRelation)
    for part in (learner.own_relation.first, learner.own_relation.second):
        part.normalise.mean.normal_()  # pyright: ignore
        part.normalise.var.uniform_(0.5, 2)  # pyright: ignore
        part.affine.bias.normal_()
    support, x = support_of(torch.randn(4, 1, 28, 28), [1, 0, 2, 1], 3), torch.randn(2, 1, 28, 28)
    found = learner.predict(learner.adapt(support), x)
    maps = learner.backbone(support.x)
    assert maps.shape == (4, 8, 7, 7)
    of_class = torch.stack([maps[1], maps[0] + maps[3], maps[2]])
    for m, query in enumerate(learner.backbone(x)):
        for k in range(3):
            z = torch.cat([of_class[k], query])[None]  # (1, 16, 7, 7)
            for block, size in ((learner.own_relation.first, 3), (learner.own_relation.second, 1)):
                z = block(z)
                assert z.shape == (1, 8, size, size)
            torch.testing.assert_close(found[m, k], learner.own_relation.layers(z.flatten(1))[0, 0])


def test_an_own_relation_reads_maps_concatenated_in_depth():
    relation = nn.Sequential(nn.Conv2d(16, 3, 3), nn.Flatten(), nn.LazyLinear(1))
    learner = RelationNet(ConvMaps(1, 8, norm="group", image_size=16), relation)
    support, x = support_of(torch.randn(2, 1, 16, 16), [0, 1], 2), torch.randn(3, 1, 16, 16)
    found = learner.predict(learner.adapt(support), x)
    pair = torch.cat([learner.backbone(support.x[1:]), learner.backbone(x[2:])], 1)
    torch.testing.assert_close(found[2, 1], relation(pair)[0, 0])


def test_the_loss_is_the_squared_error_of_the_scores():
    learner = RelationNet(nn.Identity(), features=2)
    logits, y = torch.randn(3, 4), q.one_hot(torch.tensor([2, -1, 0]), 4)
    error = [(float(r.sigmoid()) - float(t)) ** 2 for m in (0, 2) for r, t in zip(logits[m], y[m], strict=True)]
    assert float(learner.loss(logits, y)) == pytest.approx(sum(error) / 8)


@pytest.mark.parametrize("maps", [False, True])
@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_degenerate_episodes_give_finite_numbers(maps, fill):
    learner = RelationNet(ConvMaps(1, 8, image_size=16)) if maps else RelationNet(nn.Linear(3, 4), features=4)
    x = torch.full((6, 1, 16, 16) if maps else (6, 3), fill)
    support = support_of(x, [0, 0, 1, 1, 1, -1], 3)
    logits = learner.predict(learner.adapt(support), x[:1])
    score = logits.detach().sigmoid()
    assert float(score[0, 2]) == 0  # without support
    assert int(logits.argmin()) == 2
    loss = learner.loss(logits, q.one_hot(torch.tensor([1]), 3))
    gradients = torch.autograd.grad(loss, list(learner.parameters()))
    assert all(bool(torch.isfinite(t).all()) for t in (loss, *gradients))


def test_a_large_support_set_is_served():
    learner = RelationNet(nn.Linear(3, 4), combine="mean", features=4)
    support = support_of(torch.randn(1000, 3), [i % 5 for i in range(1000)], 5)
    logits = learner.predict(learner.adapt(support), torch.randn(3, 3))
    gradients = torch.autograd.grad(logits.sum(), list(learner.parameters()))
    assert all(bool(torch.isfinite(t).all()) for t in (logits, *gradients))


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"combine='max', hidden=8; required are sum or mean"):
        RelationNet(nn.Identity(), combine="max", features=3)  # pyright: ignore
    with pytest.raises(ValueError, match="hidden=0; required"):
        RelationNet(nn.Identity(), hidden=0, features=3)
    with pytest.raises(ValueError, match="pass features=, or a relation module for its maps"):
        RelationNet(nn.Conv2d(1, 4, 3))
    with pytest.raises(ValueError, match=r"maps of 3×3 leave nothing .* images of 16×16"):
        RelationNet(ConvMaps(image_size=12))
    with pytest.raises(ValueError, match="over two classes or more"):
        RelationNet(nn.Identity(), features=3).adapt(support_of(torch.ones(2, 3), [0, 0], 1))
