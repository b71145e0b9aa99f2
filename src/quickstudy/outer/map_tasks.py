"""Apply a function to every task of a meta-batch, in whichever way is fastest."""

import logging
from collections.abc import Hashable, Sequence
from functools import partial
from typing import Literal, cast, get_args

import torch
from torch import Tensor

from quickstudy.episode import Episode, task
from quickstudy.inner.capture import level
from quickstudy.outer import strategies
from quickstudy.outer.choose import Choice, choose_strategy
from quickstudy.outer.mapped import Gradient, differentiable, marker, reaches_before
from quickstudy.outer.records import Kind, kind_of, owner_of, recorded
from quickstudy.outer.strategies import Refused, TaskFunction, as_tasks, bytes_of_a_task, part_of

Strategy = Literal["auto", "loop", "threads", "vmap", "trace", "compile"]
MEMORY = 4 << 30
"""Bytes that tasks which run at the same time may take, unless another bound is given."""

_log = logging.getLogger("quickstudy")


def map_tasks(
    f: TaskFunction, episodes: Episode | Sequence[Episode], *, strategy: Strategy = "auto", memory: int | None = None
) -> Tensor:
    """f(task) for each task, stacked along a leading axis.

    All strategies give the same values and the same gradient (to rounding). Where ``f`` returns a scalar, each task's
    gradient is taken as soon as its value is known, and its graph is gone before the next one's is built.

    Args:
        f: a function of one task. A method of a module (``learner.meta_loss``) can be run by every strategy; a closure
            that is run by threads must not write to anything it shares (``torch.func.functional_call`` writes to its
            module while it runs; ``quickstudy.inner.call`` does not).
        episodes: a meta-batch, leading axis n; or a list of tasks of unequal shapes, for "loop" and "threads".
        strategy:
            "loop": one task after the other. Serves everything.
            "threads": one task for each of torch's threads at once, each computed by one processor: convolutions on a
            CPU. Not for functions that draw random numbers.
            "vmap": all tasks in one pass of batched operators: small networks, accelerators.
            "trace": the operators of "vmap" recorded once and replayed without Python: small networks, several times
            faster again after a second of set-up. For methods of modules, without random numbers.
            "compile": the record through torch.compile: fastest for small networks, after tens of seconds.
            "auto": the first call measures "loop", "threads" and "vmap" on the tasks at hand, and calls of the same
            kind keep the fastest; "vmap" on small networks becomes "trace" at the 5th call. The logger ``quickstudy``
            says which and why.
        memory: bytes that the graphs of tasks which run at the same time may take; as many run as fit. By default 4
            GiB, where a single task may take more.

    Raises:
        ValueError: an unknown strategy, no tasks, or a single task that needs more than ``memory``.
        Refused: the strategy cannot serve; the message says why. "auto" takes another one.
    """
    if strategy not in get_args(Strategy):
        raise ValueError(f"strategy={strategy!r}; choose among {', '.join(map(repr, get_args(Strategy)))}")
    batch = episodes if isinstance(episodes, Episode) else None
    tasks = None if batch is not None else cast(list[Episode], list(episodes))
    if not (tasks if batch is None else len(batch.support.x)):
        raise ValueError("no tasks were given; required is at least one")
    if level() >= 0 and strategy == "auto":
        strategy = "loop"  # a transform of torch.func takes the derivative
    if batch is None and strategy not in ("auto", "loop", "threads"):
        raise Refused(f"strategy={strategy!r} needs tasks of equal shape: use 'loop' or 'threads' for a list of tasks")
    kind = None if batch is None or (strategy == "loop" and memory is None) else kind_of(f, batch)
    if strategy == "auto":
        choice = Choice("loop", "tasks of unequal shapes") if batch is None else choose_strategy(f, batch, kind)
        try:
            return _run(f, batch, tasks, choice.strategy, memory, kind)
        except Refused as refusal:
            _log.info("tasks run by 'loop': %s cannot serve (%s)", choice.strategy, refusal)
            strategy = choice.strategy = "loop"  # also from now on
    return _run(f, batch, tasks, strategy, memory, kind)


def _run(
    f: TaskFunction,
    batch: Episode | None,
    tasks: list[Episode] | None,
    strategy: str,
    memory: int | None,
    kind: Kind | None,
) -> Tensor:
    if tasks is None and strategy in ("loop", "threads"):
        tasks = as_tasks(cast(Episode, batch))
    at_once = _that_fit(f, batch, tasks, strategy, memory, kind)
    if batch is not None and strategy in ("trace", "compile") and torch.is_grad_enabled() and level() < 0:
        return differentiable(partial(_replayed, f, batch, at_once, strategy == "compile", cast(Kind, kind)))
    if batch is not None and strategy in ("vmap", "trace", "compile"):
        return _in_one_pass(f, batch, at_once)
    return _one_by_one(f, tasks or as_tasks(cast(Episode, batch)), at_once if strategy == "threads" else 1)


