"""The sinusoid tasks of MAML."""

import math

import numpy as np
import pytest
import torch

import quickstudy as q


def test_shapes(generator):
    episodes = q.Sinusoid(shot=4, queries=7).sample(3, generator=generator)
    assert episodes.support.x.shape == episodes.support.y.shape == (3, 4, 1)
    assert episodes.query.x.shape == episodes.query.y.shape == (3, 7, 1)


def test_support_and_query_lie_on_one_sine_wave_with_amplitude_and_phase_in_their_ranges(generator):
    episodes = q.Sinusoid(shot=6, queries=20).sample(200, generator=generator)
    amplitudes, phases = [], []
    for i in range(200):
        x = torch.cat([episodes.support.x[i], episodes.query.x[i]]).double().numpy().ravel()
        y = torch.cat([episodes.support.y[i], episodes.query.y[i]]).double().numpy().ravel()
        # y = a sin x + b cos x is a linear fit, with A = √(a² + b²) and φ = atan2(−b, a)
        (a, b), *_ = np.linalg.lstsq(np.stack([np.sin(x), np.cos(x)], 1), y, rcond=None)
        np.testing.assert_allclose(a * np.sin(x) + b * np.cos(x), y, atol=1e-4)
        amplitudes.append(math.hypot(a, b))
        phases.append(math.atan2(-b, a))
    assert 0.09 < min(amplitudes) < 0.4
    assert 4.7 < max(amplitudes) < 5.001
    assert -1e-3 < min(phases) < 0.15
    assert math.pi - 0.15 < max(phases) < math.pi + 1e-3


def test_inputs_are_uniform_in_their_range(generator):
    x = q.Sinusoid(shot=50, queries=50).sample(100, generator=generator).support.x.flatten()
    assert float(x.min()) >= -5
    assert float(x.max()) < 5
    counts = torch.histc(x, bins=10, min=-5, max=5).double()
    assert float(((counts - 500) ** 2 / 500).sum()) < 27.9  # 99.9 % point, 9 degrees of freedom


def test_ranges_can_be_chosen_and_the_seed_decides():
    tasks = q.Sinusoid(amplitude=(2.0, 2.0), phase=(0.0, 0.0), x=(0.0, 1.0))
    first, second = (tasks.sample(2, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    torch.testing.assert_close(first.query.y, 2 * torch.sin(first.query.x))
    assert torch.equal(first.query.x, second.query.x)
    assert 0 <= float(first.query.x.min()) <= float(first.query.x.max()) <= 1


@pytest.mark.parametrize("name", ["amplitude", "phase", "x"])
@pytest.mark.parametrize("bounds", [(2.0, 1.0), (math.nan, 1.0), (0.0, math.nan), (0.0, math.inf), (-math.inf, 0.0)])
def test_ranges_must_be_finite_and_in_order(name, bounds):
    with pytest.raises(ValueError, match=rf"{name}=\(.*two finite numbers, the lower one first"):
        q.Sinusoid(**{name: bounds})


def test_numpy_numbers_are_settings(generator):
    tasks = q.Sinusoid(shot=np.int64(3), queries=np.int32(2))  # pyright: ignore[reportArgumentType]
    assert tasks.sample(2, generator=generator).query.x.shape == (2, 2, 1)


@pytest.mark.parametrize("settings", [{"shot": 0}, {"queries": 0}])
def test_points_are_required(settings):
    with pytest.raises(ValueError, match="required is at least 1 of each"):
        q.Sinusoid(**settings)
