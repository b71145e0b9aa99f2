"""TripletEmbedding against slow loops over all triplets, and against pytorch-metric-learning."""

import sys

import pytest
import torch
from torch import nn

import quickstudy as q
from quickstudy.functional import normalised
from quickstudy.learners import TripletEmbedding
from quickstudy.learners.triplet_embedding import batch_hard
from tests.contract import CASES, one, smooth


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng(devices=[]):
        yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def batch(generator):
    """40 unit vectors of 5 classes, unequally many, and 3 rows of padding."""
    z = normalised(torch.randn(43, 4, generator=generator, dtype=torch.float64))
    labels = torch.cat([torch.arange(5).repeat(7), torch.tensor([0, 0, 1, 2, 2, -1, -1, -1])])
    return z, labels


def one_hot(labels, way=5):
    return q.one_hot(labels, way)


@pytest.mark.parametrize("margin", [0.2, 1.5, None])
def test_batch_hard_is_the_slow_loop(batch, margin):
    z, labels = batch
    z, losses = z.clone().requires_grad_(), []
    for a in range(40):
        far = [(z[a] - z[p]).norm() for p in range(40) if p != a and labels[p] == labels[a]]
        near = [(z[a] - z[n]).norm() for n in range(40) if labels[n] != labels[a]]
        worst = max(far) - min(near)
        losses.append(torch.log1p(worst.exp()) if margin is None else (margin + worst).clamp(min=0))
    expected = torch.stack(losses).mean()
    loss = batch_hard(z, one_hot(labels), margin)
    torch.testing.assert_close(loss, expected)
    (found,), (slow,) = torch.autograd.grad(loss, z), torch.autograd.grad(expected, z)
    torch.testing.assert_close(found, slow)
    assert float(found[40:].abs().max()) < 1e-15


def test_batch_hard_is_that_of_pytorch_metric_learning(batch):
    from pytorch_metric_learning import losses, miners, reducers

    z, labels = batch[0][:40], batch[1][:40]
    theirs = losses.TripletMarginLoss(margin=0.3, reducer=reducers.MeanReducer())
    expected = theirs(z, labels, miners.BatchHardMiner()(z, labels))
    torch.testing.assert_close(batch_hard(z, one_hot(labels), 0.3), expected)


def test_a_task_is_trained_on_support_and_queries_together(generator):
    from pytorch_metric_learning import losses, miners, reducers

    torch.manual_seed(0)
    support, query = episode = one(CASES["triplet_embedding"])
    backbone = smooth()
    loss, miner = losses.TripletMarginLoss(margin=0.2, reducer=reducers.MeanReducer()), miners.BatchHardMiner()
    ours, library = TripletEmbedding(backbone), TripletEmbedding(backbone, metric_loss=loss, miner=miner)
    torch.testing.assert_close(ours.meta_loss(episode), library.meta_loss(episode))
    z = normalised(backbone(torch.cat([support.x, query.x])))
    labels = torch.cat([support.y, query.y]).argmax(1)
    torch.testing.assert_close(ours.meta_loss(episode), loss(z, labels, miner(z, labels)))
    named = TripletEmbedding(backbone, metric_loss="MultiSimilarityLoss")
    torch.testing.assert_close(named.meta_loss(episode), losses.MultiSimilarityLoss()(z, labels))
    padded = q.Labelled(torch.cat([query.x, query.x[:2]]), torch.cat([query.y, torch.zeros_like(query.y[:2])]))
    for learner in (ours, library, named):
        torch.testing.assert_close(learner.meta_loss(q.Episode(support, padded)), learner.meta_loss(episode))


@pytest.mark.parametrize("answer_by", ["mean", "nearest"])
def test_predict_is_the_slow_loop(answer_by):
    torch.manual_seed(0)
    (sx, sy), (qx, _) = one(CASES["triplet_embedding"])
    learner = TripletEmbedding(smooth().requires_grad_(False), answer_by=answer_by, scale=3.0)
    prediction = learner.predict(learner.adapt(q.Labelled(sx, sy)), qx)
    for m, x in enumerate(learner.embed(qx)):
        for k in range(sy.shape[1]):
            members = learner.embed(sx[sy[:, k] == 1])
            points = [members.mean(0)] if answer_by == "mean" else list(members)
            expected = -3 * min(float((x - point).square().sum()) for point in points)
            assert float(prediction[m, k]) == pytest.approx(expected)


@pytest.mark.parametrize("answer_by", ["mean", "nearest"])
def test_a_class_without_support_gets_no_probability(answer_by):
    learner = TripletEmbedding(nn.Identity(), answer_by=answer_by)
    support = q.Labelled(torch.eye(2), torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]))
    probability = learner.predict(learner.adapt(support), torch.tensor([[2.0, 0.1]])).softmax(-1)
    assert float(probability[0, 2]) == 0
    assert int(probability.argmax()) == 0


