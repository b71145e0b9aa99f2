"""One version of a task, learnt: what it answers, where its examples lie, and its file."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from quickstudy.estimators import FewShotClassifier
from quickstudy.estimators.classifier import Learnt, _Trusted
from quickstudy.estimators.examples import as_learner_reads
from quickstudy.evaluation import evaluating
from quickstudy.learner import Learner
from quickstudy.packing import Packed
from quickstudy.serve.embedded import Embedded, embed, embed_new, head_of, tensor_bytes
from quickstudy.serve.rows import Support

MEASURED = 200
"""Examples of a task; of more nothing is measured for a learner without trust, which would take long."""


class Ranked(TypedDict):
    """A class and its probability."""

    label: str
    probability: float


class Answer(TypedDict):
    """What is said of one image; see the schema ``Prediction``."""

    label: str | None
    unknown: bool
    unknown_score: float | None
    ranking: list[Ranked]
    set: list[str]


class Place(TypedDict):
    """Where an example or a query lies on the map."""

    x: float
    y: float


class Adapted:
    """A classifier of the examples of a task; nothing changes it, so threads may share it.

    Args:
        packed: the learner, shared by all tasks.
        support: which examples, of which classes.
        x: (n, channels, size, size) the same as the learner reads them.
        before: an earlier version of the same task, whose embeddings are used again.

    Attributes:
        version: of the task.
        classes: how many have examples; with fewer than two there is a map and nothing else.
        support: as given, but for the stored bytes.
    """

    def __init__(self, packed: Packed, support: Support, x: Tensor, before: "Adapted | None" = None):
        self.version, self.classes, self.support = support.version, len(set(support.labels)), replace(support, x=())
        self._packed = packed
        self._embedded: Embedded | None = None if before is None else before._embedded
        self._classifier: FewShotClassifier | None = None
        if len(x) > 1:  # where all are of one class, a class of its own for each is enough for a map
            labels = support.labels if self.classes > 1 else support.ids
            head = head_of(packed.learner)
            self._classifier = _fitted(packed, x, labels, head, None if head is None else self._embed(x))

    @property
    def nbytes(self) -> int:
        """The memory that examples, embeddings and what was adapted take."""
        classifier = self._classifier
        return 0 if classifier is None else tensor_bytes([classifier.support_, classifier._adapted, self._embedded])

    def answer(self, x: Tensor, *, coverage: float, false_alarms: float) -> list[Answer]:
        """What there is to say of each image, from one pass through the network.

        Where too few examples were seen to keep to ``coverage`` or ``false_alarms``, or nothing was measured, sets hold
        every class and nothing is called unknown, which keeps to both.

        Args:
            x: (m, channels, size, size).
            coverage: how often a set is to hold the true class, in (0, 1).
            false_alarms: the fraction of images of known classes that may be called unknown, in (0, 1).
        """
        classifier = self._classifier
        assert classifier is not None
        assert self.classes > 1
        logits = self._logits(x)
        labels = [str(label) for label in classifier.classes_.tolist()]
        p = classifier._probabilities(logits)  # (m, way)
        sets, unknown = torch.ones_like(p, dtype=torch.bool), torch.zeros(len(x), dtype=torch.bool)
        scores: list[float | None] = [None] * len(x)
        with suppress(ValueError):  # too little to calibrate on
            sets = classifier._sets(logits, coverage)
        with suppress(ValueError):
            scores = torch.nan_to_num(classifier._unknown(logits, None)[0]).tolist()
            unknown = classifier._unknown(logits, false_alarms)[1]
        rows = zip(p.tolist(), unknown.tolist(), scores, sets.tolist(), strict=True)
        return [_answer(labels, *row) for row in rows]

    def map(self, x: Tensor | None) -> tuple[list[Place], list[Place]]:
        """The plane of the support embedding's two principal directions, scaled so that the support set fills [-1, 1].

        Args:
            x: (m, channels, size, size) further images; one that would lie outside is moved to the edge.

        Returns:
            the places of the support set in its order, and those of ``x``.
        """
        if self._classifier is None:
            middle = Place(x=0.0, y=0.0)  # of one example or none there is no plane
            return [middle] * len(self.support.ids), [middle] * (0 if x is None else len(x))
        centre, axes, scale, support = self._plane
        queries = [] if x is None else _places((_numbers(embed(self._packed.learner, x)) - centre) @ axes / scale)
        return _places(support), queries

    def save(self, path: Path) -> None:
        """Write the classifier to a file that ``quickstudy.load_model`` takes."""
        assert self._classifier is not None
        self._classifier.save(path)

    def _logits(self, x: Tensor) -> Tensor:
        """(m, classes) of examples that were read, which the classifier itself would read once more."""
        classifier, learner = self._classifier, self._packed.learner
        assert classifier is not None
        with evaluating(learner):
            x = as_learner_reads(learner, x)
            if learner.transductive:
                return learner.answer(classifier.support_, x).cpu()
            return learner.predict(classifier._adapted, x).cpu()

    def _embed(self, x: Tensor) -> Tensor:
        """z (n, d) of the examples."""
        if self._embedded is None or self._embedded.ids != self.support.ids:
            self._embedded = embed_new(self._packed.learner, self.support.ids, x, self._embedded)
        return self._embedded.z

    @cached_property
    def _plane(self) -> tuple[np.ndarray, np.ndarray, float, np.ndarray]:
        """Centre (d,), axes (d, 2), scale, and the support set (n, 2) by them."""
        assert self._classifier is not None
        z = _numbers(self._embed(self._classifier.support_.x))
        centre = z.mean(0)
        axes = np.linalg.svd(z - centre, full_matrices=False)[2][:2].T  # (d, 2)
        axes = axes * np.where(axes[np.abs(axes).argmax(0), [0, 1][: axes.shape[1]]] < 0, -1, 1)  # one of the two signs
        axes = np.pad(axes, ((0, 0), (0, 2 - axes.shape[1])))
        places = (z - centre) @ axes  # (n, 2)
        scale = float(np.abs(places).max()) or 1.0
        return centre, axes, scale, places / scale


def _fitted(
    packed: Packed, x: Tensor, labels: Sequence[str], head: Learner | None, z: Tensor | None
) -> FewShotClassifier:
    """``FewShotClassifier(packed).fit(x, labels)``, without another pass where the embeddings z (n, d) are known.

    Of a learner without trust nothing is measured on many examples, unless it takes no pass.
    """
    x = as_learner_reads(packed.learner, x)
    measured = packed if head is None else replace(packed, learner=head)
    learnt = Learnt.of(measured, x if z is None else z, list(labels))
    classifier = FewShotClassifier(packed)
    classifier._packed, classifier.learner_, classifier.reader_ = packed, packed.learner, packed.reader
    classifier.card_ = dict(packed.card)
    classifier._take(learnt._replace(support=learnt.support._replace(x=x)))
    classifier._trust = _Trusted(measured, learnt.support)
    if head is None and len(x) > MEASURED:
        classifier._trust._known = True
    return classifier


def _answer(labels: list[str], p: list[float], unknown: bool, score: float | None, inside: list[bool]) -> Answer:
    order = sorted(range(len(labels)), key=lambda k: -p[k])
    return Answer(
        label=None if unknown else labels[order[0]],
        unknown=unknown,
        unknown_score=score,
        ranking=[Ranked(label=labels[k], probability=p[k]) for k in order],
        set=[labels[k] for k in order if inside[k]],
    )


def _places(at: np.ndarray) -> list[Place]:
    return [Place(x=x, y=y) for x, y in np.clip(at, -1, 1).tolist()]


def _numbers(z: Tensor) -> np.ndarray:
    return z.cpu().double().numpy()
