"""The temperature against a grid and against a known one; the calibration error against an explicit loop."""

import pytest
import torch

import quickstudy as q
from quickstudy.trust import expected_calibration_error, fit_temperature, probabilities
from tests.trust.made import drawn_labels, made


def smoothed_loss(logits: torch.Tensor, y: torch.Tensor, temperature: float) -> float:
    """The loss that is minimised, row by row."""
    n, way = logits.shape
    total = 0.0
    for z, label in zip(logits.double() / temperature, y.argmax(-1).tolist(), strict=True):
        log_p = (z - z.exp().sum().log()).tolist()
        total -= (n + 1) / (n + 2) * log_p[label]
        total -= sum(log_p[k] for k in range(way) if k != label) / (n + 2) / (way - 1)
    return total / n


@pytest.mark.parametrize("scale", [0.3, 1.0, 20.0])
def test_the_temperature_is_the_best_of_a_fine_grid(scale, generator):
    logits = scale * torch.randn(60, 4, generator=generator)
    y = drawn_labels(logits / scale, generator)
    found = fit_temperature(logits, y)
    grid = [found * 1.01**i for i in range(-40, 41)]
    losses = [smoothed_loss(logits, y, t) for t in grid]
    assert min(range(81), key=lambda i: losses[i]) == 40
    assert smoothed_loss(logits, y, found) <= min(smoothed_loss(logits, y, s * scale) for s in (0.1, 0.5, 1, 2, 10))


@pytest.mark.parametrize("temperature", [0.1, 1.0, 7.0])
def test_a_known_temperature_is_found(temperature, generator):
    logits = 2 * torch.randn(40000, 5, generator=generator)
    y = drawn_labels(logits, generator)
    assert fit_temperature(temperature * logits, y) == pytest.approx(temperature, rel=0.03)
    fitted = made(temperature=fit_temperature(temperature * logits, y))
    assert expected_calibration_error(probabilities(temperature * logits, fitted), y) < 0.01


def test_examples_that_are_all_right_leave_a_doubt():
    y = q.one_hot(torch.arange(20) % 4, 4)
    temperature = fit_temperature(10 * y, y)
    assert temperature > 0
    # the best constant is the target itself: 21/22
    torch.testing.assert_close(probabilities(10 * y, made(temperature=temperature)).amax(-1)[0].item(), 21 / 22)


def test_logits_that_say_nothing():
    y = q.one_hot(torch.arange(10) % 2, 2)
    assert fit_temperature(torch.zeros(10, 2), y) == 1.0
    worse = fit_temperature(-y, y)  # always wrong: as flat as it gets
    assert probabilities(-y, made(temperature=worse)).amax().item() == pytest.approx(0.5, abs=1e-3)


def test_classes_that_are_ruled_out_do_not_count(generator):
    logits = torch.randn(50, 3, generator=generator)
    y = drawn_labels(logits, generator)
    lowest = torch.finfo(torch.float32).min
    wider = torch.cat([logits, torch.full((50, 1), lowest)], 1)
    wide_y = torch.cat([y, torch.zeros(50, 1)], 1)
    assert fit_temperature(wider, wide_y) == pytest.approx(fit_temperature(logits, y))
    assert torch.equal(probabilities(wider, made())[:, 3], torch.zeros(50, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"a true class is ruled out.*leave out classes with a single example"):
        fit_temperature(wider, wide_y.roll(1, 1))


def test_probabilities_are_a_softmax_of_divided_logits(generator):
    logits = torch.randn(7, 3, generator=generator)
    torch.testing.assert_close(probabilities(logits, None), logits.double().softmax(-1))
    torch.testing.assert_close(probabilities(logits, made(temperature=0.25)), (4 * logits.double()).softmax(-1))


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_the_calibration_error_is_that_of_an_explicit_loop(bins, generator):
    p = (2 * torch.randn(300, 3, generator=generator, dtype=torch.float64)).softmax(-1)
    y = drawn_labels(torch.randn(300, 3, generator=generator), generator)
    expected = 0.0
    for b in range(bins):
        rows = [i for i in range(300) if b / bins < float(p[i].max()) <= (b + 1) / bins]
        if rows:
            right = sum(int(p[i].argmax() == y[i].argmax()) for i in rows) / len(rows)
            confidence = sum(float(p[i].max()) for i in rows) / len(rows)
            expected += len(rows) / 300 * abs(right - confidence)
    assert expected_calibration_error(p, y, bins) == pytest.approx(expected, abs=1e-12)


def test_certain_and_right_is_no_error_and_certain_and_wrong_is_all():
    y = torch.eye(3)
    assert expected_calibration_error(y, y) == 0
    assert expected_calibration_error(y, y.roll(1, 0)) == 1


def test_what_is_refused():
    y = torch.eye(2)
    with pytest.raises(ValueError, match=r"values of shape \(2, 3\) and y of shape \(2, 2\); required is \(n, way\)"):
        fit_temperature(torch.zeros(2, 3), y)
    with pytest.raises(ValueError, match=r"with n at least 1: turn integer labels into rows"):
        fit_temperature(torch.zeros(0, 2), torch.zeros(0, 2))
    with pytest.raises(ValueError, match=r"required is \(n, way\) for both"):
        expected_calibration_error(y, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="rows that are not one-hot"):
        fit_temperature(torch.zeros(2, 2), torch.zeros(2, 2))
    with pytest.raises(ValueError, match=r"logits of shape \(2, 2\) with NaN; required are numbers"):
        fit_temperature(torch.full((2, 2), torch.nan), y)
    with pytest.raises(ValueError, match=r"logits of shape \(3,\); required are numbers \(m, way\)"):
        probabilities(torch.zeros(3), None)
    with pytest.raises(ValueError, match=r"that are no probabilities; required are rows"):
        expected_calibration_error(2 * y, y)
    with pytest.raises(ValueError, match=r"bins=0; required is at least 1"):
        expected_calibration_error(y, y, bins=0)
