"""Saying "none of these": how little a query looks like any class of its task, and from where on it is unknown.

Dan Hendrycks, Kevin Gimpel. A Baseline for Detecting Misclassified and Out-of-Distribution Examples in Neural Networks.
ICLR 2017, arXiv:1610.02136 (maximum probability). Dan Hendrycks et al. Scaling Out-of-Distribution Detection for
Real-World Settings. ICML 2022, arXiv:1911.11132 (maximum logit). Weitang Liu, Xiaoyun Wang, John D. Owens, Yixuan Li.
Energy-based Out-of-distribution Detection. NeurIPS 2020, arXiv:2010.03759.

Of logits z and p = softmax(z / T), each the higher the less the query looks like any class:

    maximum_logit           −max_k z_k                   of a metric learner: the distance to the nearest class
    energy                  −T log Σ_k exp(z_k / T)
    maximum_probability     −max_k p_k
    entropy                 −Σ_k p_k log p_k, in nats
    margin                  z_(2) − z_(1)                the second largest logit less the largest
"""

import torch
from torch import Tensor

from quickstudy.trust.calibration import as_logits
from quickstudy.trust.quantiles import threshold
from quickstudy.trust.trust import SCORES, Calibration


def unknown_scores(logits: Tensor, calibration: Calibration | None) -> dict[str, Tensor]:
    """Each score (m,) of ``SCORES`` for logits (m, way), in double precision; without a calibration T is 1.

    Raises:
        ValueError: logits that are not (m, way) with two classes or more, or NaN.
    """
    return scores_at(logits, 1.0 if calibration is None else calibration.temperature)


def scores_at(logits: Tensor, temperature: float) -> dict[str, Tensor]:
    """``unknown_scores`` at a temperature."""
    z = as_logits(logits) / temperature
    if z.shape[1] < 2:
        raise ValueError(f"logits for {z.shape[1]} class; required are two or more: add a class")
    return {name: score_of(z, temperature, name) for name in SCORES}


def score_of(z: Tensor, temperature: float, name: str) -> Tensor:
    """One of ``SCORES`` (m,) of z = logits / temperature (m, way), unchecked and in operators that a graph has."""
    if name == "maximum_logit":
        return -temperature * z.amax(-1)
    if name == "energy":
        return -temperature * z.logsumexp(-1)
    if name == "maximum_probability":
        return -z.softmax(-1).amax(-1)
    if name == "entropy":
        return torch.special.entr(z.softmax(-1)).sum(-1)
    first, second = z.topk(2, dim=-1).values.unbind(-1)  # margin
    return temperature * (second - first)


def is_unknown(logits: Tensor, calibration: Calibration, score: str, false_alarms: float) -> Tensor:
    """Whether each query (m,) is less like the classes than all but a share of the queries that belong to one.

    Args:
        logits: (m, way).
        calibration: for this way and shot.
        score: one that the calibration knows, as ``Trust.score``.
        false_alarms: the share in [0.005, 1) of queries of known classes that may be called unknown; between multiples
            of 0.005 the lower one holds.

    Raises:
        ValueError: a score that the calibration does not know, or a share it has too few examples for.
    """
    if score not in calibration.known:
        raise ValueError(f"score={score!r} is not among the calibrated ones: choose of {', '.join(calibration.known)}")
    limit = threshold(calibration.known[score], 1 - false_alarms, calibration.examples, f"false_alarms={false_alarms}")
    return unknown_scores(logits, calibration)[score] > limit


def auroc(known: Tensor, unknown: Tensor) -> float:
    """The chance that a query of an unknown class has a higher score than one of a known class; ties count half.

    Args:
        known, unknown: scores (n,) and (m,), at least one of each.

    Raises:
        ValueError: no scores, or NaN.
    """
    if min(len(known), len(unknown)) == 0 or bool(known.isnan().any()) or bool(unknown.isnan().any()):
        raise ValueError(
            f"{len(known)} scores of known and {len(unknown)} of unknown classes; required is at least one of each, "
            "and none that is NaN"
        )
    ordered = known.double().sort().values
    below = torch.searchsorted(ordered, unknown.double()) + torch.searchsorted(ordered, unknown.double(), right=True)
    return float(below.double().mean() / 2 / len(known))
