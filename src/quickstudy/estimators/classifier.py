"""FewShotClassifier: any learner behind ``fit`` and ``predict``; it says "I don't know" and takes a new class later."""

from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple, cast

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
    remember_columns,
    require_fitted,
    require_one_each,
    require_settings,
    require_shape,
)
from quickstudy.evaluation import evaluating
from quickstudy.learner import Learner
from quickstudy.packing import Packed, open_packed
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
        return self._trust.get()

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
        learnt = Learnt.of(packed, x, encode_labels(y))
        self._packed, self.learner_, self.reader_, self.card_ = packed, packed.learner, reader, dict(packed.card)
        remember_columns(self, columns)
        self._take(learnt)
        return self

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
        self._take(Learnt.of(self._packed, torch.cat([self.support_.x, x]), [*self._labels(), *labels]))
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
        self._take(Learnt.of(self._packed, self.support_.x[keep], [labels[i] for i in keep]))
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
        rejected = self._unknown(logits, self.false_alarms)[1].tolist()
        return as_array([unknown if no else label for label, no in zip(winners.tolist(), rejected, strict=True)])

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities (n, classes) in the order of ``classes_``, at the temperature that was measured if one was."""
        return self._probabilities(self._logits(X)).numpy()

    def predict_set(self, X: Any, coverage: float = 0.9) -> list[list[Any]]:
        """For each example the labels that cannot be ruled out: the true one is among them ``coverage`` of the time.

        A set may be empty: then no class fits as well as examples of it usually do.

        Raises:
            ValueError: nothing to calibrate on, or too little for this coverage.
        """
        inside, known = self._sets(self._logits(X), coverage), self.classes_.tolist()
        return [[label for label, there in zip(known, row, strict=True) if there] for row in inside.tolist()]

    def unknown_score(self, X: Any) -> np.ndarray:
        """How little each example is like any class, (n,); only the order of scores has a meaning."""
        return self._unknown(self._logits(X), None)[0].numpy()

    def is_unknown(self, X: Any) -> np.ndarray:
        """Whether each example, (n,) bool, is of no known class, at ``false_alarms`` wrong alarms among known ones."""
        return self._unknown(self._logits(X), self.false_alarms)[1].numpy()

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The fraction of examples, in [0, 1], whose predicted label is ``y``."""
        predicted, labels = self.predict(X).tolist(), encode_labels(y)
        if len(predicted) != len(labels):
            raise ValueError(f"{len(predicted)} examples and {len(labels)} labels; required is one label for each")
        right = [a == b for a, b in zip(predicted, labels, strict=True)]
        return float(np.average(right, weights=sample_weight))

    def embed(self, X: Any) -> np.ndarray:
        """Where the learner's network puts each example, (n, d): for maps and distances."""
        return self._embedding(self._read(X))

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

    def _take(self, learnt: "Learnt") -> None:
        self.classes_, self.support_, self._adapted = as_array(learnt.classes), learnt.support, learnt.adapted
        self._trust = _Trusted(self._packed, learnt.support)

    def _read(self, X: Any) -> Tensor:
        require_fitted(self)
        x = as_learner_reads(self.learner_, read_examples(self, self.reader_, X, reset=False)[1])
        require_shape(x, self.support_.x)
        return x

    def _logits(self, X: Any) -> Tensor:
        """(n, classes), on the CPU."""
        x = self._read(X)
        with evaluating(self.learner_):
            if self.learner_.transductive:
                return self.learner_.answer(self.support_, x).cpu()
            return torch.cat([self.learner_.predict(self._adapted, part).cpu() for part in x.split(CHUNK)])

    def _probabilities(self, logits: Tensor) -> Tensor:
        """(n, classes) in double precision."""
        trust = self.trust_
        return probabilities(logits, None if trust is None else trust.at(*self._shape()))

    def _unknown(self, logits: Tensor, false_alarms: float | None) -> tuple[Tensor, Tensor]:
        """Scores (n,) for unknown classes, and whether each example is of one; of none if no rate is given."""
        trust, calibration = self._calibrated("tell unknown classes")
        if self._packed.trust is None and calibration.way == 2:
            raise ValueError(
                "how an unknown class looks is learnt from leaving classes out, and there are two; required is a third "
                "class with two examples, or a learner that was packed with a calibration: add one"
            )
        scores = unknown_scores(logits, calibration)[trust.score].double()
        if false_alarms is None:
            return scores, torch.zeros(len(scores), dtype=torch.bool)
        return scores, is_unknown(logits, calibration, trust.score, false_alarms)

    def _sets(self, logits: Tensor, coverage: float) -> Tensor:
        """Which classes are in each set, (n, classes) bool."""
        if not isinstance(coverage, Real):
            raise ValueError(f"coverage={coverage!r}; required is a number between 0 and 1, such as 0.9")
        trust, calibration = self._calibrated("form sets")
        return prediction_sets(logits, calibration, trust.conformity, float(coverage))

    def _embedding(self, x: Tensor) -> np.ndarray:
        with evaluating(self.learner_):
            return torch.cat([_features(self.learner_, part).cpu() for part in x.split(CHUNK)]).double().numpy()

    def _labels(self) -> list[Any]:
        known = self.classes_.tolist()
        return [known[i] for i in self.support_.y.argmax(1).tolist()]

    def _shape(self) -> tuple[int, float]:
        """Way, and the mean number of examples per class."""
        return len(self.classes_), len(self.support_.y) / len(self.classes_)

    def _calibrated(self, purpose: str) -> tuple[Trust, Calibration]:
        trust = self.trust_
        if trust is None:
            raise ValueError(
                f"there is nothing to calibrate on to {purpose}: required is a learner that was packed with a "
                f"calibration, or {examples_needed(0.9)} examples with two of each of two classes: add examples"
            )
        return trust, trust.at(*self._shape())

    def __sklearn_is_fitted__(self) -> bool:
        return "support_" in vars(self)


class Learnt(NamedTuple):
    """Attributes: classes in order, the support set, and what the learner adapted to it (None if transductive)."""

    classes: list[Any]
    support: Labelled
    adapted: Any

    @staticmethod
    def of(packed: Packed, x: Tensor, labels: list[Any]) -> "Learnt":
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
        support = Labelled(x, y.to(precision_of(packed.learner, x)))
        with evaluating(packed.learner):
            return Learnt(classes, support, None if packed.learner.transductive else packed.learner.adapt(support))


class _Trusted:
    """The trust of a packed learner; otherwise measured on a support set when it is first asked for."""

    def __init__(self, packed: Packed, support: Labelled):
        self._learner, self._support = packed.learner, support
        self._known, self._trust = packed.trust is not None, packed.trust

    def get(self) -> Trust | None:
        if not self._known:
            self._trust, self._known = _measured(self._learner, self._support), True
        return self._trust


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
