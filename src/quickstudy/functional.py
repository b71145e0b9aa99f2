"""Pure functions that learners share; all pass through ``torch.func.vmap`` and double differentiation."""

import torch
from torch import Tensor

from quickstudy.learner import cross_entropy


def require_classes(y: Tensor) -> None:
    """Refuse targets that are numbers where a learner can only tell classes apart.

    Raises:
        ValueError: ``y`` (n, d) has a single column.
    """
    if y.shape[-1] < 2:
        raise ValueError(
            f"targets of shape {tuple(y.shape)} were given to a learner that tells classes apart; required are one-hot "
            "rows over two classes or more: for numbers take MAML(network, head=None)"
        )


def prototypes(embeddings: Tensor, y: Tensor) -> Tensor:
    """The mean embedding of each class; zero for a class without examples.

    Args:
        embeddings: (n, d).
        y: (n, way) one-hot, an all-zero row counts for nothing.

    Returns:
        (way, d).
    """
    return y.T @ embeddings / y.sum(0).clamp(min=1).unsqueeze(-1)


def squared_euclidean(a: Tensor, b: Tensor) -> Tensor:
    """‖aᵢ − bⱼ‖² for a (n, d) and b (m, d): (n, m), never below zero by rounding.

    Both are shifted by the mean of b first: distances do not change, and large offsets do not cancel their digits.
    """
    centre = b.mean(0)
    a, b = a - centre, b - centre
    return (a.square().sum(-1, keepdim=True) - 2 * a @ b.T + b.square().sum(-1)).clamp(min=0)


def mask_absent(logits: Tensor, y: Tensor) -> Tensor:
    """Make classes without a support example impossible.

    Args:
        logits: (m, way).
        y: (n, way) the support labels.

    Returns:
        (m, way), with the lowest finite number (not −∞, whose product with 0 is NaN) for absent classes.
    """
    return torch.where(y.sum(0) > 0, logits, torch.finfo(logits.dtype).min)


def normalised(z: Tensor) -> Tensor:
    """z (n, d) with rows of unit length; a row of zeros stays zero, with a finite derivative."""
    z = z / z.abs().amax(-1, keepdim=True).detach().clamp(min=1e-3)  # squares of half precision would leave its range
    return z * z.square().sum(-1, keepdim=True).clamp(min=1e-6).rsqrt()


def ridge(x: Tensor, y: Tensor, strength: Tensor | float, weights: Tensor | None = None) -> Tensor:
    """Ridge regression: the W that minimises  Σᵢ weightsᵢ ‖xᵢ W − yᵢ‖² + strength·‖W‖².

    Solved in the smaller of both forms, which are equal (Woodbury), with D the diagonal matrix of the weights:
    W = (xᵀ D x + λI)⁻¹ xᵀ D y = xᵀ (D x xᵀ + λI)⁻¹ D y.

    Args:
        x: (n, d).
        y: (n, k) targets.
        strength: λ > 0, a number or a scalar tensor.
        weights: (n,) at least 0, by default 1; a row of weight 0 counts for nothing.

    Returns:
        (d, k).
    """
    n, d = x.shape
    left = x if weights is None else weights.unsqueeze(-1) * x  # (n, d), D x
    right = y if weights is None else weights.unsqueeze(-1) * y  # (n, k), D y
    eye = torch.eye(min(n, d), dtype=x.dtype, device=x.device)
    if n < d:
        return x.T @ torch.linalg.solve(left @ x.T + strength * eye, right)
    return torch.linalg.solve(x.T @ left + strength * eye, x.T @ right)


def perplexity(logits: Tensor, y: Tensor) -> Tensor:
    """exp of the mean −log p in nats over the tokens that are not padding: 1 for certainty, the vocabulary for a guess.

    Args:
        logits: (..., vocabulary), or log-probabilities.
        y: (..., vocabulary) one-hot; an all-zero row counts for nothing.
    """
    return cross_entropy(logits, y).exp()
