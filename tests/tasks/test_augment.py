"""Random affine changes of images."""

import math

import pytest
import torch

import quickstudy as q
from quickstudy.tasks import InTurn, RandomElastic

STILL = {"degrees": 0.0, "scale": 0.0, "shear": 0.0, "shift": 0.0}


def image(*points: tuple[int, int], size: int = 17) -> torch.Tensor:
    """A dark image with a bright 3×3 spot around each (row, column)."""
    x = torch.zeros(1, 1, size, size)
    for row, column in points:
        x[0, 0, row - 1 : row + 2, column - 1 : column + 2] = 1
    return x


def centre(x: torch.Tensor) -> tuple[float, float]:
    """The centre of mass of one image, (row, column)."""
    weights, grid = x.squeeze(), torch.arange(x.shape[-1], dtype=x.dtype)
    return float((weights.sum(1) * grid).sum() / weights.sum()), float((weights.sum(0) * grid).sum() / weights.sum())


def test_no_change_is_the_same_image(generator):
    x = torch.rand(4, 2, 9, 9, generator=generator)
    torch.testing.assert_close(q.RandomAffine(**STILL)(x, generator), x, rtol=0, atol=1e-5)


def test_shape_and_range_are_kept_and_borders_are_dark(generator):
    x = torch.ones(50, 3, 12, 12)
    changed = q.RandomAffine()(x, generator)
    assert changed.shape == x.shape
    assert changed.dtype == x.dtype
    assert float(changed.min()) >= 0
    assert float(changed.max()) <= 1 + 1e-5
    assert float(changed[:, :, 0, 0].min()) < 1


def test_the_generator_decides_and_every_image_is_changed_on_its_own():
    x = image((8, 3)).expand(6, 1, 17, 17)
    draws = [q.RandomAffine()(x, torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not torch.allclose(draws[0][0], draws[0][1])


def test_the_global_random_state_is_left_alone(generator):
    before = torch.get_rng_state()
    q.RandomAffine()(image((8, 8)), generator)
    assert torch.equal(before, torch.get_rng_state())


def test_a_rotation_turns_a_point_around_the_middle_by_at_most_the_given_angle():
    x = image((8, 3)).expand(200, 1, 17, 17)
    turned = q.RandomAffine(**{**STILL, "degrees": 30.0})(x, torch.Generator().manual_seed(0))
    angles = []
    for row, column in map(centre, turned):
        assert math.hypot(row - 8, column - 8) == pytest.approx(5, abs=0.2)
        angles.append(math.degrees(math.atan2(row - 8, 8 - column)))
    assert max(angles) == pytest.approx(30, abs=2)
    assert min(angles) == pytest.approx(-30, abs=2)


def test_a_shift_moves_by_at_most_the_given_fraction_of_the_image():
    x = image((8, 8)).expand(200, 1, 17, 17)
    moved = q.RandomAffine(**{**STILL, "shift": 0.2})(x, torch.Generator().manual_seed(0))
    offsets = torch.tensor([centre(m) for m in moved]) - 8
    assert float(offsets.abs().max()) == pytest.approx(0.2 * 17, abs=0.1)
    assert offsets.min(0).values.tolist() == pytest.approx([-3.4, -3.4], abs=0.15)


def test_scale_and_shear_move_points_by_at_most_their_size():
    x = image((8, 3)).expand(200, 1, 17, 17)
    scaled = q.RandomAffine(**{**STILL, "scale": 0.2})(x, torch.Generator().manual_seed(0))
    distances = [8 - column for _, column in map(centre, scaled)]
    assert min(distances) == pytest.approx(5 / 1.2, abs=0.15)
    assert max(distances) == pytest.approx(5 / 0.8, abs=0.15)
    sheared = q.RandomAffine(**{**STILL, "shear": 0.2})(image((3, 8)).expand(200, 1, 17, 17), torch.Generator())
    columns = torch.tensor([centre(s) for s in sheared])
    assert columns[:, 0].tolist() == pytest.approx([3.0] * 200, abs=0.15)
    assert float((columns[:, 1] - 8).abs().max()) == pytest.approx(0.2 * 5, abs=0.15)


def test_double_precision_is_kept(generator):
    assert q.RandomAffine()(image((8, 8)).double(), generator).dtype == torch.float64


def test_bending_of_strength_0_is_the_same_image_and_any_other_keeps_shape_range_and_ink(generator):
    x = image((8, 8), (4, 11)).expand(20, 1, 17, 17).contiguous()
    torch.testing.assert_close(RandomElastic(strength=0.0)(x, generator), x, rtol=0, atol=1e-5)
    bent = RandomElastic()(x, generator)
    assert bent.shape == x.shape
    assert float(bent.min()) >= 0
    assert float(bent.max()) <= 1 + 1e-5
    assert not torch.allclose(bent[0], bent[1])
    assert 0.5 < float(bent.sum() / x.sum()) < 2


def test_bending_moves_points_by_about_its_strength():
    x = image((16, 16), size=33).expand(400, 1, 33, 33).contiguous()
    generator = torch.Generator().manual_seed(0)
    moved = torch.tensor([centre(one) for one in RandomElastic(strength=0.05)(x, generator)]) - 16
    # in the middle knot itself: 0.05 of half of 33 pixels, 0.83
    assert 0.6 < float(moved.std()) < 1.0


def test_changes_in_turn(generator):
    double, one = (lambda x, g: 2 * x), (lambda x, g: x + 1)
    x = torch.rand(3, 1, 4, 4, generator=generator)
    torch.testing.assert_close(InTurn((double, one))(x, generator), 2 * x + 1)


def test_a_change_can_be_weaker_or_stronger():
    assert q.RandomAffine().times(0.5) == q.RandomAffine(5.0, 0.075, 0.075, 0.04)
    assert RandomElastic(0.1, knots=7).times(2) == RandomElastic(0.2, knots=7)
