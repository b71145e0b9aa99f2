"""Fit trust: on many tasks of classes the learner was not trained on, or on a support set where nothing else is."""

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from quickstudy.learner import Learner
from quickstudy.tasks import ClassTasks
from quickstudy.trust.asking import Asked, ask
from quickstudy.trust.calibration import check_labels, expected_calibration_error, fit_temperature, probabilities
from quickstudy.trust.conformal import conformities
from quickstudy.trust.quantiles import examples_needed, stored_quantiles
from quickstudy.trust.trust import SCORES, Calibration, Trust
from quickstudy.trust.unknown import auroc, scores_at


def calibrate(
    learner: Learner,
    tasks: ClassTasks,
    *,
    ways: Sequence[int],
    shots: Sequence[int],
    episodes: int,
    generator: torch.Generator,
    source: str,
) -> Trust:
    """Fit temperature, thresholds and prediction sets for every pair of way and shot.

    Every task has further classes, as many as its own where the data hold so many: their queries are the unknown ones.
    ``Trust.score`` is the score with the highest AUROC, averaged over the pairs. Where it is one of the logits
    themselves (the largest, or the energy), they say how near a query is, and sets go by them; otherwise by
    probabilities.

    Args:
        learner: put into evaluation mode for the time of the call; transductive ones are shown known and unknown
            queries apart.
        tasks: over classes that the learner was not trained on (meta-validation); their queries per class and
            ``within_group`` count, their way and shot do not.
        ways, shots: the pairs to fit, at least one of each.
        episodes: tasks for each pair.
        generator: draws them.
        source: what the tasks are, in words; kept in the result.

    Raises:
        ValueError: a learner of numbers, nothing to fit, or too few classes or examples for a pair.
        FloatingPointError: a prediction that is NaN or infinite.
    """
    if not ways or not shots:
        raise ValueError(f"ways={tuple(ways)}, shots={tuple(shots)}; required is at least one of each")
    found = []
    for way, shot in product(ways, shots):
        asked = ask(learner, tasks, way=way, shot=shot, episodes=episodes, generator=generator)
        found.append(_fit(asked, shot=shot))
    best = _best(found)
    return Trust(tuple(found), best, "logit" if best in ("maximum_logit", "energy") else "probability", source)


def calibrate_on_support(logits: Tensor, y: Tensor, others: Tensor | None = None, *, way: int, shot: int) -> Trust:
    """Fit the same on a support set alone, for a learner without any meta-validation tasks.

    ``calibrate_on_support(*left_out(learner, support), way=..., shot=...)`` asks a learner for all that is needed.

    Args:
        logits: (n, way), of each support example by the learner adapted to others than this (cross-validation).
        y: (n, way) one-hot.
        others: (m, way), of support examples by the learner adapted without their class, that class ruled out; without
            them nothing is known of unknown classes, and every AUROC is 0.5.
        way, shot: of the support set.

    Returns:
        trust with one calibration. Sets go by probabilities, for the classes are those they will be used on. Sets and
        thresholds hold approximately: cross-validation adapts to fewer examples than are there in the end.
        ``examples_needed`` says how many examples a coverage or rate of false alarms takes.

    Raises:
        ValueError: fewer than 9 examples (what 90 % takes), a class with fewer than two, or shapes that differ.
    """
    check_labels(logits, y)
    if way != logits.shape[1] or way < 2:
        raise ValueError(f"way={way} and logits for {logits.shape[1]} classes; required is the same, two or more")
    fewest, needed = int(y.sum(0).min()), examples_needed(0.9)
    if len(y) < needed or fewest < 2:
        raise ValueError(
            f"{len(y)} examples, and {fewest} of the smallest class; required are at least {needed}, and two of each "
            "class: give more labelled examples, or go without calibration"
        )
    others = logits[:0] if others is None else others
    source = f"cross-validation on the support set, {len(y)} examples"
    found = _fit(Asked(logits, y, others), shot=shot)
    return Trust((found,), _best([found]), "probability", source)


def _best(found: Sequence[Calibration]) -> str:
    return max(SCORES, key=lambda score: sum(c.auroc[score] for c in found))


def _fit(asked: Asked, *, shot: int) -> Calibration:
    logits, y, others = asked
    temperature = fit_temperature(logits, y)
    before, after = probabilities(logits, None), probabilities(logits.double() / temperature, None)
    known, unknown = scores_at(logits, temperature), scores_at(others, temperature)
    return Calibration(
        way=logits.shape[1],
        shot=shot,
        temperature=temperature,
        ece_before=expected_calibration_error(before, y),
        ece_after=expected_calibration_error(after, y),
        known={score: stored_quantiles(known[score]) for score in SCORES},
        auroc={score: auroc(known[score], unknown[score]) if len(others) else 0.5 for score in SCORES},
        conformity={
            name: stored_quantiles(values[y > 0]) for name, values in conformities(logits, temperature).items()
        },
        examples=len(y),
    )
