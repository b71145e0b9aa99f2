"""Evolution strategies: the gradient of an update rule's own weights from losses alone.

Evolution strategies (Tim Salimans et al. 2017, arXiv:1703.03864) with antithetic pairs: the rule runs with weights
φ + ε_i and φ − ε_i, ε_i ~ N(0, σ²I), and

    ĝ = 1/(2Pσ²) Σ_i ε_i (F(φ + ε_i) − F(φ − ε_i))

is an unbiased estimate of ∇ E_ε F(φ + ε). It is the whole horizon's where a window is as long as the horizon.

Persistent evolution strategies (Paul Vicol, Luke Metz, Jascha Sohl-Dickstein. Unbiased gradient estimation in unrolled
computation graphs with persistent evolution strategies. ICML 2021, arXiv:2112.13835, algorithm 2): each particle keeps
its own problems across windows, with new perturbations in each, and is weighted by the sum of all that it has had,

    ξ_i ← ξ_i + ε_{i,w},    ĝ_w = 1/(Nσ²) Σ_i ξ_i F_w(φ + ε_{i,w}),

whose sum over the windows of a horizon is unbiased for the whole horizon, although none is longer than a window.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from quickstudy.inner import Params, UpdateRule, with_tensors
from quickstudy.optimizers.problem import ProblemDistribution
from quickstudy.outer.problem_runs import LIMIT, Run, Runs, like_of, require_objective
from quickstudy.outer.windows import Objective, Window, walk


class EvolutionStrategies:
    """Estimate a rule's meta-gradient from perturbed copies of it; a meta-loss with a memory.

    All particles run at once (``vmap`` over particles and problems), on the same problems and the same batches.

    Args:
        problems: the distribution.
        pairs: antithetic pairs of particles.
        sigma: σ, the standard deviation of perturbations, above 0.
        n: problems that each particle runs.
        unroll: steps of a window; as many as ``horizon`` by default.
        horizon: steps after which problems are replaced, a multiple of ``unroll``.
        groups: runs that take turns, at different points of their way.
        persistent: perturbations add up over the windows of a run, which keeps the estimate unbiased for the whole
            horizon; without it a window shorter than the horizon is as biased as truncated backpropagation.
        objective: "log" or "loss", as for ``Backpropagated``.
        late, limit: as there. A low limit, such as 100, keeps single problems from ruling the estimate.

    Attributes:
        diverged: problems, of all particles, that were given up in the last estimate.
    """

    def __init__(
        self,
        problems: ProblemDistribution,
        *,
        pairs: int = 16,
        sigma: float = 0.01,
        n: int = 8,
        unroll: int = 0,
        horizon: int = 100,
        groups: int = 1,
        persistent: bool = False,
        objective: Objective = "log",
        late: float = 0.0,
        limit: float = LIMIT,
    ):
        require_objective(objective)
        if pairs < 1:
            raise ValueError(f"pairs={pairs}; required is at least 1 antithetic pair")
        if not 0 < sigma < math.inf:
            raise ValueError(f"sigma={sigma}; required is a standard deviation above 0, such as 0.01")
        self.pairs, self.sigma, self.persistent = pairs, sigma, persistent
        self.objective: Objective = objective
        self.runs = Runs(
            problems, n=n, unroll=unroll or horizon, horizon=horizon, groups=groups, late=late, limit=limit
        )
        self.summed: list[dict[str, Tensor] | None] = [None] * groups  # ξ of each run, (2 pairs, ...) by name
        self.diverged = 0

    def __call__(self, rule: nn.Module, generator: torch.Generator) -> Tensor:
        """Run one group for a window; a scalar of the particles' mean objective, whose gradient is the estimate."""
        turn, like = self.runs.turn, like_of(rule)  # pyright: ignore[reportArgumentType]
        run, new = self.runs.next(rule, generator, like)  # pyright: ignore[reportArgumentType]
        if new:
            run = _for_particles(run, 2 * self.pairs)
            self.summed[turn] = None
        weights = {name: p for name, p in rule.named_parameters() if p.requires_grad}
        noise = {name: self._noise(p, generator) for name, p in weights.items()}
        batches = run.batches(self.runs.unroll)
        with torch.no_grad():
            windows = self._windows(rule, {n: p + noise[n] for n, p in weights.items()}, run, batches)
            before = run.alive
            values = windows.value.mean(1)  # (2 pairs,)
            summed = self.summed[turn]
            if self.persistent and summed is not None:
                noise = {name: noise[name] + summed[name] for name in noise}
            self.summed[turn] = noise
            centred = values - values.mean()
            estimate = {
                name: torch.tensordot(centred, xi, dims=1) / (2 * self.pairs * self.sigma**2)
                for name, xi in noise.items()
            }
        self.diverged = int((before - windows.alive).sum())
        self.runs.put(run.after(windows, batches[-1], self.runs.unroll))
        inner = sum(((p * estimate[name]).sum() for name, p in weights.items()), like.new_zeros(()))
        return values.mean() + inner - inner.detach()

    def state_dict(self) -> dict[str, Any]:
        """Where all runs are, for a checkpoint."""
        return {**self.runs.state_dict(), "summed": self.summed}

    def load_state_dict(self, state: Mapping[str, Any], rule: UpdateRule) -> None:
        """Go on where ``state_dict`` was taken."""
        self.runs.load_state_dict(state, rule, like_of(rule))
        self.summed = list(state["summed"])

    def _noise(self, p: Tensor, generator: torch.Generator) -> Tensor:
        """(2 pairs, ...): half of them, and the same with the other sign."""
        half = self.sigma * torch.randn(self.pairs, *p.shape, generator=generator, dtype=p.dtype).to(p.device)
        return torch.cat([half, -half])

    def _windows(self, rule: nn.Module, weights: Params, run: Run, batches: list[Any]) -> Window:
        def one(weights: Params, params: Params, state: Any, alive: Tensor) -> tuple[Tensor, Params, Any, Tensor]:
            window = walk(
                with_tensors(rule, weights),  # pyright: ignore[reportArgumentType]
                run.problems,
                params,
                state,
                alive,
                run.limit,
                batches,
                mode="reverse",
                objective=self.objective,
                weights=self.runs.weights(run),
            )
            return window.value, window.params, window.state, window.alive

        return Window(*torch.func.vmap(one)(weights, run.params, run.state, run.alive))


def _for_particles(run: Run, particles: int) -> Run:
    """The same problems for each particle, on a leading axis."""

    def repeated(tree: Any) -> Any:
        return pytree.tree_map(lambda t: t.expand(particles, *t.shape).clone(), tree)

    return replace(run, params=repeated(run.params), state=repeated(run.state), alive=repeated(run.alive))
