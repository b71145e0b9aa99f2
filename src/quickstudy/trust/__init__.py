"""How far predictions may be trusted: calibrated probabilities, unknown classes, sets that cover the truth."""

from quickstudy.trust.asking import Asked, ask
from quickstudy.trust.calibration import expected_calibration_error, fit_temperature, probabilities
from quickstudy.trust.conformal import prediction_sets
from quickstudy.trust.fitting import calibrate, calibrate_on_support
from quickstudy.trust.judging import Judgement, judge
from quickstudy.trust.left_out import left_out
from quickstudy.trust.quantiles import examples_needed
from quickstudy.trust.trust import CONFORMITIES, SCORES, Calibration, Trust
from quickstudy.trust.unknown import auroc, is_unknown, unknown_scores

__all__ = [
    "CONFORMITIES",
    "SCORES",
    "Asked",
    "Calibration",
    "Judgement",
    "Trust",
    "ask",
    "auroc",
    "calibrate",
    "calibrate_on_support",
    "examples_needed",
    "expected_calibration_error",
    "fit_temperature",
    "is_unknown",
    "judge",
    "left_out",
    "prediction_sets",
    "probabilities",
    "unknown_scores",
]
