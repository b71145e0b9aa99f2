"""What a learned optimizer keeps for one parameter, between steps and in a ``state_dict``.

Of a coordinatewise rule for a tensor of N elements: "rule", the class and its arguments; "t", its steps so far;
"scales" (2, 1); "elements" (numbers, N). Of any other rule: "rule", the name of its class; "tree", its own state for
this parameter alone.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from quickstudy.optimizers.coordinatewise import CoordinatewiseRule
from quickstudy.optimizers.targets import Target, precision


def start_state(rule: Any, p: Tensor, name: str) -> dict[str, Any]:
    """The state before the first step.

    Args:
        rule: on the parameter's device, in the precision that is computed in.
        p: the parameter.
        name: "" if it has none.
    """
    if isinstance(rule, CoordinatewiseRule):
        like = torch.zeros((), device=p.device, dtype=precision(p)).expand(p.numel())
        return {
            "rule": _described(rule),
            "t": 0,
            "scales": like.new_zeros(2, 1),
            "elements": rule.start(like)["elements"],
        }
    start = p.detach().to(precision(p), copy=True)  # a rule may keep it
    return {"rule": type(rule).__name__, "tree": rule.init({name: start})}


def placed(state: dict[str, Any], p: Tensor, *, copied: bool = False) -> dict[str, Any]:
    """The state on the parameter's device, in the precision that is computed in."""

    def place(t: Tensor) -> Tensor:
        return t.to(device=p.device, dtype=precision(p) if t.is_floating_point() else t.dtype, copy=copied)

    return pytree.tree_map_only(Tensor, place, state)


def is_elsewhere(state: dict[str, Any], p: Tensor) -> bool:
    """Whether the parameter was moved, or brought to another precision, since its last step."""
    tensors = [state["elements"]] if "elements" in state else _tensors(state)
    return any(t.device != p.device or (t.is_floating_point() and t.dtype != precision(p)) for t in tensors)


def renamed(state: dict[str, Any], name: str) -> dict[str, Any]:
    """The state of a parameter without a name, for one that has one now; others come back as they are."""
    return {**state, "tree": _renamed(state["tree"], name)} if "tree" in state else state


def require_own_state(rule: Any, target: Target, state: Mapping[str, Any]) -> None:
    """Refuse a state that the rule does not take up.

    Raises:
        ValueError: of another optimizer, another rule, or a parameter of another size.
    """
    given, required = _summary(state), _summary(start_state(rule, target.p, target.name))
    if given != required:
        raise ValueError(
            f"the state of {target.label} is of another optimizer or rule: given {given}, required {required}: load "
            "it into the optimizer that it was saved from"
        )


def bytes_of(state: Any) -> int:
    """What its tensors take."""
    return sum(t.numel() * t.element_size() for t in _tensors(state))


def _described(rule: CoordinatewiseRule) -> str:
    """Its class and arguments: states of the same shape mean other things to another rule."""
    names = list(inspect.signature(type(rule).__init__).parameters)[1:]
    return f"{type(rule).__name__}({', '.join(f'{name}={getattr(rule, name)!r}' for name in names)})"


def _renamed(tree: Any, name: str) -> Any:
    if isinstance(tree, dict):
        return {key or name: _renamed(part, name) for key, part in tree.items()}
    return type(tree)(_renamed(part, name) for part in tree) if type(tree) in (list, tuple) else tree


def _summary(state: Mapping[str, Any]) -> dict[str, Any]:
    """What tells states apart; the tree of a rule may differ from one step to the next."""
    return {
        key: part if key == "rule" else tuple(part.shape) if isinstance(part, Tensor) else "..."
        for key, part in state.items()
    }


def _tensors(state: Any) -> list[Tensor]:
    return [t for t in pytree.tree_leaves(state) if isinstance(t, Tensor)]
