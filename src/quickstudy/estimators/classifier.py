"""FewShotClassifier: any learner behind ``fit`` and ``predict``; it says "I don't know" and takes a new class later."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from torch import Tensor

from quickstudy.estimators.examples import (
    Columns,
    as_array,
    as_learner_reads,
    encode_labels,
    read_examples,
    remember_columns,
    require_fitted,
    require_one_each,
    require_settings,
    require_shape,
)
from quickstudy.estimators.learnt import Learnt, Trusted, embedding
from quickstudy.learner import Learner
from quickstudy.packing import Packed, open_packed
from quickstudy.readers import Reader
from quickstudy.trust import Trust


class FewShotClassifier(ClassifierMixin, BaseEstimator):
    """Learn classes from a handful of labelled examples.

    Args:
        learner: a Learner (a copy of it is used), a Packed one, the path of a learner file or run folder, or a name:
            "tables" (numbers and categories), "texts", "sounds", "characters" (small drawings) or
            "characters_background".
        reader: how examples are read; by default the learner's own.
        false_alarms: the fraction of examples of known classes that ``is_unknown`` may call unknown, in (0, 1).

    Attributes:
        classes_: the labels, sorted; columns of ``predict_proba`` follow them.
        n_features_in_, feature_names_in_: of tables.
        support_: what was learnt from, as the learner reads it: x (n, *input), y (n, classes) one-hot.
        learner_, reader_: what ``learner`` was resolved to.

    Probabilities are softmax(logits / temperature); nothing is random. Temperature, thresholds and sets come from
    ``trust_``.
    """

    def __init__(
        self, learner: Learner | Packed | str | Path = "tables", *, reader: Reader | None = None, false_alarms=0.05
    ):
        self.learner = learner
        self.reader = reader
        self.false_alarms = false_alarms

    @property
    def trust_(self) -> Trust | None:
        """What the learner was packed with; otherwise measured on left-out examples when it is first needed.

        None where neither is possible: that takes two classes with two examples each, and nine examples in all.
        """
        require_fitted(self)
        return self._trusted.get()

    def fit(self, X: Any, y: Any) -> "FewShotClassifier":
        """Learn from examples ``X`` with the labels ``y``, and forget whatever was learnt before.

        Args:
            X: what the reader reads: a table, an array of images, files, texts, ...
            y: one label for each; of any type that can be a key.

        Raises:
            ValueError: what cannot be read, other numbers of labels, fewer than two classes; nothing changes then.
        """
        require_settings(self.reader, false_alarms=self.false_alarms)
        packed = open_packed(self.learner)
        reader, x, columns = read_examples(self, self.reader or packed.reader, X, reset=True)
        x = as_learner_reads(packed.learner, x)
        return self._adopt(packed, reader, Learnt.of(packed.learner, x, encode_labels(y)), columns)

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> "FewShotClassifier":
        """Learn from further examples, of known classes or of new ones, and keep those that are there.

        Args:
            X, y: as in ``fit``, which the first call is.
            classes: accepted because scikit-learn's own estimators take it; new classes need no announcement.
        """
        if not self.__sklearn_is_fitted__():
            return self.fit(X, y)
        x, labels = self._read(X), encode_labels(y)
        require_one_each(x, labels, "label")
        learnt = Learnt.of(self.learner_, torch.cat([self.support_.x, x]), [*self._learnt.labels, *labels])
        return self._take(learnt)

    def forget(self, label: Any) -> "FewShotClassifier":
        """Take a class and its examples away.

        Raises:
            ValueError: a label that is not there, or the last but one: a single class cannot be told from anything.
        """
        require_fitted(self)
        known = self.classes_.tolist()
        if label not in known:
            raise ValueError(f"label {label!r} is not known; required is one of {_some(known)}: nothing was forgotten")
        if len(known) == 2:
            other = next(k for k in known if k != label)
            raise ValueError(
                f"without {label!r} only {other!r} would be left; required are two classes to tell apart: add another "
                "class first, or fit anew"
            )
        labels = self._learnt.labels
        keep = [i for i, other in enumerate(labels) if other != label]
        return self._take(Learnt.of(self.learner_, self.support_.x[keep], [labels[i] for i in keep]))

    def predict(self, X: Any, *, unknown: Any = None) -> np.ndarray:
        """The most probable label of each example, (n,).

        Args:
            X: as in ``fit``.
            unknown: what to answer, instead of a class, for examples that are like none of them (see ``is_unknown``).

        Raises:
            ValueError: not fitted; columns that changed; no calibration to say what is unknown.
        """
        logits, trusted = self._asked(X)
        winners = self.classes_[logits.argmax(1).numpy()]
        if unknown is None:
            return winners
        rejected = trusted.unknown(logits, self.false_alarms)[1].tolist()
        return as_array([unknown if no else label for label, no in zip(winners.tolist(), rejected, strict=True)])

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities (n, classes) in the order of ``classes_``, at the temperature that was measured if one was."""
        logits, trusted = self._asked(X)
        return trusted.probabilities(logits).numpy()

    def predict_set(self, X: Any, coverage: float = 0.9) -> list[list[Any]]:
        """For each example the labels that cannot be ruled out: the true one is among them ``coverage`` of the time.

        A set may be empty: then no class fits as well as examples of it usually do.

        Raises:
            ValueError: nothing to calibrate on, or too little for this coverage.
        """
        logits, trusted = self._asked(X)
        inside, known = trusted.sets(logits, coverage), self.classes_.tolist()
        return [[label for label, there in zip(known, row, strict=True) if there] for row in inside.tolist()]

    def unknown_score(self, X: Any) -> np.ndarray:
        """How little each example is like any class, (n,); only the order of scores has a meaning."""
        logits, trusted = self._asked(X)
        return trusted.unknown(logits, None)[0].numpy()

    def is_unknown(self, X: Any) -> np.ndarray:
        """Whether each example, (n,) bool, is of no known class, at ``false_alarms`` wrong alarms among known ones."""
        logits, trusted = self._asked(X)
        return trusted.unknown(logits, self.false_alarms)[1].numpy()

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The fraction of examples, in [0, 1], whose predicted label is ``y``."""
        predicted, labels = self.predict(X).tolist(), encode_labels(y)
        if len(predicted) != len(labels):
            raise ValueError(f"{len(predicted)} examples and {len(labels)} labels; required is one label for each")
        right = [a == b for a, b in zip(predicted, labels, strict=True)]
        return float(np.average(right, weights=sample_weight))

    def embed(self, X: Any) -> np.ndarray:
        """Where the learner's network puts each example, (n, d): for maps and distances."""
        x = self._read(X)
        return embedding(self.learner_, x).cpu().double().numpy()

    def support_embedding(self) -> np.ndarray:
        """The same of what was learnt from, (n, d), in the order in which it was given."""
        require_fitted(self)
        return embedding(self.learner_, self.support_.x).cpu().double().numpy()

    def save(self, path: str | Path) -> None:
        """Write the fitted classifier to one file: learner, reader, examples, labels and trust. Never pickle."""
        from quickstudy.estimators.model_file import save_model  # here, because that module builds classifiers

        save_model(self, path)

    @classmethod
    def load(cls, path: str | Path, **modules: Any) -> "FewShotClassifier":
        """The classifier of a file that ``save`` wrote; ``modules`` are the user's own networks, as for ``load``."""
        from quickstudy.estimators.model_file import load_as

        return load_as(cls, path, modules)

    def _adopt(
        self, packed: Packed, reader: Reader, learnt: Learnt, columns: Columns, trusted: Trusted | None = None
    ) -> "FewShotClassifier":
        """Become fitted; the one place that writes what ``fit`` finds."""
        self._packed, self.learner_, self.reader_, self.card_ = packed, packed.learner, reader, dict(packed.card)
        remember_columns(self, columns)
        return self._take(learnt, trusted)

    def _take(self, learnt: Learnt, trusted: Trusted | None = None) -> "FewShotClassifier":
        self.classes_, self.support_, self._learnt = as_array(learnt.classes), learnt.support, learnt
        self._trusted = trusted or Trusted(self._packed, learnt.support)
        return self

    def _read(self, X: Any) -> Tensor:
        require_fitted(self)
        x = as_learner_reads(self.learner_, read_examples(self, self.reader_, X, reset=False)[1])
        require_shape(x, self.support_.x)
        return x

    def _asked(self, X: Any) -> tuple[Tensor, Trusted]:
        """Logits (n, classes), on the CPU, and what they mean."""
        x = self._read(X)
        return self._learnt.logits(self.learner_, x), self._trusted

    def __sklearn_is_fitted__(self) -> bool:
        return "support_" in vars(self)


def fitted(
    packed: Packed,
    learnt: Learnt,
    *,
    columns: Columns | None = None,
    trusted: Trusted | None = None,
    false_alarms: float = 0.05,
) -> FewShotClassifier:
    """A classifier of what was learnt already, as ``fit`` leaves it.

    Args:
        packed: the learner that learnt it, and how examples are read.
        learnt: from examples as the learner reads them.
        columns: what scikit-learn remembers of a table.
        trusted: how far answers can be trusted, if that is not to be found out from ``packed`` and ``learnt``.
        false_alarms: as of the classifier.
    """
    return FewShotClassifier(packed, false_alarms=false_alarms)._adopt(
        packed, packed.reader, learnt, columns or {}, trusted
    )


def _some(labels: list[Any], most: int = 8) -> str:
    return ", ".join(repr(label) for label in labels[:most]) + (", ..." if len(labels) > most else "")
