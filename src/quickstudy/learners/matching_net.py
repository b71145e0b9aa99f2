"""Matching Networks: metric-based.

Oriol Vinyals, Charles Blundell, Timothy Lillicrap, Koray Kavukcuoglu, Daan Wierstra. Matching Networks for One Shot
Learning. NeurIPS 2016, arXiv:1606.04080.

A query attends to every support example, and the labels of those it attends to are its answer.

    ŷ = Σ_i a(x̂, x_i) y_i,   a(x̂, x_i) = softmax_i(c(f(x̂), g(x_i))),  c the cosine   (1)

Full-context embeddings read the whole support set S before they embed an example of it, and before they embed a query:

    g(x_i, S) = h⃗_i + h⃖_i + g'(x_i),  where h⃗ and h⃖ are an LSTM along g'(x_1), g'(x_2), ... and one back   (A.2)
    ĥ_k, c_k = LSTM(f'(x̂), [h_{k−1}, r_{k−1}], c_{k−1})   (3)
    h_k = ĥ_k + f'(x̂)                                      (4)
    r_{k−1} = Σ_i a(h_{k−1}, g(x_i)) g(x_i)                 (5)
    a(h_{k−1}, g(x_i)) = softmax_i(h_{k−1}ᵀ g(x_i))         (6)
    f(x̂, S) = h_K
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from quickstudy.episode import Labelled
from quickstudy.functional import mask_absent, normalised, require_classes
from quickstudy.learner import Learner

_MOST = 40.0  # e^(−2·40) is about the smallest float32


class Matches(NamedTuple):
    """Attributes: the support embeddings g (n, d) and labels y (n, way)."""

    g: Tensor
    y: Tensor


class MatchingNet(Learner[Matches]):
    """Classify by attention over the support set in a learned embedding.

    Args:
        backbone: (n, *input) → (n, d).
        scale: what the cosine is multiplied by before the softmax, above 0 and at most 40; the paper's is 1.
        full_context: embed each example in the context of the support set. Then the answer depends on the order of the
            support set, which the LSTMs read as a sequence; padding rows are passed over.
        steps: K, how often the embedding of a query reads the support set; of ``full_context`` alone.
        features: d, if the backbone has no ``out_features``; of ``full_context`` alone.

    Raises:
        ValueError: a scale or a number of steps out of range, or an unknown length of the embedding.

    Differs from the paper: a scale may be asked for. f' and g' are one network, which the paper leaves open. A class
    without support examples gets no probability.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        scale: float = 1.0,
        full_context: bool = False,
        steps: int = 5,
        features: int = 0,
    ):
        super().__init__()
        if not 0 < scale <= _MOST or steps < 1:
            raise ValueError(f"scale={scale}, steps={steps}; required are 0 < scale ≤ {_MOST:g} and at least 1 step")
        self.backbone, self.scale, self.full_context = backbone, scale, full_context
        self.steps, self.features = steps, features
        self.along: _LSTM | None = None
        if full_context:
            d = features or getattr(backbone, "out_features", None)
            if not isinstance(d, int) or d < 1:
                raise ValueError("the backbone does not say its out_features; required is their number: pass features=")
            self.along, self.back, self.attend = _LSTM(d, d), _LSTM(d, d), _LSTM(d, 2 * d)

    def adapt(self, support: Labelled, query_x: Tensor | None = None) -> Matches:
        """The embeddings of the support set, in their context where that is asked for."""
        require_classes(support.y)
        g = self.backbone(support.x).flatten(1)  # (n, d), g'
        if self.along is not None:
            real = support.y.sum(-1) > 0  # (n,)
            g = g + _sequence(self.along, g, real) + _sequence(self.back, g.flip(0), real.flip(0)).flip(0)
        return Matches(g, support.y)

    def predict(self, adapted: Matches, x: Tensor) -> Tensor:
        """Equation (1): log ŷ, (m, way)."""
        g, y = adapted
        f = self.backbone(x).flatten(1)  # (m, d), f'
        if self.along is not None:
            f = self._read(f, g, y)
        a = _attention(self.scale * normalised(f) @ normalised(g).T, y)  # (m, n)
        return mask_absent((a @ y).clamp(min=torch.finfo(a.dtype).tiny).log(), y)

    def _read(self, f: Tensor, g: Tensor, y: Tensor) -> Tensor:
        """Equations (3) to (6): f(x̂, S), (m, d), from f' (m, d)."""
        h, c = torch.zeros_like(f), torch.zeros_like(f)
        for _ in range(self.steps):
            r = _attention(h @ g.T, y) @ g  # (m, d)
            h, c = self.attend(self.attend.read(f), torch.cat([h, r], -1), c)
            h = h + f
        return h


class _LSTM(nn.Module):
    """One step of an LSTM whose recurrent input may be longer than its state, started like ``nn.LSTM``."""

    def __init__(self, d: int, recurrent: int):
        super().__init__()
        self.read, self.recur = nn.Linear(d, 4 * d), nn.Linear(recurrent, 4 * d, bias=False)
        for p in self.parameters():
            nn.init.uniform_(p, -(d**-0.5), d**-0.5)

    def forward(self, gates: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """What was read of the input (..., 4d), the recurrent input and the cell (..., d) → output and cell."""
        i, f, new, o = (gates + self.recur(h)).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(new)
        return torch.sigmoid(o) * torch.tanh(c), c


def _sequence(lstm: _LSTM, z: Tensor, real: Tensor) -> Tensor:
    """The outputs (n, d) along the rows of z (n, d); rows that are not real leave the state as it is."""
    h = c = torch.zeros_like(z[0])
    outputs = []
    for gates, here in zip(lstm.read(z), real, strict=True):
        new_h, new_c = lstm(gates, h, c)
        h, c = torch.where(here, new_h, h), torch.where(here, new_c, c)
        outputs.append(h)
    return torch.stack(outputs)


def _attention(scores: Tensor, y: Tensor) -> Tensor:
    """The softmax over the support examples (m, n) that are not padding."""
    return torch.softmax(torch.where(y.sum(-1) > 0, scores, torch.finfo(scores.dtype).min), dim=-1)
