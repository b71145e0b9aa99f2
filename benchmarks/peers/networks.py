"""The networks, of stock layers; the last layer of each is called ``linear``."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class StockMLP(nn.Module):
    """1 → 40 → 40 → 1, the network of the sinusoid task.

    Args:
        width: of both hidden layers.
    """

    def __init__(self, width: int = 40):
        super().__init__()
        self.first, self.second, self.linear = nn.Linear(1, width), nn.Linear(width, width), nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 1) → (n, 1)."""
        return self.linear(F.relu(self.second(F.relu(self.first(x)))))


class StockConv4(nn.Module):
    """Four blocks of 3×3 convolution, batch norm by batch statistics, ReLU and 2×2 max-pool; a linear layer.

    The convolutions have no bias, which the norm would remove.

    Args:
        width: channels of every block.
        image_size: in pixels.
        way: classes.
    """

    def __init__(self, width: int = 64, image_size: int = 28, way: int = 5):
        super().__init__()
        self.blocks = nn.Sequential()
        for i in range(4):
            self.blocks.append(
                nn.Sequential(
                    nn.Conv2d(width if i else 1, width, 3, padding=1, bias=False),
                    nn.BatchNorm2d(width, track_running_stats=False),
                    nn.ReLU(),
                    nn.MaxPool2d(2),
                )
            )
        self.linear = nn.Linear(width * (image_size // 16) ** 2, way)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 1, image_size, image_size) → (n, way)."""
        return self.linear(self.blocks(x).flatten(1))


def our_conv4_name(name: str) -> str:
    """blocks.0.0.weight → backbone.blocks.0.weight, blocks.0.1.bias → backbone.blocks.0.affine.bias."""
    if name.startswith("linear."):
        return name
    _, block, layer, last = name.split(".")
    return f"backbone.blocks.{block}.{'affine.' if layer == '1' else ''}{last}"


class Transformer(nn.Module):
    """A sequence of vectors → read, positions, encoder layers without dropout, mean over time.

    Args:
        features: length of a vector.
        time: length of a sequence.
        width: of the tokens.
        layers: encoder layers.
        way: classes.
    """

    def __init__(self, features: int, time: int, width: int = 64, layers: int = 2, way: int = 5):
        super().__init__()
        self.read = nn.Linear(features, width)
        self.position = nn.Parameter(0.02 * torch.randn(time, width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.encode = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.linear = nn.Linear(width, way)

    def forward(self, x: Tensor) -> Tensor:
        """(n, time, features) → (n, way)."""
        return self.linear(self.encode(self.read(x) + self.position).mean(1))


class Recurrent(nn.Module):
    """A sequence of vectors → LSTM layers, the state at the end.

    Args:
        features, width, layers, way: as for ``Transformer``.
    """

    def __init__(self, features: int, width: int = 64, layers: int = 2, way: int = 5):
        super().__init__()
        self.lstm = nn.LSTM(features, width, layers, batch_first=True)
        self.linear = nn.Linear(width, way)

    def forward(self, x: Tensor) -> Tensor:
        """(n, time, features) → (n, way)."""
        return self.linear(self.lstm(x)[0][:, -1])
