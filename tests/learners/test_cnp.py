"""CNP against equations (1) to (4) in slow loops, and what all neural processes share."""

import pytest
import torch

import quickstudy as q
from quickstudy.building import build as build_run
from quickstudy.intervals import coverage
from quickstudy.learners.neural_process import log_normal
from quickstudy.runs import Settings
from tests.contract import CASES, one

BOTH = {"cnp": lambda **sizes: q.CNP(width=8, **sizes), "attentive": lambda **sizes: q.AttentiveNP(width=8, **sizes)}


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(params=BOTH)
def build(request):
    return BOTH[request.param]


@torch.no_grad()
def test_cnp_is_its_equations():
    learner, episode = q.CNP(width=8, layers=2), one(CASES["cnp"])
    (sx, sy), (qx, qy) = episode
    r = torch.zeros(8)
    for x, y in zip(sx, sy, strict=True):
        r += learner.encoder(torch.cat([x, y])[None])[0] / len(sx)
    adapted = learner.adapt(episode.support)
    torch.testing.assert_close(adapted, r)
    mean, deviation = learner.distribution(adapted, qx)
    total = torch.zeros(())
    for i, x in enumerate(qx):
        mu, raw = learner.decoder(torch.cat([x, r])[None])[0]
        sigma = 0.01 + torch.log(1 + torch.exp(raw))
        torch.testing.assert_close(torch.stack([mean[i, 0], deviation[i, 0]]), torch.stack([mu, sigma]))
        total += torch.distributions.Normal(mu, sigma).log_prob(qy[i, 0])
    torch.testing.assert_close(learner.meta_loss(episode), -total / len(qx))


def test_log_normal_is_that_of_torch():
    y, mean, deviation = torch.randn(7), torch.randn(7), torch.rand(7) + 0.1
    torch.testing.assert_close(log_normal(y, mean, deviation), torch.distributions.Normal(mean, deviation).log_prob(y))


@torch.no_grad()
def test_the_interval_holds_what_a_normal_distribution_says(build):
    learner, episode = build(), one(CASES["cnp"])
    adapted = learner.adapt(episode.support)
    x = episode.query.x[:1].expand(20_000, -1)
    mean, deviation = learner.distribution(adapted, x)
    assert all(torch.equal(a, b) for a, b in zip(learner.predictive(adapted, x), (mean, deviation), strict=True))
    assert torch.equal(learner.predict(adapted, x), mean)
    y = mean + deviation * torch.randn(mean.shape, generator=torch.Generator().manual_seed(0))
    assert abs(float(coverage(*learner.interval(adapted, x, 0.95), y)) - 0.95) < 0.005
    with pytest.raises(ValueError, match="required is a probability between 0 and 1"):
        learner.interval(adapted, x, 95)


@torch.no_grad()
def test_any_number_of_points_is_read_also_none(build):
    learner = build(in_features=6, out_features=2)
    for n in (0, 1, 5, 1000):
        adapted = learner.adapt(q.Labelled(torch.randn(n, 2, 3), torch.randn(n, 2)))
        mean, deviation = learner.distribution(adapted, torch.randn(4, 2, 3))
        assert mean.shape == deviation.shape == (4, 2)
        assert bool(torch.isfinite(mean).all())
        assert bool((deviation >= 0.01).all())


@pytest.mark.parametrize("value", [0.0, 1e3])
def test_identical_points_give_finite_numbers(build, value):
    learner = build()
    same = q.Labelled(torch.full((5, 1), value), torch.full((5, 1), value))
    learner.meta_loss(q.Episode(same, q.Labelled(same.x[:1], same.y[:1]))).backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in learner.parameters() if p.grad is not None)


def test_tasks_of_several_shots_train_one_learner(build):
    learner, generator = build(), torch.Generator().manual_seed(0)
    tasks, seen = q.GaussianProcess(shot=(1, 6), queries=5), set()
    optimizer = torch.optim.Adam(learner.parameters(), lr=1e-3)
    for _ in q.meta_train(learner, tasks, optimizer, steps=4, meta_batch=2, generator=generator):
        seen.add(len(tasks.sample(1, generator=generator).support.x[0]))
    assert len(seen) > 1


@torch.no_grad()
def test_other_lengths_than_it_was_built_for_are_refused(build):
    learner = build(in_features=2)
    with pytest.raises(ValueError, match=r"examples of 3 numbers; this learner was built for 2: .*in_features=3"):
        learner.adapt(q.Labelled(torch.zeros(4, 3), torch.zeros(4, 1)))
    with pytest.raises(ValueError, match=r"targets of 5 numbers; this learner was built for 1: .* take ProtoNet"):
        learner.adapt(q.Labelled(torch.zeros(4, 2), torch.zeros(4, 5)))
    adapted = learner.adapt(q.Labelled(torch.zeros(4, 2), torch.zeros(4, 1)))
    with pytest.raises(ValueError, match="examples of 1 numbers"):
        learner.predict(adapted, torch.zeros(4))
    with pytest.raises(ValueError, match=r"the prediction has shape \(4, 1\)"):
        learner.negative_log_likelihood(adapted, q.Labelled(torch.zeros(4, 2), torch.zeros(4, 3)))


@pytest.mark.parametrize("sizes", [{"in_features": 0}, {"out_features": 0}, {"layers": 0}, {"least_deviation": 0.0}])
def test_sizes_are_required(build, sizes):
    with pytest.raises(ValueError, match="required is at least 1 of each, and a finite deviation above 0"):
        build(**sizes)


@pytest.mark.parametrize("name", ["cnp", "attentive_np"])
def test_the_command_sizes_one_for_its_tasks(name):
    settings = Settings(learner=name, tasks="gaussian_process", width=16, options={"layers": 1})
    learner, judged, _ = build_run(settings, q.GaussianProcess(in_features=3))
    assert isinstance(learner, q.CNP | q.AttentiveNP)
    assert learner is judged
    assert (learner.in_features, learner.width, learner.layers) == (3, 16, 1)
    tasks = q.ClassTasks(torch.randn(8, 6), [0, 1] * 4, way=2, queries=1)
    with pytest.raises(ValueError, match=f"{name} predicts numbers, and glyphs has classes: use protonet"):
        build_run(Settings(learner=name, tasks="glyphs"), tasks)
    with pytest.raises(ValueError, match=rf"\['depth'\] are no arguments of {name}"):
        build_run(Settings(learner=name, tasks="gaussian_process", options={"depth": 1}), q.GaussianProcess())
