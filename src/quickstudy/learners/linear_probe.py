"""Linear probe: transfer learning, the baseline that every meta-learner must beat.

Wei-Yu Chen, Yen-Cheng Liu, Zsolt Kira, Yu-Chiang Frank Wang, Jia-Bin Huang. A Closer Look at Few-shot Classification.
ICLR 2019, arXiv:1904.04232 ("Baseline"). Yonglong Tian et al., Rethinking Few-shot Image Classification, ECCV 2020.

The backbone is trained by plain classification (``Classifier``) and kept; each task fits a new linear layer on it.

    z = f_θ(x)/‖f_θ(x)‖
    W, b = ``steps`` gradient steps of size ``lr`` from 0 on  cross-entropy(z Wᵀ + b, y) + l2·‖W‖²
"""

import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.episode import Labelled
from quickstudy.functional import mask_absent, require_classes
from quickstudy.inner import SGD, Params, unroll
from quickstudy.learner import Learner, cross_entropy


class LinearProbe(Learner[Params]):
    """Fit a fresh linear layer per task on a fixed embedding.

    Args:
        backbone: (n, *input) → (n, d), trained by plain classification.
        steps: gradient steps on the linear layer.
        lr: their step size.
        l2: weight of the penalty on the layer's weights.

    Differs from the paper: embeddings are normalised (as in Tian et al.), and full-batch gradient descent from zero
    takes the place of mini-batch SGD from a random start, so that the fit is deterministic.
    """

    def __init__(self, backbone: nn.Module, *, steps: int = 100, lr: float = 1.0, l2: float = 1e-3):
        super().__init__()
        self.backbone, self.steps, self.lr, self.l2 = backbone, steps, lr, l2

    def adapt(self, support: Labelled, query_x: Tensor | None = None) -> Params:
        """The fitted layer: weight (way, d), bias (way,), and "y", the support labels."""
        require_classes(support.y)
        z = self._embed(support.x)  # (n, d)

        def loss(params: Params) -> Tensor:
            logits = z @ params["weight"].T + params["bias"]
            return cross_entropy(logits, support.y) + self.l2 * params["weight"].square().sum()

        way = support.y.shape[-1]
        zero = {"weight": z.new_zeros(way, z.shape[-1]), "bias": z.new_zeros(way)}
        return {**unroll(SGD(self.lr), loss, zero, steps=self.steps), "y": support.y}

    def predict(self, adapted: Params, x: Tensor) -> Tensor:
        """z Wᵀ + b, (m, way)."""
        return mask_absent(self._embed(x) @ adapted["weight"].T + adapted["bias"], adapted["y"])

    def _embed(self, x: Tensor) -> Tensor:
        return F.normalize(self.backbone(x).flatten(1), dim=-1)
