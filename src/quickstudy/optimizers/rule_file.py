"""One safetensors file per update rule: its weights, and in its metadata the class and arguments that rebuild it."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from quickstudy.optimizers.lstm_rule import LSTMRule
from quickstudy.optimizers.mlp_rule import MLPRule
from quickstudy.optimizers.tuned import TunedAdam, TunedSGD
from quickstudy.tensor_file import FORMAT, SavedFileError, read_tensors, require_format, write_tensors

RULES = {"lstm": LSTMRule, "mlp": MLPRule, "sgd": TunedSGD, "adam": TunedAdam}
"""The rules by the names of the command line; a file holds one of these."""

SHIPPED = ("lstm", "mlp")
"""The names of the trained rules in the package."""

_FOLDER = Path(__file__).parents[1] / "shipped"
_KEY = "quickstudy_rule"
_IN_A_RUN = "rule.safetensors"


def save_rule(rule: nn.Module, path: str | Path, *, facts: Mapping[str, Any] | None = None) -> None:
    """Write an update rule to one file that ``load_rule`` takes.

    Args:
        rule: one of the classes in ``RULES``.
        path: the file, by custom ``*.safetensors``; an existing one is replaced only when the new one is whole.
        facts: what else the file shall say of the rule, as JSON holds it; ``load_rule_with_facts`` returns it.

    Raises:
        ValueError: a rule of another class.
    """
    cls = type(rule)
    if cls not in RULES.values():
        known = ", ".join(known.__name__ for known in RULES.values())
        raise ValueError(
            f"{cls.__name__} was given; a rule file holds one of {known}: save rule.state_dict() by torch.save, and "
            "hand the rule itself to LearnedOptimizer"
        )
    arguments = {name: getattr(rule, name) for name in list(inspect.signature(cls.__init__).parameters)[1:]}
    description = {"class": cls.__name__, "arguments": arguments}
    header = {"format": FORMAT, "rule": description, **({"facts": dict(facts)} if facts else {})}
    write_tensors(Path(path), rule.state_dict(), _KEY, header)


def load_rule(path: str | Path) -> nn.Module:
    """Rebuild a saved rule, on the CPU and in evaluation mode; its weights can be trained on.

    Raises:
        ValueError: a file that is missing, cut, edited, made by another version, or holds something else.
    """
    return load_rule_with_facts(path)[0]


def load_rule_with_facts(path: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """The same, and what ``save_rule`` was given as ``facts``; empty if there were none."""
    path = Path(path)
    header, tensors = read_tensors(path, _KEY)
    require_format(path, header, FORMAT)
    return _rebuild(header.get("rule"), tensors, path), header.get("facts", {})


def open_rule(rule: str | Path | nn.Module) -> nn.Module:
    """An update rule by whatever a person calls it.

    Args:
        rule: a name that ships (``SHIPPED``), a rule file, a run folder with a rule in it, or a rule itself, which
            comes back as it is. A text that is one of the names always means it: write "./mlp" for a path.

    Raises:
        ValueError: nothing of that name, a file that ``load_rule`` refuses, or a module that is no rule.
    """
    if isinstance(rule, nn.Module):
        if not all(callable(getattr(rule, name, None)) for name in ("init", "step")):
            raise ValueError(
                f"{type(rule).__name__} was given as the rule; required is a module with init(params) and "
                "step(params, grads, state), as quickstudy.inner.UpdateRule says"
            )
        return rule
    if not isinstance(rule, str | Path):
        raise ValueError(
            f"rule={rule!r} was given; required is {_choices()}, or an update rule that is a module: pass one of these"
        )
    if rule in SHIPPED:
        return _open_shipped(str(rule))
    path = Path(rule)
    if path.is_dir():
        if not (path / _IN_A_RUN).exists():
            raise ValueError(
                f"the folder {path} holds no {_IN_A_RUN}; required is {_choices()}: check the path, or train a rule "
                f"first: quickstudy train-optimizer --out {path}"
            )
        path = path / _IN_A_RUN
    if not path.exists():
        raise ValueError(f"rule={str(rule)!r} is neither a name nor a file; required is {_choices()}: choose one")
    return load_rule(path)


def _open_shipped(name: str) -> nn.Module:
    path = _FOLDER / f"optimizer_{name}.safetensors"
    if not path.exists():
        raise ValueError(
            f"the rule {name!r} ships with quickstudy, and its file {path.name} is missing from this installation: "
            f"install quickstudy again, or train one: quickstudy train-optimizer --rule {name} --out runs/{name}"
        )
    return load_rule(path).float()


def _choices() -> str:
    return f"a name among {', '.join(SHIPPED)}, a rule file, or a run folder with {_IN_A_RUN} in it"


def _rebuild(description: Any, tensors: Mapping[str, Tensor], path: Path) -> nn.Module:
    known = {cls.__name__: cls for cls in RULES.values()}
    try:
        name, arguments = description["class"], dict(description["arguments"])
    except (KeyError, TypeError, ValueError) as error:
        raise SavedFileError(f"{path} does not describe a rule ({error!r}): use a copy that was not edited") from error
    if name not in tuple(known):
        raise SavedFileError(
            f"{path} holds a {name!r}, and this version of quickstudy has {', '.join(known)}: install the version "
            "that wrote it, or a newer one"
        )
    try:
        rule = known[name](**arguments)
    except (TypeError, ValueError) as error:
        raise SavedFileError(f"{path} does not describe a rule ({error}): use a copy that was not edited") from error
    kinds = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    if len(kinds) == 1:
        rule.to(kinds.pop())
    try:
        rule.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise SavedFileError(
            f"{path}: the weights do not fit the rule it describes: {error}: use a copy that was not edited"
        ) from error
    return rule.eval()
