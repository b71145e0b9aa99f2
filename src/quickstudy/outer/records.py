"""What is remembered between calls about a function of tasks: by what it is, not by its values."""

import copy
import dataclasses
import itertools
import types
from collections.abc import Callable, Hashable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from quickstudy.episode import Episode
from quickstudy.learner import Learner
from quickstudy.outer.strategies import Refused, TaskFunction
from quickstudy.outer.traced import Recorded, record

_MOST = 32  # states of one module; settings that change with every step would make ever more
_IGNORED = {"progress", *vars(nn.Module())} - {"training"}  # who looks at progress says ``watches_progress``


@dataclasses.dataclass(eq=False)
class _State:
    """A module as it was at some call.

    Attributes:
        structure: equal for modules of the same parts, settings and shapes.
        held: what its identity was taken from, alive, as an id stands for a thing only while that lives.
        records: made for it, by function and shapes.
    """

    structure: int
    held: list[Any]
    records: dict[Hashable, Recorded] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Kind:
    """Equal for calls that run the same operators: same code, same settings, same shapes."""

    key: Hashable
    state: _State | None = dataclasses.field(compare=False)


_states: WeakKeyDictionary[nn.Module, dict[Hashable, _State]] = WeakKeyDictionary()
_structures: dict[Hashable, int] = {}
_numbers = itertools.count()


def recorded(f: TaskFunction, batch: Episode, kind: Kind, *, compiled: bool) -> Recorded:
    """The record of ``f`` for meta-batches of this shape and kind, made when it is new.

    Raises:
        Refused: the function is no method of a module, or cannot be recorded.
    """
    owner = owner_of(f)
    if owner is None or kind.state is None:
        raise Refused("only a method of a module can be recorded, as one can see when a module has changed")
    if watches_progress(owner):
        raise Refused(f"the loss of {type(owner).__name__} changes with the progress of training")
    key, records = (kind.key, len(batch.support.x), compiled), kind.state.records
    if key not in records:
        records[key] = record(f, batch, compiled=compiled)
    return records[key]


def watches_progress(owner: nn.Module) -> bool:
    """Whether what the module computes changes from one outer step to the next by itself."""
    return owner.training and isinstance(owner, Learner) and owner.watches_progress


def owner_of(f: Callable[..., Any]) -> nn.Module | None:
    """The module that ``f`` is a method of."""
    owner = f.__self__ if isinstance(f, types.MethodType) else None
    return owner if isinstance(owner, nn.Module) else None


def kind_of(f: TaskFunction, batch: Episode) -> Kind:
    """The kind of a call; fast where nothing has changed since the last one."""
    shapes = tuple((t.shape, t.dtype, t.device.type, t.requires_grad) for part in batch for t in part)
    device = batch.support.x.device.type
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    around = torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype(), autocast
    owner = owner_of(f)
    if owner is not None:
        state = _state_of(owner)
        return Kind((f.__func__, state.structure, shapes, around), state)  # pyright: ignore[reportFunctionMemberAccess]
    if isinstance(f, types.FunctionType):
        cells = tuple(_structure(cell.cell_contents) for cell in f.__closure__ or ())
        return Kind((f.__code__, cells, shapes, around), None)
    return Kind((type(f), _structure(f), shapes, around), None)


def _state_of(owner: nn.Module) -> _State:
    """The state that a module is in, recognised by the identity of everything in it."""
    held = [value for module in owner.modules() for name, value in vars(module).items() if name not in _IGNORED]
    tensors = [*owner.parameters(), *owner.buffers()]
    looks = tuple([(id(t), t.requires_grad, t.dtype, t.shape) for t in tensors])
    identity = looks, tuple([_identity(value) for value in held])
    states = _states.setdefault(owner, {})
    if identity not in states:
        if len(states) >= _MOST:
            del states[next(iter(states))]
        if len(_structures) > 1000:
            _structures.clear()
        structure = _structures.setdefault(_structure(owner), next(_numbers))
        states[identity] = _State(
            structure, [held, tensors, [copy.copy(v) for v in held if isinstance(v, list | tuple | dict)]]
        )
    return states[identity]


def _identity(value: Any) -> Hashable:
    """The identity of a value; of lists and dicts that of their contents, which may change in place."""
    if type(value) in (list, tuple):
        return tuple([_identity(part) for part in value])
    if type(value) is dict:
        return tuple([(id(key), _identity(part)) for key, part in value.items()])
    return id(value)


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
