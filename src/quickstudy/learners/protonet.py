"""Prototypical Networks: metric-based.

Jake Snell, Kevin Swersky, Richard Zemel. Prototypical Networks for Few-shot Learning. NeurIPS 2017, arXiv:1703.05175.

Every class is represented by the mean of its support embeddings, and a query belongs to the nearest one.

    c_k = 1/|S_k| Σ_{(x, y) ∈ S_k} f_θ(x)                          (1)
    p(y = k | x) = softmax_k(−d(f_θ(x), c_k)),  d = squared Euclidean   (2)
"""

from typing import NamedTuple

from torch import Tensor, nn

from quickstudy.episode import Labelled
from quickstudy.functional import mask_absent, prototypes, require_classes, squared_euclidean
from quickstudy.learner import Learner


class Prototypes(NamedTuple):
    """Attributes: centres (way, d), and the support labels y (n, way), which say which classes are there."""

    centres: Tensor
    y: Tensor


class ProtoNet(Learner[Prototypes]):
    """Classify by the nearest class mean in a learned embedding.

    Args:
        backbone: (n, *input) → (n, d).

    Differs from the paper: nothing. A class without support examples gets no probability.
    """

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone

    def adapt(self, support: Labelled, query_x: Tensor | None = None) -> Prototypes:
        """Equation (1): the mean embedding of each class."""
        require_classes(support.y)
        return Prototypes(prototypes(self.backbone(support.x).flatten(1), support.y), support.y)

    def predict(self, adapted: Prototypes, x: Tensor) -> Tensor:
        """Equation (2): minus the squared distances, (m, way)."""
        return mask_absent(-squared_euclidean(self.backbone(x).flatten(1), adapted.centres), adapted.y)
