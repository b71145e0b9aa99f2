"""A transformer encoder for sequences (Vaswani et al., Attention Is All You Need, NeurIPS 2017, arXiv:1706.03762)."""

import torch
from torch import Tensor, nn

from quickstudy.backbones.recurrent import require_sequences


class Transformer(nn.Module):
    """Linear map → + positions → encoder layers → layer norm → mean over time.

    Args:
        in_features: numbers per time step.
        width: of every layer, an even multiple of ``heads``; the feed-forward part is four times as wide.
        layers: encoder layers.
        heads: attention heads.
        dropout: probability of a zero, in [0, 1).

    Attributes:
        out_features: length of the embedding.

    Fused attention, which has no second derivative, is avoided by ``quickstudy.inner.call``: inside an inner loop it
    runs as products and a softmax.

    Differs from the paper: normalisation stands before each part and not after it (Xiong et al. 2020,
    arXiv:2002.04745), GELU in place of ReLU, and no dropout unless asked for. Positions are the paper's sines and
    cosines, so there is no longest sequence.
    """

    def __init__(self, in_features: int, width: int = 64, layers: int = 2, heads: int = 4, *, dropout: float = 0.0):
        super().__init__()
        if min(in_features, width, layers, heads) < 1 or width % heads or width % 2:
            raise ValueError(
                f"in_features={in_features}, width={width}, layers={layers}, heads={heads}; required is at least 1 of "
                "each, and an even width that is a multiple of heads"
            )
        self.in_features, self.width, self.layers, self.heads = in_features, width, layers, heads
        self.dropout, self.out_features = dropout, width
        self.read = nn.Linear(in_features, width)
        self.blocks = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(
                    width, heads, 4 * width, dropout, activation="gelu", batch_first=True, norm_first=True
                )
                for _ in range(layers)
            )
        )
        self.normalise = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """(n, time, in_features) → (n, width); any time."""
        require_sequences(x, self.in_features)
        z = self.read(x)  # (n, time, width)
        z = self.blocks(z + positions(z.shape[1], self.width).to(z))
        return self.normalise(z).mean(1)


def positions(time: int, width: int) -> Tensor:
    """sin(t / 10000^(2i/width)) and, beside it, the cosine, for i = 0, 1, ...: (time, width); section 3.5."""
    t = torch.arange(time, dtype=torch.float64).unsqueeze(1)
    angle = t / 10000 ** (torch.arange(0, width, 2, dtype=torch.float64) / width)  # (time, width / 2)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)
