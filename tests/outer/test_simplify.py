"""What is taken out of a recorded graph, and that its results keep their bits."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from quickstudy.outer.simplify import simplify

_aten = torch.ops.aten


def recorded(f, *arguments):
    graph = make_fx(f)(*arguments)
    return graph, [n.target for n in graph.graph.nodes if n.op == "call_function"]


X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("f", "left"),
    [
        (lambda x: _aten.mul.Scalar(x, 1) + x, [_aten.add.Tensor]),
        (lambda x: _aten.mul.Scalar(x, 2), [_aten.mul.Scalar]),
        (lambda x: x / 1 + x.pow(1.0), [_aten.add.Tensor]),
        (lambda x: x.t().t().exp(), [_aten.exp.default]),
        (lambda x: x.transpose(0, 1).transpose(-1, -2).exp(), [_aten.exp.default]),
        (lambda x: x.transpose(0, 1).exp(), [_aten.transpose.int, _aten.exp.default]),
        (lambda x: x.view(12).view(3, 4).exp(), [_aten.exp.default]),
        (lambda x: x.view(12).view(2, 6).exp(), [_aten.view.default, _aten.exp.default]),
        (lambda x: x.expand(3, 4).exp() + x.detach().exp(), [_aten.exp.default, _aten.add.Tensor]),
        (lambda x: x.expand(2, 3, 4).exp(), [_aten.expand.default, _aten.exp.default]),
        (lambda x: x.sum(0) + x.sum(1, keepdim=True), [_aten.sum.dim_IntList, _aten.sum.dim_IntList, _aten.add.Tensor]),
        # what is not dense becomes dense in a product, which a view and the order of a sum rely on
        (
            lambda x: _aten.mul.Scalar(x[:, :1].expand(3, 4), 1).view(12).exp(),
            [_aten.slice.Tensor, _aten.expand.default, _aten.mul.Scalar, _aten.view.default, _aten.exp.default],
        ),
        (lambda x: (x[:, :2] ** 1).view(6), [_aten.slice.Tensor, _aten.pow.Tensor_Scalar, _aten.view.default]),
        (
            lambda x: (x * 0.0).sign() + (x * -0.0).sign(),
            [_aten.mul.Tensor, _aten.sign.default, _aten.mul.Tensor, _aten.sign.default, _aten.add.Tensor],
        ),
        (lambda x: x.sum().transpose(0, -1).transpose(0, -1), [_aten.sum.default]),
        (lambda x: x + 0, [_aten.add.Tensor]),  # it turns −0 into 0
        (lambda x: x.to(torch.float64), [_aten._to_copy.default]),
    ],
)
def test_what_changes_nothing_goes_and_the_rest_stays(f, left):
    graph, _ = recorded(f, X)
    simplify(graph)
    assert [n.target for n in graph.graph.nodes if n.op == "call_function"] == left
    assert torch.equal(graph(X), f(X))
    assert torch.equal(graph(-X), f(-X))


@pytest.mark.parametrize("f", [lambda x: x.clone().mul_(1) * 1, lambda x: torch.rand_like(x) + torch.rand_like(x)])
def test_a_graph_that_writes_or_draws_is_left_alone(f):
    graph, before = recorded(f, X)
    simplify(graph)
    assert [n.target for n in graph.graph.nodes if n.op == "call_function"] == before


def test_one_of_two_types_is_not_taken_for_the_other():
    graph, _ = recorded(lambda x: _aten.mul.Scalar(x, 2) + _aten.mul.Scalar(x, 2.0), torch.arange(3))
    simplify(graph)
    result = graph(torch.arange(3))
    assert result.dtype == torch.float32
    assert result.tolist() == [0, 4, 8]
