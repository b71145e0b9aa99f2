"""Sets of classes that hold the true one as often as asked for: split conformal prediction.

V. Vovk, A. Gammerman, G. Shafer. Algorithmic Learning in a Random World. Springer, 2005. By probability, the score is
that of Mauricio Sadinle, Jing Lei, Larry Wasserman. Least Ambiguous Set-Valued Classifiers With Bounded Error Levels.
Journal of the American Statistical Association, 2019, arXiv:1609.00451.

    s(x, k) = −z_k                    by logit: of a metric learner, the distance to class k
    s(x, k) = 1 − softmax_k(z / T)    by probability
    set(x) = {k : s(x, k) ≤ q},   q: the ⌈(n + 1)·coverage⌉-th smallest of the scores s(x, y) of n queries

By probability sets are the smallest. But where almost every query is answered rightly, q then lies among probabilities
near 1, and how near depends on how alike the other classes of the task are: coverage holds for tasks like those it was
calibrated on, and falls where classes are more alike. The distance to the true class does not depend on the others.
"""

import torch
from torch import Tensor

from quickstudy.trust.calibration import as_logits
from quickstudy.trust.quantiles import threshold
from quickstudy.trust.trust import Calibration


def prediction_sets(logits: Tensor, calibration: Calibration, conformity: str, coverage: float) -> Tensor:
    """Which classes are in the set of each query: booleans (m, way).

    A set may be empty: no class fits well enough. It may hold several classes: the query looks like all of them.

    Args:
        logits: (m, way).
        calibration: for this way and shot.
        conformity: "logit" or "probability", as ``Trust.conformity``.
        coverage: the share in (0, 0.995] of queries of known classes whose set is to hold the true one; between
            multiples of 0.005 the higher one holds.

    Raises:
        ValueError: an unknown conformity, or a coverage that the calibration has too few examples for.
    """
    scores = conformities(logits, calibration.temperature)
    if conformity not in scores:
        raise ValueError(f"conformity={conformity!r} is not known: choose of {', '.join(scores)}")
    limit = threshold(calibration.conformity[conformity], coverage, calibration.examples, f"coverage={coverage}")
    return scores[conformity] <= limit


def conformities(logits: Tensor, temperature: float) -> dict[str, Tensor]:
    """s(x, k) (m, way) by each name of ``CONFORMITIES``, in double precision."""
    z = as_logits(logits)
    return {"logit": -z, "probability": 1 - torch.softmax(z / temperature, -1)}
