"""Draws of Gaussian processes: their moments, and the posterior in closed form."""

import math

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor, kernels

import quickstudy as q
from quickstudy.tasks.gaussian_process import Kernel

KERNELS = ("rbf", "matern12", "matern32", "matern52")


def theirs(name: str, length: float, amplitude: float):
    nu = {"matern12": 0.5, "matern32": 1.5, "matern52": 2.5}
    shape = kernels.RBF(length) if name == "rbf" else kernels.Matern(length, nu=nu[name])
    return kernels.ConstantKernel(amplitude**2) * shape


def test_shapes_and_ranges(generator):
    tasks = q.GaussianProcess(shot=(2, 5), queries=7, in_features=3, x=(1.0, 2.0))
    shots = set()
    for _ in range(30):
        episode = tasks.sample(3, generator=generator)
        shots.add(episode.support.x.shape[1])
        assert episode.support.x.shape == (3, episode.support.y.shape[1], 3)
        assert episode.query.x.shape == (3, 7, 3)
        assert episode.query.y.shape == (3, 7, 1)
        assert 1 <= float(episode.query.x.min()) <= float(episode.query.x.max()) <= 2
    assert shots == {2, 3, 4, 5}


@pytest.mark.parametrize("name", KERNELS)
def test_covariances_are_those_of_scikit_learn(name):
    tasks, kernel = q.GaussianProcess(kernel=name), Kernel(torch.tensor(0.7).double(), torch.tensor(1.3).double())
    a, b = (torch.randn(n, 2, generator=torch.Generator().manual_seed(n)).double() for n in (4, 5))
    np.testing.assert_allclose(tasks.covariance(a, b, kernel), theirs(name, 0.7, 1.3)(a.numpy(), b.numpy()), rtol=1e-6)


@pytest.mark.parametrize("name", KERNELS)
def test_the_posterior_is_the_closed_form(name, generator):
    tasks = q.GaussianProcess(shot=6, queries=9, kernel=name, noise=0.2)
    (support, query), kernel = tasks.draw(3, generator=generator)
    mean, deviation = tasks.posterior(support, query.x, kernel)
    for i in range(3):
        length, amplitude = float(kernel.length_scale[i]), float(kernel.amplitude[i])
        noise = 0.2**2 + 1e-8 * amplitude**2
        model = GaussianProcessRegressor(theirs(name, length, amplitude), alpha=noise, optimizer=None)
        model.fit(support.x[i].double().numpy(), support.y[i, :, 0].double().numpy())
        m, s = model.predict(query.x[i].double().numpy(), return_std=True)
        np.testing.assert_allclose(mean[i, :, 0], m, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(deviation[i, :, 0], np.sqrt(s**2 + noise), rtol=1e-6)
    alone = tasks.posterior(q.Labelled(support.x[1], support.y[1]), query.x[1], Kernel(*(k[1] for k in kernel)))
    for one, all_of_them in zip(alone, (mean, deviation), strict=True):
        torch.testing.assert_close(one, all_of_them[1])


def test_draws_have_the_covariance_of_their_kernel(generator):
    tasks = q.GaussianProcess(shot=1, queries=1, length_scale=(0.8, 0.8), amplitude=(1.5, 1.5), noise=0.3)
    (support, query), _ = tasks.draw(40_000, generator=generator)
    assert abs(float(support.y.square().mean()) - (1.5**2 + 0.3**2)) < 0.06
    r = (support.x - query.x).abs() / 0.8
    near = (r > 0.4) & (r < 0.6)
    expected = float((1.5**2 * torch.exp(-r.square() / 2))[near].mean())
    assert abs(float((support.y * query.y)[near].mean()) - expected) < 0.15


@pytest.mark.parametrize("name", KERNELS)
def test_the_posterior_is_calibrated(name, generator):
    tasks = q.GaussianProcess(shot=8, queries=5, kernel=name)
    (support, query), kernel = tasks.draw(2000, generator=generator)
    mean, deviation = tasks.posterior(support, query.x, kernel)
    held = ((query.y - mean).abs() < 1.96 * deviation).double().mean()
    assert abs(float(held) - 0.95) < 0.015


def test_many_points_without_noise_and_points_in_one_place_have_a_factor(generator):
    tasks = q.GaussianProcess(shot=150, queries=150, noise=0.0, length_scale=(2.0, 2.0))
    assert bool(torch.isfinite(tasks.sample(2, generator=generator).query.y).all())
    same = q.GaussianProcess(shot=20, queries=5, noise=0.0, x=(1.0, 1.0))
    (support, query), kernel = same.draw(2, generator=generator)
    assert bool(torch.isfinite(torch.cat(same.posterior(support, query.x, kernel))).all())


def test_the_seed_decides_and_sample_is_draw():
    tasks = q.GaussianProcess()
    first = tasks.sample(2, generator=torch.Generator().manual_seed(3))
    second, kernel = tasks.draw(2, generator=torch.Generator().manual_seed(3))
    assert torch.equal(first.query.y, second.query.y)
    assert kernel.length_scale.shape == kernel.amplitude.shape == (2,)
    assert first.query.y.dtype == torch.float32


def test_it_has_a_name():
    tasks = q.named_tasks("gaussian_process", "validation", shot=3, queries=4, way=5)
    assert tasks == q.GaussianProcess(3, 4)
    with pytest.raises(ValueError, match="part 'exam' of gaussian_process is not known"):
        q.named_tasks("gaussian_process", "exam")


@pytest.mark.parametrize(("settings", "words"), [
    ({"shot": 0}, "required is at least 1 of each"),
    ({"queries": 0}, "required is at least 1 of each"),
    ({"shot": (5, 2)}, r"a range \(lowest, highest\): turn it round"),
    ({"in_features": 0}, "in_features=0; required is at least 1"),
    ({"kernel": "linear"}, "choose among rbf, matern12, matern32, matern52"),
    ({"length_scale": (0.0, 1.0)}, r"length_scale=\(0.0, 1.0\); required are two finite numbers above 0"),
    ({"amplitude": (2.0, 1.0)}, "amplitude=.*the lower one first"),
    ({"x": (0.0, math.inf)}, r"x=\(0.0, inf\); required are two finite numbers, the lower one first"),
    ({"noise": -0.1}, "noise at least 0 and jitter above 0"),
    ({"jitter": 0.0}, "noise at least 0 and jitter above 0"),
])  # fmt: skip
def test_settings_out_of_range_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        q.GaussianProcess(**settings)


def test_sinusoids_draw_their_points_from_a_range_too(generator):
    tasks = q.Sinusoid(shot=(2, 4), queries=3)
    assert {len(tasks.sample(1, generator=generator).support.x[0]) for _ in range(30)} == {2, 3, 4}
    with pytest.raises(ValueError, match="turn it round"):
        q.Sinusoid(shot=(4, 2))
