"""Implicit differentiation against its closed form.

L(φ) = ½ φᵀAφ − bᵀφ with the pull ½λ‖φ − θ‖²: φ = (A + λ)⁻¹(b + λθ), so dφ/dθ = λ(A + λ)⁻¹ and dφ/db = (A + λ)⁻¹.
"""

import pytest
import torch
from torch import nn

import quickstudy as q
from quickstudy.inner import SGD, ByName, DidNotConverge, Implicit, Proximal, unroll

PULL = 0.7


@pytest.fixture
def problem(generator):
    root = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    a = root @ root.T / 4 + torch.eye(4, dtype=torch.float64)
    draw = lambda: torch.randn(4, generator=generator, dtype=torch.float64, requires_grad=True)  # noqa: E731
    return a, draw(), draw(), draw().detach()


def minimum(a, b, theta, options, rule=None, steps=400):
    rule = rule or Proximal(SGD(0.2), PULL)
    return unroll(rule, lambda p: 0.5 * p["w"] @ a @ p["w"] - b @ p["w"], {"w": theta}, steps=steps, mode=options)["w"]


@pytest.mark.parametrize(
    "options", ["implicit", Implicit(), Implicit("neumann", tolerance=1e-10, iterations=1000)], ids=str
)
def test_the_derivative_of_the_minimum_equals_its_closed_form(problem, options):
    a, b, theta, c = problem
    inverse = torch.linalg.inv(a + PULL * torch.eye(4, dtype=torch.float64))
    phi = minimum(a, b, theta, options)
    torch.testing.assert_close(phi, inverse @ (b + PULL * theta))
    to_theta, to_b = torch.autograd.grad(c @ phi, [theta, b])
    torch.testing.assert_close(to_theta, PULL * inverse @ c, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(to_b, inverse @ c, rtol=1e-6, atol=1e-8)


def test_it_agrees_with_the_graph_of_all_steps_on_a_network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x = torch.randn(12, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = q.one_hot(torch.arange(12) % 3, 3).double()
    found = []
    for mode in (Implicit(tolerance=1e-10), "reverse"):
        learner = q.MAML(network, head=None, rule=Proximal(SGD(0.3), 1.0), inner_steps=300, mode=mode)
        loss = learner.meta_loss(q.Episode(q.Labelled(x[:6], y[:6]), q.Labelled(x[6:], y[6:])))
        found.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()))]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-8, atol=1e-10)


def test_weight_decay_is_part_of_the_objective(problem):
    a, b, theta, c = problem
    phi = minimum(a, b, theta, "implicit", SGD(0.2, weight_decay=0.3))
    inverse = torch.linalg.inv(a + 0.3 * torch.eye(4, dtype=torch.float64))
    to_theta, to_b = torch.autograd.grad(c @ phi, [theta, b])
    torch.testing.assert_close(to_b, inverse @ c, rtol=1e-6, atol=1e-8)
    assert to_theta.abs().max() == 0  # without a pull the minimum forgets its start


@pytest.mark.parametrize("solver", ["cg", "neumann"])
def test_a_system_that_is_not_solved_says_so(problem, solver):
    a, b, theta, c = problem
    options = Implicit(solver, tolerance=1e-12, iterations=2)
    with pytest.raises(DidNotConverge, match=rf"{solver} left a relative residual of .* after 2 iterations"):
        torch.autograd.grad(c @ minimum(a, b, theta, options), theta)
    loose = Implicit(solver, tolerance=1e-12, iterations=2, strict=False)
    assert torch.isfinite(torch.autograd.grad(c @ minimum(a, b, theta, loose), theta)[0]).all()


def test_an_objective_that_is_not_convex_says_so(problem):
    a, b, theta, c = problem
    with pytest.raises(DidNotConverge, match=r"met the curvature -.*: the inner objective is not convex; raise"):
        torch.autograd.grad(c @ minimum(-3 * a, b, theta, "implicit", steps=1), theta)
    found = torch.autograd.grad(c @ minimum(-3 * a, b, theta, Implicit(strict=False), steps=1), theta)[0]
    assert torch.isfinite(found).all()


def test_what_cannot_be_implicit_is_refused(problem):
    a, b, theta, _ = problem
    with pytest.raises(ValueError, match="ByName does not say where it stands still"):
        minimum(a, b, theta, "implicit", ByName({"*": SGD(0.1)}))
    with pytest.raises(ValueError, match="ByName does not say where it stands still"):
        minimum(a, b, theta, "implicit", Proximal(ByName({"*": SGD(0.1)}), 1.0))
    with pytest.raises(ValueError, match="needs one inner objective"):
        unroll(Proximal(SGD(0.1), 1.0), [lambda p: p["w"].sum()] * 2, {"w": theta}, steps=1, mode="implicit")
    with pytest.raises(ValueError, match="solver='lu'; choose 'cg' or 'neumann'"):
        Implicit("lu")  # pyright: ignore
    with pytest.raises(ValueError, match="required are a tolerance and a step above 0, and 1 iteration or more"):
        Implicit(iterations=0)
