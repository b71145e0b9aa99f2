"""Apply a function to every task of a meta-batch."""

import inspect
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from quickstudy.episode import Episode, task

Strategy = Literal["auto", "loop", "vmap"]


class _Unfused(TorchFunctionMode):
    """Run fused operators in the parts that vmap differentiates rightly.

    Norm operators run without affine parameters, then · weight + bias: under vmap, second derivatives of the fused ones
    with adapted affine parameters are silently wrong (by per cents, with an exact loss). Attention runs as products and
    a softmax: its fused kernel has neither a batching rule nor a second derivative.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            return torch.ops.aten._scaled_dot_product_attention_math(*args, **(kwargs or {}))[0]
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


_SIGNATURES = {
    func: inspect.signature(func)
    for func in (F.layer_norm, F.batch_norm, F.instance_norm, F.multi_head_attention_forward)
}


def map_tasks(f: Callable[[Episode], Tensor], episodes: Episode, *, strategy: Strategy = "auto") -> Tensor:
    """f(task) for each task, stacked along a leading axis.

    Args:
        f: a function of one task.
        episodes: a meta-batch, leading axis n.
        strategy: "loop", one task after the other: serves everything. "vmap": all tasks in one pass, several times
            faster for small networks. Both give the same numbers. "auto": vmap for tasks whose examples are vectors or
            that live on an accelerator; loop for images on a CPU, where grouped convolutions are slower, and where
            vmap refuses ``f`` (recurrent layers, control flow that depends on data): ask for "loop" there, and the
            attempt is saved.
    """
    if strategy == "auto":
        x = episodes.support.x
        if x.ndim <= 3 or x.device.type != "cpu":
            with suppress(RuntimeError):  # what is wrong with ``f`` itself is raised again by the loop
                return map_tasks(f, episodes, strategy="vmap")
        strategy = "loop"
    if strategy == "vmap":
        with _Unfused():
            return torch.func.vmap(f, randomness="different")(episodes)
    if strategy == "loop":
        return torch.stack([f(task(episodes, i)) for i in range(len(episodes.support.x))])
    raise ValueError(f"strategy={strategy!r}; choose 'auto', 'loop' or 'vmap'")
