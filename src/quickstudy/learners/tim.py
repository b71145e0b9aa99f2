"""TIM, transductive information maximisation: metric-based, transductive.

Malik Boudiaf, Imtiaz Masud Ziko, Jérôme Rony, José Dolz, Pablo Piantanida, Ismail Ben Ayed. Transductive Information
Maximization For Few-Shot Learning. NeurIPS 2020, arXiv:2008.11297.

The weights of a classifier on features z of unit length start as prototypes. They are then fitted so that the support
set S is classified well and that predictions for the queries Q tell as much as they can: each is sure, and all
together they use every class.

    p_ik ∝ exp(−τ/2 ‖w_k − z_i‖²)                                                                        (1)
    min_W  λ · CE(S) − H(Y_Q) + α · H(Y_Q | X_Q)                                                         (2)

By TIM-ADM: with auxiliary q_ik in place of p_ik for the queries, both steps are formulas, ``iterations`` times.

    q_ik ∝ p_ik^(1+α) / (Σ_{i ∈ Q} p_ik^(1+α))^½                                                         (3)
    w_k ← [ a Σ_S (y_ik z_i + p_ik (w_k − z_i)) + b Σ_Q (q_ik z_i + p_ik (w_k − z_i)) ]
        / [ a Σ_S y_ik + b Σ_Q q_ik ],  a = λ/(1+α), b = |S|/|Q|                                         (4)
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from quickstudy.episode import Labelled
from quickstudy.functional import mask_absent, normalised, prototypes, require_classes, squared_euclidean
from quickstudy.learner import Learner
from quickstudy.learners.protonet import Prototypes


class TIM(Learner[Prototypes]):
    """Fit prototypes to the support set and to the queries' own predictions.

    Args:
        backbone: (n, *input) → (n, d), trained before.
        iterations: of (3) and (4), at least 0; none leaves a nearest mean.
        temperature: τ.
        support_weight: λ, of the cross-entropy of the support set.
        entropy_weight: α, of the entropy that each query's prediction has left.

    Raises:
        ValueError: numbers out of range.

    Transductive: ``adapt`` needs the queries, and the prediction of one depends on the others. The marginal entropy
    H(Y_Q) expects about as many queries of each class. It counts on queries in numbers: a single one would be spread
    over all classes.

    Differs from the paper: TIM-ADM alone, not TIM-GD. Classes without support take no part in (3) and (4). The paper's
    features are frozen; here gradients pass through the iterations for whoever wants to train through them.
    """

    transductive: ClassVar[bool] = True

    def __init__(
        self,
        backbone: nn.Module,
        *,
        iterations: int = 150,
        temperature: float = 15.0,
        support_weight: float = 0.1,
        entropy_weight: float = 1.0,
    ):
        super().__init__()
        if iterations < 0 or not temperature > 0 or not support_weight > 0 or not entropy_weight >= 0:
            raise ValueError(
                f"iterations={iterations}, temperature={temperature}, support_weight={support_weight}, "
                f"entropy_weight={entropy_weight}; required are iterations and entropy_weight of at least 0, the "
                "others above 0"
            )
        self.backbone, self.iterations, self.temperature = backbone, iterations, temperature
        self.support_weight, self.entropy_weight = support_weight, entropy_weight

    def adapt(self, support: Labelled, query_x: Tensor | None = None) -> Prototypes:
        """The fitted weights W (way, d)."""
        require_classes(support.y)
        if query_x is None:
            raise ValueError("no queries were given; TIM is transductive: call adapt(support, query_x), or answer()")
        y = support.y
        z, z_query = self._embed(support.x), self._embed(query_x)  # (n, d), (m, d)
        w = prototypes(z, y)
        a, b = self.support_weight / (1 + self.entropy_weight), y.sum() / len(z_query)
        real = y.sum(-1, keepdim=True)  # (n, 1), 0 for padding
        for _ in range(self.iterations):
            p, p_query = (self._log_probability(part, w, y).exp() for part in (z, z_query))
            w = self.update(w, a * y, a * real * p, z, b * self.sharpen(z_query, w, y), b * p_query, z_query)
        return Prototypes(w, y)

    def predict(self, adapted: Prototypes, x: Tensor) -> Tensor:
        """log p, (m, way)."""
        return self._log_probability(self._embed(x), adapted.centres, adapted.y)

    def sharpen(self, z: Tensor, w: Tensor, y: Tensor) -> Tensor:
        """Equation (3): q (m, way)."""
        log_u = (1 + self.entropy_weight) * torch.where(y.sum(0) > 0, self._log_probability(z, w, y), 0.0)
        return torch.softmax(mask_absent(log_u - 0.5 * log_u.logsumexp(0), y), dim=-1)

    @staticmethod
    def update(w: Tensor, y: Tensor, p: Tensor, z: Tensor, q: Tensor, p_query: Tensor, z_query: Tensor) -> Tensor:
        """Equation (4), with the factors a and b already in y, p, q and p_query."""
        pull = (y - p).T @ z + (q - p_query).T @ z_query + (p.sum(0) + p_query.sum(0)).unsqueeze(-1) * w  # (way, d)
        mass = (y.sum(0) + q.sum(0)).unsqueeze(-1)  # (way, 1)
        return torch.where(mass > 0, pull / torch.where(mass > 0, mass, 1.0), w)

    def _log_probability(self, z: Tensor, w: Tensor, y: Tensor) -> Tensor:
        """Equation (1), with the lowest finite number for classes without support."""
        logits = mask_absent(-0.5 * self.temperature * squared_euclidean(z, w), y)
        return mask_absent(torch.log_softmax(logits, dim=-1), y)

    def _embed(self, x: Tensor) -> Tensor:
        return normalised(self.backbone(x).flatten(1))
