"""Call a module with other parameters, without touching the module.

``torch.func.functional_call`` puts the parameters into the module for the length of the call, so two threads that call
one module meet each other's parameters. Here a replica of the module tree is made instead (its tensors are shared),
which costs about as much and can be called from any number of threads.
"""

import copy
import types
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from quickstudy.inner.unfused import recurrent_in_parts

_OF_TORCH = frozenset(vars(nn.Module())) - {"training"}
_MOST = 1000  # entries of a list on a module that is looked through for parts of it; a vocabulary is longer


def call(module: nn.Module, tensors: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> Any:
    """``module(*args)`` with some of its parameters or buffers replaced, differentiable twice and from any thread.

    Fused attention, which has no second derivative, runs as products and a softmax; recurrent layers, whose fused
    kernels have none either or fail inside a transform, run step by step.

    Args:
        module: any module; it is not written to.
        tensors: replacements by their names in ``module``; a tied tensor is replaced wherever it stands.
        args, kwargs: of the module.

    Raises:
        ValueError: a name that the module does not have, or a compiled or scripted module, which would not see them.
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
        if original is not tensor:
            swaps[id(original)] = tensor
    made: dict[int, nn.Module] = {}
    new = _replica(module, swaps, made)
    for part in made.values():
        for name in part.__dict__.keys() - _OF_TORCH:
            part.__dict__[name] = _mapped(part.__dict__[name], made, swaps)
    return new


def has_recurrent(module: nn.Module) -> bool:
    """Whether an LSTM, GRU or plain recurrent layer is part of the module."""
    return any(isinstance(m, nn.RNNBase) for m in module.modules())


def _replica(module: nn.Module, swaps: dict[int, Tensor], made: dict[int, nn.Module]) -> nn.Module:
    if id(module) in made:
        return made[id(module)]
    if swaps and ("_orig_mod" in module._modules or isinstance(module, torch.jit.ScriptModule)):
        raise ValueError(
            f"{type(module).__name__} is compiled or scripted and would go on with its own parameters: pass the module "
            "as it was before; strategy='compile' compiles a whole meta-batch"
        )
    new = object.__new__(type(module))
    made[id(module)] = new
    new.__dict__ = copy.copy(module.__dict__)
    new.__dict__["_parameters"] = _swapped(module._parameters, swaps)
    new.__dict__["_buffers"] = _swapped(module._buffers, swaps)
    new.__dict__["_modules"] = {
        name: None if child is None else _replica(child, swaps, made) for name, child in module._modules.items()
    }
    return new


def _mapped(value: Any, made: dict[int, nn.Module], swaps: dict[int, Tensor]) -> Any:
    """What stands for an attribute: parts of the module, their methods and tensors are kept in lists and dicts too."""
    if isinstance(value, nn.Module):
        return made.get(id(value), value)
    if isinstance(value, Tensor):
        return swaps.get(id(value), value)
    if isinstance(value, types.MethodType) and id(value.__self__) in made:
        return types.MethodType(value.__func__, made[id(value.__self__)])
    if isinstance(value, list | tuple) and type(value) in (list, tuple) and len(value) <= _MOST:
        parts = [_mapped(part, made, swaps) for part in value]
        return parts if type(value) is list else tuple(parts)
    if type(value) is dict and len(value) <= _MOST:
        return {key: _mapped(part, made, swaps) for key, part in value.items()}
    return value


def _swapped(tensors: Mapping[Any, Any], swaps: dict[int, Tensor]) -> dict[Any, Any]:
    return {name: swaps.get(id(tensor), tensor) for name, tensor in tensors.items()}
