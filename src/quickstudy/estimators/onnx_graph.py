"""A module as an ONNX graph, which is run with onnxruntime and compared with the module before anybody gets it."""

import importlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from quickstudy.estimators.adapted import Adapted, as_precision

INPUT = "x"
BATCHES = (1, 7)  # how many examples at once a graph is tried with
_LOGGERS = ("torch.onnx", "torch.export", "torch.fx", "torch._dynamo", "onnxscript", "onnx_ir")
_LARGEST = 2**31 - 1  # bytes of one protobuf message


class NotExportable(ValueError):
    """A model that cannot be written as a graph, or whose graph answers differently; no file was written."""


@dataclass(frozen=True)
class Graph:
    """An ONNX file in memory.

    Attributes:
        content: its bytes.
        largest_difference: between onnxruntime and torch over all outputs and trial inputs; of outputs beyond 1 in
            units of their largest absolute value.
        opset: the version of ONNX's operators that it asks for.
    """

    content: bytes
    largest_difference: float
    opset: int


def write_graph(
    module: Adapted, trials: Sequence[Tensor], *, facts: Mapping[str, str], tolerance: float, name: str
) -> Graph:
    """The module as an ONNX file for any number of examples at once, in the module's precision for them.

    Args:
        module: in evaluation mode, to be called without gradients.
        trials: inputs (n, *input) to compare both on; the graph is traced with rows of the first.
        facts: what the file shall say of itself, as its metadata.
        tolerance: the largest difference that is let pass.
        name: what errors call the module.

    Raises:
        NotExportable: no graph can be made of it, the graph's answers differ, or the extra ``onnx`` is not installed.
    """
    onnxruntime = _required("onnxruntime")
    answers = [_answers(module, x, name) for x in trials]
    with _quiet():
        kind = module.precision(trials[0])
        same = module.in_precision(kind)
        program = _traced(same, as_precision(_rows(trials[0], _unlike(same, trials[0])), kind), name)
        proto = program.model_proto
        _tidy(proto, facts)
        if proto.ByteSize() > _LARGEST:
            raise NotExportable(
                f"{name} takes {proto.ByteSize():,} bytes; an ONNX file holds 2 GB: use a smaller network"
            )
        content = proto.SerializeToString()
        session = _session(onnxruntime, content, name)
    difference = max(
        _difference(session, as_precision(x, kind), answer) for x, answer in zip(trials, answers, strict=True)
    )
    if not difference <= tolerance:
        raise NotExportable(
            f"the ONNX graph of {name} differs by up to {difference:.2g} from its own answers; required is at most "
            f"{tolerance:g}, and no file was written: allow more with tolerance=, or keep to the saved model"
        )
    return Graph(content, difference, next(o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")))


def trial_inputs(x: Tensor, *, generator: torch.Generator) -> list[Tensor]:
    """Inputs to compare two forms of a model on: the examples themselves, and random ones of their kind.

    Args:
        x: (n, *input).
        generator: draws the random ones: normal numbers with the mean and deviation of ``x``, or tokens of ``x``.
    """
    trials = [*x.split(256)]
    for n in BATCHES:
        trials.append(_rows(x, n))
        if x.is_floating_point():
            noise = torch.randn(n, *x.shape[1:], generator=generator, dtype=torch.float64)
            trials.append((noise * x.double().std(correction=0) + x.double().mean()).to(x.dtype))
        else:
            trials.append(x.flatten()[torch.randint(x.numel(), (n, *x.shape[1:]), generator=generator)])
    return trials


def _traced(module: Adapted, x: Tensor, name: str) -> Any:
    _required("onnx")
    _required("onnxscript")
    try:
        return torch.onnx.export(
            module,
            (x,),
            dynamo=True,
            verbose=False,
            input_names=[INPUT],
            output_names=list(module.outputs),
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
        )
    except Exception as error:  # whatever the network's own code or the exporter raises
        raise NotExportable(
            f"{name} cannot be written as an ONNX graph: {_reason(error)}; required is a network of operators that "
            "ONNX knows: choose another learner, or keep to the saved model and quickstudy predict"
        ) from error


def _reason(error: BaseException) -> str:
    """What the innermost error says, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error)
    if "specialized" in text or "inferred a static shape" in text:
        return "it fixes how many examples it takes at once (in its code, x.shape[0] stays open where len(x) does not)"
    line = " ".join(text.split())
    return line if len(line) <= 300 else f"{line[:300]} ..."


def _session(onnxruntime: Any, content: bytes, name: str) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has its own kinds
        raise NotExportable(f"onnxruntime does not take the graph of {name}: {_reason(error)}") from error


def _answers(module: Adapted, x: Tensor, name: str) -> tuple[Tensor, ...]:
    try:
        return module.expected(x)
    except (RuntimeError, ValueError) as error:
        raise NotExportable(
            f"{name} cannot answer {len(x)} example{'s' * (len(x) != 1)} at once ({_reason(error)}); required is a "
            "learner that takes any number: choose another one, or a network without batch statistics"
        ) from error


def _difference(session: Any, x: Tensor, expected: tuple[Tensor, ...]) -> float:
    found = session.run(None, {INPUT: x.numpy()})
    return max(_apart(a.double().numpy(), np.asarray(b, float)) for a, b in zip(expected, found, strict=True))


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    if a.shape != b.shape or not np.array_equal(np.isfinite(a), np.isfinite(b)):
        return float("inf")
    a, b = np.where(np.isfinite(a), a, 0), np.where(np.isfinite(b), b, 0)
    return float(np.abs(a - b).max(initial=0) / max(1.0, np.abs(a).max(initial=0)))


def _tidy(proto: Any, facts: Mapping[str, str]) -> None:
    """Leave out where on this machine the source of each operator lies, and write what the file is."""
    del proto.metadata_props[:]
    for key, value in facts.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value
    for graph in (proto.graph, *proto.functions):
        parts = (graph, *graph.node, *graph.value_info)
        parts += () if graph is not proto.graph else (*graph.initializer, *graph.input, *graph.output)
        for part in parts:
            del part.metadata_props[:]
            part.doc_string = ""


def _rows(x: Tensor, n: int) -> Tensor:
    """The first n rows of x, from the start again where it has fewer."""
    return x[torch.arange(n) % len(x)]


def _unlike(module: nn.Module, x: Tensor) -> int:
    """A number of examples that is the size of nothing else, so that the tracer takes it for no other axis."""
    tensors = (*module.parameters(), *module.buffers())
    taken = {size for tensor in tensors for size in tensor.shape} | set(x.shape[1:])
    return next(n for n in range(7, 8 + len(taken)) if n not in taken)


def _required(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise NotExportable(
            f"{name} is not installed, and an ONNX file needs it: pip install 'quickstudy[onnx]'"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's warnings and notes, which speak of its own inner parts."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
