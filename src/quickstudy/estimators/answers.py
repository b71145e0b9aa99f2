"""Everything a fitted classifier says of some examples, read once: ranking, unknown or not, and prediction set."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from quickstudy.estimators.classifier import FewShotClassifier


@dataclass(frozen=True)
class Answer:
    """What a classifier says of one example.

    Attributes:
        label: the most probable class; None if the example was found to be of no known class.
        ranking: (class, probability), the most probable first; probabilities are fractions in [0, 1].
        unknown: whether it is of no known class; None if that was not asked.
        unknown_score: higher is less like any class; None if it was not asked.
        inside: the classes of the prediction set, the most probable first; None if it was not asked.
    """

    label: Any
    ranking: tuple[tuple[Any, float], ...]
    unknown: bool | None = None
    unknown_score: float | None = None
    inside: tuple[Any, ...] | None = None

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it; what was not asked is left out."""
        found: dict[str, Any] = {
            "label": self.label,
            "probability": self.ranking[0][1],
            "ranking": [{"label": label, "probability": probability} for label, probability in self.ranking],
        }
        if self.unknown is not None:
            found |= {"unknown": self.unknown, "unknown_score": self.unknown_score}
        return found if self.inside is None else {**found, "set": list(self.inside)}


def answers(
    model: FewShotClassifier,
    X: Any,
    *,
    unknown: bool = False,
    coverage: float | None = None,
    false_alarms: float | None = None,
    top: int | None = None,
) -> list[Answer]:
    """One answer for each example.

    Args:
        model: a fitted classifier.
        X: as for ``predict``.
        unknown: also say which examples are of no known class; their label is None.
        coverage: also give prediction sets that hold the true class this often.
        false_alarms: the fraction of examples of known classes that may be called unknown; by default the model's.
        top: how many classes a ranking names; None for all.

    Raises:
        ValueError: examples that cannot be read, or a model without the calibration that was asked for.
    """
    logits, trusted = model._asked(X)
    scores = rejected = sets = None
    if unknown:
        scores, rejected = trusted.unknown(logits, model.false_alarms if false_alarms is None else false_alarms)
    if coverage is not None:
        sets = trusted.sets(logits, coverage)
    names, probability = model.classes_.tolist(), trusted.probabilities(logits)
    return put_together(names, probability, scores=scores, rejected=rejected, sets=sets, top=top)


def put_together(
    names: Sequence[Any],
    probability: Tensor,
    *,
    scores: Tensor | None,
    rejected: Tensor | None,
    sets: Tensor | None,
    top: int | None = None,
) -> list[Answer]:
    """One answer for each row of what was found; None is what was not asked.

    Args:
        names: of the classes, in the order of the columns.
        probability: (n, way).
        scores: (n,), higher is less like any class.
        rejected: (n,) whether each example is of no known class.
        sets: (n, way) whether each class is in the prediction set.
        top: how many classes a ranking names; None for all.
    """
    order = torch.argsort(probability, dim=1, descending=True, stable=True)  # (n, way)
    p, nothing = probability.tolist(), [None] * len(order)
    score = nothing if scores is None else scores.tolist()
    unknown = nothing if rejected is None else rejected.tolist()
    held = nothing if sets is None else sets.tolist()
    found = []
    for i, columns in enumerate(order.tolist()):
        ranking = tuple((names[k], p[i][k]) for k in columns[:top])
        row = held[i]
        inside = None if row is None else tuple(names[k] for k in columns if row[k])
        found.append(Answer(None if unknown[i] else ranking[0][0], ranking, unknown[i], score[i], inside))
    return found
