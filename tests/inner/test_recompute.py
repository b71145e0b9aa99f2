"""The bounded-memory mode: what it keeps, and what it says when it cannot serve. That it is exact: test_matrix.py."""

import pytest
import torch

from quickstudy.inner import SGD, unroll


def network(params, x):
    for i in range(3):
        x = torch.tanh(x @ params[f"w{i}"])
    return x


def weights(n: int = 8):
    generator = torch.Generator().manual_seed(0)
    return {
        f"w{i}": (torch.randn(n, n, generator=generator, dtype=torch.float64) / n**0.5).requires_grad_()
        for i in range(3)
    }


def kept_bytes(steps: int, mode: str) -> int:
    """Bytes of the tensors that the graph saves for the way back, each storage once."""
    params, x = weights(), torch.randn(64, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    phi = unroll(SGD(0.1), lambda p: network(p, x).square().mean(), params, steps=steps, mode=mode)  # pyright: ignore
    node, seen = phi["w0"].grad_fn, {}
    assert node is not None
    for saved in node.saved_tensors:  # pyright: ignore
        seen[saved.untyped_storage().data_ptr()] = saved.untyped_storage().nbytes()
    return sum(seen.values())


def test_a_further_step_keeps_its_parameters_and_no_more():
    parameters = sum(p.numel() * p.element_size() for p in weights().values())
    few, many = kept_bytes(5, "recompute"), kept_bytes(25, "recompute")
    assert many - few == 20 * parameters


def test_five_hundred_steps_run():
    params, x = weights(2), torch.ones(3, 2, dtype=torch.float64)
    phi = unroll(SGD(0.01), lambda p: network(p, x).square().mean(), params, steps=500, mode="recompute")
    loss = network(phi, x).square().mean()
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(loss, list(params.values())))


def test_what_is_captured_from_outside_receives_its_derivative():
    """L = ½‖w − e(u)‖² with e = exp(u) computed before: φ = (1 − α)w + αe, twice."""
    w, u = (
        torch.zeros(3, dtype=torch.float64, requires_grad=True),
        torch.ones(3, dtype=torch.float64, requires_grad=True),
    )
    e = u.exp()
    phi = unroll(SGD(0.5), lambda p: 0.5 * (p["w"] - e).square().sum(), {"w": w}, steps=2, mode="recompute")["w"]
    to_w, to_u = torch.autograd.grad(phi.sum(), [w, u])
    torch.testing.assert_close(to_w, torch.full_like(w, 0.25))
    torch.testing.assert_close(to_u, 0.75 * e.detach())


def test_it_works_inside_a_transform_of_torch_func():
    def loss(w, mode):
        return unroll(SGD(0.1), lambda p: p["w"].pow(4).sum(), {"w": w}, steps=3, mode=mode)["w"].square().sum()

    w = torch.tensor([0.5, 1.0], dtype=torch.float64)
    torch.testing.assert_close(*(torch.func.grad(loss)(w, mode) for mode in ("recompute", "reverse")))


def test_a_second_derivative_is_refused_with_a_way_out():
    def loss(w):
        return unroll(SGD(0.1), lambda p: p["w"].pow(4).sum(), {"w": w}, steps=2, mode="recompute")["w"].sum()

    w = torch.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match="differentiated once; use mode='reverse'"):
        torch.autograd.grad(loss(w), w, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiated once; use mode='reverse'"):
        torch.func.grad(lambda w: torch.func.grad(loss)(w).sum())(w.detach())


def test_a_tensor_that_it_cannot_see_is_an_error_and_no_wrong_gradient():
    """A transform takes its argument past the torch functions."""
    w, scale = torch.ones(2, requires_grad=True), torch.tensor(2.0, requires_grad=True)

    def loss(p):
        return (p["w"] * torch.func.grad(lambda s: s**3)(scale)).square().sum()

    phi = unroll(SGD(0.1), loss, {"w": w}, steps=2, mode="recompute")
    with pytest.raises(RuntimeError, match=r"that torch functions do not pass through .*: use mode='reverse'"):
        phi["w"].sum().backward()


class Scaled(torch.autograd.Function):
    """Keeps what it was given for its own way back."""

    @staticmethod
    def forward(x, scale):
        return x * scale

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, g):  # pyright: ignore
        x, scale = ctx.saved_tensors
        return g * scale, (g * x).sum()


def test_a_custom_function_may_be_part_of_the_loss():
    found = []
    for mode in ("recompute", "reverse"):
        w, scale = torch.ones(2, requires_grad=True), torch.tensor(2.0, requires_grad=True)
        phi = unroll(SGD(0.1), lambda p, s=scale: Scaled.apply(p["w"], s).square().sum(), {"w": w}, steps=2, mode=mode)
        found.append(torch.autograd.grad(phi["w"].sum(), [w, scale]))
    torch.testing.assert_close(found[0], found[1])
