"""Optimisation problems that are run for some steps at a time: what every estimator of a rule's meta-gradient shares.

A window carries everything (parameters, the rule's state, the loss so far) through ``unroll`` as one dict of tensors,
so that each of its modes serves: with the full graph, in bounded memory, or without second derivatives.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from quickstudy.inner import AnyMode, Params, UpdateRule, unroll
from quickstudy.optimizers.problem import Batch, ProblemDistribution, Problems, step_many

Objective = Literal["log", "loss"]
_TINY = 1e-12
_LIMIT = 1e4  # times the loss at the start, and 1 more: beyond it a problem counts as diverged


@dataclass(frozen=True)
class Run:
    """Problems on their way.

    Attributes:
        problems: the problems.
        stream: draws their batches.
        batch: the next one.
        params: where they are, (n, *shape) by name.
        state: of the rule.
        alive: (n,) 1 for problems that have not diverged, 0 for others.
        limit: (n,) the loss beyond which a problem counts as diverged.
        left: steps until they are replaced by new ones.
        seed: what the problems were drawn with.
    """

    problems: Problems
    stream: torch.Generator
    batch: Batch
    params: Params
    state: Any
    alive: Tensor
    limit: Tensor
    left: int
    seed: int

    @staticmethod
    def begin(rule: UpdateRule, problems: ProblemDistribution, n: int, *, steps: int, seed: int, like: Tensor) -> "Run":
        """New problems.

        Args:
            rule: whose state is begun.
            problems: the distribution.
            n: how many.
            steps: until they are replaced.
            seed: of the problems and of their batches.
            like: a tensor on the device and in the precision in which they are to run.
        """
        stream = torch.Generator().manual_seed(seed)
        drawn = problems.sample(n, generator=stream)
        if like.device.type != "cpu" or like.dtype != torch.float32:
            drawn = drawn.to(like.device, like.dtype)
        batch = drawn.draw(stream)
        with torch.no_grad():
            first = drawn.losses(drawn.params, batch)
            state = rule.init(drawn.params)
        alive = torch.isfinite(first).to(first.dtype)
        return Run(drawn, stream, batch, drawn.params, state, alive, _LIMIT * (first.abs() + 1), steps, seed)

    def batches(self, steps: int) -> list[Batch]:
        """The next batches, one more than steps: the last is where the last step is judged, and the next first one."""
        return [self.batch, *(self.problems.draw(self.stream) for _ in range(steps))]

    def after(self, window: "Window", batch: Batch, steps: int) -> "Run":
        """Where a window left them."""
        return replace(
            self, batch=batch, params=window.params, state=window.state, alive=window.alive, left=self.left - steps
        )


@dataclass(frozen=True)
class Window:
    """Some steps of a rule on some problems.

    Attributes:
        value: (n,) the mean objective after each step, that of the limit from where a problem diverged, and 0 for those
            that had diverged before; with a graph if asked for.
        params, state, alive: at the end, without a graph.
    """

    value: Tensor
    params: Params
    state: Any
    alive: Tensor


def walk(
    rule: UpdateRule,
    problems: Problems,
    params: Params,
    state: Any,
    alive: Tensor,
    limit: Tensor,
    batches: Sequence[Batch],
    *,
    mode: AnyMode,
    objective: Objective,
    weights: Sequence[float] | None = None,
) -> Window:
    """Take as many steps as there are batches but one; losses are those of each step's result on the next batch.

    Args:
        rule: the update rule, one that treats elements alike, so that problems are one more axis to it.
        problems: n of them.
        params, state, alive, limit: see ``Run``.
        batches: steps + 1.
        mode: as for ``unroll``.
        objective: "log" for logarithms of losses, "loss" for losses.
        weights: of each step's result in the mean; 1 each by default.
    """
    steps = len(batches) - 1
    weights = [1.0] * steps if weights is None else list(weights)
    leaves, spec = pytree.tree_flatten(state)
    recording = _Recording(rule, spec, limit, objective, weights, linear=mode == "first_order")
    start = {
        **{f"params.{name}": p for name, p in params.items()},
        **{f"state.{i}": leaf for i, leaf in enumerate(leaves)},
        "one": torch.ones_like(alive),
        "total": torch.zeros_like(alive),
        "alive": alive,
        "t": alive.new_zeros(()),
    }

    def loss_on(batch: Batch):
        def loss(carried: Params) -> Tensor:
            return (carried["one"] * problems.losses(of_problem(carried), batch)).sum()

        return loss

    end = unroll(recording, [loss_on(batch) for batch in batches[:-1]], start, steps=steps, mode=mode)
    last = problems.losses(of_problem(end), batches[-1])
    fine = (end["alive"] > 0) & torch.isfinite(last.detach()) & (last.detach() < limit)
    lost = _measured(limit, objective)
    total = end["total"] + weights[-1] * torch.where(fine, _measured(last, objective), lost)
    value = torch.where(alive > 0, total, 0.0) / steps
    ended = {name: p.detach() for name, p in end.items()}
    new_state = pytree.tree_unflatten([ended[f"state.{i}"] for i in range(len(leaves))], spec)
    return Window(value, of_problem(ended), new_state, fine.to(alive.dtype))


def of_problem(carried: Params) -> Params:
    """The problems' own parameters among what a window carries."""
    return {name.removeprefix("params."): p for name, p in carried.items() if name.startswith("params.")}


