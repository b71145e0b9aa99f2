"""FewShotRegressor: any learner that predicts numbers behind ``fit`` and ``predict``."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_array
from torch import Tensor

from quickstudy.episode import Labelled
from quickstudy.estimators.examples import (
    CHUNK,
    Columns,
    as_learner_reads,
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


class FewShotRegressor(RegressorMixin, BaseEstimator):
    """Learn to predict numbers from a handful of examples.

    Args:
        learner: a Learner that predicts numbers (a copy of it is used), a Packed one, the path of a learner file or run
            folder, or "tables", "texts" or "sounds".
        reader: how examples are read; by default the learner's own.

    Attributes:
        n_features_in_, feature_names_in_: of tables.
        support_: what was learnt from, as the learner reads it: x (n, *input), y (n, outputs).
        learner_, reader_: what ``learner`` was resolved to.
    """

    def __init__(self, learner: Learner | Packed | str | Path = "tables", *, reader: Reader | None = None):
        self.learner = learner
        self.reader = reader

    def fit(self, X: Any, y: Any) -> "FewShotRegressor":
        """Learn from examples ``X`` with the targets ``y`` (n,) or (n, outputs), and forget what was learnt before.

        Raises:
            ValueError: what cannot be read, other numbers of targets, a learner that tells classes apart.
        """
        require_settings(self.reader)
        packed = open_packed(self.learner, regression=True)
        reader, x, columns = read_examples(self, self.reader or packed.reader, X, reset=True)
        targets, flat = _targets(y)
        learnt = learnt_numbers(packed.learner, as_learner_reads(packed.learner, x), targets)
        return self._adopt(packed, reader, learnt, columns, flat)

    def partial_fit(self, X: Any, y: Any) -> "FewShotRegressor":
        """Learn from further examples and keep those that are there; the first call is ``fit``."""
        if not self.__sklearn_is_fitted__():
            return self.fit(X, y)
        x, (targets, _) = self._read(X), _targets(y)
        if targets.shape[1] != self.support_.y.shape[1]:
            raise ValueError(
                f"targets of {targets.shape[1]} columns were given, and the first had {self.support_.y.shape[1]}: give "
                "the same columns"
            )
        require_one_each(x, targets, "target")
        known = self.support_.y.cpu().to(targets)
        self.support_, self._adapted = learnt_numbers(
            self.learner_, torch.cat([self.support_.x, x]), torch.cat([known, targets])
        )
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The predicted numbers, (n,) or (n, outputs) as ``y`` was.

        Raises:
            ValueError: not fitted; columns that changed.
        """
        x = self._read(X)
        with evaluating(self.learner_):
            parts = [self.learner_.predict(self._adapted, part).cpu() for part in x.split(CHUNK)]
        numbers = torch.cat(parts).double().numpy()
        return numbers[:, 0] if self._flat else numbers

    def save(self, path: str | Path) -> None:
        """Write the fitted regressor to one file: learner, reader, examples and targets. Never pickle."""
        from quickstudy.estimators.model_file import save_model  # here, because that module builds regressors

        save_model(self, path)

    @classmethod
    def load(cls, path: str | Path, **modules: Any) -> "FewShotRegressor":
        """The regressor of a file that ``save`` wrote; ``modules`` are the user's own networks, as for ``load``."""
        from quickstudy.estimators.model_file import load_as

        return load_as(cls, path, modules)

    def _adopt(
        self, packed: Packed, reader: Reader, learnt: tuple[Labelled, Any], columns: Columns, flat: bool
    ) -> "FewShotRegressor":
        """Become fitted; the one place that writes what ``fit`` finds."""
        self.learner_, self.reader_, self.card_ = packed.learner, reader, dict(packed.card)
        remember_columns(self, columns)
        self._flat, (self.support_, self._adapted) = flat, learnt
        return self

    def _read(self, X: Any) -> Tensor:
        require_fitted(self)
        x = as_learner_reads(self.learner_, read_examples(self, self.reader_, X, reset=False)[1])
        require_shape(x, self.support_.x)
        return x

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return "support_" in vars(self)


def fitted_numbers(packed: Packed, support: Labelled, *, columns: Columns, flat: bool) -> FewShotRegressor:
    """A regressor of examples as the learner reads them, as ``fit`` leaves it; ``flat``: targets were (n,)."""
    learnt = learnt_numbers(packed.learner, support.x, support.y)
    return FewShotRegressor(packed)._adopt(packed, packed.reader, learnt, columns, flat)


def learnt_numbers(learner: Learner, x: Tensor, targets: Tensor) -> tuple[Labelled, Any]:
    """The support set, and what the learner adapted to it."""
    require_one_each(x, targets, "target")
    support = Labelled(x, targets.to(x.device, precision_of(learner, x)))
    if not learner.predicts_numbers(support.y):
        raise ValueError(
            f"{type(learner).__name__} would take {targets.shape[1]} columns of targets for classes; required is one "
            "column, or a learner built with regression=True"
        )
    with evaluating(learner):
        return support, learner.adapt(support)


def _targets(y: Any) -> tuple[Tensor, bool]:
    """(n, outputs) in float64, and whether there is one column without a name of its own."""
    if y is None:
        raise ValueError("requires y to be passed, but the target y is None: give one target for each example")
    values = cast(Any, check_array)(y, ensure_2d=False, dtype=np.float64, input_name="y")
    return torch.from_numpy(values.reshape(len(values), -1).copy()), values.ndim == 1
