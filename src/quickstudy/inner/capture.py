"""Which tensors a function uses that it was not given, and the same function with others in their place.

A loss is a closure: over the support set, over parameters that do not adapt, over an embedding that came before. To run
one of its steps again later, inside a custom derivative and under ``vmap`` (where a closure's tensors are no longer
valid), they must become arguments. Both modes below see each call of a torch function and look at its tensors by
identity.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

_functorch: Any = torch._C._functorch  # pyright: ignore[reportAttributeAccessIssue]


class Recorder(TorchFunctionMode):
    """Collect the tensors that torch functions take from outside while it is active.

    Args:
        given: tensors that count as arguments.

    Attributes:
        captured: the others, each once, in order of first use.
    """

    def __init__(self, given: Iterable[Tensor] = ()):
        super().__init__()
        self.captured: dict[int, Tensor] = {}
        self._known: dict[int, Tensor] = {id(t): t for t in given}  # kept alive, so that no id is used twice
        self._level = level()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for t in tree_leaves((args, kwargs)):
            # what an inner transform wrapped is of a deeper level than anything outside
            if isinstance(t, Tensor) and id(t) not in self._known and _functorch.maybe_get_level(t) <= self._level:
                self.captured.setdefault(id(t), t)
        result = func(*args, **kwargs)
        for t in tree_leaves(result):
            if isinstance(t, Tensor) and id(t) not in self.captured:
                self._known[id(t)] = t
        return result

    def give(self, tensors: Iterable[Tensor]) -> None:
        """Count these as arguments too, and forget the results so far."""
        self._known = {id(t): t for t in tensors}


class Substitute(TorchFunctionMode):
    """Put other tensors in the place of captured ones while it is active.

    Args:
        replacements: id of a captured tensor → its replacement.
    """

    def __init__(self, replacements: dict[int, Tensor]):
        super().__init__()
        self._replacements = replacements

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def swap(t: Tensor) -> Tensor:
            return self._replacements.get(id(t), t)

        return func(*tree_map_only(Tensor, swap, args), **tree_map_only(Tensor, swap, kwargs or {}))


def level() -> int:
    """The depth of the innermost transform of ``torch.func``, −1 outside of all."""
    top = _functorch.peek_interpreter_stack()
    return -1 if top is None else top.level()


def grad_transforms() -> int:
    """How many transforms of ``torch.func`` that differentiate are active."""
    stack = _functorch.get_interpreter_stack() or []
    return sum(entry.key() == _functorch.TransformType.Grad for entry in stack)


def needs_grad(t: Tensor) -> bool:
    """Whether a derivative with respect to the tensor can be asked for, at any level of ``torch.func``."""
    while True:
        if t.requires_grad:
            return True
        if not _functorch.is_functorch_wrapped_tensor(t):
            return False
        t = _functorch.get_unwrapped(t)


def is_batched(t: Tensor) -> bool:
    """Whether ``vmap`` runs over the tensor, at any level."""
    while _functorch.is_functorch_wrapped_tensor(t):
        if _functorch.is_batchedtensor(t):
            return True
        t = _functorch.get_unwrapped(t)
    return False
