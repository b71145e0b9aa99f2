"""The bounded-memory mode: exact, one step's graph at a time.

The walk forward keeps no graph, only θ_t and the rule's state s_t. The walk back starts from λ = ∂L/∂φ and takes each
step again, with a graph, from what was kept (Maclaurin, Duvenaud, Adams 2015, arXiv:1502.03492, with states stored
instead of reversed):

    λ_t = (∂u/∂θ_t)ᵀ λ_{t+1},  for gradient descent  λ_t = λ_{t+1} − α ∇(∇L(θ_t) · λ_{t+1}),

and likewise for the state, for the rule's own tensors, and for every tensor that the inner loss captures from outside.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from quickstudy.inner.capture import Recorder, Substitute, grad_transforms, is_batched, level, needs_grad
from quickstudy.inner.rules import Params
from quickstudy.inner.steps import InnerLoss, Walk
from quickstudy.inner.unfused import Unfused


def recompute(walk: Walk, params: Params, steps: int) -> Params:
    """φ after ``steps`` steps; see ``unroll``."""
    plan = _Plan(walk, list(params), steps)
    with torch.no_grad():
        phi = plan.walk_forward(params)
    if not torch.is_grad_enabled():
        return phi
    if grad_transforms() > 1:
        raise RuntimeError(
            "mode='recompute' is differentiated once; use mode='reverse' for derivatives of a meta-gradient"
        )
    return dict(
        zip(plan.names, _Adjoint.apply(plan, *params.values(), *plan.take_tensors(), *phi.values()), strict=True)
    )


@dataclass
class _Plan:
    """What the walk back needs besides tensors, which travel as arguments of ``_Adjoint``."""

    walk: Walk
    names: list[str]
    steps: int
    captured: list[Tensor] = field(default_factory=list)  # alive, as an id stands for its tensor only while that lives
    differentiable: list[bool] = field(default_factory=list)  # of captured
    states: list["_State"] = field(default_factory=list)  # before each step
    draws: list[list[Any]] = field(default_factory=list)  # random states before each part of each step

    def walk_forward(self, params: Params) -> Params:
        """Take all steps without a graph; keep what is needed to take each again."""
        recorder = Recorder(params.values())
        with recorder:
            state = self.walk.rule.init(params)
        self._kept: list[Tensor] = []
        for t in range(self.steps):
            packed, tensors = _State.pack(state)
            self.states.append(packed)
            self._kept += [*params.values(), *tensors] if t else tensors
            draws, grads = [], {}
            for loss in self.walk.parts(t):
                draws.append(_random_state(params))
                recorder.give([*params.values(), *tensors])
                with recorder:
                    more = self.walk.gradient_of(loss, t, params)
                grads = {name: grads[name] + g for name, g in more.items()} if grads else dict(more)
            self.draws.append(draws)
            recorder.give([*params.values(), *tensors, *grads.values()])
            with recorder:
                params, state = self.walk.rule.step(params, grads, state)
        self.captured = list(recorder.captured.values())
        self.differentiable = [t.is_floating_point() and needs_grad(t) for t in self.captured]
        return params

    def take_tensors(self) -> list[Tensor]:
        """The captured tensors, then the kept ones; they are handed over once."""
        tensors = [*self.captured, *self._kept]
        del self._kept
        return tensors

    def unpack(self, tensors: Sequence[Tensor]) -> tuple[list[Tensor], list[tuple[list[Tensor], list[Tensor]]]]:
        """Captured tensors; and for each step its parameters and the tensors of its state."""
        n = len(self.names)
        start, rest = list(tensors[:n]), list(tensors[n:])
        captured, rest = rest[: len(self.captured)], rest[len(self.captured) :]
        kept = []
        for t, state in enumerate(self.states):
            params, rest = (start, rest) if t == 0 else (rest[:n], rest[n:])
            kept.append((params, rest[: state.tensors]))
            rest = rest[state.tensors :]
        return captured, kept

    def substituted(self, captured: Sequence[Tensor]) -> Substitute:
        """A context within which captured tensors are replaced by these."""
        return Substitute({id(t): other for t, other in zip(self.captured, captured, strict=True)})


@dataclass(frozen=True)
class _State:
    """The state of a rule without its tensors."""

    spec: TreeSpec
    leaves: tuple[Any, ...]  # what is no tensor, None in the place of a tensor
    tensors: int

    @staticmethod
    def pack(state: Any) -> tuple["_State", list[Tensor]]:
        leaves, spec = tree_flatten(state)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        others = tuple(None if isinstance(leaf, Tensor) else (leaf,) for leaf in leaves)
        return _State(spec, others, len(tensors)), tensors

    def build(self, tensors: Sequence[Tensor]) -> Any:
        left = iter(tensors)
        return tree_unflatten([next(left) if leaf is None else leaf[0] for leaf in self.leaves], self.spec)


_UNSEEN = (
    "the inner loss uses a tensor that requires a gradient inside an operation that torch functions do not pass "
    "through (a transform of torch.func on it): use mode='reverse'"
)


class _Adjoint(torch.autograd.Function):
    """φ that was computed before, with the derivative of the walk."""

    generate_vmap_rule = True

    @staticmethod
    def forward(plan: _Plan, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(phi.clone() for phi in tensors[-len(plan.names) :])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.plan = inputs[0]
        ctx.save_for_backward(*inputs[1 : -len(inputs[0].names)])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if torch.is_grad_enabled() and grad_transforms() == 0:
            raise RuntimeError(
                "mode='recompute' is differentiated once; use mode='reverse' for derivatives of a meta-gradient"
            )
        plan: _Plan = ctx.plan
        mapped = any(is_batched(t) for t in (*cotangents, *ctx.saved_tensors))
        plain = level() < 0 and all(len(draws) == 1 for draws in plan.draws)
        with torch.no_grad(), _random_states_restored(cotangents), Unfused() if mapped else nullcontext():
            walk_back = _walk_back_plainly if plain else _walk_back
            to_params, to_captured = walk_back(plan, ctx.saved_tensors, cotangents)
        rest = [None] * (len(ctx.saved_tensors) - len(to_params) - len(to_captured) + len(plan.names))
        return (None, *to_params, *to_captured, *rest)


def _walk_back_plainly(
    plan: _Plan, saved: Sequence[Tensor], cotangents: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor | None]]:
    """The same as ``_walk_back`` by plain autograd, outside of all transforms and for one part a step: the closure's
    tensors are still valid there, so nothing is replaced, which is faster."""
    _, kept = plan.unpack([t.detach() for t in saved])
    names, walk = plan.names, plan.walk
    moving = [t for t, yes in zip(plan.captured, plan.differentiable, strict=True) if yes]
    to_params, to_state = list(cotangents), None
    to_moving = [torch.zeros_like(t) for t in moving]
    for t in reversed(range(plan.steps)):
        params, tensors = kept.pop()
        params = [p.requires_grad_() for p in params]
        tensors = [s.requires_grad_() if s.is_floating_point() else s for s in tensors]
        floats = [s for s in tensors if s.is_floating_point()]
        (draws,), (loss,) = plan.draws[t], walk.parts(t)
        _set_random_state(draws)
        with torch.enable_grad():
            named = dict(zip(names, params, strict=True))
            found = torch.autograd.grad(loss(named), params, create_graph=True, allow_unused=True)
            grads = {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(named.items(), found, strict=True)}
            new, at_next = walk.rule.step(named, grads, plan.states[t].build(tensors))
        outputs = [*new.values(), *(s for s in _State.pack(at_next)[1] if s.is_floating_point())]
        if t == plan.steps - 1:
            _refuse_unseen(outputs, [*params, *floats, *moving])
        weights = [*to_params, *(to_state or [torch.zeros_like(s) for s in outputs[len(names) :]])]
        through = [(o, w) for o, w in zip(outputs, weights, strict=True) if o.requires_grad]
        back = torch.autograd.grad(
            [o for o, _ in through], [*params, *floats, *moving], [w for _, w in through], materialize_grads=True
        )
        to_params = list(back[: len(params)])
        to_state = list(back[len(params) : len(params) + len(floats)])
        to_moving = _sum(to_moving, back[len(params) + len(floats) :])
    if to_state:
        start = [p.detach().requires_grad_() for p in saved[: len(names)]]
        with torch.enable_grad():
            first = _State.pack(walk.rule.init(dict(zip(names, start, strict=True))))[1]
        through = [
            (o, w)
            for o, w in zip((s for s in first if s.is_floating_point()), to_state, strict=True)
            if o.requires_grad
        ]
        if through:
            back = torch.autograd.grad(
                [o for o, _ in through], [*start, *moving], [w for _, w in through], materialize_grads=True
            )
            to_params, to_moving = _sum(to_params, back[: len(start)]), _sum(to_moving, back[len(start) :])
    left = iter(to_moving)
    return to_params, [next(left) if yes else None for yes in plan.differentiable]


def _refuse_unseen(outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> None:
    """Refuse a graph with leaves that are no inputs: their derivative would be missing."""
    ends = {t.grad_fn for t in inputs} | {None}
    known, seen = {id(t) for t in inputs}, set(ends)
    ahead: list[Any] = [t.grad_fn for t in outputs]
    while ahead:
        node = ahead.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.name() == "torch::autograd::AccumulateGrad" and id(node.variable) not in known:
            raise RuntimeError(_UNSEEN)
        ahead.extend(parent for parent, _ in node.next_functions)


def _walk_back(
    plan: _Plan, saved: Sequence[Tensor], cotangents: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor | None]]:
    """λ for the parameters at the start, and for each captured tensor that has a derivative."""
    captured, kept = plan.unpack([t.detach() for t in saved])
    moving = [c for c, yes in zip(captured, plan.differentiable, strict=True) if yes]
    names, walk = plan.names, plan.walk

    def filled(those: Sequence[Tensor]) -> list[Tensor]:
        left = iter(those)
        return [next(left) if yes else c for c, yes in zip(captured, plan.differentiable, strict=True)]

    to_params, to_moving = list(cotangents), [torch.zeros_like(c) for c in moving]
    to_state: list[Tensor] | None = None

    for t in reversed(range(plan.steps)):
        params, tensors = kept.pop()
        state = plan.states[t]
        floats = [s for s in tensors if s.is_floating_point()]

        def rebuilt(those: Sequence[Tensor], tensors: Any = tensors, state: _State = state) -> Any:
            left = iter(those)
            return state.build([next(left) if s.is_floating_point() else s for s in tensors])

        def gradient(loss: InnerLoss, of: Sequence[Tensor], those: Sequence[Tensor], t: int = t) -> list[Tensor]:
            with plan.substituted(filled(those)):
                return list(walk.gradient_of(loss, t, dict(zip(names, of, strict=True))).values())

        def step(
            of: Sequence[Tensor],
            grads: Sequence[Tensor],
            at: Sequence[Tensor],
            those: Sequence[Tensor],
            rebuilt: Any = rebuilt,
        ) -> tuple[list[Tensor], list[Tensor]]:
            named, with_grads = (dict(zip(names, x, strict=True)) for x in (of, grads))
            with plan.substituted(filled(those)):
                new, at_next = walk.rule.step(named, with_grads, rebuilt(at))
            return list(new.values()), [s for s in _State.pack(at_next)[1] if s.is_floating_point()]

        parts = list(zip(walk.parts(t), plan.draws[t], strict=True))
        pulls: list[Callable[..., Any]] = []
        grads: list[Tensor] = []
        for loss, draws in parts:
            _set_random_state(draws)
            if len(parts) == 1:  # the only graph there is
                with torch.set_grad_enabled(t == plan.steps - 1):
                    more, pull = _vjp(lambda of, those, loss=loss: gradient(loss, of, those), params, moving)
                pulls.append(pull)
                if t == plan.steps - 1 and any(needs_grad(g) for g in more):
                    raise RuntimeError(_UNSEEN)
            else:
                more = gradient(loss, params, moving)
            grads = [a + b for a, b in zip(grads, more, strict=True)] if grads else list(more)
        (_, next_floats), pull_step = _vjp(step, params, grads, floats, moving)
        if to_state is None:
            to_state = [torch.zeros_like(s) for s in next_floats]
        from_step, to_grads, to_state, more_moving = pull_step((to_params, to_state))
        to_params, to_moving = list(from_step), _sum(to_moving, more_moving)
        for i, (loss, draws) in enumerate(parts):
            if len(parts) == 1:
                pull = pulls[i]
            else:
                _set_random_state(draws)
                _, pull = _vjp(lambda of, those, loss=loss: gradient(loss, of, those), params, moving)
            from_loss, more_moving = pull(to_grads)
            to_params, to_moving = _sum(to_params, from_loss), _sum(to_moving, more_moving)
            del pull
        del pulls, pull_step
    if to_state:
        start = [p.detach() for p in plan.unpack(saved)[1][0][0]]

        def first_state(of: Sequence[Tensor], those: Sequence[Tensor]) -> list[Tensor]:
            with plan.substituted(filled(those)):
                tensors = _State.pack(walk.rule.init(dict(zip(names, of, strict=True))))[1]
            return [s for s in tensors if s.is_floating_point()]

        _, pull = _vjp(first_state, start, moving)
        from_start, more_moving = pull(to_state)
        to_params, to_moving = _sum(to_params, from_start), _sum(to_moving, more_moving)
    left = iter(to_moving)
    return to_params, [next(left) if yes else None for yes in plan.differentiable]


def _vjp(f: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """``torch.func.vjp``, whose result depends on an option that is not used here."""
    value, pull, *_ = torch.func.vjp(f, *primals)
    return value, pull


def _sum(a: Sequence[Tensor], b: Sequence[Tensor]) -> list[Tensor]:
    return [x + y for x, y in zip(a, b, strict=True)]


def _random_state(params: Params) -> Any:
    """The state of the generator that dropout draws from."""
    device = next((p.device for p in params.values()), torch.device("cpu"))
    if device.type == "cuda":
        return torch.get_rng_state(), torch.cuda.get_rng_state(device), device
    return torch.get_rng_state(), None, device


def _set_random_state(state: Any) -> None:
    cpu, cuda, device = state
    torch.set_rng_state(cpu)
    if cuda is not None:
        torch.cuda.set_rng_state(cuda, device)


@contextmanager
def _random_states_restored(tensors: Sequence[Tensor]) -> Iterator[None]:
    before = _random_state({str(i): t for i, t in enumerate(tensors)})
    try:
        yield
    finally:
        _set_random_state(before)
