"""Probabilities that mean what they say: a temperature, and how far off they are.

Chuan Guo, Geoff Pleiss, Yu Sun, Kilian Q. Weinberger. On Calibration of Modern Neural Networks. ICML 2017,
arXiv:1706.04599.

    p(y = k | x) = softmax_k(z / T),  T minimises the negative log-likelihood of held-out examples
    ECE = Σ_b |B_b|/n · |acc(B_b) − conf(B_b)|,  B_b: the examples whose confidence max_k p lies in (b/M, (b + 1)/M]
"""

import torch
from torch import Tensor

from quickstudy.trust.trust import Calibration

_WIDEST = 1e3  # the temperature lies within this factor of the spread of the logits


def probabilities(logits: Tensor, calibration: Calibration | None) -> Tensor:
    """softmax(logits / temperature), (m, way) in double precision; without a calibration the temperature is 1.

    Raises:
        ValueError: logits that are not (m, way), or NaN.
    """
    return (as_logits(logits) / (1.0 if calibration is None else calibration.temperature)).softmax(-1)


def as_logits(logits: Tensor) -> Tensor:
    """Logits (m, way) in double precision, checked."""
    if logits.ndim != 2 or bool(logits.isnan().any()):
        raise ValueError(
            f"logits of shape {tuple(logits.shape)}{' with NaN' if bool(logits.isnan().any()) else ''}; required are "
            "numbers (m, way), a row for each query: pass what learner.predict returns"
        )
    return logits.double()


def fit_temperature(logits: Tensor, y: Tensor) -> float:
    """The temperature with the least negative log-likelihood, found by bisection in double precision.

    Args:
        logits: (n, way), of queries that the learner did not adapt to; classes it rules out may have the lowest number.
        y: (n, way) one-hot.

    Returns:
        T > 0.

    Raises:
        ValueError: shapes that differ, rows that are not one-hot, NaN, or a true class that is ruled out.

    Differs from the paper: a true class counts (n + 1)/(n + 2) and the others share the rest (Platt's targets, 1999),
    so that a handful of examples that are all right do not make the learner certain; thousands feel nothing of it.
    """
    z = as_logits(logits)
    check_labels(z, y)
    possible = z > torch.finfo(logits.dtype).min / 2
    if not bool(possible[y > 0].all()):
        raise ValueError(
            "a true class is ruled out, as one without a support example is; required are logits of tasks in which "
            "every class has an example: leave out classes with a single example"
        )
    z = torch.where(possible, z - z.amax(-1, keepdim=True), -torch.inf)
    finite = torch.where(possible, z, 0.0)
    wrong = possible & (y == 0)
    sure = (len(z) + 1) / (len(z) + 2)
    target = torch.where(y > 0, sure, wrong * (1 - sure) / wrong.sum(-1, keepdim=True).clamp(min=1))
    aimed = (target * finite).sum(-1).mean()
    spread = float(finite[possible].square().mean().sqrt())
    if spread == 0:
        return 1.0  # all classes look alike: no temperature is better than another

    def slope(sharpness: float) -> float:
        """The derivative of the loss by 1/T; it grows with 1/T, for the loss is convex in it."""
        return float(((sharpness * z).softmax(-1) * finite).sum(-1).mean() - aimed)

    low, high = 1 / (_WIDEST * spread), _WIDEST / spread
    for _ in range(60):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1 / low


def expected_calibration_error(probabilities: Tensor, y: Tensor, bins: int = 15) -> float:
    """The mean gap between confidence and accuracy over bins of equal width, in [0, 1].

    Args:
        probabilities: (n, way).
        y: (n, way) one-hot.
        bins: M, at least 1.

    Raises:
        ValueError: shapes that differ, rows that are not one-hot, no example, no bin.
    """
    if bins < 1:
        raise ValueError(f"bins={bins}; required is at least 1")
    check_labels(probabilities, y)
    check_probabilities(probabilities)
    confidence, chosen = probabilities.double().max(-1)
    right = (chosen == y.argmax(-1)).double()
    place = ((confidence * bins).ceil().long() - 1).clamp(0, bins - 1)  # (n,)
    gaps = torch.zeros(bins, dtype=torch.float64, device=place.device).index_add(0, place, right - confidence)
    return float(gaps.abs().sum() / len(place))


def check_probabilities(values: Tensor) -> None:
    """Refuse what is not (m, way) with rows of at least 0 that add up to 1."""
    if values.ndim != 2 or not bool((values >= 0).all() and ((values.sum(-1) - 1).abs() < 1e-3).all()):
        raise ValueError(
            f"values of shape {tuple(values.shape)} that are no probabilities; required are rows (m, way) of at least "
            "0 that add up to 1: pass what probabilities(logits, calibration) returns"
        )


def check_labels(values: Tensor, y: Tensor) -> None:
    """Refuse labels that are not one one-hot row for each row of ``values`` (n, way), n at least 1."""
    if values.ndim != 2 or values.shape != y.shape or len(y) == 0:
        raise ValueError(
            f"values of shape {tuple(values.shape)} and y of shape {tuple(y.shape)}; required is (n, way) for both, "
            "with n at least 1: turn integer labels into rows with quickstudy.one_hot(labels, way)"
        )
    if not bool((((y == 0) | (y == 1)).all(-1) & (y.sum(-1) == 1)).all()):
        raise ValueError(
            "y has rows that are not one-hot; required is a single 1 in each: use quickstudy.one_hot(labels, way)"
        )
