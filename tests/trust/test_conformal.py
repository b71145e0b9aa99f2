"""Coverage on exchangeable examples, against the exact bounds; sets against their definition."""

import pytest
import torch

from quickstudy.trust import CONFORMITIES, prediction_sets
from quickstudy.trust.conformal import conformities
from quickstudy.trust.quantiles import stored_quantiles
from tests.trust.made import drawn_labels, made


@pytest.mark.parametrize("name", CONFORMITIES)
@pytest.mark.parametrize(("n", "coverage"), [(19, 0.9), (99, 0.8), (400, 0.95)])
def test_coverage_lies_between_the_exact_bounds(name, n, coverage, generator):
    """Split conformal: coverage ≤ P(held) ≤ coverage + 1/(n + 1), over calibration and new examples together."""
    draws, new, held = 200, 50, 0
    for _ in range(draws):
        logits = torch.randn(n + new, 4, generator=generator)
        y = drawn_labels(2 * logits, generator)  # the probabilities are off, the guarantee is not
        of_true = conformities(logits[:n], 0.5)[name][y[:n] > 0]
        fitted = made(conformity=dict.fromkeys(CONFORMITIES, stored_quantiles(of_true)), examples=n)
        held += int(prediction_sets(logits[n:], fitted, name, coverage)[y[n:] > 0].sum())
    share, slack = held / draws / new, 4 * (coverage * (1 - coverage) * (1 / n + 1 / new) / draws) ** 0.5
    assert coverage - slack < share < coverage + 1 / (n + 1) + slack


def test_a_set_holds_what_fits_well_enough_and_may_be_empty():
    limits = {
        "probability": stored_quantiles(torch.full((99,), 0.6)),
        "logit": stored_quantiles(torch.full((99,), 1.0)),
    }
    fitted = made(conformity=limits, examples=99, temperature=2.0)
    p = torch.tensor([[0.9, 0.05, 0.05], [0.45, 0.45, 0.1], [0.34, 0.33, 0.33]])
    sets = prediction_sets(2 * p.log(), fitted, "probability", 0.9)
    assert sets.tolist() == [[True, False, False], [True, True, False], [False, False, False]]
    logits = torch.tensor([[-0.5, -1.5], [0.0, -1.0], [-2.0, -3.0]])
    assert prediction_sets(logits, fitted, "logit", 0.9).tolist() == [[True, False], [True, True], [False, False]]


@pytest.mark.parametrize("name", CONFORMITIES)
def test_sets_grow_with_coverage(name, generator):
    logits = torch.randn(100, 5, generator=generator)
    smaller, larger = (prediction_sets(logits, made(), name, coverage) for coverage in (0.6, 0.9))
    assert bool((larger | ~smaller).all())
    assert int(larger.sum()) > int(smaller.sum())


@pytest.mark.parametrize("name", CONFORMITIES)
def test_a_class_that_is_ruled_out_is_in_no_set(name):
    logits = torch.tensor([[0.0, torch.finfo(torch.float32).min]])
    assert not bool(prediction_sets(logits, made(), name, 0.9)[0, 1])


def test_what_is_refused():
    logits = torch.zeros(2, 5)
    with pytest.raises(
        ValueError,
        match=r"coverage=0.95 was asked for, .* rests on 12 examples; required are 19: .* coverage=0.92 or less",
    ):
        prediction_sets(logits, made(examples=12), "logit", 0.95)
    with pytest.raises(ValueError, match=r"coverage=90 was asked for; required is a number between 0 and 1"):
        prediction_sets(logits, made(), "logit", 90)
    with pytest.raises(ValueError, match="conformity='rank' is not known: choose of logit, probability"):
        prediction_sets(logits, made(), "rank", 0.9)
    with pytest.raises(ValueError, match=r"logits of shape \(5,\); required are numbers \(m, way\)"):
        prediction_sets(logits[0], made(), "logit", 0.9)
