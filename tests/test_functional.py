"""Shared functions against slow loops."""

import pytest
import torch

import quickstudy as q
from quickstudy.functional import mask_absent, normalised, prototypes, squared_euclidean


def test_prototypes_are_class_means(generator):
    z = torch.randn(6, 3, generator=generator)
    labels = [0, 2, 0, 2, 2, -1]
    y = torch.zeros(6, 4)
    for row, label in enumerate(labels):
        if label >= 0:
            y[row, label] = 1
    centres = prototypes(z, y)
    for k in (0, 2):
        members = torch.stack([z[i] for i, label in enumerate(labels) if label == k])
        torch.testing.assert_close(centres[k], members.mean(0))
    assert torch.equal(centres[1], torch.zeros(3))


def test_squared_euclidean_is_the_sum_of_squared_differences(generator):
    a, b = torch.randn(4, 3, generator=generator), torch.randn(5, 3, generator=generator)
    distances = squared_euclidean(a, b)
    for i in range(4):
        for j in range(5):
            torch.testing.assert_close(distances[i, j], ((a[i] - b[j]) ** 2).sum())
    shifted = squared_euclidean(a + 1e4, b + 1e4)
    torch.testing.assert_close(shifted, distances, rtol=1e-2, atol=1e-2)
    far = 1000 + torch.randn(50, 3, generator=generator)
    assert bool((squared_euclidean(far, far) >= 0).all())


def test_absent_classes_are_impossible_without_nan():
    y = torch.tensor([[1.0, 0, 0], [0, 0, 1.0]])
    masked = mask_absent(torch.zeros(2, 3), y)
    probability = masked.softmax(-1)
    assert torch.equal(probability, torch.tensor([[0.5, 0, 0.5]] * 2))
    assert torch.isfinite(y * masked.log_softmax(-1)).all()


@pytest.mark.parametrize(
    "learner", [q.ProtoNet(q.MLP(1)), q.NearestNeighbour(), q.LinearProbe(q.MLP(1)), q.MAML(q.MLP(1))]
)
def test_learners_of_classes_refuse_numbers_as_targets(learner, generator):
    support = q.Sinusoid().sample(1, generator=generator).support
    with pytest.raises(ValueError, match=r"\(10, 1\).*one-hot.*MAML\(network, head=None\)"):
        learner.adapt(q.Labelled(support.x[0], support.y[0]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_rows_of_unit_length_at_any_size_and_zero_stays_zero_with_a_finite_derivative(dtype):
    z = torch.tensor([[300.0, 400.0], [3e-3, 4e-3], [0.0, 0.0]], dtype=dtype, requires_grad=True)
    unit = normalised(z)
    expected = torch.tensor([[0.6, 0.8], [0.6, 0.8], [0.0, 0.0]], dtype=dtype)
    torch.testing.assert_close(unit, expected, rtol=1e-3, atol=1e-3)
    unit.float().sum().backward()
    assert z.grad is not None
    if dtype != torch.float16:
        assert bool(torch.isfinite(z.grad).all())


def test_the_derivative_of_unit_length_is_right():
    z = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(normalised, z)
    assert torch.autograd.gradgradcheck(normalised, z)
