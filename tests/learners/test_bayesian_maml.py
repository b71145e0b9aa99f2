"""Bayesian MAML: SVGD against an explicit double loop and a conjugate posterior, the rest against MAML."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal

import quickstudy as q
from quickstudy.inner import unroll
from quickstudy.learners.bayesian_maml import BayesianMAML, Stein, chaser_loss, kernel
from tests.contract import CASES, episodes, one, smooth

WAVES = CASES["maml, sinusoid"]
CLASSES = CASES["maml, own output"]


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_default_dtype(torch.float32)


def curve() -> nn.Module:
    return nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 1))


def bayesian(network: nn.Module | None = None, **arguments) -> BayesianMAML:
    settings = {"particles": 3, "inner_lr": 0.1, "inner_steps": 3, "leader_steps": 2, "noise": 0.5}
    return BayesianMAML(network or curve(), **{**settings, **arguments})


def test_a_step_is_that_of_the_double_loop():
    theta, grads = torch.randn(5, 4), torch.randn(5, 4)  # of −log p
    distances = torch.stack([(theta[i] - theta[j]).square().sum() for i in range(5) for j in range(i)])
    h = float(distances.quantile(0.5)) / math.log(5)
    expected = theta.clone()
    for i in range(5):
        for j in range(5):
            k = math.exp(-float((theta[j] - theta[i]).square().sum()) / h)
            slope = -2 / h * (theta[j] - theta[i]) * k  # ∇_{θ^j} k(θ^j, θ^i)
            expected[i] += 0.3 / 5 * (k * -grads[j] + slope)
    stepped, _ = Stein(0.3, 1.0).step({"p": theta}, {"p": grads}, None)
    torch.testing.assert_close(stepped["p"], expected)
    scaled, _ = Stein(0.3 / 0.2, 0.2).step({"p": theta}, {"p": 0.2 * grads}, None)
    torch.testing.assert_close(scaled["p"], expected)


@pytest.mark.parametrize("m", [2, 3, 4])
def test_the_bandwidth_is_the_median_of_all_pairs(m):
    theta = torch.randn(m, 3)
    pairs = torch.pdist(theta).square()
    k, h = kernel(theta)
    torch.testing.assert_close(h, pairs.quantile(0.5) / math.log(m))
    torch.testing.assert_close(k, torch.exp(-torch.cdist(theta, theta).square() / h))
    assert torch.equal(k.diagonal(), torch.ones(m))


def test_particles_that_coincide_stay_finite():
    stepped, _ = Stein(0.1, 1.0).step({"p": torch.ones(3, 2)}, {"p": torch.zeros(3, 2)}, None)
    assert torch.equal(stepped["p"], torch.ones(3, 2))


def test_particles_settle_on_the_posterior_of_a_linear_model():
    """y = w·x + N(0, σ²), w ~ N(0, 1/λ): the posterior is N(A⁻¹ Xᵀy/σ², A⁻¹) with A = XᵀX/σ² + λ."""
    x, noise, prior = torch.randn(6, 2), 0.7, 0.5
    y = x @ torch.tensor([[1.0], [-2.0]]) + noise * torch.randn(6, 1)
    a = x.T @ x / noise**2 + prior * torch.eye(2)
    covariance = a.inverse()
    mean = (covariance @ x.T @ y / noise**2).flatten()
    learner = bayesian(
        nn.Linear(2, 1, bias=False), particles=30, noise=noise, prior=prior, inner_lr=0.5, inner_steps=300
    )
    with torch.no_grad():
        w = learner.adapt(q.Labelled(x, y))["weight"].squeeze(1)  # (30, 2)
    torch.testing.assert_close(w.mean(0), mean, rtol=0.05, atol=0.02)
    torch.testing.assert_close(w.T.cov(), covariance, rtol=0.3, atol=0.02)


def test_one_particle_without_a_prior_is_maml():
    for case, network in ((WAVES, curve()), (CLASSES, smooth())):
        episode = one(case)
        ours = bayesian(network, particles=1)
        theirs = q.MAML(network, head=None, inner_lr=0.1, inner_steps=3)
        adapted = ours.adapt(episode.support)
        for name, value in theirs.adapt(episode.support).items():
            torch.testing.assert_close(adapted[name.removeprefix("network.")][0], value)


def test_one_step_follows_the_log_posterior():
    """One particle: θ + ε · temperature · ∇ log p(θ | D), with the prior, written with torch.distributions."""
    learner, (x, y) = bayesian(particles=1, inner_steps=1, prior=0.8), one(WAVES).support
    parameters = list(learner.network.parameters())
    log_prior = sum((Normal(0.0, 0.8**-0.5).log_prob(p).sum() for p in parameters), torch.zeros(()))
    log_posterior = Normal(learner.network(x), 0.5).log_prob(y).sum() + log_prior
    slopes = torch.autograd.grad(log_posterior, parameters)
    adapted = learner.adapt(q.Labelled(x, y))
    for value, p, slope in zip(adapted.values(), parameters, slopes, strict=True):
        torch.testing.assert_close(value[0], p + 0.1 * 2 * 0.5**2 / len(y) * slope)


def test_the_chaser_loss_takes_the_leader_as_a_constant():
    """Freeze the leader: then the meta-gradient is that of an ordinary function, measured by differences."""
    learner, episode = bayesian(), one(WAVES)
    support, query = episode
    both = q.Labelled(torch.cat([support.x, query.x]), torch.cat([support.y, query.y]))
    leader = learner._steps(learner.adapt(support), both, 2)
    leader = {name: p.detach() for name, p in leader.items()}

    class Frozen(BayesianMAML):
        def meta_loss(self, episode):
            return chaser_loss(self.adapt(episode.support), leader)

    learner.__class__ = Frozen
    assert float(q.check_meta_gradient(learner, episode)) < 1e-6
    parameters = [p for p in learner.parameters() if p.requires_grad]
    expected = torch.autograd.grad(learner.meta_loss(episode), parameters)
    learner.__class__ = BayesianMAML
    loss = learner.meta_loss(episode)
    for ours, theirs in zip(torch.autograd.grad(loss, parameters), expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    distances = [(p - leader[name]).square().sum() for name, p in learner.adapt(support).items()]
    torch.testing.assert_close(loss, torch.stack(distances).sum() / 3)


@pytest.mark.parametrize("mode", ["reverse", "recompute"])
def test_the_meta_gradient_of_the_likelihood_is_exact(mode):
    learner = bayesian(objective="likelihood", mode=mode, prior=0.1)
    assert float(q.check_meta_gradient(learner, one(WAVES))) < 1e-6
    assert float(q.check_meta_gradient(bayesian(smooth(), objective="likelihood", mode=mode), one(CLASSES))) < 1e-6


@pytest.mark.parametrize("objective", ["chaser", "likelihood"])
@pytest.mark.parametrize("case", [WAVES, CLASSES])
def test_loop_and_vmap_agree(case, objective):
    regression = case is WAVES
    learner = bayesian(curve() if regression else smooth(), objective=objective, learn_noise=regression, prior=0.1)
    parameters, found = [p for p in learner.parameters() if p.requires_grad], []
    for strategy in ("loop", "vmap"):
        loss = q.unrolled(learner, episodes(case, 3), strategy=strategy)
        found.append([loss, *torch.autograd.grad(loss, parameters)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_the_noise_follows_the_queries_and_moves_no_particle():
    """∂/∂ log σ of the likelihood alone; the other gradients are those of the chaser loss alone."""
    episode, learner = one(WAVES), bayesian(learn_noise=True)
    *weights, noise = [p for name, p in learner.named_parameters() if name != "log_noise"] + [learner.log_noise]
    grads = torch.autograd.grad(learner.meta_loss(episode), [*weights, noise])
    adapted = {name: p.detach() for name, p in learner.adapt(episode.support).items()}
    each = torch.stack(
        [
            torch.func.functional_call(learner.network, {n: p[m] for n, p in adapted.items()}, episode.query.x)
            for m in range(3)
        ]
    )
    deviation = (each.var(0, correction=0) + (2 * noise).exp()).sqrt()
    expected = torch.autograd.grad(-Normal(each.mean(0), deviation).log_prob(episode.query.y).mean(), noise)[0]
    torch.testing.assert_close(grads[-1], expected)
    learner.learn_noise = False
    for ours, theirs in zip(grads, torch.autograd.grad(learner.meta_loss(episode), weights), strict=False):
        torch.testing.assert_close(ours, theirs)


def test_predictions_are_means_over_the_particles():
    learner, episode = bayesian(), one(WAVES)
    adapted = learner.adapt(episode.support)
    each = learner.each(adapted, episode.query.x)
    torch.testing.assert_close(learner.predict(adapted, episode.query.x), sum(each) / 3)
    mean, deviation = learner.predictive(adapted, episode.query.x)
    torch.testing.assert_close(mean, sum(each) / 3)
    torch.testing.assert_close(deviation.square(), sum((e - mean).square() for e in each) / 3 + 0.25)
    classes = bayesian(smooth())
    episode = one(CLASSES)
    adapted = classes.adapt(episode.support)
    probability = sum(e.softmax(-1) for e in classes.each(adapted, episode.query.x)) / 3
    torch.testing.assert_close(classes.predict(adapted, episode.query.x).exp(), probability)


def test_intervals_hold_what_they_promise_for_normal_targets():
    learner, episode = bayesian(), one(WAVES)
    adapted = learner.adapt(episode.support)
    mean, deviation = learner.predictive(adapted, episode.query.x)
    for level in (0.5, 0.9):
        lower, upper = learner.interval(adapted, episode.query.x, level)
        normal = Normal(mean, deviation)
        torch.testing.assert_close(normal.cdf(upper) - normal.cdf(lower), torch.full_like(mean, level))


def test_particles_start_apart_and_frozen_parameters_are_shared():
    network = nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 1))
    network[0].requires_grad_(False)
    learner = bayesian(network)
    start = learner.start()
    assert set(start) == {"2.weight", "2.bias"}
    assert torch.pdist(start["2.weight"].flatten(1)).min() > 0.1
    for other in learner.others:
        assert torch.equal(other.get_parameter("0.weight"), network[0].weight)


def test_a_layer_that_cannot_draw_its_weights_anew_gets_them_in_another_order():
    learner = bayesian(q.Conv4(width=8, image_size=16), particles=2)
    first, second = learner.start()["blocks.0.weight"].flatten(1)
    assert not torch.equal(first, second)
    torch.testing.assert_close(first.sort().values, second.sort().values)


def test_save_and_load(tmp_path):
    learner, episode = bayesian(learn_noise=True), one(WAVES)
    twin = bayesian(learn_noise=True)
    twin.load_state_dict(learner.state_dict())
    for value, other in zip(learner.adapt(episode.support).values(), twin.adapt(episode.support).values(), strict=True):
        assert torch.equal(value, other)


def test_stein_takes_any_loss():
    """On a normal density without data the particles spread out from one point's neighbourhood."""
    start = {"p": 0.01 * torch.randn(20, 1) + 3}
    end = unroll(Stein(0.5, 1.0), lambda p: (p["p"].square() / 2).sum(), start, steps=200)["p"]
    assert abs(float(end.mean())) < 0.05
    assert abs(float(end.std()) - 1) < 0.15


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"particles": 0}, "particles=0"),
        ({"inner_steps": -1}, "inner_steps=-1"),
        ({"leader_steps": 0}, "leader_steps=0"),
        ({"noise": 0.0}, "noise=0.0"),
        ({"objective": "mse"}, "objective='mse'"),
        ({"mode": "backwards"}, "mode='backwards'"),
    ],
)
def test_bad_arguments_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        bayesian(**arguments)


def test_bad_uses_are_refused():
    with pytest.raises(ValueError, match="one output for each target"):
        bayesian(smooth()).adapt(one(CLASSES, way=4).support)
    learner, episode = bayesian(smooth()), one(CLASSES)
    adapted = learner.adapt(episode.support)
    with pytest.raises(ValueError, match="tells classes apart"):
        learner.predictive(adapted, episode.query.x)
    with pytest.raises(ValueError, match=r"level=90"):
        learner.interval(adapted, episode.query.x, 90)
