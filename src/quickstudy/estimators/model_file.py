"""A fitted model as one safetensors file: the learner, how examples are read, what was learnt from, and its trust.

The examples are kept instead of what was adapted to them, so that classes can be added and forgotten later.
"""

import math
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from quickstudy.episode import Labelled
from quickstudy.estimators.classifier import FewShotClassifier, fitted
from quickstudy.estimators.examples import in_order, require_fitted
from quickstudy.estimators.learnt import Learnt
from quickstudy.estimators.regressor import FewShotRegressor, fitted_numbers
from quickstudy.packing import Packed
from quickstudy.readers import reader_from_dict
from quickstudy.saving import SavedFileError, describe, read_tensors, rebuild, require_format, write_tensors
from quickstudy.trust import Trust

FORMAT = 1
KEY = "quickstudy_model"
Model = TypeVar("Model", FewShotClassifier, FewShotRegressor)
_SCALARS = {"bool": bool, "int": int, "float": float, "str": str}


def save_model(model: FewShotClassifier | FewShotRegressor, path: str | Path) -> None:
    """Write a fitted model to one file; one that is there is replaced only when the new one is whole.

    Raises:
        ValueError: not fitted; a learner or class names that cannot be described in a file.
    """
    require_fitted(model)
    header: dict[str, Any] = {
        "format": FORMAT,
        "model": type(model).__name__,
        "learner": describe(model.learner_),
        "reader": model.reader_.as_dict(),
        "card": model.card_,
        "columns": _columns(model),
    }
    if isinstance(model, FewShotClassifier):
        header["classes"] = [_described(label) for label in model.classes_.tolist()]
        header["false_alarms"] = model.false_alarms
        packed = model._packed.trust
        header["trust"] = None if packed is None else packed.as_dict()  # what was measured here is measured again
    else:
        header["flat"] = model._flat
    weights = {f"learner.{name}": _smallest(value) for name, value in model.learner_.state_dict().items()}
    write_tensors(Path(path), {**weights, "support.x": model.support_.x, "support.y": model.support_.y}, KEY, header)


def load_model(path: str | Path, **modules: nn.Module) -> FewShotClassifier | FewShotRegressor:
    """The fitted model of a file that ``save`` wrote.

    Args:
        path: the file.
        modules: the user's own networks by the name of the learner's argument, as for ``quickstudy.load``.

    Raises:
        ValueError: a file that is missing, cut, edited, of another kind or made by a newer version.
    """
    path = Path(path)
    header, tensors = read_tensors(path, KEY)
    require_format(path, header, FORMAT)
    try:
        return _model(header, tensors, path, modules)
    except SavedFileError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise SavedFileError(f"{path} does not describe a model ({error!r}): use a copy that was not edited") from error


def load_as(kind: type[Model], path: str | Path, modules: dict[str, nn.Module]) -> Model:
    """The same, of one kind.

    Raises:
        ValueError: as ``load_model``; a model of another kind.
    """
    model = load_model(path, **modules)
    if not isinstance(model, kind):
        raise ValueError(
            f"{path} holds a {type(model).__name__}; required is a {kind.__name__}: use quickstudy.load_model"
        )
    return model


def _model(
    header: dict[str, Any], tensors: dict[str, Tensor], path: Path, modules: dict[str, nn.Module]
) -> FewShotClassifier | FewShotRegressor:
    support = Labelled(tensors.pop("support.x"), tensors.pop("support.y"))
    weights = {name.removeprefix("learner."): _widened(value, support) for name, value in tensors.items()}
    learner = rebuild(header["learner"], weights, path, modules)
    reader = reader_from_dict(header["reader"])
    columns = _columns_of(header)
    if header["model"] == "FewShotRegressor":
        packed = Packed(learner, reader, None, header["card"])
        return fitted_numbers(packed, support, columns=columns, flat=bool(header["flat"]))
    if header["model"] != "FewShotClassifier":
        raise KeyError(header["model"])
    trust = None if header["trust"] is None else Trust.from_dict(header["trust"])
    packed = Packed(learner, reader, trust, header["card"])
    classes = [_label(part) for part in header["classes"]]
    if len(set(classes)) != support.y.shape[1] or in_order(classes) != classes:
        raise ValueError(f"{len(classes)} classes for {support.y.shape[1]} columns")
    learnt = Learnt.of(learner, support.x, [classes[i] for i in support.y.argmax(1).tolist()])
    return fitted(packed, learnt, columns=columns, false_alarms=header["false_alarms"])


def _columns_of(header: dict[str, Any]) -> dict[str, Any]:
    """The columns of a file, as scikit-learn remembers them."""
    columns = dict(header["columns"])
    found: dict[str, Any] = {}
    if "n_features_in_" in columns:
        found["n_features_in_"] = int(columns["n_features_in_"])
    if "feature_names_in_" in columns:
        found["feature_names_in_"] = np.array([str(name) for name in columns["feature_names_in_"]], dtype=object)
    return found


def _columns(model: Any) -> dict[str, Any]:
    """What scikit-learn remembers of a table's columns."""
    found = {}
    if "n_features_in_" in vars(model):
        found["n_features_in_"] = int(model.n_features_in_)
    if "feature_names_in_" in vars(model):
        found["feature_names_in_"] = [str(name) for name in model.feature_names_in_]
    return found


def _described(label: Any) -> list[Any]:
    """[type, value] of a label; of a tuple the value is the list of its parts."""
    plain = label.item() if isinstance(label, np.generic) else label
    if type(plain) is tuple:
        return ["tuple", [_described(part) for part in plain]]
    if type(plain).__name__ not in _SCALARS or (isinstance(plain, float) and not math.isfinite(plain)):
        raise ValueError(
            f"the class name {label!r} is of type {type(label).__name__}, which a file cannot hold; required are "
            "texts, finite numbers, booleans, or tuples of these: rename the classes"
        )
    return [type(plain).__name__, plain]


def _label(described: Any) -> Any:
    kind, value = described
    return tuple(_label(part) for part in value) if kind == "tuple" else _SCALARS[kind](value)


def _smallest(value: Tensor) -> Tensor:
    """In half precision if that loses nothing, as with learners that ship."""
    if value.dtype == torch.float32 and torch.equal(value.half().float(), value):
        return value.half()
    return value


def _widened(value: Tensor, support: Labelled) -> Tensor:
    return value.to(support.y.dtype) if value.is_floating_point() else value
