"""One version of a task, learnt: what it answers, where its examples lie, and its file."""

from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from quickstudy.estimators.answers import Answer, put_together
from quickstudy.estimators.classifier import fitted
from quickstudy.estimators.examples import as_learner_reads
from quickstudy.estimators.learnt import Learnt, Trusted
from quickstudy.learners import LocalMatching
from quickstudy.packing import Packed
from quickstudy.serve.embedded import Embedded, embed, embed_new, head_of, tensor_bytes, wholes
from quickstudy.serve.rows import Support

MEASURED = 200
"""Examples of a task; of more nothing is measured for a learner without trust, which would take long."""


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
        self._learnt: Learnt | None = None
        if len(x) > 1:  # where all are of one class, a class of its own for each is enough for a map
            self._learnt, self._trusted = self._learn(as_learner_reads(packed.learner, x))

    @property
    def nbytes(self) -> int:
        """The memory that examples, embeddings and what was adapted take."""
        return 0 if self._learnt is None else tensor_bytes([self._learnt, self._embedded])

    def answer(self, x: Tensor, *, coverage: float, false_alarms: float) -> list[Answer]:
        """What there is to say of each image, from one pass through the network.

        Where too few examples were seen to keep to ``coverage`` or ``false_alarms``, or nothing was measured, sets hold
        every class and nothing is called unknown, which keeps to both.

        Args:
            x: (m, channels, size, size).
            coverage: how often a set is to hold the true class, in (0, 1).
            false_alarms: the fraction of images of known classes that may be called unknown, in (0, 1).
        """
        assert self._learnt is not None
        assert self.classes > 1
        logits = self._learnt.logits(self._packed.learner, as_learner_reads(self._packed.learner, x))
        p = self._trusted.probabilities(logits)  # (m, way)
        sets, unknown, scores = torch.ones_like(p, dtype=torch.bool), torch.zeros(len(x), dtype=torch.bool), None
        with suppress(ValueError):  # too little to calibrate on
            sets = self._trusted.sets(logits, coverage)
        with suppress(ValueError):
            scores = torch.nan_to_num(self._trusted.unknown(logits, None)[0])
            unknown = self._trusted.unknown(logits, false_alarms)[1]
        return put_together(self._learnt.classes, p, scores=scores, rejected=unknown, sets=sets)

    def map(self, x: Tensor | None) -> tuple[list[Place], list[Place]]:
        """The plane of the support embedding's two principal directions, scaled so that the support set fills [-1, 1].

        Args:
            x: (m, channels, size, size) further images; one that would lie outside is moved to the edge.

        Returns:
            the places of the support set in its order, and those of ``x``.
        """
        if self._learnt is None:
            middle = Place(x=0.0, y=0.0)  # of one example or none there is no plane
            return [middle] * len(self.support.ids), [middle] * (0 if x is None else len(x))
        centre, axes, scale, support = self._plane
        queries = [] if x is None else _places((self._wholes(embed(self._packed.learner, x)) - centre) @ axes / scale)
        return _places(support), queries

    def save(self, path: Path) -> None:
        """Write the classifier to a file that ``quickstudy.load_model`` takes."""
        assert self._learnt is not None
        fitted(self._packed, self._learnt, trusted=self._trusted).save(path)

    def _learn(self, x: Tensor) -> tuple[Learnt, Trusted]:
        """``FewShotClassifier(packed).fit(x, labels)``, without another pass where the embeddings are known.

        Of a learner without trust nothing is measured on many examples, unless that takes next to no time.
        """
        labels = self.support.labels if self.classes > 1 else self.support.ids
        head = head_of(self._packed.learner)
        if head is None:
            learnt = Learnt.of(self._packed.learner, x, labels)
            return learnt, Trusted(self._packed, learnt.support, measure=len(x) <= MEASURED)
        learnt = Learnt.of(head, self._embed(x), labels)
        quick = not isinstance(head, LocalMatching)  # which compares examples with examples, and not with means
        trusted = Trusted(replace(self._packed, learner=head), learnt.support, measure=quick or len(x) <= MEASURED)
        return learnt._replace(support=learnt.support._replace(x=x)), trusted

    def _wholes(self, kept: Tensor) -> np.ndarray:
        """Embeddings (n, d), for the map."""
        return wholes(self._packed.learner, kept).cpu().double().numpy()

    def _embed(self, x: Tensor) -> Tensor:
        """What is kept of the examples, (n, d)."""
        if self._embedded is None or self._embedded.ids != self.support.ids:
            self._embedded = embed_new(self._packed.learner, self.support.ids, x, self._embedded)
        return self._embedded.z

    @cached_property
    def _plane(self) -> tuple[np.ndarray, np.ndarray, float, np.ndarray]:
        """Centre (d,), axes (d, 2), scale, and the support set (n, 2) by them."""
        assert self._learnt is not None
        z = self._wholes(self._embed(self._learnt.support.x))
        centre = z.mean(0)
        axes = np.linalg.svd(z - centre, full_matrices=False)[2][:2].T  # (d, 2)
        axes = axes * np.where(axes[np.abs(axes).argmax(0), [0, 1][: axes.shape[1]]] < 0, -1, 1)  # one of the two signs
        axes = np.pad(axes, ((0, 0), (0, 2 - axes.shape[1])))
        places = (z - centre) @ axes  # (n, 2)
        scale = float(np.abs(places).max()) or 1.0
        return centre, axes, scale, places / scale


def _places(at: np.ndarray) -> list[Place]:
    return [Place(x=x, y=y) for x, y in np.clip(at, -1, 1).tolist()]
