"""Supervised contrastive embeddings: metric-based, all pairs of a task at once.

Prannay Khosla et al. Supervised Contrastive Learning. NeurIPS 2020, arXiv:2004.11362. That few-shot embeddings learn
more from all pairs of a mini-batch than from its division into support and queries is the finding of Steinar Laenen and
Luca Bertinetto, On Episodes, Prototypical Networks, and Few-Shot Learning, NeurIPS 2021, arXiv:2012.09831.

With z_i = f_θ(x_i)/‖f_θ(x_i)‖, the other examples A(i) of the task and those of the same class P(i) among them,

    L = Σ_i −1/|P(i)| Σ_{p ∈ P(i)} log( exp(s z_i·z_p) / Σ_{a ∈ A(i)} exp(s z_i·z_a) )      (2), s = 1/τ

A new task is answered by the nearest class mean of normalised embeddings:

    c_k = normalised mean of z_i over class k,   p(y = k | x) = softmax_k(s z·c_k)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from quickstudy.episode import Episode, Labelled
from quickstudy.functional import mask_absent, normalised, prototypes, require_classes
from quickstudy.learner import Learner


class Directions(NamedTuple):
    """Attributes: centres (way, d) of unit length, and the support labels y (n, way), which say which are there."""

    centres: Tensor
    y: Tensor


class SupervisedContrastive(Learner[Directions]):
    """Train by all pairs of a task, answer by the nearest normalised class mean.

    Args:
        backbone: (n, *input) → (n, d).
        scale: s, one over the temperature; larger ones look at the hardest pairs.

    Differs from the paper: no projection head (the embedding that is trained is the one that is used), one view of each
    example, and the mean over the examples that have a companion instead of the sum.
    """

    def __init__(self, backbone: nn.Module, *, scale: float = 20.0):
        super().__init__()
        if not scale > 0:
            raise ValueError(f"scale={scale}; required is a number above 0, such as 20")
        self.backbone, self.scale = backbone, scale

    def embed(self, x: Tensor) -> Tensor:
        """x (n, *input) → unit vectors (n, d); zero where the backbone gives zero."""
        return normalised(self.backbone(x).flatten(1))

    def adapt(self, support: Labelled, query_x: Tensor | None = None) -> Directions:
        """The direction of the mean embedding of each class."""
        require_classes(support.y)
        return Directions(normalised(prototypes(self.embed(support.x), support.y)), support.y)

    def predict(self, adapted: Directions, x: Tensor) -> Tensor:
        """Cosines times the scale, (m, way)."""
        return mask_absent(self.scale * self.embed(x) @ adapted.centres.T, adapted.y)

    def meta_loss(self, episode: Episode) -> Tensor:
        """Equation (2) over support and queries together, in nats."""
        support, query = episode
        require_classes(support.y)
        z, y = self.embed(torch.cat([support.x, query.x])), torch.cat([support.y, query.y])
        return contrastive_loss(z, y, self.scale)

    def passes(self, episode: Episode) -> list[Callable[[], Any]]:
        """One: support and queries together."""
        support, query = episode
        return [lambda: self.backbone(torch.cat([support.x, query.x]))]


def contrastive_loss(z: Tensor, y: Tensor, scale: float) -> Tensor:
    """The mean of equation (2) over the examples that have a companion; 0 if none has.

    Args:
        z: unit vectors (n, d).
        y: (n, way) one-hot; an all-zero row counts for nothing.
        scale: s.
    """
    real = y.sum(1)  # (n,)
    itself = torch.eye(len(y), dtype=torch.bool, device=y.device)
    others = (real[None, :] > 0) & ~itself  # (n, n)
    cosines = torch.where(others, scale * z @ z.T, torch.finfo(z.dtype).min)
    log_p = cosines - cosines.logsumexp(1, keepdim=True)
    same = torch.where(others, y @ y.T, 0)  # (n, n), 1 for p ∈ P(i)
    companions = same.sum(1)  # |P(i)|
    each = -(same * torch.where(same > 0, log_p, 0)).sum(1) / companions.clamp(min=1)
    return each.sum() / (companions > 0).sum().clamp(min=1)
