"""From what ``fit`` and ``predict`` are given to what a learner reads."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d, validate_data
from torch import Tensor

from quickstudy.learner import Learner
from quickstudy.readers import Reader, is_dataframe

CHUNK = 256  # examples that go through a network at once


def read_examples(estimator: BaseEstimator, reader: Reader, x: Any, *, reset: bool) -> tuple[Reader, Tensor]:
    """The reader, which with ``reset`` has learnt the columns of ``x``, and the examples (n, *input) as it reads them.

    Plain arrays of tables are checked as every scikit-learn estimator checks them.

    Raises:
        ValueError, TypeError: what cannot be read; columns that changed since ``fit``.
    """
    if reader.kind in ("tables", "arrays"):
        x = _checked(estimator, reader, x, reset=reset)
    reader = reader.fit(x) if reset else reader
    return reader, reader.read(x)


def _checked(estimator: BaseEstimator, reader: Reader, x: Any, *, reset: bool) -> Any:
    validate = cast(Any, validate_data)  # whose annotations name its defaults alone
    if is_dataframe(x):
        validate(estimator, x, reset=reset, skip_check_array=True)
        return x
    if isinstance(x, Sequence) and len(x) and isinstance(x[0], dict):
        return x
    if reader.kind == "tables" and _holds_text(x):
        return x
    if reader.kind == "arrays":
        return validate(estimator, x, reset=reset, allow_nd=True, dtype="numeric")
    return validate(estimator, x, reset=reset, dtype=[np.float64, np.float32])


def _holds_text(x: Any) -> bool:
    """Whether rows hold categories: then they are no matrix of numbers."""
    if isinstance(x, np.ndarray):
        return x.ndim == 2 and (x.dtype.kind in "US" or (x.dtype == object and any(isinstance(v, str) for v in x.flat)))
    rows = x if isinstance(x, Sequence) and not isinstance(x, str | bytes) else ()
    return any(isinstance(value, str) for row in rows if isinstance(row, list | tuple) for value in row)


def encode_labels(y: Any) -> list[Any]:
    """The labels as a list of plain values, one for each example.

    Raises:
        ValueError: missing labels, numbers that are measurements, several columns.
    """
    if y is None:
        raise ValueError("requires y to be passed, but the target y is None: give one label for each example")
    if isinstance(y, list | tuple) and any(isinstance(label, tuple) for label in y):
        labels = list(y)
    else:
        values = column_or_1d(y, warn=True)
        if values.dtype.kind in "fc" and np.isfinite(values).all():
            check_classification_targets(values)
        labels = values.tolist()
    for i, label in enumerate(labels):
        if label is None or label != label:
            raise ValueError(
                f"y[{i}] is {label}; required is a label for each example: name its class, or leave it out"
            )
        try:
            hash(label)
        except TypeError as error:
            raise ValueError(
                f"y[{i}] is {label!r}; required is a label that can be a key: text, number, tuple"
            ) from error
    return labels


def in_order(labels: Sequence[Any]) -> list[Any]:
    """The distinct labels, sorted; by their type and text where they do not sort."""
    distinct = list(dict.fromkeys(labels))
    try:
        return sorted(distinct)
    except TypeError:
        return sorted(distinct, key=lambda label: (type(label).__name__, repr(label)))


def as_array(labels: Sequence[Any]) -> np.ndarray:
    """Labels as a vector: of numbers or texts where all are of that kind, otherwise of objects."""
    kinds = {type(label) for label in labels}
    if len(kinds) == 1 and kinds <= {int, float, bool, str}:
        return np.array(labels)
    array = np.empty(len(labels), dtype=object)
    array[:] = labels
    return array


def precision_of(learner: Learner, x: Tensor) -> torch.dtype:
    """The learner's precision; that of floating point examples for one without parameters."""
    kinds = (tensor.dtype for tensor in (*learner.parameters(), *learner.buffers()) if tensor.is_floating_point())
    return next(kinds, x.dtype if x.is_floating_point() else torch.get_default_dtype())


def as_learner_reads(learner: Learner, x: Tensor) -> Tensor:
    """Floating point examples in the learner's precision; tokens stay as they are."""
    return x.to(precision_of(learner, x)) if x.is_floating_point() else x


def require_fitted(estimator: Any) -> None:
    """Refuse an estimator that was not fitted.

    Raises:
        NotFittedError: scikit-learn's own, a ValueError.
    """
    from sklearn.utils.validation import check_is_fitted

    check_is_fitted(cast(BaseEstimator, estimator), "support_")
