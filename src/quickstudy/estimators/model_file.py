"""A fitted model as one safetensors file: the learner, how examples are read, what was learnt from, and its trust.

The examples are kept instead of what was adapted to them, so that classes can be added and forgotten later.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from quickstudy.episode import Labelled
from quickstudy.estimators.classifier import FewShotClassifier
from quickstudy.estimators.examples import require_fitted
from quickstudy.estimators.regressor import FewShotRegressor
from quickstudy.readers import reader_from_dict
from quickstudy.saving import SavedFileError, describe, read_tensors, rebuild, require_format, write_tensors
from quickstudy.trust import Trust

FORMAT = 1
KEY = "quickstudy_model"
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
        header["trust"] = None if model.trust_ is None else model.trust_.as_dict()
        header["measures_trust"] = model._measures_trust
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
        support = Labelled(tensors.pop("support.x"), tensors.pop("support.y"))
        weights = {name.removeprefix("learner."): _widened(value, support) for name, value in tensors.items()}
        learner = rebuild(header["learner"], weights, path, modules)
        reader = reader_from_dict(header["reader"])
        if header["model"] == "FewShotRegressor":
            model: FewShotClassifier | FewShotRegressor = FewShotRegressor(learner, reader=reader)
            model._flat = header["flat"]
        elif header["model"] == "FewShotClassifier":
            model = FewShotClassifier(learner, reader=reader, false_alarms=header["false_alarms"])
            model._measures_trust = header["measures_trust"]
            model.trust_ = None if header["trust"] is None else Trust.from_dict(header["trust"])
        else:
            raise KeyError(header["model"])
        model.learner_, model.reader_, model.card_ = learner, reader, header["card"]
        for name, value in header["columns"].items():
            setattr(model, name, np.array(value, dtype=object) if isinstance(value, list) else value)
        if isinstance(model, FewShotClassifier):
            model._restore(support, [_label(part) for part in header["classes"]])
        else:
            model._learn(support.x, support.y)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise SavedFileError(f"{path} does not describe a model ({error!r}): use a copy that was not edited") from error
    return model


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
