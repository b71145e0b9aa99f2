"""R2-D2, a ridge regression head: a closed-form solver.

Luca Bertinetto, João F. Henriques, Philip H. S. Torr, Andrea Vedaldi. Meta-learning with Differentiable Closed-form
Solvers. ICLR 2019, arXiv:1805.08136.

Each task fits a linear map from the embeddings X (n, d) of its support set to the targets Y (n, way) by ridge
regression, whose solution is a formula: the meta-gradient passes through it, and there is no inner loop.

    W = argmin_W ‖X W − Y‖² + λ‖W‖² = (XᵀX + λI)⁻¹ XᵀY         (1)
      = Xᵀ (XXᵀ + λI)⁻¹ Y, taken where n < d                   (2), the Woodbury identity
    Ŷ' = α X'W + β for queries X'                               (3)

λ, α and β are learned with the backbone.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from quickstudy.episode import Labelled
from quickstudy.functional import mask_absent, require_classes, ridge
from quickstudy.learner import Learner


class LinearMap(NamedTuple):
    """Attributes: weight W (d, way), and the support labels y (n, way)."""

    weight: Tensor
    y: Tensor


class R2D2(Learner[LinearMap]):
    """Fit a ridge regression per task in a learned embedding.

    Args:
        backbone: (n, *input) → (n, d).
        strength: where λ starts, above 0.
        scale: where α starts, above 0.
        regression: targets are numbers (n, k), any k, judged by their squared error; otherwise they are classes.

    Raises:
        ValueError: a strength or scale that is not above 0.

    Differs from the paper: λ and α are exponentials of what is learned, so they stay above 0. With classes there is no
    β: it would raise all logits alike, which a softmax does not see.
    """

    def __init__(self, backbone: nn.Module, *, strength: float = 1.0, scale: float = 10.0, regression: bool = False):
        super().__init__()
        if not strength > 0 or not scale > 0:
            raise ValueError(
                f"strength={strength}, scale={scale}; required are numbers above 0: both are learned as logs"
            )
        self.backbone, self.strength, self.scale, self.regression = backbone, strength, scale, regression
        self.log_lambda = nn.Parameter(torch.tensor(math.log(strength)))
        self.log_alpha = nn.Parameter(torch.tensor(math.log(scale)))
        self.beta = nn.Parameter(torch.tensor(0.0)) if regression else None

    def adapt(self, support: Labelled, query_x: Tensor | None = None) -> LinearMap:
        """Equation (1) or (2), whichever is smaller."""
        weights = None
        if not self.regression:
            require_classes(support.y)
            weights = support.y.sum(-1)  # (n,), 0 for padding
        x = self.backbone(support.x).flatten(1)
        return LinearMap(ridge(x, support.y, self.log_lambda.exp(), weights), support.y)

    def predict(self, adapted: LinearMap, x: Tensor) -> Tensor:
        """Equation (3), (m, way)."""
        prediction = self.log_alpha.exp() * (self.backbone(x).flatten(1) @ adapted.weight)
        return mask_absent(prediction, adapted.y) if self.beta is None else prediction + self.beta
