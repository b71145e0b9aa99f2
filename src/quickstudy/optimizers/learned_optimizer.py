"""A trained update rule in the place of ``torch.optim.Adam``."""

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from quickstudy.optimizers.coordinatewise import CoordinatewiseRule, next_scales
from quickstudy.optimizers.rule_file import open_rule

_PRECISIONS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


class _Target(NamedTuple):
    """A parameter, with all that a step of it needs; ``name`` is "" where the optimizer was given none."""

    p: nn.Parameter
    name: str
    lr: float
    label: str


@final
class LearnedOptimizer(torch.optim.Optimizer):
    """An optimizer whose update rule was itself trained.

    Whatever holds for optimizers of torch holds for it: parameter groups, closures, hooks, clipping of gradients before
    a step, learning rate schedulers around it, ``state_dict``, ``copy.deepcopy`` and pickle. Parameters without
    gradients are left out. Each tensor is stepped by itself.

    The state of a parameter lies on its device, in float64 for float64 parameters and in float32 for all others. It is
    ``bytes_per_parameter`` for each element and a few numbers for each tensor, and does not grow.

    Args:
        params: parameters, named parameters, or groups of them, as for any optimizer; a group may have its own "lr".
            Rules with numbers for each tensor (``TunedSGD``, ``TunedAdam``) find them by the names, if there are any.
        rule: the name of a rule that ships, "mlp" or "lstm"; a rule file or a run folder; or an update rule that is a
            module, of which a copy is taken.
        lr: a factor of the rule's own steps, at least 0; a rule needs no tuning, so 1 is the place to start.
        nonfinite: what happens on a gradient that is NaN, infinite, or so large that its square is no number of the
            precision: "skip" leaves out the whole step, counts it in ``skipped_steps``, and warns the first time;
            "raise" is an error.

    Attributes:
        rule: the rule, without gradients.
        skipped_steps: how many steps were left out.

    Raises:
        ValueError: at construction, a rule that ``open_rule`` refuses, an lr below 0, an unknown ``nonfinite``,
            parameters that are no floating point numbers; in ``step``, sparse gradients; in ``load_state_dict``, the
            state of another rule.
        FloatingPointError: in ``step`` with nonfinite="raise", naming the parameter; nothing has changed then.
    """

    def __init__(
        self,
        params: Any,
        rule: str | Path | nn.Module = "mlp",
        *,
        lr: float = 1.0,
        nonfinite: Literal["skip", "raise"] = "skip",
    ):
        if nonfinite not in ("skip", "raise"):
            raise ValueError(f"nonfinite={nonfinite!r}; choose 'skip' (steps are left out) or 'raise' (an error)")
        _require_rate(lr)
        self.rule = copy.deepcopy(open_rule(rule)).eval().requires_grad_(False)
        self.nonfinite, self.skipped_steps = nonfinite, 0
        self._forget()
        super().__init__(params, {"lr": lr})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters, with an "lr" of their own if the group has one.

        Raises:
            ValueError: an lr below 0, or parameters that are no floating point numbers.
        """
        super().add_param_group(param_group)
        try:
            _require_rate(self.param_groups[-1]["lr"])
            for target in self._targets():
                _require_real(target)
        except ValueError:
            self.param_groups.pop()
            raise

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step of all parameters that have a gradient.

        Args:
            closure: computes the loss and the gradients anew, and returns the loss.

        Returns:
            what ``closure`` returned, if there is one.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            targets = [target for target in self._targets() if target.p.grad is not None]
            for target in targets:
                _require_dense(target)
            means = [_mean_square(target.p) for target in targets]
            if _all_finite(means):
                for target, mean in zip(targets, means, strict=True):
                    if target.p.numel():
                        self._step(target, mean)
            else:
                self._refuse([target for target, mean in zip(targets, means, strict=True) if not mean.isfinite()])
                if self.skipped_steps == 1:
                    warnings.warn(
                        "a gradient is NaN or infinite: the whole step is left out, and so will be all such steps "
                        "(counted in skipped_steps, warned of once); nonfinite='raise' says where",
                        RuntimeWarning,
                        stacklevel=3,
                    )
        return loss

    @property
    def bytes_per_parameter(self) -> int:
        """Bytes of state for each element of a parameter; twice as many if it is float64."""
        one, two = (_bytes(self._start(torch.zeros(n), "")) for n in (1, 2))
        return two - one

    def state_bytes(self) -> int:
        """Bytes of state that are held now."""
        return sum(_bytes(state) for state in self.state.values())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a ``state_dict()`` of the same rule; the numbers come back as they were, whatever the precision.

        Raises:
            ValueError: other parameters, or the state of another rule.
        """
        given: dict[str, Any] = {}

        def look(_: Any, state_dict: dict[str, Any]) -> None:
            given.update(state_dict)
            for target, state in self._saved(given):
                self._require_own_state(target, state)

        def restore(_: Any) -> None:  # torch has brought them to the precision of the parameters
            for target, state in self._saved(given):
                self.state[target.p] = _placed(state, target.p, copied=True)

        hooks = (
            self.register_load_state_dict_pre_hook(look),
            self.register_load_state_dict_post_hook(restore, prepend=True),
        )
        try:
            super().load_state_dict(state_dict)
        finally:
            for hook in hooks:
                hook.remove()

    def __getstate__(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("rule", "nonfinite", "skipped_steps")}
        return {**super().__getstate__(), **own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._forget()

    def _forget(self) -> None:
        self._rules: dict[tuple[torch.device, torch.dtype], Any] = {}
        self._structures: dict[str, pytree.TreeSpec] = {}

    def _targets(self) -> Iterator[_Target]:
        number = 0
        for group in self.param_groups:
            names = group.get("param_names", [""] * len(group["params"]))
            for name, p in zip(names, group["params"], strict=True):
                label = f"parameter {repr(name) if name else number} of shape {tuple(p.shape)}"
                yield _Target(p, name, float(group["lr"]), label)
                number += 1

    def _saved(self, given: Mapping[str, Any]) -> Iterator[tuple[_Target, dict[str, Any]]]:
        """Parameters and what is saved of them."""
        ids = chain.from_iterable(group["params"] for group in given["param_groups"])
        for number, target in zip(ids, self._targets(), strict=False):  # torch refuses other numbers of parameters
            if number in given["state"]:
                yield target, given["state"][number]

    def _refuse(self, bad: list[_Target]) -> None:
        if self.nonfinite == "raise":
            raise FloatingPointError(
                f"the gradient of {bad[0].label} is NaN or infinite ({len(bad)} parameters in all); nothing was "
                "changed: look at the loss, lower lr, or leave such steps out with nonfinite='skip'"
            )
        self.skipped_steps += 1

    def _rule_for(self, p: Tensor) -> Any:
        """The rule on the parameter's device, in the precision that is computed in."""
        key = (p.device, _precision(p))
        if key not in self._rules:
            self._rules[key] = copy.deepcopy(self.rule).to(device=p.device, dtype=key[1])
        return self._rules[key]

    def _step(self, target: _Target, mean: Tensor) -> None:
        p, rule = target.p, self._rule_for(target.p)
        self.state[p] = state = _placed(self.state[p] or self._start(p, target.name), p)
        g = p.grad
        assert g is not None
        if isinstance(rule, CoordinatewiseRule):
            state["scales"] = next_scales(state["scales"], mean[None])
            flat = p.reshape(-1)  # (N,)
            rule.update_in_place(flat, g.reshape(-1), state["scales"], state, target.lr)
            if not p.is_contiguous():  # flat is a copy
                p.copy_(flat.view(p.shape))
            return
        before = p.to(_precision(p))
        was = pytree.tree_unflatten(state["leaves"], self._structure(p, target.name))
        new, now = rule.step({target.name: before}, {target.name: g.to(before.dtype)}, was)
        state["leaves"] = pytree.tree_leaves(now)
        p.copy_(torch.lerp(before, new[target.name], target.lr))

    def _start(self, p: Tensor, name: str) -> dict[str, Any]:
        """The state of a parameter before its first step."""
        rule = self._rule_for(p)
        if isinstance(rule, CoordinatewiseRule):
            like = torch.zeros((), device=p.device, dtype=_precision(p)).expand(p.numel())
            return {**rule.start(like), "scales": like.new_zeros(2, 1)}
        # named anew at each step: the names of parameters may change between runs
        leaves, self._structures[name] = pytree.tree_flatten(rule.init({name: p.detach().to(_precision(p), copy=True)}))
        return {"leaves": leaves}

    def _structure(self, p: Tensor, name: str) -> pytree.TreeSpec:
        if name not in self._structures:
            self._start(p, name)
        return self._structures[name]

    def _require_own_state(self, target: _Target, state: Mapping[str, Any]) -> None:
        given, required = _shapes(state), _shapes(self._start(target.p, target.name))
        if given != required:
            raise ValueError(
                f"the state of {target.label} is of another optimizer or rule: given {given}, required {required}: "
                "load it into the optimizer that it was saved from"
            )


def _precision(p: Tensor) -> torch.dtype:
    return torch.float64 if p.dtype == torch.float64 else torch.float32


def _mean_square(p: nn.Parameter) -> Tensor:
    """Of the gradient, (); not finite if one of its elements is not."""
    assert p.grad is not None
    wider = None if p.grad.dtype == _precision(p) else _precision(p)
    return torch.linalg.vector_norm(p.grad, dtype=wider).square() / max(p.grad.numel(), 1)


def _all_finite(means: list[Tensor]) -> bool:
    """Whether all are finite; each device is asked once."""
    found: dict[torch.device, list[Tensor]] = {}
    for mean in means:
        found.setdefault(mean.device, []).append(mean.isfinite())
    return all(bool(torch.stack(flags).all()) for flags in found.values())


def _placed(state: dict[str, Any], p: Tensor, *, copied: bool = False) -> dict[str, Any]:
    """On the parameter's device, in the precision that is computed in."""

    def place(t: Tensor) -> Tensor:
        return t.to(device=p.device, dtype=_precision(p) if t.is_floating_point() else t.dtype, copy=copied)

    return pytree.tree_map_only(Tensor, place, state)


def _shapes(state: Mapping[str, Any]) -> dict[str, list[tuple[int, ...]]]:
    return {
        key: [tuple(t.shape) for t in pytree.tree_leaves(part) if isinstance(t, Tensor)] for key, part in state.items()
    }


def _bytes(state: Any) -> int:
    return sum(t.numel() * t.element_size() for t in pytree.tree_leaves(state) if isinstance(t, Tensor))


def _require_rate(lr: Any) -> None:
    if not 0 <= float(lr) < math.inf:
        raise ValueError(f"lr={lr}; required is a finite factor of the rule's steps of at least 0, by custom 1")


def _require_real(target: _Target) -> None:
    if target.p.dtype not in _PRECISIONS:
        advice = (
            "optimise torch.view_as_real of it"
            if target.p.is_complex()
            else "leave it out, or bring it to one of these"
        )
        raise ValueError(
            f"{target.label} is of type {target.p.dtype}; required is one of "
            f"{', '.join(str(precision) for precision in _PRECISIONS)}: {advice}"
        )


def _require_dense(target: _Target) -> None:
    if target.p.grad is not None and target.p.grad.layout != torch.strided:
        raise ValueError(
            f"the gradient of {target.label} is sparse; required are dense gradients: build the layer with "
            "sparse=False, as Embedding(..., sparse=False)"
        )
