"""Learned rates and decays: their hypergradients against derivatives worked out by hand."""

import math

import pytest
import torch

from quickstudy.inner import unroll
from quickstudy.optimizers import TunedAdam, TunedSGD


@pytest.mark.parametrize("mode", ["reverse", "recompute"])
def test_the_hypergradient_of_a_rate_on_a_parabola(mode):
    """With L(θ) = ½aθ² and next to no momentum θ_T = θ_0 (1 − a·lr)^T, and lr = e^ℓ:

    dL/dℓ = a θ_T · dθ_T/dlr · lr = −a² lr T θ_0² (1 − a·lr)^{2T − 1}.
    """
    a, lr, steps, start = 1.5, 0.2, 5, 2.0
    rule = TunedSGD(lr=lr, momentum=1e-9).double()
    theta = torch.tensor(start, dtype=torch.float64)
    end = unroll(rule, lambda p: 0.5 * a * p["x"] ** 2, {"x": theta}, steps=steps, mode=mode)["x"]
    shared = rule.log_lr.shared
    (gradient,) = torch.autograd.grad(0.5 * a * end**2, shared)
    exact = float(torch.exp(shared.detach()))  # lr, as float32 holds its logarithm
    shrink = 1 - a * exact
    assert float(end.detach()) == pytest.approx(start * shrink**steps, rel=1e-7)
    assert float(gradient) == pytest.approx(-(a**2) * exact * steps * start**2 * shrink ** (2 * steps - 1), rel=1e-6)


def test_the_hypergradient_of_a_momentum_over_two_steps():
    """θ_1 = θ_0(1 − a·lr), v_1 = aθ_0, v_2 = μv_1 + aθ_1, θ_2 = θ_1 − lr·v_2; so dθ_2/dμ = −lr·a·θ_0.

    With μ = σ(m): dL/dm = aθ_2 · (−lr·a·θ_0) · μ(1 − μ).
    """
    a, start = 1.5, 2.0
    rule = TunedSGD(lr=0.2, momentum=0.7).double()
    theta = torch.tensor(start, dtype=torch.float64)
    end = unroll(rule, lambda p: 0.5 * a * p["x"] ** 2, {"x": theta}, steps=2)["x"]
    m = rule.logit_momentum.shared
    (gradient,) = torch.autograd.grad(0.5 * a * end**2, m)
    lr, mu = float(torch.exp(rule.log_lr.shared.detach())), float(torch.sigmoid(m.detach()))
    one = start * (1 - a * lr)
    two = one - lr * (mu * a * start + a * one)
    assert float(end.detach()) == pytest.approx(two, rel=1e-12)
    assert float(gradient) == pytest.approx(-a * two * lr * a * start * mu * (1 - mu), rel=1e-12)


def test_the_first_step_of_adam_is_its_rate():
    """m̂ / √v̂ is the sign of the gradient then, whatever the decays: dL/dℓ = ∇L(θ_1) · (−sgn) · lr, and 0 for them."""
    rule = TunedAdam(lr=0.3).double()
    theta = torch.tensor([2.0, -3.0], dtype=torch.float64)
    end = unroll(rule, lambda p: p["x"].square().sum(), {"x": theta}, steps=1)["x"]
    lr = float(torch.exp(rule.log_lr.shared.detach()))
    torch.testing.assert_close(end.detach(), theta - lr * theta.sign())
    decays = [part.shared for part in rule.logit_betas]  # pyright: ignore
    gradients = torch.autograd.grad(end.square().sum(), [rule.log_lr.shared, *decays])
    expected = -2 * lr * float((end.detach() * theta.sign()).sum())
    assert [float(g) for g in gradients] == pytest.approx([expected, 0, 0], abs=1e-9)


@pytest.mark.parametrize("cls", [TunedSGD, TunedAdam])
def test_hypergradients_agree_with_finite_differences(cls, generator):
    rule = cls(["w"], lr=0.1).double()
    target = torch.randn(4, generator=generator, dtype=torch.float64)
    params = {"w": torch.randn(4, generator=generator, dtype=torch.float64), "b": target.new_zeros(())}

    def inner(p):
        return (p["w"] + p["b"] - target).pow(4).sum() + p["w"].square().sum()

    unrolled = _Unrolled(rule, inner, params)
    names = [name for name, _ in unrolled.named_parameters()]

    def outer(*weights):
        return inner(torch.func.functional_call(unrolled, dict(zip(names, weights, strict=True)), ()))

    weights = [p.detach().clone().requires_grad_() for p in rule.parameters()]
    assert torch.autograd.gradcheck(outer, weights)


class _Unrolled(torch.nn.Module):
    """Four steps of a rule, as a module that takes other weights of the rule."""

    def __init__(self, rule, inner, params):
        super().__init__()
        self.rule, self.inner, self.params = rule, inner, params

    def forward(self):
        return unroll(self.rule, self.inner, self.params, steps=4)


def test_a_tensor_with_a_name_learns_a_rate_of_its_own():
    rule = TunedSGD(["layer.w"], lr=0.1)
    params = {"layer.w": torch.ones(2), "b": torch.ones(2)}
    with torch.no_grad():
        rule.log_lr.own["/layer/w"].fill_(math.log(2.0))
    new, _ = rule.step(params, params, rule.init(params))
    torch.testing.assert_close(new["layer.w"], torch.full((2,), 0.8))
    torch.testing.assert_close(new["b"], torch.full((2,), 0.9))


@pytest.mark.parametrize("cls", [TunedSGD, TunedAdam])
def test_a_gradient_of_0_from_the_start_has_a_finite_hypergradient(cls):
    rule = cls(lr=0.1)
    end = unroll(rule, lambda p: (p["x"] * 0.0).sum(), {"x": torch.ones(2)}, steps=3)["x"]
    gradients = torch.autograd.grad(end.sum(), list(rule.parameters()), allow_unused=True, materialize_grads=True)
    assert all(g.isfinite() for g in gradients)


def test_arguments_are_checked():
    for arguments in ({"lr": 0.0}, {"momentum": 1.0}, {"momentum": 0.0}):
        with pytest.raises(ValueError, match=r"required is lr above 0 and momentum between 0 and 1"):
            TunedSGD(**arguments)
    for arguments in ({"lr": -1.0}, {"eps": 0.0}, {"betas": (0.9, 1.0)}, {"betas": (0.0, 0.9)}):
        with pytest.raises(ValueError, match=r"required is lr and eps above 0, betas between 0 and 1"):
            TunedAdam(**arguments)
