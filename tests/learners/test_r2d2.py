"""R2-D2 against the normal equations, in both regimes, and ``functional.ridge`` with weights."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

import quickstudy as q
from quickstudy.functional import ridge
from quickstudy.learners import R2D2
from tests.contract import CASES, one


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(("n", "d"), [(4, 9), (9, 4), (6, 6)])
def test_ridge_solves_the_normal_equations_of_weighted_rows(n, d):
    x, y, weights = torch.randn(n, d), torch.randn(n, 3), torch.rand(n)
    weights[1] = 0.0
    found = ridge(x, y, 0.7, weights)
    gradient = x.T @ (weights[:, None] * (x @ found - y)) + 0.7 * found
    assert float(gradient.abs().max()) < 1e-12
    theirs = Ridge(0.7, fit_intercept=False, tol=1e-12, solver="svd").fit(x.numpy(), y.numpy(), weights.numpy())
    torch.testing.assert_close(found, torch.from_numpy(np.ascontiguousarray(theirs.coef_.T)))
    torch.testing.assert_close(ridge(x, y, torch.tensor(0.7)), ridge(x, y, 0.7, torch.ones(n)))


@pytest.mark.parametrize(("n", "d"), [(3, 5), (5, 3)])
def test_ridge_is_differentiable_twice_and_under_vmap(n, d):
    x, y = torch.randn(2, n, d, requires_grad=True), torch.randn(2, n, 2)
    strength = torch.tensor(0.5, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, s: ridge(x, y[0], s), (x[0], strength))
    assert torch.autograd.gradgradcheck(lambda x, s: ridge(x, y[0], s), (x[0], strength))
    mapped = torch.func.vmap(ridge, in_dims=(0, 0, None))(x, y, strength)
    torch.testing.assert_close(mapped, torch.stack([ridge(a, b, strength) for a, b in zip(x, y, strict=True)]))


@pytest.mark.parametrize("shot", [1, 4])
def test_r2d2_is_its_equations(shot):
    episode = one(CASES["r2d2"], shot=shot)  # 5 numbers: fewer than 4·5 examples, as many as 1·5
    learner = R2D2(torch.nn.Linear(6, 8), strength=0.3, scale=4.0)
    (sx, sy), (qx, _) = episode
    with torch.no_grad():
        z = learner.backbone(sx)
        weight = torch.linalg.inv(z.T @ z + 0.3 * torch.eye(8)) @ z.T @ sy
        expected = 4.0 * learner.backbone(qx) @ weight
        torch.testing.assert_close(learner.answer(episode.support, qx), expected, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close((expected + 3.0).softmax(-1), expected.softmax(-1))  # why there is no β


def test_numbers_are_fitted_with_scale_and_shift():
    learner = R2D2(torch.nn.Identity(), strength=1e-9, scale=1.0, regression=True)
    x = torch.randn(6, 2)
    support = q.Labelled(x, x @ torch.tensor([[1.0, 2.0, 0.0], [0.5, -1.0, 3.0]]))
    torch.testing.assert_close(learner.answer(support, x), support.y, rtol=1e-6, atol=1e-6)
    with torch.no_grad():
        learner.log_alpha.copy_(torch.tensor(2.0).log())
        assert learner.beta is not None
        learner.beta.copy_(torch.tensor(-1.0))
    torch.testing.assert_close(learner.answer(support, x), 2 * support.y - 1, rtol=1e-6, atol=1e-6)


def test_a_class_without_support_gets_no_probability_and_degenerate_tasks_stay_finite():
    learner = R2D2(torch.nn.Linear(3, 4))
    y = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])
    for x in (torch.zeros(2, 3), torch.ones(2, 3), torch.randn(2, 3)):
        for bias in (True, False):
            learner.backbone = torch.nn.Linear(3, 4, bias=bias)
            prediction = learner.answer(q.Labelled(x, y), x[:1])
            assert float(prediction.detach().softmax(-1)[0, 2]) == 0
            learner.zero_grad()
            learner.loss(prediction, y[:1]).backward()
            assert all(bool(torch.isfinite(p.grad).all()) for p in learner.parameters() if p.grad is not None)


def test_a_thousand_examples_cost_no_more_than_their_length():
    x = torch.randn(1000, 3, dtype=torch.float32)
    y = q.one_hot(torch.arange(1000) % 4, 4).float()
    prediction = R2D2(torch.nn.Identity()).float().answer(q.Labelled(x, y), x[:2])
    assert bool(torch.isfinite(prediction).all())


def test_errors():
    for arguments in ({"strength": 0.0}, {"scale": -1.0}):
        with pytest.raises(ValueError, match=r"strength=.*scale=.*above 0"):
            R2D2(torch.nn.Identity(), **arguments)
    with pytest.raises(ValueError, match=r"\(2, 1\).*two classes or more"):
        R2D2(torch.nn.Identity()).adapt(q.Labelled(torch.zeros(2, 3), torch.ones(2, 1)))
