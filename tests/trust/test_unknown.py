"""Scores against their definitions, AUROC against scikit-learn, thresholds against counting."""

import math

import pytest
import torch
from sklearn.metrics import roc_auc_score

from quickstudy.trust import SCORES, auroc, is_unknown, unknown_scores
from quickstudy.trust.quantiles import stored_quantiles
from tests.trust.made import made


def test_scores_are_what_they_are_defined_as(generator):
    logits, t = 3 * torch.randn(6, 4, generator=generator), 0.5
    scores = unknown_scores(logits, made(temperature=t))
    assert tuple(scores) == SCORES
    for i, z in enumerate(logits.double().tolist()):
        total = sum(math.exp(v / t) for v in z)
        p = [math.exp(v / t) / total for v in z]
        first, second = sorted(z)[-1], sorted(z)[-2]
        expected = (-first, -t * math.log(total), -max(p), -sum(v * math.log(v) for v in p), second - first)
        assert [float(scores[name][i]) for name in SCORES] == pytest.approx(expected)


def test_without_a_calibration_the_temperature_is_one(generator):
    logits = torch.randn(5, 3, generator=generator)
    for name, score in unknown_scores(logits, made(temperature=1.0)).items():
        assert torch.equal(score, unknown_scores(logits, None)[name])


def test_a_class_that_is_ruled_out_leaves_the_scores_finite():
    lowest = torch.finfo(torch.float32).min
    scores = unknown_scores(torch.tensor([[1.0, 2.0, lowest], [lowest, 3.0, lowest]]), made(temperature=0.01))
    assert all(bool(torch.isfinite(score).all()) for score in scores.values())


def test_auroc_is_that_of_scikit_learn_also_with_ties(generator):
    for digits in (0, 1, 8):
        known = torch.randn(200, generator=generator, dtype=torch.float64).round(decimals=digits)
        unknown = (torch.randn(150, generator=generator, dtype=torch.float64) + 0.7).round(decimals=digits)
        expected = roc_auc_score([0] * 200 + [1] * 150, torch.cat([known, unknown]).numpy())
        assert auroc(known, unknown) == pytest.approx(expected, abs=1e-12)
    assert auroc(torch.zeros(3), torch.zeros(2)) == 0.5


@pytest.mark.parametrize("false_alarms", [0.01, 0.05, 0.2])
def test_the_threshold_keeps_false_alarms_by_counting(false_alarms, generator):
    logits = torch.randn(500, 5, generator=generator)
    fitted = made(temperature=1.0)
    known = {name: stored_quantiles(score) for name, score in unknown_scores(logits, fitted).items()}
    fitted = made(temperature=1.0, known=known, examples=500)
    for name in SCORES:
        called = is_unknown(logits, fitted, name, false_alarms)
        assert called.dtype == torch.bool
        allowed = 500 - math.ceil(501 * (1 - false_alarms) - 1e-9)
        assert allowed - 1 <= int(called.sum()) <= allowed  # one less where rounding up takes in a neighbour


def test_what_is_refused():
    logits = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"score='size' is not among the calibrated ones: choose of maximum_logit"):
        is_unknown(logits, made(), "size", 0.05)
    few = made(examples=12)
    with pytest.raises(
        ValueError,
        match=r"false_alarms=0.05 was asked for, .* rests on 12 examples; required are 19: .*=0.08 or more",
    ):
        is_unknown(logits, few, "margin", 0.05)
    for share in (0, 1, 1.5):
        with pytest.raises(ValueError, match="required is a number between 0 and 1"):
            is_unknown(logits, made(), "margin", share)
    with pytest.raises(ValueError, match=r"no less than 0.005 of false alarms"):
        is_unknown(logits, made(), "margin", 0.001)
    with pytest.raises(ValueError, match="logits for 1 class; required are two or more"):
        unknown_scores(torch.zeros(2, 1), None)
    with pytest.raises(ValueError, match="0 scores of known and 2 of unknown classes"):
        auroc(torch.zeros(0), torch.zeros(2))
    with pytest.raises(ValueError, match="none that is NaN"):
        auroc(torch.tensor([torch.nan]), torch.zeros(2))


def test_a_query_as_far_as_the_limit_is_not_unknown():
    logits = torch.tensor([[3.0, 1.0], [3.0, 1.0625]])  # the margin less the limit of −2: 0 and 0.0625
    limits = made(temperature=1.0, known=dict.fromkeys(SCORES, (-2.0,) * 201))
    assert is_unknown(logits, limits, "margin", 0.05).tolist() == [False, True]