class _Recording:
    """An update rule on everything that a window carries. The gradient of ``one`` is the loss of each problem."""

    def __init__(
        self,
        rule: UpdateRule,
        spec: Any,
        limit: Tensor,
        objective: Objective,
        weights: Sequence[float],
        *,
        linear: bool,
    ):
        self.rule, self.spec, self.limit, self.objective, self.linear = rule, spec, limit, objective, linear
        self.weights = limit.new_tensor([0.0, *weights])  # no step of this window has changed the first loss

    def init(self, params: Params) -> None:
        return None

    def step(self, carried: Params, grads: Mapping[str, Tensor], state: None) -> tuple[Params, None]:
        """One step of the rule; problems whose loss is beyond all bounds stand still from then on."""
        params, losses = of_problem(carried), grads["one"]
        g = {name: grads[f"params.{name}"] for name in params}
        now = losses.detach()
        fine = (carried["alive"].detach() > 0) & torch.isfinite(now) & (now < self.limit)
        if self.linear:  # gradients are constants here, and so are losses: their change to first order
            moved = (_per_problem(g[name].detach() * (p - p.detach())) for name, p in params.items())
            losses = losses + sum(moved)
        measured = torch.where(fine, _measured(losses, self.objective), _measured(self.limit, self.objective))
        g = {name: torch.where(_over(fine, one), one, 0.0) for name, one in g.items()}
        count = sum(name.startswith("state.") for name in carried)
        inner = pytree.tree_unflatten([carried[f"state.{i}"] for i in range(count)], self.spec)
        stepped, inner = step_many(self.rule, params, g, inner)
        leaves = pytree.tree_leaves(inner)
        return {
            **{f"params.{name}": torch.where(_over(fine, p), stepped[name], p) for name, p in params.items()},
            **{f"state.{i}": leaf for i, leaf in enumerate(leaves)},
            "one": carried["one"],
            "total": carried["total"] + self.weights[carried["t"].long()] * measured,
            "alive": fine.to(now.dtype),
            "t": carried["t"].detach() + 1,
        }, None


def _measured(losses: Tensor, objective: Objective) -> Tensor:
    return losses if objective == "loss" else torch.log(losses.clamp(min=_TINY))


def _over(one: Tensor, like: Tensor) -> Tensor:
    """(n,) with axes of size 1 behind it, as many as ``like`` has."""
    return one.view(-1, *[1] * (like.ndim - 1))


def _per_problem(x: Tensor) -> Tensor:
    return x.flatten(1).sum(1)


