"""Which strategy is fastest for a function of tasks: measured, once for each kind of function and meta-batch."""

import copy
import logging
import time
import types
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from quickstudy.episode import Episode, Labelled
from quickstudy.outer import strategies
from quickstudy.outer.mapped import Gradient, marker, reaches_before
from quickstudy.outer.records import Kind, kind_of, owner_of, watches_progress
from quickstudy.outer.strategies import Refused, TaskFunction, as_tasks, part_of

_log = logging.getLogger("quickstudy")
_SECONDS = 0.4  # that the loop may take over the tasks it is measured on
_SMALL = 0.02  # seconds for one task, above which dispatch is not what takes the time
_BETTER = 0.9  # of the loop's time, to displace it
_RECORD_AT = 5  # calls of "vmap", when a second of set-up begins to pay
_RECORD_GAINS = 3  # times that a record is faster than "vmap", at least, where dispatch takes the time
_choices: dict[Hashable, "Choice"] = {}

Run = Callable[[], tuple[Tensor, Gradient]]


@dataclass
class Choice:
    """What "auto" takes for one kind of function and meta-batch.

    Attributes:
        strategy: its name.
        why: the seconds that each took on the same tasks, or why it could not serve.
        may_record: "vmap" was taken, and its operators can be recorded once that is worth the set-up.
        calls: how often it was taken.
    """

    strategy: str
    why: str
    may_record: bool = False
    calls: int = 0


def choose_strategy(f: TaskFunction, batch: Episode, kind: Kind | None = None) -> Choice:
    """Measure the strategies on a meta-batch, or remember what was measured for this kind of function and shapes.

    "vmap" must give the loop's numbers in float64 (checked for a method of a module). Where it was chosen, its
    operators are recorded at the 5th call: the record gives the same bits, several times faster, but a second of
    set-up is lost on a handful of steps. "compile" is not tried: its set-up takes tens of seconds.
    """
    key = (kind_of(f, batch) if kind is None else kind).key  # not the kind, which holds the module's tensors
    if key not in _choices:
        if len(_choices) > 1000:
            _choices.clear()
        with torch.random.fork_rng():
            _choices[key] = _measured(f, batch)
        _log.info("tasks run by %r: %s", _choices[key].strategy, _choices[key].why)
    choice = _choices[key]
    choice.calls += 1
    if choice.may_record and choice.calls >= _RECORD_AT:
        choice.strategy, choice.may_record = "trace", False
        _log.info("tasks run by 'trace' from now on: what 'vmap' does, recorded")
    return choice


def _measured(f: TaskFunction, batch: Episode) -> Choice:
    n, owner = len(batch.support.x), owner_of(f)
    draws, start = torch.get_rng_state(), marker()
    tasks = as_tasks(batch)
    value = f(tasks[0])
    if not torch.equal(draws, torch.get_rng_state()):
        return Choice("loop", "the function draws random numbers, which another strategy would draw in another order")
    if value.ndim or not torch.is_grad_enabled() or not value.requires_grad or reaches_before(value, start):
        return _without_gradient(f, batch, value)
    del value
    _, each = _timed(lambda: strategies.loop(f, tasks[:1], None), 1)
    small = each < _SMALL and owner is not None and not watches_progress(owner)
    some = part_of(batch, slice(0, max(min(n, 4), min(n, int(_SECONDS / each)))))
    size = len(some.support.x)
    runs: dict[str, Run] = {"loop": lambda: strategies.loop(f, as_tasks(some), None)}
    if n > 1 and owner is not None and batch.support.x.device.type == "cpu":
        runs["threads"] = lambda: strategies.threads(f, as_tasks(some), None)
    if n > 1 or small:
        runs["vmap"] = lambda: strategies.vmap(f, some, None, chunk=size)
    seconds, notes = {}, []
    for name, run in runs.items():
        try:
            if name == "vmap":
                _require_same_in_double(f, some)
            seconds[name] = _timed(run, 3)[1]
        except (RuntimeError, ValueError) as error:
            notes.append(f"{name} cannot serve ({str(error).splitlines()[0]})")
    best = min(seconds, key=lambda name: seconds[name] * (_BETTER if name == "loop" else 1))
    record = small and "vmap" in seconds and seconds["vmap"] < _RECORD_GAINS * seconds[best]
    times = ", ".join(f"{name} {1e3 * s:.1f} ms" for name, s in seconds.items())
    why = "; ".join([f"{times} for {size} task{'s' if size > 1 else ''}", *notes])
    return Choice("vmap" if record else best, why, may_record=record)


def _without_gradient(f: TaskFunction, batch: Episode, value: Tensor) -> Choice:
    """Values alone, or a graph that tasks share: vectors and accelerators in one pass, images one by one."""
    x = batch.support.x
    if x.ndim > 3 and x.device.type == "cpu":
        return Choice("loop", "images on a CPU, without a gradient of each task")
    try:
        with torch.no_grad():
            strategies.vmap(f, part_of(batch, slice(0, 1)), None, chunk=1)
    except (RuntimeError, ValueError) as error:
        return Choice("loop", f"vmap cannot serve ({str(error).splitlines()[0]})")
    return Choice("vmap", "vectors, or an accelerator, without a gradient of each task")


def _timed(run: Run, repeats: int) -> tuple[tuple[Tensor, Gradient], float]:
    """The result, and the least seconds of some runs after a first one."""
    result, least = run(), float("inf")
    for _ in range(repeats):
        began = time.perf_counter()
        result = run()
        if result[0].device.type == "cuda":
            torch.cuda.synchronize()
        least = min(least, time.perf_counter() - began)
    return result, least


def _require_same_in_double(f: TaskFunction, batch: Episode) -> None:
    """Refuse vmap where it does not give the loop's values and gradients in float64."""
    owner, two = owner_of(f), part_of(batch, slice(0, 2))
    if owner is None:
        return _require_same(strategies.vmap(f, two, None, chunk=2), strategies.loop(f, as_tasks(two), None), 1e-2)
    double = copy.deepcopy(owner).double()
    method = types.MethodType(f.__func__, double)  # pyright: ignore[reportFunctionMemberAccess]
    two = Episode(*(Labelled(*(t.double() if t.is_floating_point() else t for t in part)) for part in two))
    return _require_same(
        strategies.vmap(method, two, None, chunk=2), strategies.loop(method, as_tasks(two), None), 1e-8
    )


def _require_same(ours: tuple[Tensor, Gradient], theirs: tuple[Tensor, Gradient], tolerance: float) -> None:
    pairs = [(ours[0], theirs[0])]
    pairs += [(ours[1].sums.get(i, torch.zeros_like(g)), g) for i, g in theirs[1].sums.items()]
    scale = max([float(g.abs().max()) for _, g in pairs[1:]], default=0.0)
    for i, (a, b) in enumerate(pairs):
        size = scale if i else float(b.abs().max())
        if not float((a - b).abs().max()) <= tolerance * size + 1e-12:
            raise Refused("its numbers differ from the loop's")
