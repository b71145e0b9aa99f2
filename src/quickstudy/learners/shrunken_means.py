"""Nearest class means under a shrunken covariance, and how each left-out example would have been answered: closed form.

Jerome H. Friedman. Regularized Discriminant Analysis. Journal of the American Statistical Association 84(405), 1989.

With r_i the distance of an example from the mean of its class, way classes and n examples,

    M(a) = (1 − a)/(n − way) Σ_i r_i r_iᵀ + a I              the shared covariance, shrunken by a
    g_j(x) = xᵀM⁻¹μ_j − ½ μ_jᵀM⁻¹μ_j                         the discriminant of class j
    log p(j | x) = t g_j(x) + log(n_j/n) + const.            t: how far these may be trusted

Leaving out example i of class c moves one mean, μ_c − r_i/(n_c − 1), and takes n_c/(n_c − 1) r_i r_iᵀ from the sum: a
change of rank one, so that all answers to left-out examples come from the same inverse. No fit is repeated. The
divisor n − way and the scale of the features stay as they are.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from quickstudy.functional import mask_absent, prototypes

SHRINKAGES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.85, 0.95, 0.99)
TRUSTS = tuple(2.0**-i for i in range(11))
FAVOUR = 3  # how much strong shrinkage is favoured before any example is seen


def shrunken_means(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The linear map that averages the discriminants of all shrinkages a and trusts t.

    Each pair weighs a^FAVOUR exp(−t√d) Π_i p(y_i | x_i, learnt without i). A class with one example cannot do without
    it, so its example has no factor; where no class has two, the weights are those before any example.

    Args:
        x: (n, d), standardised.
        y: (n, way) one-hot; an all-zero row counts for nothing, as does a class without examples.

    Returns:
        weight (d, way) and bias (way,): logits are x @ weight + bias.
    """
    counts = y.sum(0)
    prior = (counts.clamp(min=1) / counts.sum().clamp(min=1)).log()  # (way,)
    several = y @ (counts > 1).to(x.dtype)  # (n,) 1 where the class has another example
    trusts = torch.tensor(TRUSTS, dtype=x.dtype, device=x.device)
    parts, evidence, weights, squares = _parts(x, y), [], [], []
    for a in SHRINKAGES:
        weight, square, left_out = _discriminants(parts, y, a)
        logits = mask_absent(trusts[:, None, None] * left_out + prior, y)  # (trusts, n, way)
        evidence.append((several * (y * logits.log_softmax(-1)).sum(-1)).sum(-1))  # (trusts,)
        weights.append(weight)
        squares.append(square)
    favoured = FAVOUR * torch.tensor(SHRINKAGES, dtype=x.dtype, device=x.device).log()
    share = torch.stack(evidence) + favoured[:, None] - trusts * x.shape[1] ** 0.5  # (shrinkages, trusts)
    share = share.flatten().softmax(0).view_as(share) @ trusts  # (shrinkages,)
    weight = (share[:, None, None] * torch.stack(weights)).sum(0)
    return weight, prior - (share[:, None] * torch.stack(squares)).sum(0) / 2


class _Parts(NamedTuple):
    """What all shrinkages share: r (n, d), means (way, d), gram rrᵀ (n, n) or rᵀr (d, d), cross r μᵀ (n, way)."""

    r: Tensor
    means: Tensor
    gram: Tensor
    cross: Tensor


def _parts(x: Tensor, y: Tensor) -> _Parts:
    means = prototypes(x, y)  # (way, d)
    r = y.sum(-1, keepdim=True) * (x - y @ means)  # (n, d), 0 for padding
    gram = r @ r.T if len(x) < x.shape[1] else r.T @ r  # (n, n) or (d, d)
    return _Parts(r, means, gram, r @ means.T)


def _discriminants(parts: _Parts, y: Tensor, a: float) -> tuple[Tensor, Tensor, Tensor]:
    """For one shrinkage: M⁻¹μ (d, way), μᵀM⁻¹μ (way,), and the discriminants (n, way) of each example left out."""
    counts = y.sum(0)
    spare = (counts.sum() - (counts > 0).sum()).clamp(min=1)
    inner, weight, h = _inverse(parts, a, (1 - a) / spare)  # rᵀM⁻¹μ (n, way), (d, way), rᵀM⁻¹r (n,)
    between = parts.means @ weight  # (way, way), μᵀM⁻¹μ
    square = between.diagonal()

    others = (y @ counts - 1).clamp(min=1)  # (n,) examples that the class keeps
    c = (1 - a) / spare * (1 + 1 / others)
    gain = c / (1 - c * h).clamp(min=1e-9)  # of the inverse: M⁻¹ + gain u uᵀ with u = M⁻¹r
    own = (inner * y).sum(-1)  # (n,)
    xu = h + own
    um = inner - y * (h / others)[:, None]  # (n, way), with the mean that has moved, as in what follows
    xm = inner + y @ between - y * (xu / others)[:, None]
    mm = square + y * (h / others**2 - 2 * own / others)[:, None]
    return weight, square, xm + (gain * xu)[:, None] * um - (mm + gain[:, None] * um.square()) / 2


def _inverse(parts: _Parts, a: float, share: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """r M⁻¹ μᵀ (n, way), M⁻¹ μᵀ (d, way), diag(r M⁻¹ rᵀ) (n,), by the smaller of both systems."""
    r, means, gram, cross = parts
    system = share * gram + a * torch.eye(len(gram), dtype=r.dtype, device=r.device)
    if len(r) < r.shape[1]:
        inverse = torch.linalg.inv(system)  # (n, n); r M⁻¹ = inverse r
        inner = inverse @ cross
        return inner, (means.T - share * (r.T @ inner)) / a, (gram * inverse).sum(-1)
    solved = torch.linalg.solve(system, torch.cat([means, r]).T)  # (d, way + n)
    weight, u = solved[:, : len(means)], solved[:, len(means) :]
    return r @ weight, weight, (r * u.T).sum(-1)
