"""Checkpoints from which training continues bit for bit."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from quickstudy.tensor_file import SavedFileError, read_tensors, write_tensors


def save_checkpoint(
    path: str | Path,
    learner: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    step: int,
    generator: torch.Generator,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    notes: dict[str, Any] | None = None,
    more: Any = None,
) -> None:
    """Write θ, optimizer, generator, scheduler and step to one safetensors file.

    The file is written beside ``path`` and renamed, so a full disk or a power cut leaves the previous one whole.

    Args:
        notes: anything that JSON can hold, handed back by ``load_checkpoint``.
        more: tensors, numbers, texts and None in dicts, lists and tuples; handed back likewise.

    Raises:
        ValueError: notes or optimizer settings that JSON cannot hold.
        OSError: the file could not be written; what was at ``path`` is still there.
    """
    state = optimizer.state_dict()
    tensors = {f"learner/{name}": tensor for name, tensor in learner.state_dict().items()}
    plain: dict[str, dict[str, Any]] = {}
    for index, values in state["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{index}/{name}"] = value
            else:
                plain.setdefault(str(index), {})[name] = value
    where, beside = _packed(more)
    tensors |= {f"more/{name}": tensor for name, tensor in beside.items()}
    tensors["generator"] = generator.get_state()
    header = {
        "step": step,
        "optimizer": {"class": type(optimizer).__name__, "state": plain, "groups": state["param_groups"]},
        "scheduler": None if scheduler is None else _plain(scheduler.state_dict()),
        "notes": notes or {},
        **({} if more is None else {"more": where}),
    }
    try:
        write_tensors(Path(path), tensors, "checkpoint", header)
    except TypeError as error:
        raise ValueError(
            f"the notes or the state of {type(optimizer).__name__} hold what a checkpoint cannot ({error}): use plain "
            "numbers, such as lr=0.001 and not a tensor"
        ) from error


@dataclass(frozen=True)
class Checkpoint:
    """Where training stood: the outer steps done, and the notes and whatever more was saved with it."""

    step: int
    notes: dict[str, Any]
    more: Any = None


def load_checkpoint(
    path: str | Path,
    learner: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    generator: torch.Generator,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
) -> Checkpoint:
    """Put everything back as ``save_checkpoint`` found it; training then continues bit for bit.

    Raises:
        ValueError: a file that is missing, cut or no checkpoint, or one of another learner, shape or optimizer (named);
            nothing is changed then.
    """
    path = Path(path)
    header, tensors = read_tensors(path, "checkpoint")
    own = learner.state_dict()
    saved = {name.removeprefix("learner/"): t for name, t in tensors.items() if name.startswith("learner/")}
    wrong = sorted(set(own) ^ set(saved)) or sorted(n for n in own if _kind(own, n) != _kind(saved, n))
    if wrong:
        kinds = f"{_kind(saved, wrong[0])} in the file, {_kind(own, wrong[0])} in the learner"
        raise SavedFileError(
            f"{path} is a checkpoint of another learner: {wrong[0]} is {kinds}; build the learner with the arguments "
            "it was trained with (config.json beside the checkpoint), or start a new run"
        )
    if header["optimizer"]["class"] != type(optimizer).__name__:
        raise SavedFileError(
            f"{path} was written with the optimizer {header['optimizer']['class']}, and {type(optimizer).__name__} was "
            "given: resume with the same one"
        )
    state: dict[int, dict[str, Any]] = {int(i): dict(v) for i, v in header["optimizer"]["state"].items()}
    for name, tensor in tensors.items():
        if name.startswith("optimizer/"):
            _, index, key = name.split("/", 2)
            state.setdefault(int(index), {})[key] = tensor
    if (scheduler is None) != (header["scheduler"] is None):
        there, given = ("no", "one") if header["scheduler"] is None else ("a", "none")
        raise SavedFileError(
            f"{path} was written with {there} scheduler, and {given} was given: resume with the same arguments"
        )
    try:
        optimizer.load_state_dict({"state": state, "param_groups": header["optimizer"]["groups"]})
    except ValueError as error:
        raise SavedFileError(f"{path} was written with other parameters in the optimizer: {error}") from error
    learner.load_state_dict(saved)
    generator.set_state(tensors["generator"])
    if scheduler is not None:
        scheduler.load_state_dict(header["scheduler"])
    beside = {name.removeprefix("more/"): tensor for name, tensor in tensors.items() if name.startswith("more/")}
    return Checkpoint(header["step"], header["notes"], _unpacked(header.get("more"), beside))


def _packed(tree: Any) -> tuple[Any, dict[str, Tensor]]:
    """Tensors, numbers and None in dicts, lists and tuples, as what JSON can hold and tensors by name."""
    tensors: dict[str, Tensor] = {}

    def put(part: Any) -> Any:
        if isinstance(part, Tensor):
            name = str(len(tensors))
            tensors[name] = part
            return {"tensor": name}
        if isinstance(part, Mapping):
            return {"dict": {key: put(value) for key, value in part.items()}}
        if isinstance(part, list | tuple):
            return {"tuple" if isinstance(part, tuple) else "list": [put(value) for value in part]}
        return part

    return put(tree), tensors


def _unpacked(part: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What ``_packed`` was given."""
    if not isinstance(part, dict):
        return part
    ((kind, value),) = part.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "dict":
        return {key: _unpacked(one, tensors) for key, one in value.items()}
    found = [_unpacked(one, tensors) for one in value]
    return tuple(found) if kind == "tuple" else found


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """A scheduler's state without what JSON cannot give back (functions, counters): its constructor makes that."""

    def keep(value: Any) -> bool:
        try:
            return json.loads(json.dumps(value)) == value
        except TypeError:
            return False

    chained = {"_schedulers": [_plain(s) for s in state["_schedulers"]]} if "_schedulers" in state else {}
    return {name: value for name, value in (state | chained).items() if keep(value)}


def _kind(tensors: dict[str, Tensor], name: str) -> str:
    if name not in tensors:
        return "missing"
    return f"{tuple(tensors[name].shape)} {str(tensors[name].dtype).removeprefix('torch.')}"
