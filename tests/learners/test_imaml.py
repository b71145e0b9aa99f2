"""Implicit MAML against its closed form on a quadratic, and against the derivative of many steps."""

import pytest
import torch
from torch import nn

import quickstudy as q
from quickstudy.inner import SGD, DidNotConverge, Proximal
from quickstudy.learners import IMAML, MAML
from tests.contract import CASES, episodes, one, smooth


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_default_dtype(torch.float32)


def quadratic():
    """Linear regression without a bias: L(w) = 1/n ‖Xw − y‖², so H = 2/n XᵀX."""
    network = nn.Linear(4, 1, bias=False)
    (sx, sy), (qx, qy) = ((torch.randn(8, 4) / 2, torch.randn(8, 1)) for _ in range(2))
    return network, q.Episode(q.Labelled(sx, sy), q.Labelled(qx, qy)), 2 / 8 * sx.T @ sx


@pytest.mark.parametrize("solver", ["cg", "neumann"])
def test_on_a_quadratic_the_meta_gradient_is_its_closed_form(solver):
    """φ = (H + λI)⁻¹(λθ + 2/n Xᵀy), and with c = ∇L_query(φ) the meta-gradient is (I + H/λ)⁻¹c."""
    network, (support, query), h = quadratic()
    learner = IMAML(
        network, head=None, inner_lr=0.3, inner_steps=200, solver=solver, iterations=200, tolerance=1e-12, strict=True
    )
    theta, eye = network.weight.detach().T, torch.eye(4)
    phi = torch.linalg.solve(h + 2 * eye, 2 * theta + 2 / 8 * support.x.T @ support.y)
    torch.testing.assert_close(learner.adapt(support)["network.weight"].T, phi, rtol=1e-10, atol=1e-12)
    c = 2 / 8 * query.x.T @ (query.x @ phi - query.y)
    (gradient,) = torch.autograd.grad(learner.meta_loss(q.Episode(support, query)), [network.weight])
    torch.testing.assert_close(gradient.T, torch.linalg.solve(eye + h / 2, c), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("iterations", [1, 2])
def test_truncated_conjugate_gradients_are_those_written_out(iterations):
    """As in the paper, the solver stops early: u minimises ½uᵀAu − cᵀu over the first Krylov spaces, A = H + λI."""
    network, (support, query), h = quadratic()
    learner = IMAML(network, head=None, inner_lr=0.3, inner_steps=200, iterations=iterations)
    a = h + 2 * torch.eye(4)
    phi = learner.adapt(support)["network.weight"].detach().T
    c = 2 / 8 * query.x.T @ (query.x @ phi - query.y)
    basis = torch.cat([torch.linalg.matrix_power(a, i) @ c for i in range(iterations)], dim=1)
    u = basis @ torch.linalg.solve(basis.T @ a @ basis, basis.T @ c)
    (gradient,) = torch.autograd.grad(learner.meta_loss(q.Episode(support, query)), [network.weight])
    torch.testing.assert_close(gradient.T, 2 * u, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("head", ["shared", "prototypes", None])
def test_near_the_minimum_it_is_the_derivative_of_the_steps(head):
    network, episode = smooth(), one(CASES["maml, own output"])
    implicit = IMAML(
        network, head=head, inner_lr=0.3, inner_steps=60, iterations=100, tolerance=1e-10, strict=True, strength=1.5
    )
    explicit = MAML(network, head=head, rule=Proximal(SGD(0.3), 1.5), inner_steps=60)
    torch.testing.assert_close(implicit.meta_loss(episode), explicit.meta_loss(episode), rtol=1e-12, atol=0)
    ours, theirs = (
        torch.autograd.grad(learner.meta_loss(episode), list(network.parameters())) for learner in (implicit, explicit)
    )
    scale = max(float(g.abs().max()) for g in theirs)
    assert max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True)) < 1e-6 * scale


def test_a_strong_pull_keeps_phi_at_theta():
    network, episode = smooth(), one(CASES["maml, own output"])
    distance = []
    for strength in (0.5, 5.0, 500.0):
        learner = IMAML(network, head=None, strength=strength, inner_lr=0.5 / strength, inner_steps=30)
        phi = learner.adapt(episode.support)
        distance.append(sum(float((phi[f"network.{n}"] - p).detach().norm()) for n, p in network.named_parameters()))
    assert distance == sorted(distance, reverse=True)
    assert distance[-1] < 0.01


def test_anil_of_it_adapts_the_head_alone():
    learner, episode = IMAML(smooth(), adapts="head.*"), one(CASES["imaml"])
    assert set(learner.adapt(episode.support)) == {"head.weight", "head.bias", "support.y"}
    assert all(float(g.abs().sum()) > 0 for g in torch.autograd.grad(learner.meta_loss(episode), learner.parameters()))


def test_a_system_that_is_not_solved_raises_where_that_is_asked_for():
    learner, episode = IMAML(smooth(), iterations=1, tolerance=1e-12, strict=True), one(CASES["imaml"])
    with pytest.raises(DidNotConverge, match="after 1 iterations"):
        learner.meta_loss(episode).backward()


def test_auto_falls_back_to_a_strategy_that_serves_it():
    learner = IMAML(smooth())
    assert torch.isfinite(q.unrolled(learner, episodes(CASES["imaml"])))


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"strength=0, inner_lr=0\.1; required are a pull and a step above 0"):
        IMAML(smooth(), strength=0)
    with pytest.raises(ValueError, match=r"product below 2.*smaller inner_lr"):
        IMAML(smooth(), strength=100)
    with pytest.raises(ValueError, match="solver='lu'"):
        IMAML(smooth(), solver="lu")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="iterations=0"):
        IMAML(smooth(), iterations=0)
