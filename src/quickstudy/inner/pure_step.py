"""One step of an optimizer's own code as a pure function.

The class runs, unmodified, on an instance that lives for one step, while a ``TorchFunctionMode`` answers what it asks
of torch: an operation in place computes a new tensor that stands for the old one from then on; ``p.grad`` is the
gradient that was handed over; ``detach``, ``.data`` and ``no_grad`` do nothing; a number that is no constant stays a
tensor.
"""

import inspect
import operator
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

from quickstudy.inner.capture import is_batched, needs_grad
from quickstudy.inner.rules import Params


def pure_step(
    cls: type[torch.optim.Optimizer],
    options: Mapping[str, Any],
    params: Params,
    grads: Mapping[str, Tensor],
    state: dict[str, Any] | None,
    learned: Mapping[str, Any],
) -> tuple[Params, dict[str, Any]]:
    """One step of ``cls(params, **options)``, with ``learned`` in the place of some options."""
    if not params:
        return {}, {"params": {}, "group": {}}
    seen: set[int] = set()
    params = {name: _distinct(p, seen) for name, p in params.items()}
    grads = {name: _distinct(grads[name], seen) for name in params}
    before: dict[str, Any] = tree_map_only(Tensor, lambda t: _distinct(t, seen), state or {"params": {}, "group": {}})
    mode = _Pure(cls.__name__, params, grads)
    values = tree_map_only(Tensor, mode.hidden, dict(learned))
    # torch's counters have no derivative, and are plain numbers without one
    kept = {
        name: {k: v.detach() if k == "step" and isinstance(v, Tensor) else v for k, v in of_one.items()}
        for name, of_one in before["params"].items()
    }
    with mode:
        optimizer: Any = built(cls, params.values(), options)
        optimizer.defaults.update(values)
        group = optimizer.param_groups[0]
        group.update({**values, **before["group"]})
        for name, of_one in kept.items():
            optimizer.state[params[name]] = of_one
        at_start = tree_map_only(Tensor, mode.now, {**group, "params": ()})
        inspect.unwrap(cls.step)(optimizer)
    at_end = tree_map_only(Tensor, mode.now, {**group, "params": ()})
    changed = {key: value for key, value in at_end.items() if not _same(value, at_start.get(key, mode))}
    after = {
        "params": {name: dict(optimizer.state.get(p, {})) for name, p in params.items()},
        "group": {**before["group"], **changed},
    }
    return {name: mode.now(p) for name, p in params.items()}, tree_map_only(Tensor, mode.now, after)


def _distinct(t: Tensor, seen: set[int]) -> Tensor:
    """The tensor, or its copy where it was seen before: what is written to one must not show in another."""
    if id(t) in seen:
        return t.clone()
    seen.add(id(t))
    return t


def _same(a: Any, b: Any) -> bool:
    return len(tree_leaves(a)) == len(tree_leaves(b)) and all(map(operator.is_, tree_leaves(a), tree_leaves(b)))


