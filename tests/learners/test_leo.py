"""LEO against slow explicit loops, torch.distributions and finite differences."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Normal, kl_divergence

import quickstudy as q
from quickstudy.backbones.norm import Standardize
from quickstudy.learners.leo import LEO, kl_to_standard_normal, off_orthogonal
from quickstudy.training import refresh_statistics
from tests.contract import CASES, episodes, one

CASE = CASES["protonet"]


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_default_dtype(torch.float32)


def leo(backbone: nn.Module | None = None, **arguments) -> LEO:
    settings = {"features": 6, "latent": 3, "inner_steps": 3, "finetune_steps": 2, "finetune_lr": 0.1, "dropout": 0.0}
    return LEO(backbone or nn.Identity(), **{**settings, **arguments})


def answer(learner: LEO, episode: q.Episode) -> torch.Tensor:
    return learner.predict(learner.adapt(episode.support), episode.query.x)


def unequal() -> q.Labelled:
    """Three classes with 3, 1 and 2 examples, and a row of padding."""
    return q.Labelled(torch.randn(7, 6), q.one_hot(torch.tensor([0, 1, 0, 2, 0, -1, 2]), 3))


def test_codes_are_those_of_the_loop_over_pairs():
    learner, (x, y) = leo().eval(), unequal()
    members = [[0, 2, 4], [1], [3, 6]]
    h = x @ learner.encoder.weight.T
    first, second, last = learner.relation
    relation = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last)
    rows = []
    for own in members:
        total = torch.zeros(6)
        for i in own:
            for others in members:
                for j in others:
                    pair = relation(torch.cat([h[i], h[j]]))
                    total += pair / (len(own) * len(members) * len(others))
        rows.append(total)
    mean, log_variance = learner.encode(x, y)
    log_variance = log_variance - 2 * math.log(0.1)  # where it starts
    torch.testing.assert_close(torch.cat([mean, log_variance], 1), torch.stack(rows))


def test_both_loops_are_plain_gradient_descent():
    learner, episode = leo().eval(), one(CASE)
    x, y = episode.support

    def loss(w):
        return F.cross_entropy(x @ w.T, y.argmax(-1))

    z = learner.encode(x, y)[0]
    for _ in range(3):
        z = z - 1.0 * torch.autograd.grad(loss((z @ learner.decoder.weight.T)[:, :6]), z, create_graph=True)[0]
    w = (z @ learner.decoder.weight.T)[:, :6]
    for _ in range(2):
        w = w - 0.1 * torch.autograd.grad(loss(w), w, create_graph=True)[0]
    adapted = learner.adapt(episode.support)
    torch.testing.assert_close(adapted.weight, w)
    torch.testing.assert_close(learner.predict(adapted, episode.query.x), episode.query.x @ w.T)


@pytest.mark.parametrize("mode", ["reverse", "recompute"])
@pytest.mark.parametrize("training", [False, True])
def test_the_meta_gradient_is_exact(mode, training):
    """In training too, where all draws are the same at every point; without the stopped gradient of (6)."""
    learner = leo(nn.Linear(6, 6), mode=mode, backbone_frozen=False, encoder_penalty_weight=0.0, dropout=0.1)
    assert float(q.check_meta_gradient(learner.train(training), one(CASE))) < 1e-6


def test_the_penalties():
    learner = leo(kl_weight=0.3, encoder_penalty_weight=0.7, orthogonality_weight=1.1)
    code, _ = learner._adapt(one(CASE).support)
    kl = kl_divergence(Normal(code.mean, (code.log_variance / 2).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(kl_to_standard_normal(code.mean, code.log_variance), kl)
    columns = learner.decoder.weight.T
    correlations = torch.stack([torch.stack([F.cosine_similarity(a, b, dim=0) for b in columns]) for a in columns])
    orthogonality = (correlations - torch.eye(3)).square().mean()
    torch.testing.assert_close(off_orthogonal(learner.decoder.weight), orthogonality)
    pull = (code.end - code.start).square().mean()
    torch.testing.assert_close(learner.penalty(code), 0.3 * kl.mean() + 0.7 * pull + 1.1 * orthogonality)


def test_the_encoder_follows_the_adapted_code_and_not_the_other_way_round():
    """∇_z of ‖stopgrad(z') − z‖² is 2(z − z'), and z' is a constant."""
    learner = leo(kl_weight=0.0, encoder_penalty_weight=1.0, orthogonality_weight=0.0)
    code, _ = learner._adapt(one(CASE).support)
    got = torch.autograd.grad(learner.penalty(code), code.start)[0]
    torch.testing.assert_close(got, 2 * (code.start - code.end) / code.start.numel())


def test_the_meta_loss_in_both_modes():
    episode, learner = one(CASE), leo(stochastic=False, kl_weight=0.5)
    query = learner.loss(answer(learner, episode), episode.query.y)
    torch.testing.assert_close(learner.eval().meta_loss(episode), query)
    penalty = learner.penalty(learner._adapt(episode.support)[0])
    torch.testing.assert_close(learner.train().meta_loss(episode), query + penalty)


