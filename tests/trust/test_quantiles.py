"""Stored quantiles against sorting and counting, and their guarantee by simulation."""

import math
from fractions import Fraction

import pytest
import torch

from quickstudy.trust import examples_needed
from quickstudy.trust.quantiles import STEPS, stored_quantiles, threshold


@pytest.mark.parametrize("n", [9, 19, 57, 1000])
def test_a_quantile_is_the_order_statistic_of_the_definition(n, generator):
    values = torch.randn(n, generator=generator, dtype=torch.float64)
    quantiles, ordered = stored_quantiles(values), sorted(values.tolist())
    assert len(quantiles) == STEPS + 1
    assert list(quantiles) == sorted(quantiles)
    for percent in range(1, 100):
        rank = math.ceil(Fraction((n + 1) * percent, 100))
        if rank <= n:
            limit = threshold(quantiles, percent / 100, n, "level")
            exact = ordered[rank - 1]
            assert exact <= limit <= exact + 1e-4 * abs(exact)  # 5 digits, rounded up
        else:
            with pytest.raises(
                ValueError, match=f"rests on {n} examples; required are {examples_needed(percent / 100)}"
            ):
                threshold(quantiles, percent / 100, n, "level")


def test_numbers_are_rounded_up_so_that_no_stored_value_exceeds_its_threshold():
    values = torch.tensor([-1 / 3, 1 / 3, 1e-9 / 3, 123456.7, 0.0, 1.0], dtype=torch.float64)
    for value in values:
        (stored,) = set(stored_quantiles(value.repeat(9)))
        assert float(value) <= stored <= float(value) + 1e-4 * abs(float(value))
        assert len(repr(stored)) <= 11


@pytest.mark.parametrize(("n", "level"), [(19, 0.9), (19, 0.95), (50, 0.8), (200, 0.975)])
def test_a_new_number_is_within_as_often_as_exchangeability_says(n, level, generator):
    """P(new ≤ k-th smallest) is exactly k/(n + 1) for continuous numbers, which lies in [level, level + 1/(n + 1))."""
    draws = 20000
    values = torch.rand(draws, n + 1, generator=generator, dtype=torch.float64)
    rank = math.ceil(Fraction(level).limit_denominator(200) * (n + 1))
    expected = rank / (n + 1)
    assert level <= expected + 1e-12 < level + 1 / (n + 1) + 1e-9
    held = 0
    for row in values[:300]:  # the function itself, on a part of the draws
        limit = threshold(stored_quantiles(row[:n]), level, n, "level")
        assert limit >= float(row[:n].sort().values[rank - 1])
        held += int(row[n] <= limit)
    assert abs(held / 300 - expected) < 4 * math.sqrt(expected * (1 - expected) / 300) + 1e-3
    all_held = (values[:, n] <= values[:, :n].sort(1).values[:, rank - 1]).double().mean()
    assert abs(float(all_held) - expected) < 4 * math.sqrt(expected * (1 - expected) / draws)


def test_between_stored_levels_the_higher_one_holds():
    quantiles = stored_quantiles(torch.arange(1000.0))
    assert threshold(quantiles, 0.901, 1000, "level") == threshold(quantiles, 0.905, 1000, "level")
    assert threshold(quantiles, 1 - 0.05, 1000, "level") == 950.0  # the 951st of 0, 1, 2, ...


def test_examples_needed_by_hand():
    assert [examples_needed(level) for level in (0.5, 0.8, 0.9, 0.95, 0.99, 0.995)] == [1, 4, 9, 19, 99, 199]


@pytest.mark.parametrize("level", [0.0, 1.0, -1.0, 1.5, math.nan])
def test_a_level_is_a_share(level):
    with pytest.raises(ValueError, match=r"x=1 was asked for; required is a number between 0 and 1"):
        threshold(stored_quantiles(torch.rand(9)), level, 9, "x=1")


def test_levels_next_to_one_are_refused():
    with pytest.raises(ValueError, match=r"no more than 0.995 of coverage"):
        threshold(stored_quantiles(torch.rand(9)), 0.999, 9, "coverage=0.999")
    with pytest.raises(ValueError, match=r"above 0 and at most 0.995"):
        examples_needed(0.999)
    with pytest.raises(ValueError, match=r"level=0; required"):
        examples_needed(0)
