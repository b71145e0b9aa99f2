"""Attention among sets, in plain products (Vaswani et al., Attention Is All You Need, NeurIPS 2017, arXiv:1706.03762).

Nothing here knows a position: a set in another order gives the same result. Unlike torch's fused kernels, these
products and softmaxes can be differentiated twice and vectorised over tasks.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """softmax(Q Kᵀ / √(width/heads)) V in several heads, equations (1) and section 3.2.2; no biases.

    Args:
        width: of queries, keys, values and result; a multiple of ``heads``.
        heads: how many.

    Raises:
        ValueError: a width that is no multiple of the heads.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        if heads < 1 or width < 1 or width % heads:
            raise ValueError(f"width={width} in heads={heads}; required is a width that is a multiple of the heads")
        self.width, self.heads = width, heads
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.join = nn.Linear(width, width, bias=False)

    def weights(self, queries: Tensor, keys: Tensor, there: Tensor | None = None) -> Tensor:
        """How much each query looks at each key, (heads, m, n); every row adds up to 1.

        Args:
            queries: (m, width).
            keys: (n, width).
            there: (n,) whether each key may be looked at; where none may, all get the same.
        """
        q, k = self._split(self.query(queries)), self._split(self.key(keys))  # (heads, m, d), (heads, n, d)
        scores = q @ k.mT / math.sqrt(self.width / self.heads)  # (heads, m, n)
        if there is not None:
            scores = torch.where(there, scores, torch.finfo(scores.dtype).min)
        return scores.softmax(-1)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, there: Tensor | None = None) -> Tensor:
        """(m, width), zero where there are no keys (n = 0)."""
        found = self.weights(queries, keys, there) @ self._split(self.value(values))  # (heads, m, d)
        return self.join(found.transpose(0, 1).flatten(1))  # (m, width)

    def _split(self, x: Tensor) -> Tensor:
        """(n, width) → (heads, n, width/heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(0, 1)


class AttentionBlock(nn.Module):
    """x + attention(x, context), then + a feed-forward part four times as wide, each behind a layer norm.

    Args:
        width, heads: of the attention.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attend = Attention(width, heads)
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, context: Tensor, there: Tensor | None = None) -> Tensor:
        """x (m, width) looks at context (n, width), of which the rows ``there`` count: (m, width)."""
        seen = self.before(context)
        x = x + self.attend(self.before(x), seen, seen, there)
        return x + self.narrow(F.gelu(self.widen(self.between(x))))
