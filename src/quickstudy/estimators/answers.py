"""Everything a fitted classifier says of some examples, read once: ranking, unknown or not, and prediction set."""

from dataclasses import dataclass
from typing import Any

import torch

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
    logits = model._logits(X)
    probability = model._probabilities(logits)
    order = torch.argsort(probability, dim=1, descending=True, stable=True)  # (n, way)
    names = model.classes_.tolist()
    score = rejected = sets = None
    if unknown:
        rate = model.false_alarms if false_alarms is None else false_alarms
        score, rejected = (part.tolist() for part in model._unknown(logits, rate))
    if coverage is not None:
        sets = model._sets(logits, coverage).tolist()
    found = []
    for i, columns in enumerate(order.tolist()):
        ranking = tuple((names[k], float(probability[i, k])) for k in columns[:top])
        found.append(
            Answer(
                label=None if rejected is not None and rejected[i] else ranking[0][0],
                ranking=ranking,
                unknown=None if rejected is None else rejected[i],
                unknown_score=None if score is None else score[i],
                inside=None if sets is None else tuple(names[k] for k in columns if sets[i][k]),
            )
        )
    return found
