"""A meta-batch as one recorded graph: the operators of ``vmap`` and of its backward pass, without Python between them.

Small networks spend their time in dispatch. Recording the operators once (``make_fx``) and replaying them is several
times faster than running Python; compiling the record is faster still, after a longer set-up. The parameters are read
where they are at each call, so an optimizer may change them in place.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from quickstudy.episode import Episode, Labelled
from quickstudy.inner import Unfused
from quickstudy.outer.mapped import Gradient, leaves_of, marker, reaches_before
from quickstudy.outer.simplify import simplify
from quickstudy.outer.strategies import Refused, TaskFunction, part_of, vmapped

Recorded = Callable[[Episode], tuple[Tensor, Gradient]]


def record(f: TaskFunction, batch: Episode, *, compiled: bool) -> Recorded:
    """The function that runs a meta-batch of this shape.

    Args:
        f: a function of one task that draws no random numbers and decides nothing by the values of tensors.
        batch: an example.
        compiled: through torch.compile, which takes tens of seconds; otherwise as a replayed record.

    Raises:
        Refused: the function cannot be recorded; with the reason.
    """
    before, start = torch.get_rng_state(), marker()
    with torch.enable_grad():
        probe = vmapped(f, part_of(batch, slice(0, 1)))
    if not torch.equal(before, torch.get_rng_state()):
        torch.set_rng_state(before)
        raise Refused("the function draws random numbers (dropout, ...), which a record would repeat")
    if probe.ndim != 1 or reaches_before(probe, start):
        raise Refused("only numbers that depend on leaves (parameters) alone can be recorded")
    leaves = leaves_of(probe)

    def values_and_sums(*tensors: Tensor) -> list[Tensor]:
        sx, sy, qx, qy = tensors
        with torch.enable_grad(), Unfused():
            values = torch.func.vmap(f)(Episode(Labelled(sx, sy), Labelled(qx, qy)))
            sums = (
                torch.autograd.grad(values.sum(), leaves, materialize_grads=True, allow_unused=True) if leaves else []
            )
        return [values.detach(), *(g.detach() for g in sums)]

    example = [t for part in batch for t in part]
    try:
        graph = make_fx(values_and_sums)(*example)
        graph.graph.eliminate_dead_code()
        simplify(graph)
    except Exception as error:
        raise Refused(f"it cannot be recorded ({str(error).splitlines()[0]})") from error
    run = _compiled(graph, leaves) if compiled else _replayed(graph, example)

    def recorded(batch: Episode) -> tuple[Tensor, Gradient]:
        with torch.no_grad():
            values, *sums = run(*(t for part in batch for t in part))
        gradient = Gradient()
        gradient.add(leaves, sums)
        return values, gradient

    return recorded


def _replayed(graph: torch.fx.GraphModule, example: Sequence[Tensor]) -> Callable[..., Any]:
    """The record without Python. TorchScript is deprecated: this is the one place that uses it, and can do without."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            script = torch.jit.trace(graph, tuple(example), check_trace=False)
        except RuntimeError:  # an operator with arguments that it has no type for
            return graph

    def run(*tensors: Tensor) -> Any:
        # optimised on the way, the first runs would differ from later ones by rounding
        with torch.jit.optimized_execution(False):  # pyright: ignore[reportPrivateImportUsage]
            return cast(Any, script)(*tensors)

    return run


def _compiled(graph: torch.fx.GraphModule, leaves: Sequence[Tensor]) -> Callable[..., Any]:
    # called from C++, not from Python, its many small kernels take a tenth less time; some graphs cannot be
    on_cpu = all(leaf.device.type == "cpu" for leaf in leaves)
    ways: list[dict[str, Any] | None] = [{"cpp_wrapper": True}, None] if on_cpu else [None]
    calls: list[None] = []
    cast(Any, graph)._lineno_map = None  # which operator stands in which line; the compiler errs in its use
    run = torch.compile(graph, fullgraph=True, dynamic=False, options=ways.pop(0))

    def quietly(*tensors: Tensor) -> Any:
        nonlocal run
        if len(calls) > 2:  # by then it is compiled, and says nothing more
            return run(*tensors)
        calls.append(None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            while True:
                try:
                    return run(*tensors)
                except Exception as error:
                    if len(calls) > 1:
                        raise
                    if not ways:
                        why = (
                            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
                        )
                        raise Refused(f"the compiler fails on it ({why})") from error
                run = torch.compile(graph, fullgraph=True, dynamic=False, options=ways.pop(0))

    return quietly
