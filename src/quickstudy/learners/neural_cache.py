"""Neural cache: memory-based, for language models.

Edouard Grave, Armand Joulin, Nicolas Usunier. Improving Neural Language Models with a Continuous Cache. ICLR 2017,
arXiv:1612.04426.

A trained recurrent network reads the support text and writes down, for each token, the hidden state before it and the
token itself. Where a query's hidden state is like a stored one, the stored token becomes likelier. Nothing is fitted.

    memory = {(h_i, x_{i+1})},  i over the tokens of the support text                      (section 3)
    p_cache(w | h_t) ∝ Σ_i 1{w = x_{i+1}} exp(θ h_tᵀ h_i)                                  (section 3)

    "linear":  p(w | h_t) = (1 − λ) p_vocab(w | h_t) + λ p_cache(w | h_t)                  (section 3)
    "global":  p(w | h_t) ∝ exp(o_w(h_t)) + Σ_i 1{w = x_{i+1}} exp(θ h_tᵀ h_i + α)         (section 3)

with the network's scores o_w, p_vocab = softmax(o), and α = log(λ / (1 − λ)).
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from quickstudy.episode import Labelled
from quickstudy.functional import require_classes
from quickstudy.learner import Learner


class Memory(NamedTuple):
    """Attributes: keys h_i (k, d), and the tokens x_{i+1} as one-hot rows (k, vocabulary), all zero for padding."""

    keys: Tensor
    values: Tensor


class NeuralCache(Learner[Memory]):
    """Mix a language model's next token with those that followed like contexts in the support text.

    Examples are sentences: x (n, length) integers, y (n, length, vocabulary) the next tokens, one-hot; an all-zero row
    is padding and is neither stored nor judged. Predictions are log-probabilities (m, length, vocabulary), and the loss
    is the mean of −log p in nats over all tokens that are not padding. λ and θ are meta-parameters. Without support the
    prediction is the network's own; one meta-training with ``shot=0`` trains the network, and another one, with it
    frozen, λ and θ.

    Args:
        network: a language model: ``hidden(x)`` maps (n, length) → (n, length, d), and ``scores(h)`` (..., d) →
            (..., vocabulary).
        combine: "linear" or "global"; see above. With "global" a larger memory weighs more, and one of closer contexts.
        weight: where λ starts, in [0, 1); at 0 it stays 0, and the prediction is the network's own.
        sharpness: where θ starts, above 0; it cannot become negative.

    Raises:
        ValueError: numbers out of range, an unknown ``combine``.

    ``save`` keeps the weights and not the vocabulary that the tokens are numbers of: keep that beside them.

    Differs from the paper: the memory is a given text and not the last tokens before the one to predict; λ, θ and α are
    learned by gradient descent and not taken from a grid.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        combine: Literal["linear", "global"] = "linear",
        weight: float = 0.1,
        sharpness: float = 0.1,
    ):
        super().__init__()
        if combine not in ("linear", "global"):
            raise ValueError(f"combine={combine!r}; choose 'linear' or 'global'")
        if not 0 <= weight < 1 or not 0 < sharpness < math.inf:
            raise ValueError(f"weight={weight}, sharpness={sharpness}; required are 0 ≤ λ < 1 and θ > 0")
        self.network, self.weight, self.sharpness = network, weight, sharpness
        self.combine: Literal["linear", "global"] = combine
        start = torch.tensor(float(weight or 0.5)).logit()  # at 0 the memory is not read, and the number a finite one
        self.logit_weight = nn.Parameter(start, requires_grad=weight > 0)
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(sharpness)), requires_grad=weight > 0)

    def adapt(self, support: Labelled, query_x: Tensor | None = None) -> Memory:
        """The memory: a row for each token of the support text."""
        require_classes(support.y)
        keys = self._hidden(support.x)  # (n, length, d)
        return Memory(keys.flatten(0, 1), support.y.flatten(0, 1))

    def predict(self, adapted: Memory, x: Tensor) -> Tensor:
        """log p(w | h_t), (m, length, vocabulary)."""
        h = self._hidden(x)
        scores = self._scores(h)  # o_w, (m, length, vocabulary)
        keys, values = adapted
        if values.shape[-1] != scores.shape[-1]:
            raise ValueError(
                f"the network scores {scores.shape[-1]} tokens and the support text is labelled over "
                f"{values.shape[-1]}; required is the same vocabulary for both: build the network for it"
            )
        if len(keys) == 0 or self.weight == 0:
            return scores.log_softmax(-1)
        stored = values.sum(-1) > 0  # (k,)
        match = self.log_sharpness.exp() * (h @ keys.T)  # θ h_tᵀ h_i, (m, length, k)
        lowest = torch.finfo(match.dtype).min
        match = torch.where(stored, match, lowest)
        top = match.amax(-1, keepdim=True).detach()
        found = (torch.exp(match - top) * stored) @ values  # Σ_i 1{w = x_{i+1}} exp(θ h_tᵀ h_i − top)
        there = found > 0
        cache = torch.where(there, torch.where(there, found, 1).log() + top, lowest)
        if self.combine == "global":
            return torch.logaddexp(scores, cache + self.logit_weight).log_softmax(-1)
        plain = scores.log_softmax(-1)
        ours, its = logsigmoid(-self.logit_weight), logsigmoid(self.logit_weight)  # log(1 − λ), log λ
        mixed = torch.logaddexp(ours + plain, its + cache.log_softmax(-1))
        return torch.where(stored.any(), mixed, plain)

    def _hidden(self, x: Tensor) -> Tensor:
        return self.network.hidden(x)  # pyright: ignore[reportCallIssue]

    def _scores(self, h: Tensor) -> Tensor:
        return self.network.scores(h)  # pyright: ignore[reportCallIssue]
