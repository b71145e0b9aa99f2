"""How the tasks of a meta-batch are run: each strategy gives their values and the sum of their gradients."""

import copy
import types
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from quickstudy.episode import Episode, Labelled, task
from quickstudy.inner import Unfused, with_tensors
from quickstudy.outer.mapped import Gradient, leaves_of

TaskFunction = Callable[[Episode], Tensor]


class Refused(RuntimeError):
    """A strategy cannot serve; the message is the reason."""


def loop(
    f: TaskFunction, tasks: Sequence[Episode], weights: Tensor | None, *, first: Tensor | None = None
) -> tuple[Tensor, Gradient]:
    """One task after the other; ``first`` is the first one's value, with its graph, where it is known."""
    gradient = Gradient()
    values = [_take_gradient(first, _weight(weights, 0), gradient)] if first is not None else []
    del first
    for i in range(len(values), len(tasks)):
        with torch.enable_grad():
            values.append(_take_gradient(f(tasks[i]), _weight(weights, i), gradient))
    return torch.stack(values), gradient


def threads(
    f: TaskFunction, tasks: Sequence[Episode], weights: Tensor | None, *, workers: int = 0, first: Tensor | None = None
) -> tuple[Tensor, Gradient]:
    """``workers`` tasks at once (by default as many as torch has threads), each on a single processor."""
    workers = min(workers or torch.get_num_threads(), len(tasks))
    if workers < 2:
        raise Refused("threads need two processors and two tasks or more")
    if torch.is_autocast_enabled("cpu"):
        raise Refused("autocast belongs to one thread")
    gradient = Gradient()
    values = [_take_gradient(first, _weight(weights, 0), gradient)] if first is not None else []
    del first
    free = _own_copies(f, workers)

    def run(i: int) -> tuple[Tensor, Gradient]:
        mine, own = free.pop(), Gradient()
        try:
            with torch.enable_grad():
                return _take_gradient(mine(tasks[i]), _weight(weights, i), own), own
        finally:
            free.append(mine)

    before = torch.get_num_threads()
    try:
        # set here, for all threads: within them every call would set and reset this flag of the process
        with sdpa_kernel(SDPBackend.MATH):
            for value, own in _pool(workers).map(run, range(len(values), len(tasks))):
                gradient.add(list(own.leaves.values()), list(own.sums.values()))
                values.append(value)
    finally:
        torch.set_num_threads(before)
    return torch.stack(values), gradient


def vmap(
    f: TaskFunction, batch: Episode, weights: Tensor | None, *, chunk: int, first: Tensor | None = None
) -> tuple[Tensor, Gradient]:
    """``chunk`` tasks in one pass; ``first`` are the first ones' values, with their graph, where they are known."""
    values, gradient = [], Gradient()
    for at in range(0, len(batch.support.x), chunk):
        if first is None:
            with torch.enable_grad():
                first = vmapped(f, part_of(batch, slice(at, at + chunk)))
        some = torch.ones_like(first) if weights is None else weights[at : at + chunk]
        values.append(_take_gradient(first, some, gradient))
        first = None
    return torch.cat(values), gradient


def vmapped(f: TaskFunction, batch: Episode) -> Tensor:
    """All tasks in one pass, with a graph.

    Raises:
        Refused: vmap has no rule for something that the function does.
    """
    with Unfused():
        try:
            return torch.func.vmap(f, randomness="different")(batch)
        except RuntimeError as error:
            raise Refused(f"vmap: {error}") from error


def _take_gradient(value: Tensor, weight: Tensor | None, gradient: Gradient) -> Tensor:
    """Add the gradient of a value, or of the weighted sum of several, and let go of the graph."""
    if value.requires_grad:
        leaves = leaves_of(value)
        gradient.add(leaves, torch.autograd.grad(value, leaves, weight))
    return value.detach()


def _weight(weights: Tensor | None, i: int) -> Tensor | None:
    return None if weights is None else weights[i]


def part_of(batch: Episode, which: slice) -> Episode:
    """Some tasks of a meta-batch."""
    (sx, sy), (qx, qy) = batch
    return Episode(Labelled(sx[which], sy[which]), Labelled(qx[which], qy[which]))


def as_tasks(batch: Episode) -> list[Episode]:
    """The tasks of a meta-batch."""
    return [task(batch, i) for i in range(len(batch.support.x))]


def bytes_of_a_task(f: TaskFunction, episode: Episode) -> int:
    """What one task's forward pass allocates, in bytes: at least what its graph holds."""
    with torch.random.fork_rng(), torch.enable_grad(), _Allocated() as allocated:
        f(episode)
    return allocated.bytes


class _Allocated(TorchDispatchMode):
    """Add up the sizes of all results that are no views."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        pointers = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for t in tree_leaves(result):
            if isinstance(t, Tensor) and t.untyped_storage().data_ptr() not in pointers:
                self.bytes += t.untyped_storage().nbytes()
        return result


def _own_copies(f: TaskFunction, n: int) -> list[TaskFunction]:
    """For a method of a module one replica of it for each thread (its tensors are shared)."""
    owner = getattr(f, "__self__", None)
    if not isinstance(f, types.MethodType) or not isinstance(owner, nn.Module):
        return [f] * n
    return [types.MethodType(f.__func__, replica(owner)) for _ in range(n)]


def replica(module: nn.Module) -> nn.Module:
    """A copy of the module tree that shares all tensors."""
    some = next(iter(module.named_parameters()), None)
    return copy.copy(module) if some is None else with_tensors(module, dict([some]))


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, "quickstudy-task", initializer=torch.set_num_threads, initargs=(1,))
