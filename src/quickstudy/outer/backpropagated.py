"""Truncated backpropagation: the gradient of an update rule's own weights through some steps at a time.

    ĝ = ∂/∂φ  mean over the steps t of a window and over problems of  log f(θ_t)   (or f),

where what came before the window counts as a constant. Used for learned optimizers by Andrychowicz et al. 2016
(arXiv:1606.04474, section 2). Biased where a step's effect lasts longer than a window; with ``unroll`` equal to
``horizon`` it is exact.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from quickstudy.inner import AnyMode, Implicit, UpdateRule, as_mode
from quickstudy.optimizers.problem import ProblemDistribution
from quickstudy.outer.problem_runs import LIMIT, Runs, like_of, require_objective
from quickstudy.outer.windows import Objective, walk


class Backpropagated:
    """Estimate a rule's meta-gradient by backpropagation through a window; a meta-loss with a memory.

    Args:
        problems: the distribution.
        n: problems that run side by side, all of one shape.
        unroll: steps of a window.
        horizon: steps after which problems are replaced, a multiple of ``unroll``.
        groups: runs of n problems that take turns, at different points of their way.
        mode: "reverse" or "recompute" are exact through the window, the latter in memory that grows by parameters and
            not by activations; "first_order" takes gradients of problems as constants, as the paper does: faster.
        objective: "log": logarithms of losses, to which every factor of improvement counts alike; or "loss".
        late: later steps of a horizon count for more, in proportion to this power of their number.
        limit: times the loss at the start, and 1 more, beyond which a problem counts as diverged and stands still.

    Attributes:
        diverged: problems that were given up in the last estimate.
    """

    def __init__(
        self,
        problems: ProblemDistribution,
        *,
        n: int = 16,
        unroll: int = 20,
        horizon: int = 100,
        groups: int = 4,
        mode: AnyMode = "reverse",
        objective: Objective = "log",
        late: float = 0.0,
        limit: float = LIMIT,
    ):
        require_objective(objective)
        if isinstance(as_mode(mode), Implicit):
            raise ValueError(
                "mode='implicit' asks where an inner loop ends up, and not how it gets there, which is what a rule is "
                "judged by; required is 'reverse', 'recompute', 'first_order' or 'truncated'"
            )
        self.mode: AnyMode = as_mode(mode)
        self.objective: Objective = objective
        self.runs = Runs(problems, n=n, unroll=unroll, horizon=horizon, groups=groups, late=late, limit=limit)
        self.diverged = 0

    def __call__(self, rule: UpdateRule, generator: torch.Generator) -> Tensor:
        """Run one group for a window; the mean objective, whose gradient is the estimate."""
        run, _ = self.runs.next(rule, generator, like_of(rule))
        batches = run.batches(self.runs.unroll)
        window = walk(
            rule,
            run.problems,
            run.params,
            run.state,
            run.alive,
            run.limit,
            batches,
            mode=self.mode,
            objective=self.objective,
            weights=self.runs.weights(run),
        )
        self.diverged = int((run.alive - window.alive).sum())
        self.runs.put(run.after(window, batches[-1], self.runs.unroll))
        return (window.value * run.alive).sum() / run.alive.sum().clamp(min=1)

    def state_dict(self) -> dict[str, Any]:
        """Where all runs are, for a checkpoint."""
        return self.runs.state_dict()

    def load_state_dict(self, state: Mapping[str, Any], rule: UpdateRule) -> None:
        """Go on where ``state_dict`` was taken."""
        self.runs.load_state_dict(state, rule, like_of(rule))
