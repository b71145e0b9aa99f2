"""How far trust holds on fresh tasks: ask for a coverage and a rate of false alarms, and count."""

from dataclasses import dataclass

import torch

from quickstudy.evaluation import mean_ci95
from quickstudy.learner import Learner
from quickstudy.tasks import ClassTasks
from quickstudy.trust.asking import ask
from quickstudy.trust.calibration import expected_calibration_error, probabilities
from quickstudy.trust.conformal import prediction_sets
from quickstudy.trust.trust import Trust
from quickstudy.trust.unknown import auroc, is_unknown, unknown_scores


@dataclass(frozen=True)
class Judgement:
    """What was counted on fresh tasks; all rates and errors are fractions in [0, 1].

    Attributes:
        coverage, coverage_ci95: queries of known classes whose set holds the true one; 1.96·sd/√episodes over tasks.
        set_size: classes in a set of a query of a known class, on average.
        empty_known, empty_unknown: sets that hold no class, for queries of known and of unknown classes.
        ece_before, ece_after: expected calibration error without and with the temperature.
        false_alarms: queries of known classes that were called unknown.
        detected: queries of unknown classes that were called unknown.
        auroc: score name → how well it tells known from unknown.
        accuracy: queries of known classes whose most probable class is the true one.
    """

    coverage: float
    coverage_ci95: float
    set_size: float
    empty_known: float
    empty_unknown: float
    ece_before: float
    ece_after: float
    false_alarms: float
    detected: float
    auroc: dict[str, float]
    accuracy: float


def judge(
    trust: Trust,
    learner: Learner,
    tasks: ClassTasks,
    *,
    way: int,
    shot: int,
    episodes: int,
    generator: torch.Generator,
    coverage: float = 0.9,
    false_alarms: float = 0.05,
) -> Judgement:
    """Judge trust on tasks that it was not fitted on, with queries of unknown classes among them.

    Args:
        trust: of this learner.
        learner, tasks, way, shot, episodes, generator: as for ``ask``: every task has further classes, as many as its
            own where the data hold so many, whose queries are unknown.
        coverage: what the sets are asked for.
        false_alarms: what the rejection is asked for.

    Raises:
        ValueError: as ``ask``, ``prediction_sets`` and ``is_unknown``.
    """
    logits, y, others = ask(learner, tasks, way=way, shot=shot, episodes=episodes, generator=generator)
    fitted = trust.at(way, shot)
    p = probabilities(logits, fitted)
    sets, strange = (prediction_sets(z, fitted, trust.conformity, coverage) for z in (logits, others))
    alarms, found = (is_unknown(z, fitted, trust.score, false_alarms) for z in (logits, others))
    known, unknown = unknown_scores(logits, fitted), unknown_scores(others, fitted)
    held, ci95 = mean_ci95(sets[y > 0].view(episodes, -1).double().mean(1))  # (episodes,)
    return Judgement(
        coverage=held,
        coverage_ci95=ci95,
        set_size=float(sets.sum(1).double().mean()),
        empty_known=float((~sets.any(1)).double().mean()),
        empty_unknown=float((~strange.any(1)).double().mean()),
        ece_before=expected_calibration_error(probabilities(logits, None), y),
        ece_after=expected_calibration_error(p, y),
        false_alarms=float(alarms.double().mean()),
        detected=float(found.double().mean()),
        auroc={score: auroc(known[score], unknown[score]) for score in known},
        accuracy=float((p.argmax(1) == y.argmax(1)).double().mean()),
    )
