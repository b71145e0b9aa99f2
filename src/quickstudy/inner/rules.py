"""Update rules: how one inner step turns parameters and gradients into new parameters."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

Params = dict[str, Tensor]


class UpdateRule(Protocol):
    """A pure optimizer on a dict of parameters; whatever tensors it holds can be meta-learned."""

    def init(self, params: Params) -> Any:
        """The state before the first step: None, or tensors in dicts, lists and tuples."""
        ...

    def step(self, params: Params, grads: Mapping[str, Tensor], state: Any) -> tuple[Params, Any]:
        """New parameters and new state; nothing is changed in place."""
        ...


@runtime_checkable
class Stationary(Protocol):
    """A rule that says where it stands still: what the implicit mode differentiates."""

    def init(self, params: Params) -> Any:
        """As for ``UpdateRule``."""
        ...

    def residual(self, params: Params, grads: Mapping[str, Tensor], state: Any) -> Params:
        """The gradient of the whole inner objective, zero where the rule stands still.

        Args:
            params: φ.
            grads: ∇L(φ).
            state: the state before the first step.
        """
        ...


class SGD(nn.Module):
    """v ← μv + g + ω·θ, θ ← θ − lr·v; with Nesterov's momentum θ ← θ − lr·(g + ω·θ + μv). As ``torch.optim.SGD``.

    Args:
        lr: step size, at least 0.
        momentum: μ in [0, 1).
        nesterov: look ahead along the momentum.
        weight_decay: ω, at least 0.
    """

    def __init__(self, lr: float, *, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0):
        super().__init__()
        if lr < 0 or weight_decay < 0:
            raise ValueError(
                f"lr={lr}, weight_decay={weight_decay}; required is a step size of at least 0, and a decay likewise"
            )
        if not 0 <= momentum < 1 or (nesterov and momentum == 0):
            raise ValueError(f"momentum={momentum}, nesterov={nesterov}; required is 0 ≤ momentum < 1, and > 0 with it")
        self.lr, self.momentum, self.nesterov, self.weight_decay = lr, momentum, nesterov, weight_decay

    def init(self, params: Params) -> Params | None:
        """The velocity v of each parameter; none without momentum."""
        return {name: torch.zeros_like(p) for name, p in params.items()} if self.momentum else None

    def step(self, params: Params, grads: Mapping[str, Tensor], state: Params | None) -> tuple[Params, Params | None]:
        """One descent step on every parameter."""
        grads = self.residual(params, grads, None)
        if state is None:
            return {name: p - self.lr * grads[name] for name, p in params.items()}, None
        state = {name: self.momentum * v + grads[name] for name, v in state.items()}
        direction = {name: grads[name] + self.momentum * v for name, v in state.items()} if self.nesterov else state
        return {name: p - self.lr * direction[name] for name, p in params.items()}, state

    def residual(self, params: Params, grads: Mapping[str, Tensor], state: Any) -> Params:
        """∇L(φ) + ω·φ."""
        if not self.weight_decay:
            return dict(grads)
        return {name: grads[name] + self.weight_decay * p for name, p in params.items()}


class Proximal(nn.Module):
    """Pull every step back to the start: the inner objective becomes L(φ) + ½λ‖φ − θ‖².

    Aravind Rajeswaran et al., Meta-Learning with Implicit Gradients, NeurIPS 2019, arXiv:1909.04630, equation 3.

    Args:
        rule: what steps on the gradient ∇L(φ) + λ(φ − θ).
        strength: λ > 0.
    """

    def __init__(self, rule: UpdateRule, strength: float):
        super().__init__()
        if strength <= 0:
            raise ValueError(f"strength={strength}; required is λ > 0: without a pull, use the rule alone")
        self.rule, self.strength = rule, strength

    def init(self, params: Params) -> tuple[Params, Any]:
        """θ, and the state of the rule."""
        return dict(params), self.rule.init(params)

    def step(self, params: Params, grads: Mapping[str, Tensor], state: tuple[Params, Any]) -> tuple[Params, Any]:
        """One step of the rule on the objective with its pull."""
        start, inner = state
        params, inner = self.rule.step(params, self._pulled(params, grads, start), inner)
        return params, (start, inner)

    def residual(self, params: Params, grads: Mapping[str, Tensor], state: tuple[Params, Any]) -> Params:
        """∇L(φ) + λ(φ − θ), and what the rule itself adds."""
        start, inner = state
        if not isinstance(self.rule, Stationary):
            raise ValueError(
                f"{type(self.rule).__name__} does not say where it stands still, which implicit differentiation "
                "needs: use SGD as the rule, or mode='recompute'"
            )
        return self.rule.residual(params, self._pulled(params, grads, start), inner)

    def _pulled(self, params: Params, grads: Mapping[str, Tensor], start: Params) -> Params:
        return {name: grads[name] + self.strength * (p - start[name]) for name, p in params.items()}


class ByName(nn.Module):
    """Different rules for different parameters.

    Args:
        rules: name pattern (``*`` and ``?`` as in file names) → rule; the first pattern that fits a name counts.

    Raises:
        ValueError: in ``init``, parameters that no pattern fits, or a pattern that fits none.
    """

    def __init__(self, rules: Mapping[str, UpdateRule]):
        super().__init__()
        self.rules, self.patterns = dict(rules), tuple(rules)
        self.parts: Any = nn.ModuleList(
            [rule if isinstance(rule, nn.Module) else _Plain(rule) for rule in rules.values()]
        )

    def init(self, params: Params) -> tuple[Any, ...]:
        """The state of each rule."""
        return tuple(rule.init(part) for rule, part in zip(self.parts, self._split(params), strict=True))

    def step(self, params: Params, grads: Mapping[str, Tensor], state: tuple[Any, ...]) -> tuple[Params, Any]:
        """One step of each rule on its own parameters."""
        stepped, states = {}, []
        for rule, part, of_rule in zip(self.parts, self._split(params), state, strict=True):
            new, of_rule = rule.step(part, {name: grads[name] for name in part}, of_rule)
            stepped |= new
            states.append(of_rule)
        return {name: stepped[name] for name in params}, tuple(states)

    def _split(self, params: Params) -> list[Params]:
        parts: list[Params] = [{} for _ in self.patterns]
        for name, p in params.items():
            fits = [i for i, pattern in enumerate(self.patterns) if fnmatchcase(name, pattern)]
            if not fits:
                raise ValueError(f"no rule for parameter {name!r}, given {self.patterns}: add a last pattern '*'")
            parts[fits[0]][name] = p
        unused = [pattern for pattern, part in zip(self.patterns, parts, strict=True) if not part]
        if unused:
            raise ValueError(f"the pattern {unused[0]!r} fits none of the parameters {list(params)}: mend or drop it")
        return parts


class _Plain(nn.Module):
    """A rule that is no module, as part of one."""

    def __init__(self, rule: UpdateRule):
        super().__init__()
        self.init, self.step = rule.init, rule.step
