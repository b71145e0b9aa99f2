"""Proto-MAML: gradient-based, from a metric-based start.

Eleni Triantafillou, Tyler Zhu, Vincent Dumoulin et al. Meta-Dataset: A Dataset of Datasets for Learning to Learn from
Few Examples. ICLR 2020, arXiv:1903.03096, section 3.

MAML's inner loop with a linear head that starts as a ProtoNet, so that no class needs parameters of its own.

    c_k = 1/|S_k| Σ_{(x, y) ∈ S_k} f_θ(x)
    w_k = 2 c_k,  b_k = −‖c_k‖²       so that softmax_k(w_k·f(x) + b_k) = softmax_k(−‖f(x) − c_k‖²)
    φ_0 = (θ, w, b),  φ_{t+1} = φ_t − α ∇L_support(φ_t)     (``inner_steps`` times)
    min_θ Σ_T L_query(φ_T)                                  (the gradient flows through c_k as well)
"""

from collections.abc import Sequence

from torch import nn

from quickstudy.inner import SGD, AnyMode
from quickstudy.learners.gradient_based import GradientBased


class ProtoMAML(GradientBased):
    """Adapt a network, and a head that starts at the class means, by gradient descent on the support set.

    Args:
        network, inner_steps, mode, adapts, inner_batch, accumulate: see ``GradientBased``; its head is "prototypes".
        inner_lr: α, at least 0. The logits grow with the square of the embedding, so it is smaller than MAML's.

    Differs from the paper: nothing in the method; its experiments take mode="first_order" for memory's sake.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        inner_lr: float = 0.02,
        inner_steps: int = 5,
        mode: AnyMode = "reverse",
        adapts: str | Sequence[str] = "*",
        inner_batch: int = 0,
        accumulate: bool = False,
    ):
        super().__init__(
            network,
            head="prototypes",
            update_rule=SGD(inner_lr),
            inner_steps=inner_steps,
            mode=mode,
            adapts=adapts,
            inner_batch=inner_batch,
            accumulate=accumulate,
            regression=False,
        )
        self.inner_lr = inner_lr
