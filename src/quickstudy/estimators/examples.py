"""From what ``fit`` and ``predict`` are given to what a learner reads."""

import copy
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, cast

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d, validate_data
from torch import Tensor

from quickstudy.learner import Learner, device_of
from quickstudy.readers import Reader, TableReader, is_dataframe
from quickstudy.readers.arrays import refuse_pictures
from quickstudy.readers.columns import is_missing

Columns = dict[str, Any]

CHUNK = 256  # examples that go through a network at once
_COLUMNS = ("n_features_in_", "feature_names_in_")


def read_examples(estimator: BaseEstimator, reader: Reader, x: Any, *, reset: bool) -> tuple[Reader, Tensor, Columns]:
    """The reader, which with ``reset`` has learnt the columns of ``x``, and the examples (n, *input) as it reads them.

    Arrays and DataFrames are checked as every scikit-learn estimator checks them. The estimator stays as it is: what
    scikit-learn wants to remember of columns is the third result, for ``remember_columns``.

    Raises:
        ValueError, TypeError: what cannot be read; columns that changed since ``fit``.
    """
    columns: Columns = {}
    if reader.kind in ("tables", "arrays"):
        x, columns = _checked(estimator, reader, x, reset=reset)
    reader = reader.fit(x) if reset else reader
    examples = reader.read(x)
    if isinstance(reader, TableReader) and reader.columns is not None:
        columns.setdefault("n_features_in_", len(reader.columns))
    return reader, examples, columns


def remember_columns(estimator: Any, columns: Columns) -> None:
    """Keep what ``read_examples`` found of the columns, and nothing of an earlier fit."""
    for name in _COLUMNS:
        if name in columns:
            setattr(estimator, name, columns[name])
        elif name in vars(estimator):
            delattr(estimator, name)


def _checked(estimator: BaseEstimator, reader: Reader, x: Any, *, reset: bool) -> tuple[Any, Columns]:
    twin: Any = copy.copy(estimator)  # scikit-learn's function writes what it finds to the estimator
    if reset:
        remember_columns(twin, {})
    found = _validated(twin, reader, x, reset=reset)
    return found, {name: vars(twin)[name] for name in _COLUMNS if reset and name in vars(twin)}


def _validated(estimator: Any, reader: Reader, x: Any, *, reset: bool) -> Any:
    validate = cast(Any, validate_data)  # whose annotations name its defaults alone
    if is_dataframe(x):
        validate(estimator, x, reset=reset, skip_check_array=True)
        return x
    if reader.kind == "arrays":
        refuse_pictures(x)
        return validate(estimator, x, reset=reset, allow_nd=True, dtype="numeric")
    if _are_rows(x) or (isinstance(x, np.ndarray) and _holds_text(x)):
        return x
    return validate(estimator, x, reset=reset, dtype=[np.float64, np.float32])


def _are_rows(x: Any) -> bool:
    """Whether this is a list of rows or of dicts, which the reader takes as it is."""
    return isinstance(x, Sequence) and len(x) > 0 and all(isinstance(row, list | tuple | Mapping) for row in x)


def _holds_text(x: np.ndarray) -> bool:
    """Whether an array holds categories: then it is no matrix of numbers."""
    return x.ndim == 2 and (x.dtype.kind in "US" or (x.dtype == object and any(isinstance(v, str) for v in x.flat)))


def encode_labels(y: Any) -> list[Any]:
    """The labels as a list of plain values, one for each example.

    Raises:
        ValueError: missing labels, numbers that are measurements, several columns.
    """
    if y is None:
        raise ValueError("requires y to be passed, but the target y is None: give one label for each example")
    labels = [label.item() if isinstance(label, np.generic) else label for label in _as_list(y)]
    for i, label in enumerate(labels):
        if is_missing(label):
            raise ValueError(
                f"y[{i}] is {label}; required is a label for each example: name its class, or leave it out"
            )
        try:
            hash(label)
        except TypeError as error:
            raise ValueError(
                f"y[{i}] is {label!r}; required is a label that can be a key: text, number, tuple"
            ) from error
    if labels and all(isinstance(label, float) for label in labels):
        check_classification_targets(np.array(labels))
    return labels


def _as_list(y: Any) -> list[Any]:
    if isinstance(y, list | tuple):
        return list(y)
    values = column_or_1d(y, warn=True)
    return values.astype("datetime64[us]" if values.dtype.kind == "M" else values.dtype).astype(object).tolist()


def require_one_each(x: Tensor, labels: Sequence[Any] | Tensor, noun: str) -> None:
    """Refuse other numbers of labels (or targets) than of examples.

    Raises:
        ValueError: they differ.
    """
    if len(x) != len(labels):
        raise ValueError(f"{len(x)} examples and {len(labels)} {noun}s were given; required is one {noun} for each")


def require_shape(x: Tensor, known: Tensor) -> None:
    """Refuse examples of another shape than those that were learnt from.

    Raises:
        ValueError: they differ.
    """
    given, wanted = tuple(x.shape[1:]), tuple(known.shape[1:])
    if given != wanted:
        raise ValueError(f"examples of shape {given} were given; required is {wanted}, that of the first examples")


def require_settings(reader: Any, *, false_alarms: Any = 0.05) -> None:
    """Refuse arguments of an estimator that would fail later.

    Raises:
        ValueError: a reader that is none, a rate that is none.
    """
    if reader is not None and not isinstance(reader, Reader):
        raise ValueError(f"reader={reader!r}; required is a reader, such as ImageReader(size=28), or None")
    if not isinstance(false_alarms, Real) or not 0 < float(false_alarms) < 1:
        raise ValueError(f"false_alarms={false_alarms!r}; required is a number between 0 and 1, such as 0.05")


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
        array = np.array(labels)
        if array.tolist() == list(labels):  # not where integers are too large
            return array
    array = np.empty(len(labels), dtype=object)
    array[:] = labels
    return array


def precision_of(learner: Learner, x: Tensor) -> torch.dtype:
    """The learner's precision; that of floating point examples for one without parameters."""
    kinds = (tensor.dtype for tensor in (*learner.parameters(), *learner.buffers()) if tensor.is_floating_point())
    return next(kinds, x.dtype if x.is_floating_point() else torch.get_default_dtype())


def as_learner_reads(learner: Learner, x: Tensor) -> Tensor:
    """Examples on the learner's device; floating point ones in its precision, tokens as they are."""
    x = x.to(device_of(learner))
    return x.to(precision_of(learner, x)) if x.is_floating_point() else x


def require_fitted(estimator: Any) -> None:
    """Refuse an estimator that was not fitted.

    Raises:
        NotFittedError: scikit-learn's own, a ValueError.
    """
    from sklearn.utils.validation import check_is_fitted

    check_is_fitted(cast(BaseEstimator, estimator), "support_")
