"""One safetensors file per learner: weights, and in its metadata the description that rebuilds it. Never pickle."""

import dataclasses
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from quickstudy.backbones import BACKBONES, UnitLength, WithLinear
from quickstudy.inner import RULES, Implicit, Truncated
from quickstudy.learner import Learner
from quickstudy.learners import LEARNERS, Classifier, NeuralCache
from quickstudy.tensor_file import FORMAT, SavedFileError, read_tensors, require_format, write_tensors

_KNOWN: dict[str, type[nn.Module]] = {
    cls.__name__: cls
    for cls in (
        *LEARNERS.values(),
        *BACKBONES.values(),
        WithLinear,
        UnitLength,
        nn.Identity,
        Classifier,
        NeuralCache,
        *RULES,
    )
}
_MODES = {"Truncated": Truncated, "Implicit": Implicit}


def save(learner: Learner, path: str | Path, *, facts: Mapping[str, Any] | None = None) -> None:
    """Write a learner to one file that ``load`` takes.

    Args:
        learner: its class and all networks that quickstudy knows are described in the file; a network of the user's own
            is saved by its weights alone and has to be handed to ``load``.
        path: the file, by custom ``*.safetensors``; an existing one is replaced only when the new one is whole.
        facts: what else the file shall say of the learner, as JSON holds it; ``load_with_facts`` returns it.
    """
    header = {"format": FORMAT, "learner": describe(learner), **({"facts": dict(facts)} if facts else {})}
    write_tensors(Path(path), learner.state_dict(), "quickstudy", header)


def load(path: str | Path, **modules: nn.Module) -> Learner:
    """Rebuild a saved learner, on the CPU and in evaluation mode.

    Args:
        path: a file that ``save`` wrote.
        modules: the user's own networks by the name of the learner's argument: ``load(path, backbone=my_network)``.

    Raises:
        ValueError: a file that is missing, cut, edited or made by a newer version; a network of the user's own that was
            not handed over or does not fit.
    """
    return load_with_facts(path, **modules)[0]


def load_with_facts(path: str | Path, **modules: nn.Module) -> tuple[Learner, dict[str, Any]]:
    """The same, and what ``save`` was given as ``facts``; empty if there were none."""
    path = Path(path)
    header, tensors = read_tensors(path, "quickstudy")
    require_format(path, header, FORMAT)
    return rebuild(header.get("learner"), tensors, path, modules), header.get("facts", {})


def describe(learner: Learner) -> dict[str, Any]:
    """The learner's class, arguments and networks as JSON holds them; ``rebuild`` takes it.

    Raises:
        ValueError: an argument that JSON cannot hold.
    """
    description = _describe(learner)
    try:
        json.dumps(description)
    except TypeError as error:
        raise ValueError(
            f"an argument of {type(learner).__name__} or of a part of it cannot be described in a file ({error}): use "
            "what quickstudy or torch.optim know by name, or save learner.state_dict()"
        ) from error
    return description


def rebuild(
    description: Any, tensors: Mapping[str, Tensor], path: Path, modules: Mapping[str, nn.Module] | None = None
) -> Learner:
    """The learner of a description with the weights ``tensors``, in evaluation mode.

    Args:
        description: what ``describe`` returned.
        tensors: the learner's ``state_dict``.
        path: the file that errors name.
        modules: the user's own networks by the name of the learner's argument.

    Raises:
        ValueError: as ``load``.
    """
    modules = dict(modules or {})
    try:
        with torch.random.fork_rng(devices=[]):  # layers draw weights that are replaced at once
            learner = _build(description, modules, path)
    except (AttributeError, KeyError, TypeError) as error:
        raise SavedFileError(
            f"{path} does not describe a learner ({error!r}): use a copy that was not edited"
        ) from error
    if not isinstance(learner, Learner):
        raise SavedFileError(f"{path} holds a {type(learner).__name__}, which is no learner")
    if modules:
        raise ValueError(f"{path} has no use for {', '.join(modules)}: it describes its networks itself, leave it out")
    kinds = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    if len(kinds) == 1:
        learner.to(kinds.pop())
    try:
        learner.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise SavedFileError(f"{path}: the weights do not fit the networks that were given: {error}") from error
    return learner.eval()


def _describe(module: nn.Module) -> dict[str, Any]:
    cls = type(module)
    if _KNOWN.get(cls.__name__) is not cls:
        return {"own": cls.__name__}
    arguments = {}
    for name, parameter in list(inspect.signature(cls.__init__).parameters.items())[1:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        arguments[name] = _describe_value(getattr(module, name))
    return {"class": cls.__name__, "arguments": arguments}


def _describe_value(value: Any) -> Any:
    """Something that JSON holds; a dict in it is a module, a dict of modules or a mode, or wrapped if it is a value."""
    if isinstance(value, nn.Module):
        return _describe(value)
    if isinstance(value, dict) and any(isinstance(part, nn.Module) for part in value.values()):
        return {"modules": {name: _describe(part) for name, part in value.items()}}
    if type(value) in _MODES.values():
        return {"mode": type(value).__name__, "arguments": dataclasses.asdict(cast(Any, value))}
    plain = value.item() if isinstance(value, np.generic) else value
    return {"value": plain} if isinstance(plain, dict) else plain


def _build(description: dict[str, Any], modules: dict[str, nn.Module], path: Path, name: str = "learner") -> Any:
    if "value" in description:
        return description["value"]
    if "modules" in description:
        return {key: _build(part, modules, path, key) for key, part in description["modules"].items()}
    if "mode" in description:
        return _MODES[description["mode"]](**description["arguments"])
    if "own" in description:
        if name not in modules:
            raise SavedFileError(
                f"{path} was saved with {description['own']}, a network of your own, as its {name}: build it and call "
                f"load(path, {name}=...)"
            )
        return modules.pop(name)
    if description.get("class") not in _KNOWN:
        raise SavedFileError(f"{path} holds a {description.get('class')!r}, which this version of quickstudy lacks")
    arguments = {
        key: _build(value, modules, path, key) if isinstance(value, dict) else value
        for key, value in description["arguments"].items()
    }
    return _KNOWN[description["class"]](**arguments)