class Runs:
    """Several runs that take turns, each begun anew when its horizon is reached.

    Args:
        problems: the distribution.
        n: problems of each run.
        unroll: steps of a window.
        horizon: steps of a run.
        groups: how many runs take turns; their horizons end at different times.
        late: later steps of a horizon count for more, in proportion to their number.

    Raises:
        ValueError: numbers below 1, or a horizon that is not some windows long.
    """

    def __init__(
        self, problems: ProblemDistribution, *, n: int, unroll: int, horizon: int, groups: int, late: bool = False
    ):
        if min(n, unroll, groups) < 1 or horizon < unroll or horizon % unroll:
            raise ValueError(
                f"n={n}, unroll={unroll}, horizon={horizon}, groups={groups}; required is at least 1 of each, and a "
                "horizon that is a multiple of unroll"
            )
        self.problems, self.n, self.unroll, self.horizon, self.groups = problems, n, unroll, horizon, groups
        self.late = late
        self.turn = 0
        self.runs: list[Run | None] = [None] * groups

    def next(self, rule: UpdateRule, generator: torch.Generator, like: Tensor) -> tuple[Run, bool]:
        """The run whose turn it is, and whether it is new."""
        run = self.runs[self.turn]
        if run is not None and run.left > 0 and float(run.alive.mean()) > 0.5:
            return run, False
        windows = self.horizon // self.unroll
        share = windows if run is not None else 1 + self.turn * windows // self.groups
        seed = int(torch.randint(2**62, (), generator=generator))
        steps = self.unroll * min(windows, share)
        return Run.begin(rule, self.problems, self.n, steps=steps, seed=seed, like=like), True

    def weights(self, run: Run) -> list[float] | None:
        """Of the steps of the next window; their mean over a horizon is 1."""
        if not self.late:
            return None
        done = self.horizon - run.left
        return [2 * (done + t + 1) / (self.horizon + 1) for t in range(self.unroll)]

    def put(self, run: Run) -> None:
        """Where the run whose turn it was has come to; the next one is the next's turn."""
        self.runs[self.turn] = run
        self.turn = (self.turn + 1) % self.groups

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed training needs, as tensors and numbers."""
        runs = [None if run is None else _saved(run) for run in self.runs]
        return {"turn": self.turn, "runs": runs}

    def load_state_dict(self, state: Mapping[str, Any], rule: UpdateRule, like: Tensor) -> None:
        """Go on where ``state_dict`` was taken."""
        self.turn = state["turn"]
        self.runs = [None if saved is None else self._restored(saved, rule, like) for saved in state["runs"]]

    def _restored(self, saved: Mapping[str, Any], rule: UpdateRule, like: Tensor) -> Run:
        run = Run.begin(rule, self.problems, self.n, steps=saved["left"], seed=saved["seed"], like=like)
        run.stream.set_state(saved["stream"])
        return replace(run, **{key: saved[key] for key in ("batch", "params", "state", "alive")})


def _saved(run: Run) -> dict[str, Any]:
    return {
        "seed": run.seed,
        "left": run.left,
        "stream": run.stream.get_state(),
        "batch": run.batch,
        "params": run.params,
        "state": run.state,
        "alive": run.alive,
    }


def like_of(rule: UpdateRule) -> Tensor:
    """A tensor on the device and in the precision of the rule."""
    if isinstance(rule, nn.Module):
        for p in rule.parameters():
            return p.detach()
    raise ValueError(f"{type(rule).__name__} has no parameters to learn; required is a rule with some, as LSTMRule")


def require_objective(objective: str, sigma: float = math.inf) -> None:
    """Refuse an unknown objective, or a standard deviation that is not above 0."""
    if objective not in ("log", "loss"):
        raise ValueError(f"objective={objective!r}; choose 'log' or 'loss'")
    if not sigma > 0:
        raise ValueError(f"sigma={sigma}; required is a standard deviation above 0, such as 0.01")