class _Pure(TorchFunctionMode):
    """Run an optimizer's code without writing to any tensor.

    Args:
        name: of the optimizer, for messages.
        params, grads: what it steps on.
    """

    def __init__(self, name: str, params: Params, grads: Mapping[str, Tensor]):
        super().__init__()
        self._name = name
        self._grads: dict[int, Tensor | None] = {id(p): grads[name] for name, p in params.items()}
        self._learned: set[int] = set()
        # by id: a tensor, kept alive, and what stands for it since it was overwritten
        self._later: dict[int, tuple[Tensor, Tensor]] = {}

    def now(self, t: Tensor) -> Tensor:
        """What the tensor would hold, had it been overwritten."""
        while (entry := self._later.get(id(t))) is not None:
            t = entry[1]
        return t

    def _all_now(self, x: Any) -> Any:
        if isinstance(x, Tensor):
            return self.now(x)
        return type(x)(map(self._all_now, x)) if type(x) in (list, tuple) else x

    def hidden(self, value: Tensor) -> Tensor:
        """A stand-in for a hyper-parameter, which is known not to be 0."""
        stand_in = self._hidden(value)
        self._learned.add(id(stand_in))
        return stand_in

    def _hidden(self, value: Any) -> Any:
        """A stand-in for a number that has a derivative: torch takes no such tensors in the place of numbers."""
        if not isinstance(value, Tensor) or value.ndim or not value.requires_grad:
            return value
        stand_in = value.detach()
        self._later[id(stand_in)] = (stand_in, value)
        return stand_in

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if name == "_set_grad_enabled":
            return None
        if name in ("__get__", "__set__"):
            return self._attribute(func, func.__self__.__name__, name == "__set__", args)
        if name in ("detach", "detach_", "requires_grad_"):
            return args[0]
        if name.startswith("_foreach_"):
            return self._each(name.removeprefix("_foreach_"), args, kwargs)
        if kwargs.get("out") is not None:
            out = kwargs.pop("out")
            return self._overwrite(out, self._call(func, name, args, kwargs))
        if name in _AUGMENTED or (name.endswith("_") and not name.endswith("__")):
            base = _AUGMENTED.get(name, name.removesuffix("_"))
            return self._overwrite(args[0], self._call(_functional(func, base, self._name), base, args, kwargs))
        return self._call(func, name, args, kwargs)

    def _attribute(self, func: Any, attribute: str, is_set: bool, args: Any) -> Any:
        if attribute == "grad" and (is_set or id(args[0]) in self._grads):
            if is_set:
                self._grads[id(args[0])] = args[1]
            return self._grads[id(args[0])]
        if attribute == "data":
            return self._overwrite(args[0], self.now(args[1])) if is_set else args[0]
        if attribute == "is_leaf" or (attribute == "requires_grad" and id(args[0]) in self._grads):
            return True
        return func(self.now(args[0]), *args[1:])

    def _each(self, base: str, args: Any, kwargs: Any) -> Any:
        """The operator on lists, one after the other."""

        def at(i: int, x: Any) -> Any:
            return x[i] if isinstance(x, list | tuple) else x

        func = getattr(Tensor, base)
        parts = range(len(args[0]))
        return [
            self.__torch_function__(func, (), tuple(at(i, a) for a in args), {k: at(i, v) for k, v in kwargs.items()})
            for i in parts
        ]

    def _overwrite(self, target: Tensor, value: Tensor) -> Tensor:
        old = self.now(target)
        value = self.now(value).to(dtype=old.dtype, device=old.device)
        # always a tensor of its own, which nothing else stands for
        self._later[id(old)] = (old, value.view_as(value))
        return target

    def _call(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        first = args[0] if args else None
        if name in ("ne", "gt", "__ne__", "__gt__") and id(first) in self._learned and args[1] == 0:
            return True
        args, kwargs = tuple(map(self._all_now, args)), {k: self._all_now(v) for k, v in kwargs.items()}
        if name in _TO_NUMBER:
            return self._number(func, name, *args)
        if name in _DIFFERENTIABLE:
            return self._hidden(_DIFFERENTIABLE[name](func, *args, **kwargs))
        return self._hidden(func(*args, **kwargs))

    def _number(self, func: Any, name: str, t: Tensor, *args: Any) -> Any:
        if name == "__bool__":
            if is_batched(t):
                raise RuntimeError(
                    f"{self._name} decides by the value of a tensor, which vmap cannot: use strategy='loop', or "
                    "another optimizer"
                )
        elif needs_grad(t) or is_batched(t):
            if name == "item":
                return self._hidden(t.to(torch.float64, copy=True))
            raise RuntimeError(
                f"{self._name} turns a tensor that is no constant into a number ({name}), which has no derivative: use "
                "another optimizer"
            )
        return func(t, *args)


_AUGMENTED = {f"__i{name}__": name for name in ("add", "sub", "mul", "pow")} | {
    "__itruediv__": "div",
    "__idiv__": "div",
    "__setitem__": "__setitem__",
}
_TO_NUMBER = ("item", "__bool__", "__float__", "__int__", "__index__", "__complex__", "tolist", "numpy", "__array__")


def _functional(func: Any, base: str, optimizer: str) -> Any:
    """The operator that computes what ``func`` would write."""
    if base in _WRITES:
        return _WRITES[base]
    found = getattr(Tensor, base, None)
    if found is None or base in ("normal", "uniform", "bernoulli", "random", "resize", "set"):
        raise ValueError(f"{optimizer} uses {func.__name__}, which has no derivative: use another optimizer")
    return found


def _set_item(x: Tensor, index: Any, value: Any) -> Tensor:
    if isinstance(index, Tensor) and index.dtype is torch.bool and index.shape == x.shape:
        return torch.where(index, value, x)  # also under vmap
    y = x.clone()
    y[index] = value
    return y


def _copied(x: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    return source.expand(x.shape)


_WRITES = {
    "copy": _copied,
    "zero": torch.zeros_like,
    "fill": lambda x, value: _full_like(torch.full_like, x, value),
    "__setitem__": _set_item,
}


# where torch takes numbers alone, or has a derivative that is not finite


def _add(func: Any, x: Tensor, other: Any, *, alpha: Any = 1) -> Tensor:
    if not isinstance(alpha, Tensor):
        return func(x, other, alpha=alpha) if alpha != 1 else func(x, other)
    return func(
        x, alpha * (other.to(torch.promote_types(x.dtype, other.dtype)) if isinstance(other, Tensor) else other)
    )


def _add_product(func: Any, x: Tensor, a: Tensor, b: Tensor, *, value: Any = 1) -> Tensor:
    if not isinstance(value, Tensor):
        return func(x, a, b, value=value)
    return x + value * (a / b if func.__name__.startswith("addcdiv") else a * b)


def _lerp(func: Any, x: Tensor, end: Tensor, weight: Any) -> Tensor:
    return func(x, end, weight.to(x) if isinstance(weight, Tensor) else weight)


def _eq(func: Any, x: Tensor, other: Any) -> Tensor:
    return func(x, other.to(x) if isinstance(other, Tensor) and other.ndim == 0 else other)


def _full_like(func: Any, x: Tensor, value: Any, **kwargs: Any) -> Tensor:
    return torch.zeros_like(x, **kwargs) + value if isinstance(value, Tensor) else func(x, value, **kwargs)


def _sqrt(func: Any, x: Tensor) -> Tensor:
    """√x, with derivative 0 at 0."""
    zero = x == 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, x).sqrt())


_DIFFERENTIABLE = {
    "add": _add,
    "sub": _add,
    "addcmul": _add_product,
    "addcdiv": _add_product,
    "lerp": _lerp,
    "eq": _eq,
    "full_like": _full_like,
    "sqrt": _sqrt,
}


@cache
def _one_by_one(cls: type[torch.optim.Optimizer]) -> dict[str, Any]:
    """The options of a class that computes tensor by tensor."""
    return {"foreach": False} if "foreach" in inspect.signature(cls).parameters else {}


def built(
    cls: type[torch.optim.Optimizer], params: Iterable[Tensor], options: Mapping[str, Any]
) -> torch.optim.Optimizer:
    return cls(list(params), **options, **_one_by_one(cls))
