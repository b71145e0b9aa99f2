"""Call a module with other parameters, without touching the module.

``torch.func.functional_call`` puts the parameters into the module for the length of the call, so two threads that call
one module meet each other's parameters. Here a replica of the module tree is made instead (its tensors are shared),
which costs about as much and can be called from any number of threads.
"""

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from quickstudy.inner.unfused import recurrent_in_parts


def call(module: nn.Module, tensors: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> Any:
    """``module(*args)`` with some of its parameters or buffers replaced, differentiable twice and from any thread.

    Fused attention, which has no second derivative, runs as products and a softmax; recurrent layers, whose fused
    kernels have none either or fail inside a transform, run step by step.

    Args:
        module: any module; it is not written to.
        tensors: replacements by their names in ``module``; a tied tensor is replaced wherever it stands.
        args, kwargs: of the module.

    Raises:
        ValueError: a name that the module does not have.
    """
    with sdpa_kernel(SDPBackend.MATH), recurrent_in_parts(has_recurrent(module)):
        return with_tensors(module, tensors)(*args, **kwargs)


def with_tensors(module: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """A replica of the module with some parameters or buffers replaced; everything else is shared with the original."""
    if not tensors:
        return module
    swaps: dict[int, Tensor] = {}
    for name, tensor in tensors.items():
        path, _, last = name.rpartition(".")
        try:
            owner = module.get_submodule(path)
            original = owner._parameters.get(last, owner._buffers.get(last))
        except AttributeError:
            original = None
        if original is None:
            known = [name for name, _ in module.named_parameters()]
            raise ValueError(
                f"{name!r} is no parameter or buffer of {type(module).__name__}; choose among {known[:4]}"
                f"{'...' if len(known) > 4 else ''}"
            )
        swaps[id(original)] = tensor
    return _replica(module, swaps, {})


def has_recurrent(module: nn.Module) -> bool:
    """Whether an LSTM, GRU or plain recurrent layer is part of the module."""
    return any(isinstance(m, nn.RNNBase) for m in module.modules())


def _replica(module: nn.Module, swaps: dict[int, Tensor], made: dict[int, nn.Module]) -> nn.Module:
    if id(module) in made:
        return made[id(module)]
    new = object.__new__(type(module))
    made[id(module)] = new
    new.__dict__ = copy.copy(module.__dict__)
    new.__dict__["_parameters"] = _swapped(module._parameters, swaps)
    new.__dict__["_buffers"] = _swapped(module._buffers, swaps)
    new.__dict__["_modules"] = {
        name: None if child is None else _replica(child, swaps, made) for name, child in module._modules.items()
    }
    if isinstance(module, nn.RNNBase):  # these keep a second list of their weights
        new.__dict__["_flat_weights"] = _swapped(dict(enumerate(module._flat_weights)), swaps).values()
        new.__dict__["_flat_weights"] = list(new.__dict__["_flat_weights"])
    return new


def _swapped(tensors: Mapping[Any, Any], swaps: dict[int, Tensor]) -> dict[Any, Any]:
    return {name: swaps.get(id(tensor), tensor) for name, tensor in tensors.items()}