def test_evaluation_is_not_random_and_training_is():
    learner, episode = leo(dropout=0.5), one(CASE)
    assert torch.equal(answer(learner.eval(), episode), answer(learner, episode))
    first, second = answer(learner.train(), episode), answer(learner, episode)
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    first = answer(learner, episode)
    torch.manual_seed(1)
    assert torch.equal(answer(learner, episode), first)


def test_codes_are_drawn_from_their_distribution():
    learner, support = leo(inner_steps=0, finetune_steps=0), one(CASE).support
    codes = [learner._adapt(support)[0] for _ in range(400)]
    mean, log_variance = codes[0].mean, codes[0].log_variance
    draws = (torch.stack([c.start for c in codes]) - mean) / (log_variance / 2).exp()
    assert abs(float(draws.mean().detach())) < 0.05
    assert abs(float(draws.std().detach()) - 1) < 0.05


def test_classes_are_exchangeable_and_their_number_is_free():
    learner = leo().eval()
    episode, order = one(CASE), torch.tensor([3, 1, 4, 0, 2])
    turned = q.Episode(q.Labelled(episode.support.x, episode.support.y[:, order]), episode.query)
    torch.testing.assert_close(answer(learner, turned), answer(learner, episode)[:, order])
    for way, shot in ((2, 1), (9, 3)):
        other = one(CASE, way=way, shot=shot)
        assert answer(learner, other).shape == other.query.y.shape


def test_padding_does_not_count():
    learner, (x, y) = leo().eval(), unequal()
    real = y.sum(-1) > 0
    whole, part = learner.adapt(q.Labelled(x, y)), learner.adapt(q.Labelled(x[real], y[real]))
    torch.testing.assert_close(whole.weight, part.weight)


def test_a_class_without_examples_gets_no_probability():
    support = q.Labelled(torch.randn(2, 6), q.one_hot(torch.tensor([0, 2]), 3))
    learner = leo().eval()
    probability = learner.predict(learner.adapt(support), torch.randn(1, 6)).softmax(-1)
    assert float(probability[0, 1].detach()) == 0


@pytest.mark.parametrize("training", [False, True])
def test_loop_and_vmap_agree(training):
    learner, batch = leo(nn.Linear(6, 6), backbone_frozen=False, stochastic=False).train(training), episodes(CASE, 3)
    found = []
    for strategy in ("loop", "vmap"):
        loss = q.unrolled(learner, batch, strategy=strategy)
        grads = torch.autograd.grad(loss, list(learner.parameters()), allow_unused=True, materialize_grads=True)
        found.append([loss, *grads])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_noise_differs_from_task_to_task_under_vmap():
    learner, batch = leo(), episodes(CASE, 1)
    twice = q.Episode(*(q.Labelled(x.repeat(2, 1, 1), y.repeat(2, 1, 1)) for x, y in batch))
    first, second = q.map_tasks(lambda e: answer(learner, e), twice, strategy="vmap")
    assert not torch.equal(first, second)


def test_a_frozen_backbone_neither_trains_nor_moves_its_statistics():
    norm = nn.Sequential(nn.Linear(6, 6), Standardize(6))
    learner, episode = leo(norm), one(CASE)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    learner.train()
    refresh_statistics(learner, episode)
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
    assert not any(p.requires_grad for p in norm.parameters())
    seen = learner.embed(episode.support.x)
    assert norm[1].training  # the mode of the backbone itself is left alone
    torch.testing.assert_close(seen, norm.eval()(episode.support.x))


def test_a_backbone_that_trains():
    learner = leo(nn.Sequential(nn.Linear(6, 6), Standardize(6)), backbone_frozen=False)
    refresh_statistics(learner, one(CASE))
    assert int(learner.backbone[1].updates) == 1  # pyright: ignore
    assert learner.backbone[0].weight.requires_grad  # pyright: ignore


def test_training_lowers_the_loss_of_the_queries():
    learner, batch = leo(latent=6, inner_steps=1, stochastic=False), episodes(CASE, 2)
    optimizer = torch.optim.Adam(learner.parameters(), lr=1e-2)
    before = q.unrolled(learner.eval(), batch)
    for _ in range(20):
        optimizer.zero_grad()
        q.unrolled(learner.train(), batch).backward()
        optimizer.step()
    assert float(q.unrolled(learner.eval(), batch).detach()) < float(before.detach()) - 0.1


def test_the_length_of_the_embedding_is_read_from_the_backbone():
    assert LEO(q.MLP(6, (4,), 5)).encoder.in_features == 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"features": 0}, "pass features="),
        ({"latent": 0}, "latent=0"),
        ({"inner_steps": -1}, "inner_steps=-1"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"kl_weight": -1.0}, "weight below 0"),
        ({"mode": "backwards"}, "mode='backwards'"),
    ],
)
def test_bad_arguments_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        leo(**arguments)


def test_numbers_are_refused():
    with pytest.raises(ValueError, match="tells classes apart"):
        leo().adapt(q.Labelled(torch.randn(4, 6), torch.randn(4, 1)))
