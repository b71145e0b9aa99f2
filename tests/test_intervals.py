"""Coverage of intervals."""

import pytest
import torch

from quickstudy.intervals import coverage


def test_coverage_counts_the_bounds_as_inside():
    y = torch.tensor([[0.0], [1.0], [2.0], [3.5]])
    assert float(coverage(y - 1, y, y)) == 1
    assert float(coverage(torch.zeros(4, 1), torch.full((4, 1), 2.0), y)) == 0.75


def test_intervals_of_normal_targets():
    y = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0))
    half = torch.full_like(y, 1.6449)
    assert abs(float(coverage(-half, half, y)) - 0.9) < 0.01


def test_bad_intervals_are_refused():
    y = torch.zeros(3, 1)
    with pytest.raises(ValueError, match="one interval for each target"):
        coverage(torch.zeros(3), torch.ones(3), y)
    with pytest.raises(ValueError, match="lower ≤ upper"):
        coverage(y + 1, y, y)
