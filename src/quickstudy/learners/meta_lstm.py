"""The LSTM meta-learner: gradient-based.

Sachin Ravi, Hugo Larochelle. Optimization as a Model for Few-Shot Learning. ICLR 2017,
https://openreview.net/forum?id=rJY0-Kcll.

Gradient descent, θ_t = θ_{t−1} − α ∇L, has the form of an LSTM's cell state, with c = θ, f = 1 and i = α. So let an
LSTM choose f and i, and learn its first cell state, which is the initialisation:

    c_t = f_t ⊙ c_{t−1} + i_t ⊙ c̃_t,    c_t = θ_t,  c̃_t = −∇L_support(θ_{t−1})   (equation 2; ``inner_steps`` times)
    i_t = σ(W_I [∇L, L, θ_{t−1}, i_{t−1}] + b_I)                                   (section 3.1)
    f_t = σ(W_F [∇L, L, θ_{t−1}, f_{t−1}] + b_F)
    min_{c_0,W,b} Σ_T L_query(θ_T)

W and b are the same for all elements of θ, and each element has gates and a cell state of its own (section 3.2). A
plain LSTM, shared likewise, reads ∇L and L, scaled as in appendix A of Andrychowicz et al. 2016 (arXiv:1606.04474); its
hidden state is what the gates see of them (section 4.1).
"""

from collections.abc import Sequence

from torch import nn

from quickstudy.episode import Labelled
from quickstudy.inner import AnyMode, Params, unroll
from quickstudy.learners.gradient_based import GradientBased, Head
from quickstudy.optimizers.meta_lstm_rule import MetaLSTMRule, measured, with_one


class MetaLSTM(GradientBased):
    """Adapt a network by steps whose sizes, and how much of a weight they keep, an LSTM chooses for each element.

    Args:
        network, head, inner_steps, mode, adapts, inner_batch, accumulate, regression: see ``GradientBased``.
            mode="first_order" is the paper's own: gradients and losses that the LSTM reads are constants (section
            3.3.1). The implicit mode is not for it.
        inner_lr: where input gates start, a learning rate between 0 and 1.
        forget: where forget gates start, between 0 and 1.
        hidden: units of the first layer.
        seed: of the first weights of the LSTM.

    Raises:
        ValueError: ``inner_lr`` or ``forget`` outside of these; no units.

    Differs from the paper: the meta-gradient is exact by default. A head can be shared between classes, so one learner
    serves any way. Every step reads the whole support set, or fixed parts of it, not a random batch. Normalisation is
    the network's: batch statistics are those of the batch at hand, in meta-test as well, where the paper takes running
    averages that it collects on the support set.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        head: Head = "prototypes",
        inner_lr: float = 0.1,
        inner_steps: int = 5,
        forget: float = 0.999,
        hidden: int = 8,
        mode: AnyMode = "reverse",
        adapts: str | Sequence[str] = "*",
        inner_batch: int = 0,
        accumulate: bool = False,
        regression: bool = False,
        seed: int = 0,
    ):
        super().__init__(
            network,
            head=head,
            update_rule=MetaLSTMRule(hidden, inner_lr=inner_lr, forget=forget, seed=seed),
            inner_steps=inner_steps,
            mode=mode,
            adapts=adapts,
            inner_batch=inner_batch,
            accumulate=accumulate,
            regression=regression,
        )
        self.inner_lr, self.forget, self.hidden, self.seed = inner_lr, forget, hidden, seed

    def adapt_for(self, support: Labelled, steps: int) -> Params:
        """φ after that many steps."""
        start = self.start(support)
        moving = {name: p for name, p in start.items() if self.moves(name)}
        losses = self.inner_losses(support, {name: p for name, p in start.items() if name not in moving})
        adapted = unroll(
            self.update_rule,
            [measured(loss) for loss in losses],
            with_one(moving),
            steps=steps,
            mode=self.mode,
            accumulate=self.accumulate,
        )
        return self.finish(start, adapted, support)
