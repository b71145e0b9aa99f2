"""A recurrent network for sequences (Hochreiter & Schmidhuber, Long Short-Term Memory, Neural Computation 1997)."""

from torch import Tensor, nn


class LSTMEncoder(nn.Module):
    """One LSTM layer; the embedding is its output after the last time step.

    Args:
        in_features: numbers per time step.
        width: length of the embedding.

    Attributes:
        out_features: length of the embedding.

    Fused recurrent kernels, which have no second derivative, are avoided by ``quickstudy.inner.call``.
    """

    def __init__(self, in_features: int, width: int = 64):
        super().__init__()
        if in_features < 1 or width < 1:
            raise ValueError(f"in_features={in_features}, width={width}; required is at least 1 of each")
        self.in_features, self.width, self.out_features = in_features, width, width
        self.lstm = nn.LSTM(in_features, width, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """(n, time, in_features) → (n, width); any time."""
        require_sequences(x, self.in_features)
        return self.lstm(x)[0][:, -1]  # (n, time, width) → (n, width)


def require_sequences(x: Tensor, in_features: int) -> None:
    """Refuse anything but sequences of that many numbers per time step.

    Raises:
        ValueError: another shape, or no time step.
    """
    if x.ndim != 3 or x.shape[1] == 0 or x.shape[2] != in_features:
        raise ValueError(
            f"sequences of shape {tuple(x.shape[1:])}; this network was built for (time, {in_features}) with 1 time "
            "step or more: reshape the examples, or build it for theirs"
        )
