"""What a classifier has learnt from its examples, and how far what it says of others can be trusted."""

from collections.abc import Sequence
from numbers import Real
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from quickstudy.episode import Labelled, one_hot
from quickstudy.estimators.examples import CHUNK, in_order, precision_of, require_one_each
from quickstudy.evaluation import evaluating
from quickstudy.learner import Learner
from quickstudy.packing import Packed
from quickstudy.trust import (
    Calibration,
    Trust,
    calibrate_on_support,
    examples_needed,
    is_unknown,
    left_out,
    prediction_sets,
    probabilities,
    unknown_scores,
)

_FOLDS = 5


class Learnt(NamedTuple):
    """Attributes: classes in order, the support set, and what the learner adapted to it (None if transductive)."""

    classes: list[Any]
    support: Labelled
    adapted: Any

    @staticmethod
    def of(learner: Learner, x: Tensor, labels: Sequence[Any]) -> "Learnt":
        """Adapt to examples (n, *input) as the learner reads them.

        Raises:
            ValueError: other numbers of labels, or a single class.
        """
        require_one_each(x, labels, "label")
        classes = in_order(labels)
        if len(classes) < 2:
            raise ValueError(
                f"the examples are all of one class, {classes[0]!r}; required are at least two classes to tell apart: "
                "add examples of another class"
            )
        index = {label: i for i, label in enumerate(classes)}
        y = one_hot(torch.tensor([index[label] for label in labels], device=x.device), len(classes))
        support = Labelled(x, y.to(precision_of(learner, x)))
        with evaluating(learner):
            return Learnt(classes, support, None if learner.transductive else learner.adapt(support))

    @property
    def labels(self) -> list[Any]:
        """Of the support set, one for each example."""
        return [self.classes[i] for i in self.support.y.argmax(1).tolist()]

    def logits(self, learner: Learner, x: Tensor) -> Tensor:
        """(m, classes), on the CPU, of examples (m, *input) as the learner reads them."""
        with evaluating(learner):
            if learner.transductive:
                return learner.answer(self.support, x).cpu()
            return torch.cat([learner.predict(self.adapted, part).cpu() for part in x.split(CHUNK)])


class Trusted:
    """What logits mean, by the trust of a packed learner; otherwise by what is measured when it is first asked for.

    Args:
        packed: the learner, or a part of it that says the same of ``support``.
        support: what was learnt from, as that learner reads it.
        measure: whether to measure on it where nothing came with the learner, which takes a few adaptations.
    """

    def __init__(self, packed: Packed, support: Labelled, *, measure: bool = True):
        self._learner, self._support, self._trust = packed.learner, support, packed.trust
        self.came_with_learner = packed.trust is not None
        self._to_measure = measure and not self.came_with_learner

    def get(self) -> Trust | None:
        """None where nothing came with the learner, and nothing is, or can be, measured."""
        if self._to_measure:
            self._trust, self._to_measure = _measured(self._learner, self._support), False
        return self._trust

    def calibrated(self, purpose: str) -> tuple[Trust, Calibration]:
        """Trust, and what holds for this way and shot.

        Raises:
            ValueError: there is nothing to calibrate on; it names the purpose.
        """
        trust = self.get()
        if trust is None:
            raise ValueError(
                f"there is nothing to calibrate on to {purpose}: required is a learner that was packed with a "
                f"calibration, or {examples_needed(0.9)} examples with two of each of two classes: add examples"
            )
        return trust, trust.at(*self._shape())

    def probabilities(self, logits: Tensor) -> Tensor:
        """(m, way) in double precision."""
        trust = self.get()
        return probabilities(logits, None if trust is None else trust.at(*self._shape()))

    def unknown(self, logits: Tensor, false_alarms: float | None) -> tuple[Tensor, Tensor]:
        """Scores (m,) for unknown classes, and whether each example is of one; of none if no rate is given."""
        trust, calibration = self.calibrated("tell unknown classes")
        if not self.knows_unknown(calibration):
            raise ValueError(
                "how an unknown class looks is learnt from leaving classes out, and there are two; required is a third "
                "class with two examples, or a learner that was packed with a calibration: add one"
            )
        scores = unknown_scores(logits, calibration)[trust.score].double()
        if false_alarms is None:
            return scores, torch.zeros(len(scores), dtype=torch.bool)
        return scores, is_unknown(logits, calibration, trust.score, false_alarms)

    def knows_unknown(self, calibration: Calibration) -> bool:
        """Whether it was ever seen how an example of no known class looks."""
        return self.came_with_learner or calibration.way > 2

    def sets(self, logits: Tensor, coverage: float) -> Tensor:
        """Which classes are in each set, (m, way) bool."""
        if not isinstance(coverage, Real):
            raise ValueError(f"coverage={coverage!r}; required is a number between 0 and 1, such as 0.9")
        trust, calibration = self.calibrated("form sets")
        return prediction_sets(logits, calibration, trust.conformity, float(coverage))

    def _shape(self) -> tuple[int, float]:
        """Way, and the mean number of examples per class."""
        n, way = self._support.y.shape
        return way, n / way


def _measured(learner: Learner, support: Labelled) -> Trust | None:
    """Trust from examples, and from classes, that are left out in turn; None where there are too few.

    A class with a single example cannot be left out and takes no part.
    """
    there = support.y.sum(0) > 1  # (way,)
    shown = support.y[:, there].sum(1) > 0  # (n,)
    if int(there.sum()) < 2 or int(shown.sum()) < examples_needed(0.9):
        return None
    part = Labelled(support.x[shown], support.y[shown][:, there])
    way, shot = part.y.shape[1], max(1, round(len(part.y) / part.y.shape[1]))
    return calibrate_on_support(*left_out(learner, part, folds=_FOLDS), way=way, shot=shot)


def embedding(learner: Learner, x: Tensor, *, by: Sequence[str] | None = None) -> Tensor:
    """Where the learner's network puts examples (n, *input) that it read, (n, d): see ``Learner.embeds_by``."""
    with evaluating(learner):
        return torch.cat([_features(learner, part, by or learner.embeds_by) for part in x.split(CHUNK)])


def _features(learner: Learner, x: Tensor, by: Sequence[str]) -> Tensor:
    parts = (getattr(learner, name, None) for name in by)
    embed = next((part for part in parts if callable(part)), None)
    return (x if embed is None else cast(Tensor, embed(x))).flatten(1)
