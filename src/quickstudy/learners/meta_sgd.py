"""Meta-SGD: gradient-based.

Zhenguo Li, Fengwei Zhou, Fei Chen, Hang Li. Meta-SGD: Learning to Learn Quickly for Few-Shot Learning. 2017,
arXiv:1707.09835.

Learn the initialisation θ and, for each of its elements, the size and sign of its step: a direction that need not be
that of the gradient.

    φ = θ − α ∘ ∇L_support(θ)                               (equation 3; ``inner_steps`` times, 1 in the paper)
    min_{θ,α} Σ_T L_query(φ(θ, α))                          (equation 4)
"""

from collections.abc import Sequence

from torch import nn

from quickstudy.inner import SGD, AnyMode, LearnedRates
from quickstudy.learners.gradient_based import GradientBased, Head


class MetaSGD(GradientBased):
    """Adapt a network by gradient steps with a learned rate for each element.

    Args:
        network, inner_steps, mode, adapts, inner_batch, accumulate, regression: see ``GradientBased``.
        head: see there. "shared" needs 2 steps or more: its first step moves the head alone, so that with a single one
            the rates of the network would learn nothing.
        inner_lr: where every rate α starts, at least 0. Learned rates may become negative: those elements ascend.

    Raises:
        ValueError: a negative ``inner_lr``; one step with a shared head and a network that adapts.

    Differs from the paper: α starts at one number everywhere, not at random ones. The rates of the head are shared by
    all classes, so one learner serves any way.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        head: Head = "prototypes",
        inner_lr: float = 0.05,
        inner_steps: int = 1,
        mode: AnyMode = "reverse",
        adapts: str | Sequence[str] = "*",
        inner_batch: int = 0,
        accumulate: bool = False,
        regression: bool = False,
    ):
        if inner_lr < 0:
            raise ValueError(f"inner_lr={inner_lr}; required is a first rate of at least 0: learning may turn its sign")
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
        self.refuse_idle("rates of the network")
        self.inner_lr = inner_lr
        self.update_rule = LearnedRates(self.like(), inner_lr)
