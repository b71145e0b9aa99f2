"""How a fitted classifier does on the very examples it was given, each answered without it: other than on its packing.

A calibration that came with a learner was measured on tasks like those it was trained on, and a person's may differ.
"""

from dataclasses import dataclass

from quickstudy.estimators.classifier import FewShotClassifier
from quickstudy.trust import Calibration, examples_needed, left_out, probabilities
from quickstudy.trust.calibration import expected_calibration_error
from quickstudy.trust.quantiles import STEPS

_PER_BIN = 10  # with fewer examples in a bin of confidences, their chance would be taken for an error
_BINS = 15


@dataclass(frozen=True)
class OwnExamples:
    """What was found on a person's own examples.

    Attributes:
        examples: how many there are.
        right: how many were answered rightly by the learner adapted to others.
        ece: expected calibration error of the probabilities, in [0, 1], in one bin for every ten examples.
    """

    examples: int
    right: int
    ece: float

    @property
    def accuracy(self) -> float:
        """The share that was right, in [0, 1]."""
        return self.right / self.examples


def on_own_examples(model: FewShotClassifier) -> OwnExamples | None:
    """Leave the model's examples out in turn, a part of each class at a time.

    Args:
        model: fitted.

    Returns:
        None with fewer than 9 examples, or fewer than two of a class.
    """
    y = model.support_.y
    if len(y) < examples_needed(0.9) or int(y.sum(0).min()) < 2:
        return None
    logits, labels, _ = left_out(model.learner_, model.support_)
    calibration = None if model.trust_ is None else model.trust_.at(len(model.classes_), len(y) / len(model.classes_))
    right = int((logits.argmax(1) == labels.argmax(1)).sum())
    bins = min(_BINS, max(1, len(y) // _PER_BIN))
    return OwnExamples(len(y), right, expected_calibration_error(probabilities(logits, calibration), labels, bins=bins))


def least_false_alarms(calibration: Calibration) -> float:
    """The lowest rate of false alarms, in steps of 0.005, for which the calibration has examples enough."""
    rates = (j / STEPS for j in range(1, STEPS))
    return next((rate for rate in rates if examples_needed(1 - rate) <= calibration.examples), 1.0)
