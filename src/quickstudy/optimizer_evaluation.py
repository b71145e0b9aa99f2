"""Update rules against baselines that are tuned as hard as possible: who wins on which problems, and by how much."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from quickstudy.evaluation import number
from quickstudy.inner import UpdateRule
from quickstudy.optimizer_judging import Judged, Tuned, judge, tune
from quickstudy.optimizer_losses import BASELINES
from quickstudy.optimizers.named import named_problems

TOGETHER = 4
"""Problems of one shape that are run side by side."""

_REFERENCE = "Adam"

Ratio = tuple[float, float, float]


@dataclass(frozen=True)
class Verdict:
    """A rule against the baselines on one distribution after some steps.

    Attributes:
        rule: its name.
        steps: how many.
        best: the baseline with the lowest mean log-loss on the very problems that the rule was judged on, which favours
            the baseline.
        to_best: the rule's loss by the best baseline's: geometric mean over problems, and the ends of its ci95.
        to_adam: likewise by Adam's; None where Adam was left out.
        wins: the rule's mean log-loss is below the best baseline's.
        certain: the ci95 of ``to_best`` leaves 1 out.
    """

    rule: str
    steps: int
    best: str
    to_best: Ratio
    to_adam: Ratio | None
    wins: bool
    certain: bool

    def in_words(self) -> str:
        """Who wins, in a sentence."""
        ratio = in_words(self.to_best)
        if not self.certain:
            return f"{self.rule} and {self.best} cannot be told apart: {self.rule} has {ratio} × its loss"
        winner = f"{self.rule} wins" if self.wins else f"{self.best} wins over {self.rule}"
        than = f"{self.best}, the best baseline" if self.wins else self.best
        return f"{winner}: {self.rule} has {ratio} × the loss of {than}"


@dataclass(frozen=True)
class Evaluated:
    """Rules and tuned baselines on one distribution.

    Attributes:
        problems: its name.
        rules: names of the rules.
        at: numbers of steps.
        tuned: baselines, one for each number of steps.
        judged: rules and baselines, one for each number of steps.
        seed: of the fresh problems.
    """

    problems: str
    rules: tuple[str, ...]
    at: tuple[int, ...]
    tuned: tuple[Tuned, ...]
    judged: tuple[Judged, ...]
    seed: int

    @property
    def count(self) -> int:
        """How many fresh problems there are."""
        return len(self.judged[0].log_losses)

    def after(self, steps: int) -> list[Judged]:
        """Rules, then baselines, after that many steps; the lowest mean log-loss first in both."""
        found = [judged for judged in self.judged if judged.steps == steps]
        return sorted(found, key=lambda judged: (judged.name not in self.rules, judged.log_loss))

    def baselines(self, steps: int) -> list[Judged]:
        """The baselines after that many steps, the best first."""
        return [judged for judged in self.after(steps) if judged.name not in self.rules]

    def of(self, name: str, steps: int) -> Judged:
        """One optimizer after that many steps."""
        return next(judged for judged in self.judged if (judged.name, judged.steps) == (name, steps))

    def tuning(self, name: str, steps: int) -> Tuned | None:
        """How a baseline was tuned; None for a rule."""
        return next((tuned for tuned in self.tuned if (tuned.name, tuned.steps) == (name, steps)), None)

    def verdict(self, rule: str, steps: int) -> Verdict:
        """A rule against the best baseline."""
        own, best = self.of(rule, steps), self.baselines(steps)[0]
        to_best = own.ratio_to(best)
        adam = next((judged for judged in self.baselines(steps) if judged.name == _REFERENCE), None)
        low, high = to_best[1:]
        certain = high < 1 or low > 1
        to_adam = None if adam is None else own.ratio_to(adam)
        return Verdict(rule, steps, best.name, to_best, to_adam, to_best[0] < 1, certain)

    def verdicts(self) -> list[Verdict]:
        """Of every rule after every number of steps."""
        return [self.verdict(rule, steps) for steps in self.at for rule in self.rules]

    def notes(self) -> list[str]:
        """What has to be known about the numbers."""
        found = []
        for tuned in self.tuned:
            if tuned.at_edge:
                found.append(
                    f"The best learning rate of {tuned.name} for {tuned.steps} steps, {tuned.lr:.3g}, is the last one "
                    "that was tried: a better one may lie beyond."
                )
        for judged in self.judged:
            if judged.diverged:
                found.append(
                    f"{judged.name} diverged on {judged.diverged} of {self.count} problems within {judged.steps} "
                    "steps; such a problem counts with its loss before the first step."
                )
        return found

    def as_dict(self) -> dict[str, Any]:
        """All numbers, as JSON holds them: null for one that is not finite."""
        verdicts = [
            {
                "rule": v.rule,
                "steps": v.steps,
                "best_baseline": v.best,
                "ratio_to_best": _ratio(v.to_best),
                "ratio_to_adam": None if v.to_adam is None else _ratio(v.to_adam),
                "winner": v.rule if v.wins else v.best,
                "certain": v.certain,
            }
            for v in self.verdicts()
        ]
        optimizers = [
            {
                "name": j.name,
                "steps": j.steps,
                "lr": j.lr,
                "mean_log_loss": number(j.log_loss),
                "diverged": j.diverged,
                "log_losses": [number(x) for x in j.log_losses.tolist()],
            }
            for j in self.judged
        ]
        tuning = [
            {
                "name": t.name,
                "steps": t.steps,
                "lr": t.lr,
                "at_edge": t.at_edge,
                "mean_log_loss_by_rate": [[rate, number(value)] for rate, value in t.by_rate.items()],
            }
            for t in self.tuned
        ]
        return {
            "problems": self.problems,
            "problems_count": self.count,
            "seed": self.seed,
            "verdicts": verdicts,
            "optimizers": optimizers,
            "tuning": tuning,
        }


def evaluate_rules(
    rules: dict[str, UpdateRule],
    problems: str,
    *,
    at: Sequence[int],
    count: int = 128,
    seed: int = 0,
    baselines: Sequence[str] = tuple(BASELINES),
    on_work: Callable[[str], None] | None = None,
) -> Evaluated:
    """Tune the baselines on the training part of a distribution, then judge all on fresh problems of its test part.

    Args:
        rules: by name.
        problems: a name of ``named_problems``.
        at: numbers of steps, increasing, at least 1.
        count: fresh problems, a multiple of 4 and at least 8, as 4 at a time share a shape.
        seed: of the fresh problems.
        baselines: names in ``BASELINES``.
        on_work: told what is being done.

    Raises:
        ValueError: numbers other than these, no rules or baselines, unknown names.
    """
    if not rules or not baselines:
        raise ValueError(f"{len(rules)} rules and {len(baselines)} baselines; required is at least one of each")
    if count < 2 * TOGETHER or count % TOGETHER:
        raise ValueError(
            f"{count} problems; required is a multiple of {TOGETHER}, at least {2 * TOGETHER}, as {TOGETHER} at a time "
            "share a shape"
        )
    if not at or list(at) != sorted(set(at)) or at[0] < 1:
        raise ValueError(f"steps {list(at)}; required are increasing numbers of at least 1, such as 100,200,1000")
    say = on_work or (lambda _: None)
    train, test = named_problems(problems, "train"), named_problems(problems, "test")
    tuned: list[Tuned] = []
    for name in baselines:
        say(f"tuning {name} on {problems}")
        tuned += tune(train, at=at, names=[name]).values()
    say(f"judging on {problems}")
    judged = judge(rules, tuned, test, at=at, seed=seed, draws=count // TOGETHER, n=TOGETHER, curves=True)
    return Evaluated(problems, tuple(rules), tuple(at), tuple(tuned), tuple(judged), seed)


def in_words(ratio: Ratio) -> str:
    """Such as "0.62 (0.58–0.66)"; without an interval where there is a single shape."""
    value, low, high = ratio
    return _shown(value) if math.isnan(low) else f"{_shown(value)} ({_shown(low)}–{_shown(high)})"


def _shown(value: float) -> str:
    """Three digits, and no exponent where it has a few before the point."""
    return f"{value:,.0f}" if 100 <= value < 1e6 else f"{value:.2f}" if 0.1 <= value < 10 else f"{value:.3g}"


def _ratio(ratio: Ratio) -> dict[str, Any]:
    return {"ratio": number(ratio[0]), "ci95": [number(ratio[1]), number(ratio[2])]}
