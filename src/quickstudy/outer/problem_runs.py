"""Optimisation problems on their way: runs that estimators of a rule's meta-gradient take up where they left them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from quickstudy.inner import Params, UpdateRule
from quickstudy.optimizers.problem import Batch, ProblemDistribution, Problems
from quickstudy.outer.windows import Window

LIMIT = 1e10
"""Times the loss at the start, and 1 more: beyond it a problem counts as diverged."""


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
    def begin(
        rule: UpdateRule,
        problems: ProblemDistribution,
        n: int,
        *,
        steps: int,
        seed: int,
        like: Tensor,
        times: float = LIMIT,
    ) -> "Run":
        """New problems.

        Args:
            rule: whose state is begun.
            problems: the distribution.
            n: how many.
            steps: until they are replaced.
            seed: of the problems and of their batches.
            like: a tensor on the device and in the precision in which they are to run.
            times: the first loss, and 1 more, beyond which a problem counts as diverged.
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
        return Run(drawn, stream, batch, drawn.params, state, alive, times * (first.abs() + 1), steps, seed)

    def batches(self, steps: int) -> list[Batch]:
        """The next batches, one more than steps: the last is where the last step is judged, and the next first one."""
        return [self.batch, *(self.problems.draw(self.stream) for _ in range(steps))]

    def after(self, window: "Window", batch: Batch, steps: int) -> "Run":
        """Where a window left them."""
        return replace(
            self, batch=batch, params=window.params, state=window.state, alive=window.alive, left=self.left - steps
        )


class Runs:
    """Several runs that take turns, each begun anew when its horizon is reached.

    Args:
        problems: the distribution.
        n: problems of each run.
        unroll: steps of a window.
        horizon: steps of a run.
        groups: how many runs take turns; their horizons end at different times.
        late: later steps of a horizon count for more, in proportion to this power of their number.
        limit: times the loss at the start, and 1 more, beyond which a problem counts as diverged.

    Raises:
        ValueError: numbers below 1, or a horizon that is not some windows long.
    """

    def __init__(
        self,
        problems: ProblemDistribution,
        *,
        n: int,
        unroll: int,
        horizon: int,
        groups: int,
        late: float = 0.0,
        limit: float = LIMIT,
    ):
        if not 1 < limit < math.inf or not 0 <= late < math.inf:
            raise ValueError(f"limit={limit}, late={late}; required is a factor above 1, and a power of at least 0")
        if min(n, unroll, groups) < 1 or horizon < unroll or horizon % unroll:
            raise ValueError(
                f"n={n}, unroll={unroll}, horizon={horizon}, groups={groups}; required is at least 1 of each, and a "
                "horizon that is a multiple of unroll"
            )
        self.problems, self.n, self.unroll, self.horizon, self.groups = problems, n, unroll, horizon, groups
        self.late, self.limit = late, limit
        self.turn = 0
        self.runs: list[Run | None] = [None] * groups

    def next(self, rule: UpdateRule, generator: torch.Generator, like: Tensor) -> tuple[Run, bool]:
        """The run whose turn it is, and whether it is new."""
        run = self.runs[self.turn]
        if run is not None and run.left > 0 and bool(run.alive.any()):
            return run, False
        windows = self.horizon // self.unroll
        share = windows if run is not None else -(-windows * (self.turn + 1) // self.groups)
        seed = int(torch.randint(2**62, (), generator=generator))
        steps = self.unroll * share
        return Run.begin(rule, self.problems, self.n, steps=steps, seed=seed, like=like, times=self.limit), True

    def weights(self, run: Run) -> list[float] | None:
        """Of the steps of the next window; their mean over a horizon is 1."""
        if not self.late:
            return None
        powers = [t**self.late for t in range(1, self.horizon + 1)]
        done = self.horizon - run.left
        return [power * self.horizon / sum(powers) for power in powers[done : done + self.unroll]]

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
        run = Run.begin(
            rule, self.problems, self.n, steps=saved["left"], seed=saved["seed"], like=like, times=self.limit
        )
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


def require_objective(objective: str) -> None:
    """Refuse an unknown objective."""
    if objective not in ("log", "loss"):
        raise ValueError(f"objective={objective!r}; choose 'log' or 'loss'")
