"""A recurrent language model: the next token of a sentence from the ones before.

LSTM: Hochreiter & Schmidhuber, Neural Computation 1997. GRU: Cho et al., EMNLP 2014, arXiv:1406.1078. One matrix embeds
tokens and reads them out: Press & Wolf, Using the Output Embedding to Improve Language Models, EACL 2017,
arXiv:1608.05859.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

Cell = Literal["lstm", "gru"]


class RecurrentLM(nn.Module):
    """Embedding → one recurrent layer → the scores o_w of every token w.

    Args:
        vocabulary: tokens, at least 2.
        width: of the embedding and of the hidden state h.
        cell: "lstm" or "gru".
        dropout: probability of a zero in embeddings and in what is read out, in [0, 1).

    Attributes:
        out_features: the vocabulary.

    Fused recurrent kernels, which have no second derivative, are avoided by ``quickstudy.inner.call``.
    """

    def __init__(self, vocabulary: int, width: int = 128, *, cell: Cell = "lstm", dropout: float = 0.0):
        super().__init__()
        if vocabulary < 2 or width < 1 or not 0 <= dropout < 1:
            raise ValueError(
                f"vocabulary={vocabulary}, width={width}, dropout={dropout}; required are at least 2, at least 1, and "
                "0 ≤ dropout < 1"
            )
        if cell not in ("lstm", "gru"):
            raise ValueError(f"cell={cell!r}; choose 'lstm' or 'gru'")
        self.vocabulary, self.width, self.dropout, self.out_features = vocabulary, width, dropout, vocabulary
        self.cell: Cell = cell
        self.embedding = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)  # as it reads out, too
        self.recurrent = (nn.LSTM if cell == "lstm" else nn.GRU)(width, width, batch_first=True)
        self.bias = nn.Parameter(self.embedding.weight.new_zeros(vocabulary))

    def forward(self, x: Tensor) -> Tensor:
        """(n, length) integers → scores of the next token (n, length, vocabulary)."""
        return self.scores(self.hidden(x))

    def hidden(self, x: Tensor) -> Tensor:
        """(n, length) integers → h after each token (n, length, width); it has seen that token and those before."""
        if x.ndim != 2 or x.is_floating_point() or x.shape[1] == 0:
            raise ValueError(
                f"tokens of shape {tuple(x.shape)} and type {x.dtype}; required are integers (n, length) of 1 token or "
                "more: encode the text with a quickstudy.data.text.Vocabulary"
            )
        if x.shape[0] == 0:
            return self.embedding(x)  # nothing, of the right shape: recurrent layers refuse an empty batch
        embedded = F.dropout(self.embedding(x), self.dropout, self.training)
        return self.recurrent(embedded)[0]

    def scores(self, h: Tensor) -> Tensor:
        """o_w of each token: (..., width) → (..., vocabulary)."""
        return F.linear(F.dropout(h, self.dropout, self.training), self.embedding.weight, self.bias)
