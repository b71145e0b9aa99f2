"""Conditional neural process: in-context, one forward pass over the support set.

Marta Garnelo, Dan Rosenbaum, Chris J. Maddison, Tiago Ramalho, David Saxton, Murray Shanahan, Yee Whye Teh, Danilo J.
Rezende, S. M. Ali Eslami. Conditional Neural Processes. ICML 2018, arXiv:1807.01613.

Every support point is encoded, the encodings are averaged, and a decoder reads the average beside each new input:

    r_i = h_θ(x_i, y_i)                                            (1)
    r = r_1 ⊕ r_2 ⊕ ... ⊕ r_n,  ⊕ a mean                           (2)
    φ_i = g_θ(x_i, r) = (μ_i, σ_i²),  y_i ~ N(μ_i, σ_i²)           (3)
    meta-loss = −log Q_θ(targets | support)                        (4)
"""

import torch
from torch import Tensor

from quickstudy.backbones import MLP
from quickstudy.episode import Labelled
from quickstudy.learners.neural_process import NeuralProcess, mean_and_deviation, require_sizes


class CNP(NeuralProcess[Tensor]):
    """Predict numbers and how sure they are from the mean encoding of the points seen. φ is that mean, (width,).

    Args:
        in_features: numbers per input; inputs with several axes are flattened.
        out_features: numbers per target.
        width: of the encoding and of every hidden layer.
        layers: hidden layers of encoder and decoder each.
        least_deviation: the smallest standard deviation that is predicted, in units of the target.

    Raises:
        ValueError: sizes below 1, no least deviation; inputs or targets of another length.

    Differs from the paper: the likelihood is of the queries alone, where the paper scores the support points too; the
    deviation is ``least_deviation`` + softplus, 0.01 where the paper's code had 0.1, so that targets without noise can
    be known well. Without support points the encoding is zero.
    """

    def __init__(
        self,
        in_features: int = 1,
        out_features: int = 1,
        *,
        width: int = 128,
        layers: int = 3,
        least_deviation: float = 0.01,
    ):
        super().__init__()
        require_sizes(least_deviation, in_features=in_features, out_features=out_features, width=width, layers=layers)
        self.in_features, self.out_features, self.width, self.layers = in_features, out_features, width, layers
        self.least_deviation = least_deviation
        hidden = (width,) * layers
        self.encoder = MLP(in_features + out_features, hidden, width)
        self.decoder = MLP(in_features + width, hidden, 2 * out_features)

    def adapt(self, support: Labelled, query_x: Tensor | None = None) -> Tensor:
        """Equations (1) and (2)."""
        r = self.encoder(self.points(support))  # (n, width)
        return r.sum(0) / max(len(r), 1)

    def distribution(self, adapted: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Equation (3)."""
        x = self.inputs(x)
        return mean_and_deviation(self.decoder(torch.cat([x, adapted.expand(len(x), -1)], -1)), self.least_deviation)
