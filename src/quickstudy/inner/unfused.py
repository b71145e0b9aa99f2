"""Fused operators in parts that can be differentiated twice and vectorised.

A ``TorchFunctionMode`` sees each call of a torch function while it is active, and may answer it by other ones.
"""

import inspect
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from quickstudy.inner.capture import level


def recurrent_in_parts(active: bool = True) -> AbstractContextManager[Any]:
    """Run LSTM, GRU and RNN layers step by step, where ``active``."""
    return _Recurrent() if active else nullcontext()


class Unfused(TorchFunctionMode):
    """Run fused operators in the parts that vmap differentiates rightly.

    Norm operators run without affine parameters, then · weight + bias: under vmap, second derivatives of the fused ones
    with adapted affine parameters are silently wrong (by per cents, with an exact loss). Attention runs as products and
    a softmax: its fused kernel has neither a batching rule nor a second derivative. Recurrent layers, which have no
    batching rule, run step by step.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            return torch.ops.aten._scaled_dot_product_attention_math(*args, **(kwargs or {}))[0]
        if getattr(func, "__name__", "") in _CELLS:
            return _recurrent(func.__name__, *args)
        if func not in _SIGNATURES:
            return func(*args, **(kwargs or {}))
        arguments = _SIGNATURES[func].bind(*args, **(kwargs or {})).arguments
        if func is F.multi_head_attention_forward:  # with weights, it does not call the fused kernel
            y, weights = func(**{**arguments, "need_weights": True})
            return y, weights if arguments.get("need_weights", True) else None
        weight, bias = arguments.pop("weight", None), arguments.pop("bias", None)
        y = func(**arguments)
        # layer norm has a weight for each entry of the last axes, the others one for each channel (axis 1)
        shape = (
            y.shape[y.ndim - len(arguments["normalized_shape"]) :]
            if func is F.layer_norm
            else (-1,) + (1,) * (y.ndim - 2)
        )
        if weight is not None:
            y = y * weight.reshape(shape)
        return y if bias is None else y + bias.reshape(shape)


class _Recurrent(TorchFunctionMode):
    """Recurrent layers step by step; by torch's own operator those that have no such form here."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in _CELLS and _why_not(name, *args) is None:
            return _recurrent(name, *args)
        if name in _CELLS and _is_packed(*args[1:]) and level() >= 0:
            raise ValueError("packed sequences cannot run in an inner loop, whose transforms refuse them: pad them")
        return func(*args, **(kwargs or {}))


def _lstm(gates: tuple[Tensor, Tensor], state: list[Tensor]) -> list[Tensor]:
    i, f, g, o = (gates[0] + gates[1]).chunk(4, -1)
    c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
    return [torch.sigmoid(o) * torch.tanh(c), c]


def _gru(gates: tuple[Tensor, Tensor], state: list[Tensor]) -> list[Tensor]:
    (xr, xz, xn), (hr, hz, hn) = (part.chunk(3, -1) for part in gates)
    z = torch.sigmoid(xz + hz)
    new = torch.tanh(xn + torch.sigmoid(xr + hr) * hn)
    return [(1 - z) * new + z * state[0]]


def _tanh(gates: tuple[Tensor, Tensor], state: list[Tensor]) -> list[Tensor]:
    return [torch.tanh(gates[0] + gates[1])]


def _relu(gates: tuple[Tensor, Tensor], state: list[Tensor]) -> list[Tensor]:
    return [torch.relu(gates[0] + gates[1])]


_CELLS = {"lstm": _lstm, "gru": _gru, "rnn_tanh": _tanh, "rnn_relu": _relu}


def _why_not(kind: str, x: Tensor, *rest: Any) -> str | None:
    """Why a call of a recurrent layer has no form here; None if it has."""
    if len(rest) != 8 or _is_packed(*rest):
        return "packed sequences cannot be vectorised over tasks; pad them, or use strategy='loop'"
    state = rest[0][0] if kind == "lstm" else rest[0]
    if state.shape[-1] * {"lstm": 4, "gru": 3}.get(kind, 1) != rest[1][0].shape[0]:
        return "an LSTM with proj_size cannot be vectorised over tasks; use strategy='loop'"
    return None


def _is_packed(*rest: Any) -> bool:
    return isinstance(rest[0], Tensor) and not rest[0].is_floating_point()  # its batch sizes


def _recurrent(kind: str, x: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    """The call that ``nn.LSTM``, ``nn.GRU`` and ``nn.RNN`` make of torch, by loops over layers, directions and time.

    Args:
        kind: a name in ``_CELLS``.
        x: (time, n, d), or (n, time, d) with ``batch_first``.
        rest: state, weights, bias?, layers, dropout, training?, bidirectional?, batch_first?
    """
    reason = _why_not(kind, x, *rest)
    if reason is not None:
        raise ValueError(reason)
    state, weights, has_bias, layers, dropout, training, bidirectional, batch_first = rest
    hidden = list(state) if kind == "lstm" else [state]  # each (layers · directions, n, hidden)
    directions, each = 2 if bidirectional else 1, 4 if has_bias else 2
    last: list[list[Tensor]] = []
    if batch_first:
        x = x.transpose(0, 1)
    for layer in range(layers):
        outputs = []
        for direction in range(directions):
            at = layer * directions + direction
            w_x, w_h, *biases = weights[at * each : (at + 1) * each]
            b_x, b_h = biases or (None, None)
            now = [h[at] for h in hidden]
            inputs = F.linear(x, w_x, b_x)  # (time, n, gates · hidden)
            steps = range(len(inputs))
            seen = {}
            for t in reversed(steps) if direction else steps:
                now = _CELLS[kind]((inputs[t], F.linear(now[0], w_h, b_h)), now)
                seen[t] = now[0]
            outputs.append(torch.stack([seen[t] for t in steps]))  # (time, n, hidden)
            last.append(now)
        x = torch.cat(outputs, -1)
        if dropout and training and layer < layers - 1:
            x = F.dropout(x, dropout)
    ends = [torch.stack(parts) for parts in zip(*last, strict=True)]
    return x.transpose(0, 1) if batch_first else x, *ends


_SIGNATURES = {
    func: inspect.signature(func)
    for func in (F.layer_norm, F.batch_norm, F.instance_norm, F.multi_head_attention_forward)
}
