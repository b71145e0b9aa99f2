"""What is remembered between calls about a function of tasks: by what it is, not by its values."""

import dataclasses
import types
from collections.abc import Callable, Hashable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from quickstudy.episode import Episode
from quickstudy.learner import Learner
from quickstudy.outer.strategies import Refused, TaskFunction
from quickstudy.outer.traced import Recorded, record

_records: WeakKeyDictionary[nn.Module, dict[Hashable, Recorded]] = WeakKeyDictionary()
_MOST = 32  # records of one module; settings that change with every step would make ever more
_IGNORED = {"progress", *vars(nn.Module())} - {"training"}  # who looks at progress says ``watches_progress``


def recorded(f: TaskFunction, batch: Episode, kind: Hashable, *, compiled: bool) -> Recorded:
    """The record of ``f`` for meta-batches of this shape and kind, made when it is new.

    Raises:
        Refused: the function is no method of a module, or cannot be recorded.
    """
    owner = owner_of(f)
    if owner is None:
        raise Refused("only a method of a module can be recorded, as one can see when a module has changed")
    if watches_progress(owner):
        raise Refused(f"the loss of {type(owner).__name__} changes with the progress of training")
    plain = (value for module in owner.modules() for value in vars(module).values() if isinstance(value, Tensor))
    tensors = tuple(map(id, (*owner.parameters(), *owner.buffers(), *plain)))
    key = (kind, tensors, compiled)
    mine = _records.setdefault(owner, {})
    if key not in mine:
        if len(mine) >= _MOST:
            del mine[next(iter(mine))]
        mine[key] = record(f, batch, compiled=compiled)
    return mine[key]


def watches_progress(owner: nn.Module) -> bool:
    """Whether what the module computes changes from one outer step to the next by itself."""
    return owner.training and isinstance(owner, Learner) and owner.watches_progress


def owner_of(f: Callable[..., Any]) -> nn.Module | None:
    """The module that ``f`` is a method of."""
    owner = f.__self__ if isinstance(f, types.MethodType) else None
    return owner if isinstance(owner, nn.Module) else None


def kind_of(f: TaskFunction, batch: Episode) -> Hashable:
    """Equal for calls that run the same operators: same code, same settings, same shapes."""
    shapes = tuple((t.shape, t.dtype, t.device.type, t.requires_grad) for part in batch for t in part)
    device = batch.support.x.device.type
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    around = torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype(), autocast
    if isinstance(f, types.MethodType):
        return f.__func__, _structure(f.__self__), shapes, around
    if isinstance(f, types.FunctionType):
        cells = tuple(_structure(cell.cell_contents) for cell in f.__closure__ or ())
        return f.__code__, cells, shapes, around
    return type(f), _structure(f), shapes, around


def _structure(thing: Any) -> Hashable:
    """The modules, settings and shapes inside something; None for what has no part in it."""
    if isinstance(thing, nn.Module):
        parts = []
        for name, module in thing.named_modules():
            settings = tuple((k, _structure(v)) for k, v in vars(module).items() if k not in _IGNORED)
            parts.append((name, type(module), settings))
        tensors = tuple((p.shape, p.dtype, p.device.type, p.requires_grad) for p in thing.parameters())
        return tuple(parts), tensors
    if isinstance(thing, (list, tuple)):
        return tuple(_structure(part) for part in thing)
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        return type(thing), tuple(_structure(getattr(thing, field.name)) for field in dataclasses.fields(thing))
    if isinstance(thing, (bool, int, float, str, type, torch.dtype, types.FunctionType)) or thing is None:
        return thing
    if isinstance(thing, dict):
        return tuple((repr(k), _structure(v)) for k, v in thing.items())
    return type(thing)
