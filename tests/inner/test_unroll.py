"""The inner loop against closed forms on a quadratic.

L(θ) = ½ θᵀAθ, so one step of size α is θ ← (I − αA)θ, and c·θ_k has the exact meta-gradient ((I − αA)ᵏ)ᵀc; with inner
gradients taken as constants, it is c.
"""

import pytest
import torch

from quickstudy.inner import SGD, unroll


@pytest.fixture
def problem(generator):
    root = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    a = root @ root.T / 4 + torch.eye(4, dtype=torch.float64)
    theta = torch.randn(4, generator=generator, dtype=torch.float64, requires_grad=True)
    return a, theta, torch.randn(4, generator=generator, dtype=torch.float64)


def adapted(a, theta, steps, mode):
    return unroll(SGD(0.1), lambda p: 0.5 * p["w"] @ a @ p["w"], {"w": theta}, steps=steps, mode=mode)["w"]


@pytest.mark.parametrize("steps", [0, 1, 3, 10])
def test_exact_and_first_order_meta_gradients_equal_their_closed_forms(problem, steps):
    a, theta, c = problem
    power = torch.linalg.matrix_power(torch.eye(4, dtype=torch.float64) - 0.1 * a, steps)
    for mode, expected in (("reverse", power.T @ c), ("first_order", c)):
        phi = adapted(a, theta, steps, mode)
        torch.testing.assert_close(phi, power @ theta, rtol=1e-12, atol=1e-12)
        (gradient,) = torch.autograd.grad(c @ phi, theta)
        torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)


def test_adaptation_works_where_gradients_are_off(problem):
    a, theta, _ = problem
    with torch.no_grad():
        quiet = adapted(a, theta, 3, "reverse")
    assert not quiet.requires_grad
    torch.testing.assert_close(quiet, adapted(a, theta, 3, "reverse"))


def test_one_step_by_hand():
    """L(θ) = θ₁² + θ₁θ₂ at (1, 2), α = ½: ∇L = (2θ₁ + θ₂, θ₁) = (4, 1), so φ = (1, 2) − ½(4, 1) = (−1, 1½).

    φ₁ = −½θ₂ and φ₂ = θ₂ − ½θ₁, so ∇_θ(φ₁ + 2φ₂) = (−1, 1½).
    """
    theta = torch.tensor([1.0, 2.0], requires_grad=True)
    phi = unroll(SGD(0.5), lambda p: p["t"][0] ** 2 + p["t"][0] * p["t"][1], {"t": theta}, steps=1)["t"]
    assert phi.tolist() == [-1.0, 1.5]
    assert torch.autograd.grad(phi[0] + 2 * phi[1], theta)[0].tolist() == [-1.0, 1.5]


def test_bad_arguments_are_refused(problem):
    a, theta, _ = problem
    with pytest.raises(ValueError, match="steps=-1"):
        adapted(a, theta, -1, "reverse")
    with pytest.raises(ValueError, match="mode='forward'"):
        adapted(a, theta, 1, "forward")
    with pytest.raises(ValueError, match="lr=-1"):
        SGD(-1.0)
