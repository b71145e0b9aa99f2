"""A ridge head that needs no setting: standardised features, a closed form, its strength weighed by leaving one out.

Arthur E. Hoerl, Robert W. Kennard. Ridge Regression: Biased Estimation for Nonorthogonal Problems. Technometrics 12(1),
1970; left-out predictions: Gene H. Golub, Michael Heath, Grace Wahba. Generalized Cross-Validation as a Method for
Choosing a Good Ridge Parameter. Technometrics 21(2), 1979.

Numbers, with X and Y centred and N = (XXᵀ + λI)⁻¹:

    W(λ) = (XᵀX + λI)⁻¹XᵀY,   H(λ) = X(XᵀX + λI)⁻¹Xᵀ + 1/n
    e_i(λ) = (Y − XW)_i/(1 − H_ii)                       the error on i when i is left out, intercept and all
    W = Σ_λ q(λ) W(λ),   q(λ) ∝ (Σ_i ‖e_i(λ)‖²)^(−n/2)

Classes: ridge regression on two classes separates them in the direction M⁻¹(μ_1 − μ_2), M a shared covariance with λ
added to it. For any number of classes the same inverse gives the discriminants of ``shrunken_means``.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from quickstudy.episode import Labelled
from quickstudy.functional import mask_absent, prototypes
from quickstudy.learner import Learner
from quickstudy.learners.shrunken_means import shrunken_means

SCALES = ("each", "together")
STRENGTHS = tuple(10.0 ** (i / 2) for i in range(-8, 5))  # λ for each feature: noise to what a feature explains
SCALE_EXAMPLES = 5  # a scale within classes starts as if so many examples had shown the scale of all


class Affine(NamedTuple):
    """Attributes: centre, scale (d,) of the features; weight (d, k), bias (k,); seen (1, k), 0 for absent classes."""

    centre: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor
    seen: Tensor


class Ridge(Learner[Affine]):
    """Fit a linear map per task, as strongly shrunken as the support set itself advises.

    Args:
        backbone: (n, *input) → (n, d); by default the examples themselves.
        scale: "each" brings every feature to its own unit, as columns of a table need it; "together" divides all by one
            number, for features that share a unit, as those of a text or of a trained network do.
        regression: targets are numbers even where they have several columns.

    Raises:
        ValueError: another scale.

    It works in double precision where the device has it, and answers in the precision of the features. Classes that
    have more examples are taken to be more frequent.

    Differs from the papers: several strengths are averaged by how well they answer left-out examples, where one is
    chosen; with few examples a choice is often wrong.
    """

    def __init__(self, backbone: nn.Module | None = None, *, scale: str = "each", regression: bool = False):
        super().__init__()
        if scale not in SCALES:
            raise ValueError(f"scale={scale!r}; required is one of {', '.join(SCALES)}: each for columns of a table")
        self.backbone, self.scale, self.regression = backbone or nn.Identity(), scale, regression

    def adapt(self, support: Labelled, query_x: Tensor | None = None) -> Affine:
        """The averaged linear map."""
        x, y = _wide(self.backbone(support.x).flatten(1)), _wide(support.y)
        if self.predicts_numbers(y):
            centre, scale = self._standards(x, torch.ones_like(y[:, :1]))
            middle, spread = standards(y, torch.ones_like(y[:, :1]))
            weight = left_out_ridge((x - centre) / scale, (y - middle) / spread) * spread
            return Affine(centre, scale, weight, middle, torch.ones_like(y[:1]))
        centre, scale = self._standards(x, y)
        weight, bias = shrunken_means((x - centre) / scale, y)
        return Affine(centre, scale, weight, bias, y.sum(0, keepdim=True))

    def predict(self, adapted: Affine, x: Tensor) -> Tensor:
        """Logits (m, way), or numbers (m, k)."""
        features = self.backbone(x).flatten(1)
        z = (features.to(adapted.centre.dtype) - adapted.centre) / adapted.scale
        return mask_absent((z @ adapted.weight + adapted.bias).to(features.dtype), adapted.seen)

    def _standards(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        centre, scale = standards(x, y)
        if self.scale == "each":
            return centre, scale
        used = y.sum(-1, keepdim=True)  # (n, 1)
        square = (used * (x - centre)).square().sum() / (used.sum().clamp(min=1) * x.shape[1])
        return centre, torch.where(square > 0, square, 1.0).sqrt().expand_as(scale)


def standards(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The mean and scale (d,) of features x (n, d): the scale within the classes y (n, way), drawn to that of all.

    An all-zero row of y counts for nothing. A column of y that is all 1 makes one class of everything. A constant
    feature has the scale 1.
    """
    used = y.sum(-1, keepdim=True)  # (n, 1)
    n = used.sum().clamp(min=1)
    centre = (used * x).sum(0) / n
    deviation = used * (x - centre)
    variance = deviation.square().sum(0) / n
    within = (deviation - y @ prototypes(deviation, y)).square().sum(0)
    spare = (n - (y.sum(0) > 0).sum()).clamp(min=0)
    flat = variance <= (1e-12 * (used * x).abs().amax(0)) ** 2  # constant but for rounding
    scale = torch.where(flat, 1.0, (within + SCALE_EXAMPLES * variance) / (spare + SCALE_EXAMPLES))
    return centre, scale.sqrt()


def left_out_ridge(x: Tensor, y: Tensor) -> Tensor:
    """W (d, k) of ridge regression, averaged over STRENGTHS by their left-out errors; x (n, d), y (n, k) centred."""
    gram = x @ x.T if len(x) < x.shape[1] else x.T @ x  # (n, n) or (d, d)
    fits = [_ridge(x, y, gram, strength * x.shape[1]) for strength in STRENGTHS]
    errors = torch.stack([error.square().sum() for _, error in fits])  # (strengths,)
    share = (-len(x) / 2 * errors.clamp(min=1e-12).log()).softmax(0)
    return (share[:, None, None] * torch.stack([weight for weight, _ in fits])).sum(0)


def _ridge(x: Tensor, y: Tensor, gram: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """W (d, k) and the left-out errors (n, k), by the smaller of both systems."""
    n, d = x.shape
    system = gram + strength * torch.eye(min(n, d), dtype=x.dtype, device=x.device)
    if n < d:
        inverse = torch.linalg.inv(system)  # (n, n)
        dual = inverse @ y
        weight, residual, rest = x.T @ dual, strength * dual, strength * inverse.diagonal()
    else:
        solved = torch.linalg.solve(system, x.T)  # (d, n)
        weight = solved @ y
        residual, rest = y - x @ weight, 1 - (x * solved.T).sum(-1)
    return weight, residual / (rest - 1 / n).clamp(min=1e-9)[:, None]


def _wide(x: Tensor) -> Tensor:
    """In double precision, but for devices without it."""
    return x if x.device.type == "mps" else x.double()
