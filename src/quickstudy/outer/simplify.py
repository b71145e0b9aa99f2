"""Take out of a recorded graph what changes no number.

Batching rules and derivatives leave many operators behind that return their input: views to the shape that is there,
products with 1, a transposition that is undone. Each costs a dispatch, which is what takes the time of small networks.
The results keep their bits.
"""

import operator
from collections.abc import Hashable
from typing import Any, cast

import torch
from torch import Tensor, fx

_aten = torch.ops.aten
_VIEWS = (_aten.view.default, _aten._unsafe_view.default)  # a reshape may copy
_PRODUCTS = (_aten.mul.Scalar, _aten.mul.Tensor, _aten.div.Scalar, _aten.div.Tensor)
_PLAIN = (int, float, bool, str, torch.dtype, torch.device, torch.layout, torch.memory_format, type(None))


def simplify(graph: fx.GraphModule) -> None:
    """Simplify in place; a graph that writes to tensors, or draws random numbers, is left as it is.

    Args:
        graph: of aten operators, as ``make_fx`` records them with example values in ``meta["val"]``.
    """
    if any(_has_effects(node) for node in graph.graph.nodes):
        return
    known: dict[Hashable, fx.Node] = {}
    for node in list(graph.graph.nodes):
        if node.op == "get_attr":
            key = ("get_attr", node.target)
        elif node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
            same = _same_as(node)
            if same is not None:
                _replace(graph, node, same)
                continue
            if node.target in _VIEWS and _is_call(node.args[0], _VIEWS):
                node.args = (node.args[0].args[0], node.args[1])
                if _shape(node.args[0]) == _shape(node):
                    _replace(graph, node, node.args[0])
                    continue
            key = _key_of(node)
        else:
            continue
        if key is None:
            continue
        before = known.setdefault(key, node)
        if before is not node:
            _replace(graph, node, before)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _same_as(node: fx.Node) -> fx.Node | None:
    """The input that this operator returns unchanged, if it does."""
    target, args = node.target, node.args
    x = args[0] if args else None
    if not isinstance(x, fx.Node) or node.kwargs:
        return None
    if target is _aten.t.default and _is_call(x, (target,)):
        return cast(fx.Node, x.args[0])
    if target is _aten.transpose.int and _is_call(x, (target,)) and _axes(x) == _axes(node):
        return cast(fx.Node, x.args[0])
    if _kind(x) != _kind(node):
        return None
    if target in (_aten.detach.default, _aten.alias.default, _aten.expand.default, *_VIEWS):
        return x
    if target in (*_PRODUCTS, _aten.pow.Tensor_Scalar) and _is_number(args[1], 1):
        return x
    return None


def _has_effects(node: fx.Node) -> bool:
    if node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
        return node.target._schema.is_mutable or torch.Tag.nondeterministic_seeded in node.target.tags
    return node.op == "call_function" and node.target is not operator.getitem


def _replace(graph: fx.GraphModule, node: fx.Node, other: fx.Node) -> None:
    node.replace_all_uses_with(other)
    graph.graph.erase_node(node)


def _key_of(node: fx.Node) -> Hashable:
    """Equal for two nodes that compute the same from the same; None where that cannot be told."""

    def freeze(value: Any) -> Hashable:
        if isinstance(value, fx.Node):
            return ("node", value.name)
        if isinstance(value, list | tuple):
            return ("list", *(freeze(v) for v in value))
        if isinstance(value, _PLAIN):
            return (type(value), value.hex() if isinstance(value, float) else value)  # 0.0 equals −0.0
        raise TypeError

    try:
        named = tuple((name, freeze(value)) for name, value in sorted(node.kwargs.items()))
        return (node.target, freeze(node.args), named)
    except TypeError:
        return None


def _is_call(value: Any, targets: tuple[Any, ...]) -> bool:
    return isinstance(value, fx.Node) and value.op == "call_function" and value.target in targets


def _is_number(value: Any, number: int) -> bool:
    return isinstance(value, int | float) and value == number


def _axes(node: fx.Node) -> frozenset[int]:
    """Of a transposition, counted from the front."""
    n = max(1, len(_shape(node) or ()))  # of a scalar, axes 0 and −1 are one
    return frozenset(cast(int, axis) % n for axis in node.args[1:])


def _shape(node: Any) -> tuple[int, ...] | None:
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return tuple(value.shape) if isinstance(value, Tensor) else None


def _kind(node: fx.Node) -> Hashable:
    """Shape, strides and type; unlike any other where they are not known."""
    value = node.meta.get("val")
    return (tuple(value.shape), tuple(value.stride()), value.dtype) if isinstance(value, Tensor) else node
