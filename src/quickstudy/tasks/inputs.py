"""Anyone's examples, labels and ranges, made uniform."""

import operator
from typing import Any

import numpy as np
import torch
from torch import Tensor

_WIDER = {  # what torch can hold but hardly compute with: a type that holds the same numbers
    "uint16": "float32",
    "uint32": "float64",
    "uint64": "float64",
}


def as_examples(x: Any) -> Tensor | np.ndarray:
    """Examples (n, *input) as a tensor or an array, without a copy where none is needed.

    Raises:
        ValueError: examples of different shapes, or that are no numbers.
    """
    if isinstance(x, (list, tuple)) and x and all(isinstance(example, Tensor) for example in x):
        x = _stacked(x)
    try:
        values = x.detach() if isinstance(x, Tensor) else np.asarray(x)
    except ValueError as error:
        raise ValueError(
            f"the examples do not form one array ({error}); required is the same shape for all: resize, crop or pad "
            "them"
        ) from error
    if values.ndim == 0:
        raise ValueError("x is a single value; required are examples along the first axis: (n, *input)")
    if isinstance(values, Tensor):
        if values.is_complex():
            raise _no_numbers(values.dtype)
        wider = _WIDER.get(str(values.dtype).removeprefix("torch."))
        return values if wider is None else values.to(getattr(torch, wider))
    if values.dtype.kind == "O":
        try:
            return values.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise _no_numbers(values.dtype) from error
    if values.dtype.kind not in "buif":
        raise _no_numbers(values.dtype)
    return values


def take(values: Tensor | np.ndarray, rows: np.ndarray) -> Tensor:
    """The examples at these rows as a new tensor, whatever the byte order and strides of an array."""
    if isinstance(values, Tensor):
        return values[torch.from_numpy(rows).to(values.device)]
    found = values[rows]  # a new array: writable, of positive strides
    name = found.dtype.newbyteorder("=").name
    kind = _WIDER.get(name, name) if found.dtype.itemsize <= 8 else "float64"
    return torch.from_numpy(np.ascontiguousarray(found, dtype=kind))


def encode(values: Any, noun: str) -> tuple[list[Any], np.ndarray]:
    """The distinct values, sorted, and for each example the index (n,) of its own.

    Args:
        values: one hashable value for each example, in a list or anything that numpy takes; (n, 1) is flattened.
        noun: what an error calls them: "labels", "groups".

    Raises:
        ValueError: several values for an example, None or NaN, values that cannot be sorted together.
    """
    items = _items(values, noun)
    numbers: dict[Any, int] = {}
    try:
        found = np.array([numbers.setdefault(item, len(numbers)) for item in items], dtype=np.int64)
    except TypeError as error:
        raise _several(noun, f"hold values that are no names ({error})") from error
    missing = np.isin(found, [i for value, i in numbers.items() if _is_missing(value)])
    if missing.any():
        raise ValueError(
            f"{int(missing.sum())} of {len(items)} {noun} are missing (None or NaN), the first is that of example "
            f"{int(missing.argmax())}; required is one for each: fill them in, or leave these examples out"
        )
    try:
        ordered = sorted(numbers)
    except TypeError as error:
        kinds = ", ".join(sorted({type(value).__name__ for value in numbers}))
        raise ValueError(
            f"{noun} of types that do not sort together ({kinds}); required is one type, or 1 and '1' would be two "
            f"classes unseen: convert them, for example [str(value) for value in {noun}]"
        ) from error
    rank = np.empty(len(numbers), dtype=np.int64)
    rank[[numbers[value] for value in ordered]] = np.arange(len(numbers))
    return [_plain(value) for value in ordered], rank[found]


def group_of_each(classes: list[Any], label: np.ndarray, groups: list[Any], group: np.ndarray) -> list[Any]:
    """The group of each class, from the class and the group of each example.

    Raises:
        ValueError: a class in two groups.
    """
    lowest = np.full(len(classes), len(groups))
    highest = np.full(len(classes), -1)
    np.minimum.at(lowest, label, group)
    np.maximum.at(highest, label, group)
    torn = np.flatnonzero(lowest != highest)
    if len(torn):
        i = torn[0]
        raise ValueError(
            f"class {classes[i]!r} is in the groups {groups[lowest[i]]!r} and {groups[highest[i]]!r}; a class must lie "
            "in one group, or splits by group would share it: rename it for each group"
        )
    return [groups[i] for i in lowest]


def as_list(values: Any) -> list[Any]:
    """Names as Python values, also from an array or a tensor."""
    if isinstance(values, (np.ndarray, Tensor)):
        return values.tolist()
    return list(values)


def as_whole(name: str, value: Any) -> int:
    """A whole number, also numpy's, as an int."""
    try:
        return operator.index(value)
    except TypeError as error:
        raise ValueError(f"{name}={value!r}; required is a whole number") from error


def as_range(name: str, value: Any) -> tuple[int, int]:
    """A whole number, or a pair of them, as an inclusive range (lowest, highest)."""
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ValueError(f"{name}={value!r}; required is a whole number, or a pair (lowest, highest)")
        return as_whole(name, value[0]), as_whole(name, value[1])
    return as_whole(name, value), as_whole(name, value)


def _items(values: Any, noun: str) -> list[Any]:
    if isinstance(values, Tensor):
        values = values.numpy(force=True)
    if not hasattr(values, "__array__"):
        try:
            values = list(values)
        except TypeError as error:
            raise _several(noun, f"are a single {type(values).__name__}") from error
        if not any(isinstance(value, (list, np.ndarray, Tensor)) for value in values):
            return values
        try:
            values = np.array([value.tolist() if isinstance(value, Tensor) else value for value in values])
        except ValueError as error:
            raise _several(noun, "are rows of different lengths") from error
    array = np.asarray(values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise _several(noun, f"have shape {array.shape}")
    return list(array) if array.dtype.kind in "mM" else array.tolist()


def _several(noun: str, what: str) -> ValueError:
    return ValueError(
        f"the {noun} {what}; required is one value for each example, (n,): turn one-hot rows into integers with "
        f"{noun}.argmax(1), and several columns into tuples or one text"
    )


def _is_missing(value: Any) -> bool:
    try:
        return value is None or bool(value != value)
    except TypeError:  # a missing value that refuses to be compared
        return True


def _plain(value: Any) -> Any:
    """A numpy number or text as Python's own."""
    return value.item() if isinstance(value, np.generic) and value.dtype.kind not in "mM" else value


def _no_numbers(kind: Any) -> ValueError:
    return ValueError(f"examples of type {kind}; required are numbers: turn text, categories and dates into numbers")


def _stacked(examples: Any) -> Tensor:
    try:
        return torch.stack([example.detach() for example in examples])
    except RuntimeError as error:
        raise ValueError(
            f"the examples do not form one tensor ({error}); required is the same shape for all: resize, crop or pad "
            "them"
        ) from error
