"""A trained update rule in the place of ``torch.optim.Adam``."""

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from quickstudy.optimizers.coordinatewise import CoordinatewiseRule
from quickstudy.optimizers.parameter_state import (
    bytes_of,
    is_elsewhere,
    placed,
    renamed,
    require_own_state,
    start_state,
)
from quickstudy.optimizers.rule_file import open_rule
from quickstudy.optimizers.side_by_side import step_elements
from quickstudy.optimizers.targets import Target, mean_squares, precision, require_dense, require_rate, require_real


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
        require_rate(lr)
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
            require_rate(self.param_groups[-1]["lr"])
            for target in self._targets():
                require_real(target)
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
            alike: dict[tuple[torch.device, torch.dtype], list[Target]] = {}
            for target in self._targets():
                if target.p.grad is not None and target.p.numel():
                    require_dense(target)
                    alike.setdefault((target.p.device, target.precision), []).append(target)
            means = {key: mean_squares(targets) for key, targets in alike.items()}
            if all(bool(mean.isfinite().all()) for mean in means.values()):
                for key, targets in alike.items():
                    self._step(targets, means[key])
            else:
                self._refuse(
                    [t for key, ts in alike.items() for t, m in zip(ts, means[key], strict=True) if not m.isfinite()]
                )
        return loss

    @property
    def bytes_per_parameter(self) -> int:
        """Bytes of state for each element of a parameter; twice as many if it is float64."""
        one, two = (torch.zeros(n) for n in (1, 2))
        rule = self._rule_for(one)
        return bytes_of(start_state(rule, two, "")) - bytes_of(start_state(rule, one, ""))

    def state_bytes(self) -> int:
        """Bytes of state that are held now."""
        return sum(bytes_of(state) for state in self.state.values())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a ``state_dict()`` of the same rule; the numbers come back as they were, whatever the precision.

        Raises:
            ValueError: other parameters, or the state of another rule.
        """
        given: dict[str, Any] = {}

        def take(_: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
            given.update(state_dict)
            for target, state in self._saved(given):
                require_own_state(self._rule_for(target.p), target, state)
            return {**state_dict, "state": {}}  # torch would bring it to the precision of the parameters

        def restore(_: Any) -> None:
            for target, state in self._saved(given):
                self.state[target.p] = placed(renamed(state, target.name), target.p, copied=True)

        hooks = (
            self.register_load_state_dict_pre_hook(take),
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

    def _targets(self) -> Iterator[Target]:
        number = 0
        for group in self.param_groups:
            names, lr = group.get("param_names", [""] * len(group["params"])), float(group["lr"])
            for name, p in zip(names, group["params"], strict=True):
                label = f"parameter {repr(name) if name else number} of shape {tuple(p.shape)}"
                yield Target(p, name, lr, label)
                number += 1

    def _saved(self, given: Mapping[str, Any]) -> Iterator[tuple[Target, dict[str, Any]]]:
        """Parameters and what is saved of them."""
        ids = chain.from_iterable(group["params"] for group in given["param_groups"])
        for number, target in zip(ids, self._targets(), strict=False):  # torch refuses other numbers of parameters
            if number in given["state"]:
                yield target, given["state"][number]

    def _refuse(self, bad: list[Target]) -> None:
        if self.nonfinite == "raise":
            raise FloatingPointError(
                f"the gradient of {bad[0].label} is NaN or infinite ({len(bad)} parameters in all); nothing was "
                "changed: look at the loss, lower lr, or leave such steps out with nonfinite='skip'"
            )
        self.skipped_steps += 1
        if self.skipped_steps == 1:
            warnings.warn(
                "a gradient is NaN or infinite: the whole step is left out, and so will be all such steps (counted in "
                "skipped_steps, warned of once); nonfinite='raise' says where",
                RuntimeWarning,
                stacklevel=4,  # the line that calls step(), which torch wraps
            )

    def _rule_for(self, p: Tensor) -> Any:
        """The rule on the parameter's device, in the precision that is computed in."""
        key = (p.device, precision(p))
        if key not in self._rules:
            self._rules[key] = copy.deepcopy(self.rule).to(device=p.device, dtype=key[1])
        return self._rules[key]

    def _step(self, targets: list[Target], means: Tensor) -> None:
        """A step of parameters on one device and of one precision."""
        states = [self._state(target) for target in targets]
        rule = self._rule_for(targets[0].p)
        if isinstance(rule, CoordinatewiseRule):
            step_elements(rule, targets, means, states)
            return
        for target, state in zip(targets, states, strict=True):
            p, name = target.p, target.name
            before = p.to(target.precision)
            new, state["tree"] = rule.step({name: before}, {name: target.gradient.to(before.dtype)}, state["tree"])
            p.copy_(torch.lerp(before, new[name], target.lr))

    def _state(self, target: Target) -> dict[str, Any]:
        state = self.state[target.p]
        if not state:
            state.update(start_state(self._rule_for(target.p), target.p, target.name))
        elif is_elsewhere(state, target.p):
            state.update(placed(state, target.p))
        return state
