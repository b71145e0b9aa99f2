"""What a run that trains an update rule is made of: its settings, the rule, the estimator of the meta-gradient."""

import math
from dataclasses import dataclass
from typing import cast, get_args

import torch
from torch import nn

from quickstudy.inner import AnyMode
from quickstudy.optimizers import RULES
from quickstudy.optimizers.named import named_problems
from quickstudy.outer.backpropagated import Backpropagated
from quickstudy.outer.evolution import EvolutionStrategies
from quickstudy.outer.problem_runs import LIMIT
from quickstudy.outer.windows import Objective
from quickstudy.runs import RunFolder

ESTIMATORS = ("backprop", "es", "pes")
"""Truncated backpropagation, evolution strategies, persistent evolution strategies."""

_COORDINATEWISE = ("lstm", "mlp")
_USUAL_WINDOW = 20
_LOOKS = 32  # draws of problems, as shapes differ


@dataclass(frozen=True)
class RuleSettings:
    """Every argument of a run that trains an update rule, as config.json holds it.

    Args:
        rule: a name in ``RULES``.
        hidden: units of each layer of "lstm" and "mlp"; 0 takes the rule's own number.
        problems: what it is trained on, see ``named_problems``.
        estimator: of the meta-gradient, one of ``ESTIMATORS``.
        mode: how "backprop" differentiates a window: "reverse", "recompute" or "first_order".
        n: problems that run side by side (for each particle of "es" and "pes").
        unroll: steps of a window; 0 takes 20, and the whole horizon for "es", which is biased by anything shorter.
        horizon: steps after which problems are replaced, a multiple of ``unroll``.
        groups: runs that take turns, at different points of their way.
        objective: "log" or "loss".
        late: later steps of a horizon count for more, in proportion to this power of their number.
        limit: times the first loss, and 1 more, beyond which a problem counts as diverged.
        pairs, sigma: antithetic pairs of particles of "es" and "pes", and the standard deviation of perturbations.
        steps: outer steps.
        lr: where the learning rate of the outer Adam begins; it falls to 0 along a cosine.
        clip: largest norm of the meta-gradient.
        seed: of the first weights, the problems and the perturbations.
    """

    rule: str = "lstm"
    hidden: int = 0
    problems: str = "mlp"
    estimator: str = "backprop"
    mode: str = "reverse"
    n: int = 16
    unroll: int = 0
    horizon: int = 100
    groups: int = 4
    objective: str = "log"
    late: float = 0.0
    limit: float = LIMIT
    pairs: int = 16
    sigma: float = 0.01
    steps: int = 2000
    lr: float = 1e-3
    clip: float = 1.0
    seed: int = 0

    @property
    def window(self) -> int:
        """Steps of a window."""
        return self.unroll or (self.horizon if self.estimator == "es" else _USUAL_WINDOW)


def rule_settings(folder: RunFolder) -> RuleSettings:
    """The settings of a run that trains a rule.

    Raises:
        ValueError: no run, or one of another kind.
    """
    config = folder.read_config()
    settings = config.get("settings") if isinstance(config, dict) else None
    if isinstance(settings, dict) and "learner" in settings:
        raise ValueError(
            f"{folder.path} holds the run of a learner, and no update rule: go on with it by quickstudy train "
            "--resume, or choose another folder"
        )
    try:
        return RuleSettings(**cast(dict, settings))
    except TypeError as error:
        raise ValueError(
            f"{folder.config} does not hold the settings of a run ({error}): restore it, or start again"
        ) from error


def build_rule(settings: RuleSettings) -> nn.Module:
    """The rule with its first weights.

    Raises:
        ValueError: an unknown rule, a negative number of units, or units for one that has none.
    """
    name, hidden = settings.rule, settings.hidden
    if name not in RULES:
        raise ValueError(f"rule={name!r}; choose among {', '.join(RULES)}")
    if hidden < 0:
        raise ValueError(f"hidden={hidden}; required is at least 1 unit, or 0 for the rule's own number")
    if name not in _COORDINATEWISE:
        if hidden:
            raise ValueError(f"rule={name!r} has no hidden units, and hidden={hidden} was given: leave it out")
        return RULES[name](_names(settings.problems))
    return RULES[name](**({"hidden": hidden} if hidden else {}), seed=settings.seed)


def _names(problems: str) -> list[str]:
    """The names of the parameters of such problems, for rules with numbers of their own for each tensor."""
    generator, distribution = torch.Generator().manual_seed(0), named_problems(problems, "train")
    drawn = [distribution.sample(1, generator=generator).params for _ in range(_LOOKS)]
    return sorted({name for params in drawn for name in params})


def build_estimator(settings: RuleSettings) -> Backpropagated | EvolutionStrategies:
    """The estimator of the meta-gradient.

    Raises:
        ValueError: an unknown one, a mode that serves no rule, and what the estimators and ``named_problems`` refuse.
    """
    if settings.estimator not in ESTIMATORS:
        raise ValueError(f"estimator={settings.estimator!r}; choose among {', '.join(ESTIMATORS)}")
    if settings.steps < 1 or not 0 < settings.lr < math.inf or not settings.clip > 0:
        raise ValueError(
            f"steps={settings.steps}, lr={settings.lr}, clip={settings.clip}; required is at least 1 step, and lr and "
            "clip above 0"
        )
    modes = ("reverse", "recompute", "first_order")
    if settings.mode not in modes:
        raise ValueError(f"mode={settings.mode!r}; choose among {', '.join(modes)}")
    if settings.objective not in get_args(Objective):
        raise ValueError(f"objective={settings.objective!r}; choose among {', '.join(get_args(Objective))}")
    objective = cast(Objective, settings.objective)
    problems = named_problems(settings.problems, "train")
    if settings.estimator == "backprop":
        return Backpropagated(
            problems,
            n=settings.n,
            unroll=settings.window,
            horizon=settings.horizon,
            groups=settings.groups,
            mode=cast(AnyMode, settings.mode),
            objective=objective,
            late=settings.late,
            limit=settings.limit,
        )
    return EvolutionStrategies(
        problems,
        pairs=settings.pairs,
        sigma=settings.sigma,
        n=settings.n,
        unroll=settings.window,
        horizon=settings.horizon,
        groups=settings.groups,
        persistent=settings.estimator == "pes",
        objective=objective,
        late=settings.late,
        limit=settings.limit,
    )
