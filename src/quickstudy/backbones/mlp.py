"""A multilayer perceptron: the network of the sinusoid task (Finn et al. 2017) and of tables."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


class MLP(nn.Module):
    """Linear layers with ReLU between them: ``in_features`` → ``hidden``... → ``out_features``.

    Args:
        in_features: length of an example; examples with several axes are flattened.
        hidden: widths of the hidden layers.
        out_features: length of the output.
    """

    def __init__(self, in_features: int, hidden: Sequence[int] = (40, 40), out_features: int = 1):
        super().__init__()
        self.in_features, self.hidden, self.out_features = in_features, tuple(hidden), out_features
        sizes = (in_features, *self.hidden, out_features)
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(sizes):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """(n, *input) → (n, out_features)."""
        x = x.flatten(1)
        if x.shape[1] != self.in_features:
            raise ValueError(
                f"examples of {x.shape[1]} numbers; this network was built for {self.in_features}: give it examples of "
                "that length, or build it for these"
            )
        return self.layers(x)


class WithLinear(nn.Module):
    """A backbone with a linear layer on top: a network that predicts by itself.

    Args:
        backbone: (n, *input) → (n, backbone.out_features).
        out_features: classes, or targets.
    """

    def __init__(self, backbone: nn.Module, out_features: int):
        super().__init__()
        self.backbone, self.out_features = backbone, out_features
        self.linear = nn.Linear(int(backbone.out_features), out_features)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor) -> Tensor:
        """(n, *input) → (n, out_features)."""
        return self.linear(self.backbone(x))
