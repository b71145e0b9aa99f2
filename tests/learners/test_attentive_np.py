"""The attentive neural process against its equations in slow loops and torch.distributions."""

import pytest
import torch
from torch.distributions import MixtureSameFamily, Normal, kl_divergence

import quickstudy as q
from quickstudy.learners.attentive_np import kl_of_normals
from tests.contract import CASES, NP_SMALL, one


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_default_dtype(torch.float32)


@torch.no_grad()
def test_each_target_reads_its_own_mean_of_the_points():
    learner, episode = q.AttentiveNP(width=8, heads=1, self_attention=0), one(CASES["attentive np"])
    (sx, sy), (qx, qy) = episode
    mean, deviation = learner.distribution(learner.adapt(episode.support), qx)
    encode, across = learner.encoder, learner.across
    keys = [across.key(learner.place(x[None]))[0] for x in sx]
    values = [across.value(encode(torch.cat([x, y])[None]))[0] for x, y in zip(sx, sy, strict=True)]
    total = torch.zeros(())
    for i, x in enumerate(qx):
        query = across.query(learner.place(x[None]))[0]
        weights = [torch.exp(query @ key / 8**0.5) for key in keys]
        r = across.join(sum(w / sum(weights) * value for w, value in zip(weights, values, strict=True)))
        mu, raw = learner.decoder(torch.cat([x, r])[None])[0]
        sigma = 0.01 + torch.log(1 + torch.exp(raw))
        torch.testing.assert_close(torch.stack([mean[i, 0], deviation[i, 0]]), torch.stack([mu, sigma]))
        total += Normal(mu, sigma).log_prob(qy[i, 0])
    torch.testing.assert_close(learner.meta_loss(episode), -total / len(qx))


@torch.no_grad()
def test_self_attention_lets_points_change_one_another():
    episode = one(CASES["attentive np"])
    for blocks in (0, 2):
        learner = q.AttentiveNP(width=8, self_attention=blocks)
        all_of_them = learner.adapt(episode.support).values[:4]
        first = learner.adapt(q.Labelled(episode.support.x[:4], episode.support.y[:4])).values
        assert torch.allclose(all_of_them, first) is (blocks == 0)


@torch.no_grad()
def test_the_elbo_is_that_of_torch():
    learner, episode = q.AttentiveNP(**NP_SMALL, objective="elbo"), one(CASES["attentive np"])
    support, query = episode
    context = learner.adapt(support)
    both = [torch.cat(parts) for parts in zip(support, query, strict=True)]
    posterior = Normal(*learner.latent_of(torch.cat(both, -1)))
    total = torch.zeros(())
    for e in learner.noise:
        z = posterior.mean + posterior.stddev * e
        mean, deviation = learner.each(context, query.x, z[None])
        total += Normal(mean[0], deviation[0]).log_prob(query.y).sum() / len(learner.noise)
    kl = kl_divergence(posterior, Normal(context.mean, context.deviation)).sum()
    torch.testing.assert_close(learner.meta_loss(episode), (kl - total) / query.y.numel())


@torch.no_grad()
def test_the_likelihood_is_a_mean_over_draws():
    learner, episode = q.AttentiveNP(**NP_SMALL), one(CASES["attentive np"])
    support, query = episode
    context = learner.adapt(support)
    means, deviations = learner.each(context, query.x, context.mean + context.deviation * learner.noise)
    each = [Normal(m, d).log_prob(query.y).sum().exp() for m, d in zip(means, deviations, strict=True)]
    torch.testing.assert_close(learner.meta_loss(episode), -torch.stack(each).mean().log() / len(query.y))
    mixture = MixtureSameFamily(
        torch.distributions.Categorical(torch.ones(len(query.y), 3)), Normal(means[..., 0].T, deviations[..., 0].T)
    )
    mean, deviation = learner.distribution(context, query.x)
    torch.testing.assert_close(mean[:, 0], mixture.mean)
    torch.testing.assert_close(deviation[:, 0], mixture.stddev)


def test_the_divergence_is_that_of_torch():
    a, b = Normal(torch.randn(5), torch.rand(5) + 0.1), Normal(torch.randn(5), torch.rand(5) + 0.1)
    torch.testing.assert_close(kl_of_normals(a.mean, a.stddev, b.mean, b.stddev), kl_divergence(a, b))


@pytest.mark.parametrize("objective", ["elbo", "likelihood"])
def test_draws_are_fresh_in_training_alone(objective):
    learner = q.AttentiveNP(**{**NP_SMALL, "stochastic": True}, objective=objective)
    episode = one(CASES["attentive np"])
    assert not torch.equal(learner.meta_loss(episode), learner.meta_loss(episode))
    q.unrolled(learner, q.GaussianProcess().sample(2, generator=torch.Generator()), strategy="vmap").backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in learner.parameters() if p.grad is not None)
    learner.eval()
    assert torch.equal(learner.meta_loss(episode), learner.meta_loss(episode))


@pytest.mark.parametrize(("settings", "words"), [
    ({"objective": "map"}, "choose 'elbo' or 'likelihood'"),
    ({"self_attention": -1}, "required is at least 0 blocks"),
    ({"samples": 0}, "required is at least 1 of each"),
    ({"width": 10, "heads": 4}, "a multiple of the heads"),
])  # fmt: skip
def test_settings_out_of_range_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        q.AttentiveNP(**settings)
