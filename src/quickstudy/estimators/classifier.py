"""FewShotClassifier: any learner behind ``fit`` and ``predict``; it says "I don't know" and takes a new class later."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from torch import Tensor

from quickstudy.episode import Labelled, one_hot
from quickstudy.estimators.examples import (
    CHUNK,
    as_array,
    as_learner_reads,
    encode_labels,
    in_order,
    precision_of,
    read_examples,
    require_fitted,
)
from quickstudy.evaluation import evaluating
from quickstudy.learner import Learner
from quickstudy.packing import open_packed
from quickstudy.readers import Reader
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


class FewShotClassifier(ClassifierMixin, BaseEstimator):
    """Learn classes from a handful of labelled examples.

    Args:
        learner: a Learner, the path of a learner file or run folder, or a name: "tables" (numbers and categories),
            "texts", "sounds", "characters" (small drawings), "characters_background".
        reader: how examples are read; by default the learner's own.
        false_alarms: the fraction of examples of known classes that ``is_unknown`` may call unknown.

    Attributes:
        classes_: the labels, sorted; columns of ``predict_proba`` follow them.
        n_features_in_, feature_names_in_: of tables.
        support_: what was learnt from, as the learner reads it: x (n, *input), y (n, classes) one-hot.
        learner_, reader_, trust_: what ``learner`` was resolved to. ``trust_`` was measured on other tasks when the
            learner was packed, or else on held-out examples of the support set; None where neither is possible.

    Scores are logits of the learner after its temperature; nothing is random.
    """

    def __init__(self, learner: Learner | str | Path = "tables", *, reader: Reader | None = None, false_alarms=0.05):
        self.learner = learner
        self.reader = reader
        self.false_alarms = false_alarms

    def fit(self, X: Any, y: Any) -> "FewShotClassifier":
        """Learn from examples ``X`` with the labels ``y``, and forget whatever was learnt before.

        Args:
            X: what the reader reads: a table, an array of images, files, texts, ...
            y: one label for each; of any type that can be a key.

        Raises:
            ValueError: what cannot be read, other numbers of labels, fewer than two classes.
        """
        packed = open_packed(self.learner)
        self.learner_, self.trust_ = packed.learner, packed.trust
        self.card_ = dict(packed.card)
        self.reader_, x = read_examples(self, self.reader or packed.reader, X, reset=True)
        self._measures_trust = packed.trust is None
        labels = encode_labels(y)
        self._learn(as_learner_reads(self.learner_, x), labels)
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> "FewShotClassifier":
        """Learn from further examples, of known classes or of new ones, and keep those that are there.

        Args:
            X, y: as in ``fit``, which the first call is.
            classes: accepted because scikit-learn's own estimators take it; new classes need no announcement.
        """
        if not self._is_fitted():
            return self.fit(X, y)
        _, x = read_examples(self, self.reader_, X, reset=False)
        x = as_learner_reads(self.learner_, x)
        self._require_shape(x)
        labels = encode_labels(y)
        self._learn(torch.cat([self.support_.x, x]), [*self._labels(), *labels], new=len(x))
        return self

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
        labels = self._labels()
        keep = [i for i, other in enumerate(labels) if other != label]
        self._learn(self.support_.x[keep], [labels[i] for i in keep])
        return self

    def predict(self, X: Any, *, unknown: Any = None) -> np.ndarray:
        """The most probable label of each example, (n,).

        Args:
            X: as in ``fit``.
            unknown: what to answer, instead of a class, for examples that are like none of them (see ``is_unknown``).

        Raises:
            ValueError: not fitted; columns that changed; no calibration to say what is unknown.
        """
        logits = self._logits(X)
        winners = self.classes_[logits.argmax(1).numpy()]
        if unknown is None:
            return winners
        calibration = self._calibration("tell unknown classes")
        assert self.trust_ is not None
        rejected = is_unknown(logits, calibration, self.trust_.score, self.false_alarms)
        labels = winners.tolist()
        return as_array([unknown if no else label for label, no in zip(labels, rejected.tolist(), strict=True)])

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities (n, classes) in the order of ``classes_``, at the temperature that was measured if one was."""
        logits = self._logits(X)
        calibration = None if self.trust_ is None else self.trust_.at(*self._shape())
        return probabilities(logits, calibration).numpy()

    def predict_set(self, X: Any, coverage: float = 0.9) -> list[list[Any]]:
        """For each example the labels that cannot be ruled out: the true one is among them ``coverage`` of the time.

        A set may be empty: then no class fits as well as examples of it usually do.

        Raises:
            ValueError: nothing to calibrate on, or too little for this coverage.
        """
        logits = self._logits(X)
        calibration = self._calibration("form sets")
        assert self.trust_ is not None
        inside = prediction_sets(logits, calibration, self.trust_.conformity, coverage)
        known = self.classes_.tolist()
        return [[label for label, there in zip(known, row, strict=True) if there] for row in inside.tolist()]

    def unknown_score(self, X: Any) -> np.ndarray:
        """How little each example is like any class, (n,); only the order of scores has a meaning."""
        logits = self._logits(X)
        calibration = self._calibration("score unknown classes")
        assert self.trust_ is not None
        return unknown_scores(logits, calibration)[self.trust_.score].double().numpy()

    def is_unknown(self, X: Any) -> np.ndarray:
        """Whether each example, (n,) bool, is of no known class, at ``false_alarms`` wrong alarms among known ones."""
        logits = self._logits(X)
        calibration = self._calibration("tell unknown classes")
        assert self.trust_ is not None
        return is_unknown(logits, calibration, self.trust_.score, self.false_alarms).numpy()

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The fraction of examples, in [0, 1], whose predicted label is ``y``."""
        predicted, labels = self.predict(X).tolist(), encode_labels(y)
        if len(predicted) != len(labels):
            raise ValueError(f"{len(predicted)} examples and {len(labels)} labels; required is one label for each")
        right = [a == b for a, b in zip(predicted, labels, strict=True)]
        return float(np.average(right, weights=sample_weight))

    def embed(self, X: Any) -> np.ndarray:
        """Where the learner's network puts each example, (n, d): for maps and distances."""
        require_fitted(self)
        _, x = read_examples(self, self.reader_, X, reset=False)
        return self._embedding(as_learner_reads(self.learner_, x))

    def support_embedding(self) -> np.ndarray:
        """The same of what was learnt from, (n, d), in the order in which it was given."""
        require_fitted(self)
        return self._embedding(self.support_.x)

    def save(self, path: str | Path) -> None:
        """Write the fitted classifier to one file: learner, reader, examples, labels and trust. Never pickle."""
        from quickstudy.estimators.model_file import save_model  # here, because that module builds classifiers

        save_model(self, path)

    @classmethod
    def load(cls, path: str | Path, **modules: Any) -> "FewShotClassifier":
        """The classifier of a file that ``save`` wrote; ``modules`` are the user's own networks, as for ``load``."""
        from quickstudy.estimators.model_file import load_model

        model = load_model(path, **modules)
        if not isinstance(model, cls):
            raise ValueError(
                f"{path} holds a {type(model).__name__}; required is a {cls.__name__}: use quickstudy.load_model"
            )
        return model

    def _learn(self, x: Tensor, labels: list[Any], *, new: int | None = None) -> None:
        """Replace the support set; nothing changes if it is refused."""
        if len(x) != len(labels):
            there = len(labels) - len(x)
            given = len(x) if new is None else new
            raise ValueError(f"{given} examples and {given + there} labels were given; required is one label for each")
        classes = in_order(labels)
        if len(classes) < 2:
            raise ValueError(
                f"the examples are all of one class, {classes[0]!r}; required are at least two classes to tell apart: "
                "add examples of another class"
            )
        index = {label: i for i, label in enumerate(classes)}
        y = one_hot(torch.tensor([index[label] for label in labels]), len(classes)).to(precision_of(self.learner_, x))
        support = Labelled(x, y)
        with evaluating(self.learner_):
            adapted = None if self.learner_.transductive else self.learner_.adapt(support)
        if self._measures_trust:
            self.trust_ = _measured(self.learner_, support)
        self.classes_, self.support_, self._adapted = as_array(classes), support, adapted

    def _restore(self, support: Labelled, classes: list[Any]) -> None:
        """Take a support set from a file, whose trust was read already."""
        with evaluating(self.learner_):
            self._adapted = None if self.learner_.transductive else self.learner_.adapt(support)
        self.classes_, self.support_ = as_array(classes), support

    def _logits(self, X: Any) -> Tensor:
        """(n, classes), on the CPU."""
        require_fitted(self)
        _, x = read_examples(self, self.reader_, X, reset=False)
        x = as_learner_reads(self.learner_, x)
        self._require_shape(x)
        return self._answer(x)

    def _require_shape(self, x: Tensor) -> None:
        given, known = tuple(x.shape[1:]), tuple(self.support_.x.shape[1:])
        if given != known:
            raise ValueError(f"examples of shape {given} were given; required is {known}, that of the first examples")

    def _answer(self, x: Tensor) -> Tensor:
        with evaluating(self.learner_):
            if self.learner_.transductive:
                return self.learner_.answer(self.support_, x).cpu()
            return torch.cat([self.learner_.predict(self._adapted, part).cpu() for part in x.split(CHUNK)])

    def _embedding(self, x: Tensor) -> np.ndarray:
        with evaluating(self.learner_):
            return torch.cat([_features(self.learner_, part).cpu() for part in x.split(CHUNK)]).double().numpy()

    def _labels(self) -> list[Any]:
        return [self.classes_.tolist()[i] for i in self.support_.y.argmax(1).tolist()]

    def _shape(self) -> tuple[int, float]:
        """Way, and the mean number of examples per class."""
        return len(self.classes_), len(self.support_.y) / len(self.classes_)

    def _calibration(self, purpose: str) -> Calibration:
        if self.trust_ is None:
            raise ValueError(
                f"there is nothing to calibrate on to {purpose}: required is a learner that was packed with a "
                f"calibration, or {examples_needed(0.9)} examples with at least two of each class: add examples"
            )
        return self.trust_.at(*self._shape())

    def _is_fitted(self) -> bool:
        return "support_" in vars(self)

    def __sklearn_is_fitted__(self) -> bool:
        return self._is_fitted()


def _measured(learner: Learner, support: Labelled) -> Trust | None:
    """Trust from examples, and from classes, that are left out in turn; None where there are too few."""
    counts = support.y.sum(0)  # (way,)
    if int(counts.min()) < 2 or len(support.y) < examples_needed(0.9):
        return None
    shot = max(1, round(float(counts.mean())))
    with evaluating(learner):
        held_out = left_out(learner, support, folds=_FOLDS)
    return calibrate_on_support(*held_out, way=len(counts), shot=shot)


def _features(learner: Learner, x: Tensor) -> Tensor:
    """The learner's embedding (n, d): its own, its network's, or the examples themselves."""
    for name in ("embed", "backbone", "network"):
        part = getattr(learner, name, None)
        if callable(part):
            try:
                return cast(Tensor, part(x)).flatten(1)
            except (RuntimeError, TypeError, ValueError):
                continue  # a network that reads more than examples, as CAVIA's
    return x.flatten(1)


def _some(labels: list[Any], most: int = 8) -> str:
    return ", ".join(repr(label) for label in labels[:most]) + (", ..." if len(labels) > most else "")
