"""MetaOptNet's machine against SciPy's quadratic programming, the conditions of optimality, and finite differences."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

import quickstudy as q
from quickstudy.learners import MetaOptNet
from quickstudy.learners.meta_opt_net import dual_solution


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_default_dtype(torch.float32)


def problem(way: int, shot: int, d: int, spread: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy classes, in the order 0, 1, ..., 0, 1, ..."""
    labels = torch.arange(way * shot) % way
    return spread * (torch.randn(way, d)[labels] + torch.randn(way * shot, d)), q.one_hot(labels, way)


def violation(x: torch.Tensor, y: torch.Tensor, a: torch.Tensor, c: float, epsilon: float) -> float:
    """How far A is from the conditions of Karush, Kuhn and Tucker, in units of C or of a margin."""
    slope = y - (x @ x.T) @ a - epsilon * a  # ν + Λ, Λ = 0 where A is under its bound
    bound = (a - c * y).abs() < 1e-9 * c
    nu = torch.stack([row[~at].mean() for row, at in zip(slope, bound, strict=True)])
    multiplier = slope - nu[:, None]
    return max(
        float(a.sum(1).abs().max()) / c,
        float((a - c * y).max()) / c,
        float(multiplier[~bound].abs().max()),
        float((-multiplier[bound]).max()) if bool(bound.any()) else 0.0,
    )


def test_the_dual_is_solved_as_scipy_solves_it():
    x, y = problem(3, 2, 4)
    c, epsilon = 0.3, 0.5
    gram = (x @ x.T + epsilon * torch.eye(6)).numpy()

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        a = flat.reshape(6, 3)
        return 0.5 * np.sum(a * (gram @ a)) - np.sum(a * y.numpy()), (gram @ a - y.numpy()).ravel()

    rows = {"type": "eq", "fun": lambda flat: flat.reshape(6, 3).sum(1)}
    bounds = [(None, c * float(v)) for v in y.flatten()]
    options = {"ftol": 1e-15, "maxiter": 500}
    theirs = minimize(
        objective, np.zeros(18), jac=True, bounds=bounds, constraints=rows, method="SLSQP", options=options
    )
    ours = dual_solution(x, y, c=c, epsilon=epsilon)
    torch.testing.assert_close(ours, torch.from_numpy(theirs.x.reshape(6, 3)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("way", "shot", "d"), [(2, 1, 3), (5, 1, 8), (5, 5, 40), (5, 5, 3), (4, 10, 2), (12, 1, 6)])
@pytest.mark.parametrize("spread", [1e-3, 1.0, 10.0])
@pytest.mark.parametrize(("c", "epsilon"), [(0.1, 1.0), (10.0, 0.1)])
def test_the_solution_meets_the_conditions_of_optimality(way, shot, d, spread, c, epsilon):
    x, y = problem(way, shot, d, spread)
    assert violation(x, y, dual_solution(x, y, c=c, epsilon=epsilon), c, epsilon) < 1e-7


@pytest.mark.parametrize(("shot", "d"), [(1, 4), (3, 4), (3, 20)])
def test_its_derivative_is_that_of_the_solution(shot, d):
    x, y = problem(4, shot, d)
    x.requires_grad_(True)
    solution = lambda x: dual_solution(x, y, c=0.2, epsilon=0.3)  # noqa: E731
    a = solution(x)
    bound = (a - 0.2 * y).abs() < 1e-12
    assert bool(bound.any())
    assert bool((~bound).any())
    assert torch.autograd.gradcheck(solution, (x,), rtol=1e-6, fast_mode=True)
    assert torch.autograd.gradgradcheck(solution, (x,), rtol=1e-5, fast_mode=True)


def test_padding_and_absent_classes_are_left_out():
    x, y = problem(3, 2, 4)
    c, epsilon = 0.3, 0.5
    plain = dual_solution(x, y, c=c, epsilon=epsilon)
    more_y = torch.zeros(8, 4)
    more_y[:6, [0, 1, 3]] = y
    found = dual_solution(torch.cat([x, torch.full((2, 4), 7.0)]), more_y, c=c, epsilon=epsilon)
    torch.testing.assert_close(found[:6][:, [0, 1, 3]], plain, rtol=1e-10, atol=1e-12)
    assert float(found[6:].abs().max()) == float(found[:, 2].abs().max()) == 0


def test_logits_are_scaled_products_with_the_weights():
    x, y = problem(3, 2, 4)
    learner = MetaOptNet(torch.nn.Identity(), scale=7.0)
    weight = torch.stack([sum(a * z for a, z in zip(column, x, strict=True)) for column in dual_solution(
        x, y, c=0.1, epsilon=1.0).T])  # fmt: skip
    torch.testing.assert_close(learner.answer(q.Labelled(x, y), x), 7.0 * x @ weight.T)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_degenerate_tasks_stay_finite(kind):
    learner = MetaOptNet(torch.nn.Linear(3, 4)).to(kind)
    y = torch.tensor([[1.0, 0, 0], [1.0, 0, 0], [0, 1.0, 0], [0, 0, 0]], dtype=kind)
    for x in (torch.zeros(4, 3), torch.ones(4, 3), 1e4 * torch.randn(4, 3), 1e-6 * torch.randn(4, 3)):
        support = q.Labelled(x.to(kind), y)
        prediction = learner.answer(support, support.x[:1])
        assert prediction.dtype == kind
        assert float(prediction.detach().softmax(-1)[0, 2]) == 0
        learner.zero_grad()
        learner.loss(prediction, y[:1]).backward()
        assert all(bool(torch.isfinite(p.grad).all()) for p in learner.parameters())
    lone = q.Labelled(torch.ones(2, 3, dtype=kind), y[:2])  # a single class has support
    assert bool(torch.isfinite(learner.answer(lone, lone.x)).all())


def test_a_thousand_examples():
    x, y = problem(4, 250, 3)
    a = dual_solution(x, y, c=0.1, epsilon=1.0)
    assert violation(x, y, a, 0.1, 1.0) < 1e-8


def test_errors():
    for arguments in ({"c": 0.0}, {"epsilon": -1.0}, {"scale": 0.0}):
        with pytest.raises(ValueError, match=r"c=.*epsilon=.*above 0"):
            MetaOptNet(torch.nn.Identity(), **arguments)
    with pytest.raises(ValueError, match=r"\(2, 1\).*two classes or more"):
        MetaOptNet(torch.nn.Identity()).adapt(q.Labelled(torch.zeros(2, 3), torch.ones(2, 1)))
