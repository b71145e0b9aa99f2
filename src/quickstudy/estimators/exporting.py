"""A fitted model as one ONNX file: the network, what it learnt from the examples, and class names.

The graph holds the adapted state as constants: it answers and learns nothing further. Before the file is written,
onnxruntime runs it and its answers are compared with the model's own.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch

import quickstudy
from quickstudy.estimators.adapted import Adapted
from quickstudy.estimators.classifier import FewShotClassifier
from quickstudy.estimators.examples import require_fitted
from quickstudy.estimators.onnx_graph import INPUT, NotExportable, trial_inputs, write_graph
from quickstudy.estimators.regressor import FewShotRegressor
from quickstudy.evaluation import evaluating
from quickstudy.files import write_atomically
from quickstudy.trust import Calibration
from quickstudy.trust.quantiles import threshold

_COVERAGES = (0.8, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the file.
        largest_difference: between the answers of onnxruntime and the model's own, over all outputs, the examples it
            was fitted with and random inputs, 1 and 7 at once; of outputs beyond 1 in units of the largest.
        opset: the version of ONNX's operators that the file asks for.
        outputs: their names.
    """

    path: Path
    largest_difference: float
    opset: int
    outputs: tuple[str, ...]


def export_onnx(model: FewShotClassifier | FewShotRegressor, path: str | Path, *, tolerance: float = 1e-4) -> Exported:
    """Write a fitted model as an ONNX file for any number of examples at once.

    It reckons in single precision, but for tables and a learner without weights in double precision. The input ``x``
    (n, *input) is what the model's reader makes of examples. A classifier has the outputs ``probabilities`` (n,
    classes), at the model's temperature, ``logits`` (n, classes), and with a calibration that knows of unknown classes
    ``unknown_score`` (n,); a regressor has ``prediction`` (n, outputs). The file's metadata say what the classes are,
    how examples are read, and above which score one is unknown.

    Args:
        model: a fitted estimator.
        path: the file; one that is there is replaced only when the new one is whole and checked.
        tolerance: the largest difference to the model's own answers that is let pass.

    Raises:
        ValueError: not fitted; a learner that cannot be written as a graph, or whose graph answers differently; the
            extra ``onnx`` is not installed.
    """
    require_fitted(model)
    learner, support = model.learner_, model.support_
    name = type(learner).__name__
    if learner.transductive:
        raise NotExportable(
            f"{name} adapts anew to every set of queries, so there is no fixed state to put into a graph; required is "
            "an inductive learner: choose another one, or answer with quickstudy predict"
        )
    calibration = score = None
    if isinstance(model, FewShotClassifier) and model.trust_ is not None:
        trust, calibration = model._trusted.calibrated("export")
        score = trust.score if model._trusted.knows_unknown(calibration) else None
    with evaluating(learner):
        module = Adapted(
            learner,
            learner.adapt(support),
            numbers=isinstance(model, FewShotRegressor),
            calibration=calibration,
            score=score,
        ).eval()
        trials = trial_inputs(support.x, generator=torch.Generator().manual_seed(0))
        facts = _facts(model, calibration, score, module.precision(support.x))
        graph = write_graph(module, trials, facts=facts, tolerance=tolerance, name=name)
    write_atomically(Path(path), graph.content)
    return Exported(Path(path), graph.largest_difference, graph.opset, module.outputs)


def _facts(
    model: FewShotClassifier | FewShotRegressor, calibration: Calibration | None, score: str | None, kind: torch.dtype
) -> dict[str, str]:
    """The file's metadata; every value but the first two is JSON."""
    x = model.support_.x
    kind = kind if x.is_floating_point() else x.dtype
    shape = {"name": INPUT, "shape": ["n", *x.shape[1:]], "type": str(kind).removeprefix("torch.")}
    facts = {
        "quickstudy": quickstudy.__version__,
        "model": type(model).__name__,
        "input": json.dumps(shape),
        "reader": json.dumps(model.reader_.as_dict()),
        "card": json.dumps(model.card_),
    }
    if isinstance(model, FewShotRegressor):
        return facts
    facts["classes"] = json.dumps(model.classes_.tolist(), default=str)
    facts["temperature"] = json.dumps(1.0 if calibration is None else calibration.temperature)
    if calibration is not None and model.trust_ is not None:
        if score is not None:
            rate = float(model.false_alarms)
            limit = _threshold(calibration.known[score], 1 - rate, calibration.examples)
            facts["unknown"] = json.dumps({"score": score, "false_alarms": rate, "above": limit})
        by = model.trust_.conformity
        limits = {level: _threshold(calibration.conformity[by], level, calibration.examples) for level in _COVERAGES}
        at_most = {str(level): limit for level, limit in limits.items() if limit is not None}
        # a class is in the set if minus its logit, or 1 − its probability, is at most this
        facts["sets"] = json.dumps({"by": by, "at_most": at_most})
    return facts


def _threshold(quantiles: tuple[float, ...], level: float, examples: int) -> float | None:
    """None where the calibration rests on too few examples for the level."""
    try:
        return threshold(quantiles, level, examples, f"{level:g}")
    except ValueError:
        return None