def _one_by_one(f: TaskFunction, tasks: Sequence[Episode], at_once: int) -> Tensor:
    """A loop or threads; with the graph of all tasks where they share more than leaves, or give more than a number."""
    run = partial(strategies.threads, workers=at_once) if at_once > 1 else strategies.loop
    if not torch.is_grad_enabled() or level() >= 0:
        return torch.stack([f(one) for one in tasks])
    start, draws = marker(), torch.get_rng_state()
    first = f(tasks[0])
    if at_once > 1 and not torch.equal(draws, torch.get_rng_state()):
        torch.set_rng_state(draws)
        raise Refused("the function draws random numbers (dropout, ...), whose order threads would change")
    if len(tasks) == 1 or first.ndim or not first.requires_grad or reaches_before(first, start):
        return torch.stack([first, *(f(one) for one in tasks[1:])])
    known = [first]
    del first

    def values_and_gradient(weights: Tensor | None) -> tuple[Tensor, Gradient]:
        return run(f, tasks, weights, first=known.pop() if known else None)

    return differentiable(values_and_gradient, draws)


def _in_one_pass(f: TaskFunction, batch: Episode, at_once: int) -> Tensor:
    """vmap; with one graph for all where they share more than leaves, or give more than a number."""
    start = marker()
    if torch.is_grad_enabled() and level() < 0:
        draws = torch.get_rng_state()
        some = strategies.vmapped(f, part_of(batch, slice(0, at_once)))
        if some.ndim == 1 and some.requires_grad and not reaches_before(some, start):
            known = [some]
            del some

            def values_and_gradient(weights: Tensor | None) -> tuple[Tensor, Gradient]:
                return strategies.vmap(f, batch, weights, chunk=at_once, first=known.pop() if known else None)

            return differentiable(values_and_gradient, draws)
        torch.set_rng_state(draws)
    parts = range(0, len(batch.support.x), at_once)
    return torch.cat([strategies.vmapped(f, part_of(batch, slice(at, at + at_once))) for at in parts])


def _replayed(
    f: TaskFunction, batch: Episode, at_once: int, compiled: bool, kind: Kind, weights: Tensor | None
) -> tuple[Tensor, Gradient]:
    """The record of ``at_once`` tasks, as often as needed."""
    if weights is not None:  # the record adds up gradients as they are
        return strategies.vmap(f, batch, weights, chunk=at_once)
    n = len(batch.support.x)
    if at_once == n:
        return recorded(f, batch, kind, compiled=compiled)(batch)
    at_once = next(size for size in range(at_once, 0, -1) if n % size == 0)  # of one shape, so of one record
    gradient, values = Gradient(), []
    for at in range(0, n, at_once):
        part = part_of(batch, slice(at, at + at_once))
        some, found = recorded(f, part, kind, compiled=compiled)(part)
        gradient.add(list(found.leaves.values()), list(found.sums.values()))
        values.append(some)
    return torch.cat(values), gradient


def _that_fit(
    f: TaskFunction,
    batch: Episode | None,
    tasks: list[Episode] | None,
    strategy: str,
    memory: int | None,
    kind: Kind | None,
) -> int:
    """How many tasks may run at the same time."""
    n = len(tasks) if batch is None and tasks is not None else len(cast(Episode, batch).support.x)
    most = min(n, torch.get_num_threads()) if strategy == "threads" else n
    if memory is not None and memory < 1:
        raise ValueError(f"memory={memory}; required is a number of bytes above 0")
    key = None if kind is None else kind.key  # not the kind, which holds the module's tensors
    if memory is None and (strategy == "loop" or (key not in _bytes and owner_of(f) is None)):
        return 1 if strategy == "loop" else most
    if key is None or key not in _bytes:
        _bytes[key] = bytes_of_a_task(f, task(batch, 0) if batch is not None else cast(list[Episode], tasks)[0])
    if memory is not None and _bytes[key] > memory:
        raise ValueError(
            f"one task takes about {_bytes[key]:,} bytes and memory={memory:,} was given: allow more, or let a task "
            "take less: mode='recompute', inner_batch, fewer queries"
        )
    return max(1, min(most, (memory or MEMORY) // max(1, _bytes[key])))


_bytes: dict[Hashable, int] = {}  # that a task takes, by kind
