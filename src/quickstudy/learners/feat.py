"""FEAT, prototypes that see each other: metric-based, set-to-set.

Han-Jia Ye, Hexiang Hu, De-Chuan Zhan, Fei Sha. Few-Shot Learning via Embedding Adaptation with Set-to-Set Functions.
CVPR 2020, arXiv:1812.03664.

A self-attention layer T adapts the prototypes of a task to each other, so that the same class is represented
differently among different rivals. A query belongs to the nearest adapted prototype.

    α_qk = softmax_k(Q_q · K_k / √d),  Q = P W_Q, K = P W_K, V = P W_V for a set P (n, d)
    T(P)_q = LayerNorm(P_q + W_FC Σ_k α_qk V_k)                                             (1)
    p(y = k | x) = softmax_k(−‖f(x) − T(C)_k‖²/τ), C the class means of the support set     (2)
    meta-loss = L_query + contrastive_weight · L_contrastive                                (3)

L_contrastive adapts the examples of each class, support and query, as a set of their own; each adapted example is to be
nearest to the mean of its adapted class.
"""

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.episode import Episode, Labelled
from quickstudy.functional import mask_absent, prototypes, require_classes, squared_euclidean
from quickstudy.learner import Learner, cross_entropy
from quickstudy.learners.protonet import Prototypes

Norm = Literal["post", "pre"]


class FEAT(Learner[Prototypes]):
    """Classify by the nearest of prototypes that were adapted to each other.

    Args:
        backbone: (n, *input) → (n, d), best trained as a ProtoNet before.
        features: d; 0 takes ``backbone.out_features``.
        temperature: τ, of all squared distances.
        contrastive_weight: of L_contrastive, in training; 0 leaves it out.
        norm: "post", the paper's; or "pre": T(P) = P + W_FC Σ α V with Q, K, V of LayerNorm(P), which starts close to
            the prototypes that a backbone was trained for.
        dropout: of α and of what is added to the prototypes, in training.

    Raises:
        ValueError: a backbone of unknown length, or numbers out of range.

    Differs from the paper: one attention head (the paper's default), no dropout unless asked for, one τ for both
    losses, and the choice of ``norm``. In evaluation mode the meta-loss is that of the queries alone.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        features: int = 0,
        temperature: float = 1.0,
        contrastive_weight: float = 0.1,
        norm: Norm = "post",
        dropout: float = 0.0,
    ):
        super().__init__()
        d = features or getattr(backbone, "out_features", None)
        if not isinstance(d, int) or d < 1:
            raise ValueError("the backbone does not say its out_features; required is their number: pass features=")
        if norm not in get_args(Norm):
            raise ValueError(f"norm={norm!r}; choose 'post' (the paper's) or 'pre'")
        if not temperature > 0 or not contrastive_weight >= 0 or not 0 <= dropout < 1:
            raise ValueError(
                f"temperature={temperature}, contrastive_weight={contrastive_weight}, dropout={dropout}; required are "
                "a temperature above 0, a weight of at least 0 (0 switches it off), and 0 ≤ dropout < 1"
            )
        self.backbone, self.features, self.temperature = backbone, features, temperature
        self.contrastive_weight, self.dropout = contrastive_weight, dropout
        self.norm: Norm = norm
        self.query, self.key, self.value = (nn.Linear(d, d, bias=False) for _ in range(3))
        self.out = nn.Linear(d, d)
        self.layer_norm = nn.LayerNorm(d)

    def adapt(self, support: Labelled, query_x: Tensor | None = None) -> Prototypes:
        """T(C), the adapted prototypes; classes without support are not attended to."""
        require_classes(support.y)
        centres = prototypes(self._embed(support.x), support.y)  # (way, d)
        there = (support.y.sum(0) > 0).expand(len(centres), -1)  # (way, way)
        return Prototypes(self.transform(centres, there), support.y)

    def predict(self, adapted: Prototypes, x: Tensor) -> Tensor:
        """Equation (2), (m, way)."""
        return mask_absent(self._similarity(self._embed(x), adapted.centres), adapted.y)

    def meta_loss(self, episode: Episode) -> Tensor:
        """Equation (3), in evaluation mode without the contrastive loss."""
        loss = super().meta_loss(episode)
        if not self.training or self.contrastive_weight == 0:
            return loss
        return loss + self.contrastive_weight * self.contrastive_loss(episode)

    def contrastive_loss(self, episode: Episode) -> Tensor:
        """L_contrastive in nats, a mean over the examples that are not padding."""
        z = torch.cat([self._embed(part.x) for part in episode])  # (n, d)
        y = torch.cat([part.y for part in episode])  # (n, way)
        adapted = self.transform(z, y @ y.T > 0)
        return cross_entropy(mask_absent(self._similarity(adapted, prototypes(adapted, y)), y), y)

    def transform(self, points: Tensor, sees: Tensor) -> Tensor:
        """T: (n, d) → (n, d); ``sees`` (n, n) says which points (columns) a point (row) attends to, besides itself."""
        read = self.layer_norm(points) if self.norm == "pre" else points
        q, k, v = self.query(read), self.key(read), self.value(read)
        logits = q @ k.T / math.sqrt(q.shape[1])  # (n, n)
        eye = torch.eye(len(points), dtype=torch.bool, device=points.device)
        attention = torch.softmax(torch.where(sees | eye, logits, torch.finfo(logits.dtype).min), dim=-1)
        mixed = self.out(F.dropout(attention, self.dropout, self.training) @ v)
        mixed = F.dropout(mixed, self.dropout, self.training)
        return points + mixed if self.norm == "pre" else self.layer_norm(points + mixed)

    def _similarity(self, z: Tensor, centres: Tensor) -> Tensor:
        return -squared_euclidean(z, centres) / self.temperature

    def _embed(self, x: Tensor) -> Tensor:
        return self.backbone(x).flatten(1)