@pytest.mark.parametrize("margin", [0.2, None])
@pytest.mark.parametrize("answer_by", ["mean", "nearest"])
@pytest.mark.parametrize("kind", ["identical", "zero", "one query", "missing class", "single examples", "large"])
def test_degenerate_tasks_give_finite_numbers(margin, answer_by, kind, generator):
    n = 1000 if kind == "large" else 3 if kind == "single examples" else 9
    x = torch.randn(n, 4, generator=generator)
    x = torch.ones(n, 4) if kind == "identical" else torch.zeros(n, 4) if kind == "zero" else x
    y = q.one_hot(torch.arange(n) % (2 if kind == "missing class" else 3), 3)
    query = q.Labelled(x[:1], y[:1]) if kind in ("one query", "large") else q.Labelled(x[:0], y[:0])
    if kind not in ("single examples", "one query", "large"):
        query = q.Labelled(x, y)
    learner = TripletEmbedding(nn.Linear(4, 4, bias=False), margin=margin, answer_by=answer_by)
    episode = q.Episode(q.Labelled(x, y), query)
    loss = learner.meta_loss(episode) + q.Learner.meta_loss(learner, episode)
    (gradient,) = torch.autograd.grad(loss, list(learner.parameters()))
    assert bool(torch.isfinite(loss))
    assert bool(torch.isfinite(gradient).all())


def test_one_class_is_refused():
    learner, one_class = TripletEmbedding(nn.Identity()), q.Labelled(torch.ones(2, 3), torch.ones(2, 1))
    with pytest.raises(ValueError, match="two classes or more"):
        learner.adapt(one_class)
    with pytest.raises(ValueError, match="two classes or more"):
        learner.meta_loss(q.Episode(one_class, one_class))


def test_statistics_describe_support_and_queries_together():
    support, query = episode = one(CASES["triplet_embedding"])
    norm = q.backbones.norm.Standardize(6)
    learner = TripletEmbedding(norm)
    q.refresh_statistics(learner, episode)
    torch.testing.assert_close(norm.mean, torch.cat([support.x, query.x]).mean(0))


def test_objects_are_handed_over_again_at_load_and_names_are_not(tmp_path):
    from pytorch_metric_learning import losses

    path, episode = tmp_path / "learner.safetensors", one(CASES["triplet_embedding"])
    learner = TripletEmbedding(q.MLP(6, (8,), 4), metric_loss=losses.MultiSimilarityLoss(alpha=3))
    q.save(learner, path)
    with pytest.raises(ValueError, match=r"as its metric_loss: build it and call load\(path, metric_loss=...\)"):
        q.load(path)
    twin = q.load(path, metric_loss=losses.MultiSimilarityLoss(alpha=3))
    assert torch.equal(twin.meta_loss(episode), learner.meta_loss(episode))
    named = TripletEmbedding(q.MLP(6, (8,), 4), metric_loss="TripletMarginLoss", miner="BatchHardMiner")
    q.save(named, path)
    assert torch.equal(q.load(path).meta_loss(episode), named.meta_loss(episode))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"margin": 0.0}, r"margin=0\.0.*above 0 \(or None"),
        ({"scale": -1.0}, r"scale=-1\.0"),
        ({"answer_by": "vote"}, "answer_by='vote'.*'mean' or 'nearest'"),
        ({"miner": "BatchHardMiner"}, "miner was given without a metric_loss"),
        ({"metric_loss": max}, "metric_loss is a builtin.*wrap a function"),
        ({"metric_loss": "TripletLoss"}, "'TripletLoss' is no class of pytorch_metric_learning.losses"),
        ({"metric_loss": "ArcFaceLoss"}, "'ArcFaceLoss' needs arguments.*pass the object"),
        ({"metric_loss": "TripletMarginLoss", "miner": "Mine"}, "miner='Mine' is no class of .*miners"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        TripletEmbedding(nn.Identity(), **arguments)


def test_a_missing_library_is_an_error_that_names_the_extra(monkeypatch):
    for name in ("pytorch_metric_learning", "pytorch_metric_learning.losses"):
        monkeypatch.setitem(sys.modules, name, None)
    TripletEmbedding(nn.Identity())
    with pytest.raises(ValueError, match=r"not installed: pip install 'quickstudy\[metric\]'"):
        TripletEmbedding(nn.Identity(), metric_loss="TripletMarginLoss")


def test_vmap_is_refused_with_the_reason():
    learner = TripletEmbedding(smooth(), metric_loss="TripletMarginLoss")
    with pytest.raises(RuntimeError, match="vmap cannot: use strategy='loop'"):
        q.unrolled(
            learner, q.Episode(*(q.Labelled(x[None], y[None]) for x, y in one(CASES["protonet"]))), strategy="vmap"
        )
