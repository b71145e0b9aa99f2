"""What a classifier's own examples say of it, each answered without it."""

import pytest
import torch

import quickstudy as q
from quickstudy.estimators import own_examples
from quickstudy.estimators.own_examples import least_false_alarms, on_own_examples
from quickstudy.readers import ArrayReader
from quickstudy.trust import examples_needed, expected_calibration_error, left_out, probabilities
from tests.trust.made import made


def fitted(each: int) -> q.FewShotClassifier:
    """Three classes that overlap."""
    y = torch.arange(3 * each) % 3
    x = torch.randn(3 * each, 2, generator=torch.Generator().manual_seed(0)) + y[:, None]
    return q.FewShotClassifier(q.NearestNeighbour(), reader=ArrayReader()).fit(x.numpy(), y.tolist())


@pytest.mark.parametrize(("each", "bins"), [(3, 1), (7, 2), (10, 3), (50, 15), (60, 15)])
def test_a_bin_of_confidences_holds_ten_examples_and_there_are_fifteen_at_most(each, bins, monkeypatch):
    model, asked = fitted(each), []

    def error(*given, bins):
        asked.append(bins)
        return expected_calibration_error(*given, bins=bins)

    monkeypatch.setattr(own_examples, "expected_calibration_error", error)
    found = on_own_examples(model)
    assert found is not None
    assert model.trust_ is not None
    logits, labels, _ = left_out(model.learner_, model.support_)
    p = probabilities(logits, model.trust_.at(3, each))
    assert found.examples == 3 * each
    assert found.right == int((logits.argmax(1) == labels.argmax(1)).sum())
    assert found.accuracy == found.right / found.examples
    assert found.ece == expected_calibration_error(p, labels, bins=bins)
    assert asked == [bins]


def test_too_few_examples_say_nothing():
    assert on_own_examples(fitted(2)) is None


@pytest.mark.parametrize("examples", [9, 19, 20, 99])
def test_the_least_rate_of_false_alarms_has_examples_enough(examples):
    rate = least_false_alarms(made(examples=examples))
    assert examples_needed(1 - rate) <= examples < examples_needed(1 - rate + 0.005)
