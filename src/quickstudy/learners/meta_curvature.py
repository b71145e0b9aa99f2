"""Meta-Curvature: gradient-based.

Eunbyung Park, Junier B. Oliva. Meta-Curvature. NeurIPS 2019, arXiv:1902.03356.

Learn the initialisation θ and a linear map of the gradient: a square matrix along each axis of each weight, which is a
preconditioner in the form of a Kronecker product.

    MC(G) = G ×₃ M_f ×₂ M_i ×₁ M_o                          (equation 5; a linear layer has no M_f, a bias M_o alone)
    φ_0 = θ,  φ_{t+1} = φ_t − α MC(∇L_support(φ_t))         (``inner_steps`` times)
    min_{θ,M} Σ_T L_query(φ_T(θ, M))
"""

from collections.abc import Sequence

from torch import nn

from quickstudy.inner import SGD, AnyMode, Curvature
from quickstudy.learners.gradient_based import GradientBased, Head


class MetaCurvature(GradientBased):
    """Adapt a network by gradient steps along a learned transformation of the gradient.

    Args:
        network, head, inner_steps, mode, adapts, inner_batch, accumulate, regression: see ``GradientBased``. A network
            that says its ``out_features`` (as those of quickstudy do) has a full matrix over the features of the head,
            others one number.
        inner_lr: α; all matrices start as the identity, so learning starts from MAML with this step size.

    Raises:
        ValueError: a negative ``inner_lr``; one step with a shared head and a network that adapts.

    Differs from the paper: along the classes of a head there is one number in place of a matrix, so one learner serves
    any way.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        head: Head = "shared",
        inner_lr: float = 0.1,
        inner_steps: int = 5,
        mode: AnyMode = "reverse",
        adapts: str | Sequence[str] = "*",
        inner_batch: int = 0,
        accumulate: bool = False,
        regression: bool = False,
    ):
        super().__init__(
            network,
            head=head,
            update_rule=SGD(inner_lr),
            inner_steps=inner_steps,
            mode=mode,
            adapts=adapts,
            inner_batch=inner_batch,
            accumulate=accumulate,
            regression=regression,
        )
        self.refuse_idle("the network's matrices")
        self.inner_lr = inner_lr
        self.update_rule = Curvature(self.like(), inner_lr)
