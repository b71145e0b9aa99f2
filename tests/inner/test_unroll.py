"""The inner loop against closed forms on a quadratic.

L(θ) = ½ θᵀAθ, so one step of size α is θ ← (I − αA)θ, and c·θ_k has the exact meta-gradient ((I − αA)ᵏ)ᵀc; with inner
gradients taken as constants, it is c.
"""

import pytest
import torch

from quickstudy.inner import SGD, LearnedRates, Truncated, finite_losses, trajectory, unroll


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
    last = torch.linalg.matrix_power(torch.eye(4, dtype=torch.float64) - 0.1 * a, min(steps, 2))
    expectations = {"reverse": power.T @ c, "recompute": power.T @ c, "first_order": c, Truncated(last=2): last.T @ c}
    for mode, expected in expectations.items():
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


def test_truncated_is_first_order_without_and_exact_with_all_steps(problem):
    a, theta, c = problem
    for last, same in ((0, "first_order"), (4, "reverse"), (9, "reverse")):
        (ours,) = torch.autograd.grad(c @ adapted(a, theta, 4, Truncated(last)), theta)
        torch.testing.assert_close(ours, torch.autograd.grad(c @ adapted(a, theta, 4, same), theta)[0])
    with pytest.raises(ValueError, match="last=-1"):
        Truncated(-1)


def test_every_point_of_the_way_is_differentiable(problem):
    a, theta, c = problem
    path = trajectory(SGD(0.1), lambda p: 0.5 * p["w"] @ a @ p["w"], {"w": theta}, steps=3)
    for t, phi in enumerate(path):
        (ours,) = torch.autograd.grad(c @ phi["w"], theta, retain_graph=True)
        power = torch.linalg.matrix_power(torch.eye(4, dtype=torch.float64) - 0.1 * a, t)
        torch.testing.assert_close(ours, power.T @ c)
    with pytest.raises(ValueError, match="every step needs 'reverse' or 'first_order'"):
        trajectory(SGD(0.1), lambda p: p["w"].sum(), {"w": theta}, steps=1, mode="recompute")  # pyright: ignore


@pytest.mark.parametrize("mode", ["reverse", "recompute"])
def test_parts_are_taken_in_turn_or_added_up(problem, mode):
    a, theta, c = problem
    parts = [lambda p, s=s: 0.5 * s * p["w"] @ a @ p["w"] for s in (0.2, 0.8)]
    one = torch.eye(4, dtype=torch.float64)
    in_turn = (one - 0.02 * a) @ (one - 0.08 * a) @ (one - 0.02 * a)
    together = torch.linalg.matrix_power(one - 0.1 * a, 3)
    for accumulate, product in ((False, in_turn), (True, together)):
        phi = unroll(SGD(0.1), parts, {"w": theta}, steps=3, mode=mode, accumulate=accumulate)["w"]
        torch.testing.assert_close(phi, product @ theta)
        torch.testing.assert_close(torch.autograd.grad(c @ phi, theta)[0], product.T @ c)
    with pytest.raises(ValueError, match="no inner loss"):
        unroll(SGD(0.1), [], {"w": theta}, steps=1)


def test_a_negative_learned_rate_ascends():
    """L = ½w² with α = (0.1, −0.1): w ← (1 − α)w; ∂φ/∂α = −w."""
    w = torch.tensor([1.0, 1.0], requires_grad=True)
    rule = LearnedRates({"w": w}, 0.1)
    with torch.no_grad():
        rule.rates["w"][1] = -0.1
    phi = unroll(rule, lambda p: 0.5 * p["w"].square().sum(), {"w": w}, steps=1)["w"]
    torch.testing.assert_close(phi, torch.tensor([0.9, 1.1]))
    (gradient,) = torch.autograd.grad(phi.sum(), list(rule.parameters()))
    torch.testing.assert_close(gradient, torch.tensor([-1.0, -1.0]))


@pytest.mark.parametrize("mode", ["reverse", "recompute", "first_order", "truncated"])
def test_parameters_that_the_loss_does_not_reach_stay_as_they_are(mode):
    used, unused = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    phi = unroll(SGD(0.1), lambda p: p["used"].square().sum(), {"used": used, "unused": unused}, steps=2, mode=mode)
    assert torch.equal(phi["unused"], unused)
    (gradient,) = torch.autograd.grad(phi["unused"].sum() + phi["used"].sum(), unused)
    assert gradient.tolist() == [1, 1, 1]


def test_integer_parameters_are_refused():
    with pytest.raises(ValueError, match=r"parameter 'n' is of type torch\.int64; required are floating point numbers"):
        unroll(SGD(0.1), lambda p: p["n"].sum(), {"n": torch.arange(3)}, steps=1)


@pytest.mark.parametrize("mode", ["reverse", "recompute", "first_order"])
def test_a_loss_that_changes_what_it_was_given_in_place_is_an_error(mode):
    x = torch.ones(3)
    with pytest.raises(RuntimeError, match="in-place"):
        unroll(
            SGD(0.1), lambda p: (x.mul_(2) * p["w"]).sum(), {"w": torch.ones(3, requires_grad=True)}, steps=1, mode=mode
        )
    inside = unroll(SGD(0.1), lambda p: (p["w"] * 2).relu_().sum(), {"w": torch.ones(3)}, steps=1, mode=mode)["w"]
    torch.testing.assert_close(inside, torch.full((3,), 0.8))  # in place on a result of its own is fine


def test_a_loss_that_is_not_finite_is_named_where_it_is_looked_for():
    params = {"w": torch.tensor(1.0)}
    with finite_losses(), pytest.raises(FloatingPointError, match="the inner loss is inf at inner step 2"):
        unroll(SGD(1e20), lambda p: p["w"].square(), params, steps=5)
