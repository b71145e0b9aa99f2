"""SNAIL: memory-based, temporal convolutions and attention over the sequence of labelled examples.

Nikhil Mishra, Mostafa Rohaninejad, Xi Chen, Pieter Abbeel. A Simple Neural Attentive Meta-Learner. ICLR 2018,
arXiv:1707.03141.

A task is the sequence (x_1, y_1), ..., (x_n, y_n), (x, 0), and the label of x is read from the last position. Each
layer sees a position and those before it, and its output is put beside its input:

    DenseBlock(R, D):       tanh(f) · σ(g),  f and g causal convolutions of 2 taps, R positions apart, with D channels
    TCBlock(T, D):          DenseBlocks with R = 1, 2, 4, ... until T positions are in sight
    AttentionBlock(K, V):   softmax(q kᵀ / √K) v,  q, k, v linear maps to K, K, V numbers, no later positions

    Attention(64, 32) → TC(T, 128) → Attention(256, 128) → TC(T, 128) → Attention(512, 256) → linear
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from quickstudy.episode import Episode, Labelled
from quickstudy.functional import mask_absent, require_classes
from quickstudy.learner import Learner
from quickstudy.sequences import features_of, in_random_order, padding_first, to_slots, with_labels_permuted


class DenseBlock(nn.Module):
    """tanh(f) · σ(g) of a position and the one ``dilation`` before it.

    Args:
        channels: numbers per position that come in.
        filters: D, numbers per position that come out.
        dilation: R.
    """

    def __init__(self, channels: int, filters: int, dilation: int):
        super().__init__()
        self.channels, self.filters, self.dilation = channels, filters, dilation
        self.taps = nn.Linear(2 * channels, 2 * filters)

    def forward(self, past: Tensor, real: Tensor, x: Tensor | None = None) -> Tensor:
        """(n, channels) → (n, filters) at each position of ``past``, or (m, filters) for each x (m, channels) after it.

        Args:
            past: (n, channels), 0 where not real.
            real: (n,).
            x: continuations of the sequence, each by itself.
        """
        n, d = len(past), self.dilation
        if x is None:
            x, before = past, nn.functional.pad(past, (0, 0, d, 0))[:n]
        else:
            before = (past[n - d] if d <= n else torch.zeros_like(x[0])).expand_as(x)
        f, g = self.taps(torch.cat([before, x], -1)).chunk(2, -1)
        return f.tanh() * g.sigmoid()


class AttentionBlock(nn.Module):
    """softmax(q kᵀ / √K) v over the positions up to each one's own.

    Args:
        channels: numbers per position that come in.
        keys: K.
        values: V, numbers per position that come out.
    """

    def __init__(self, channels: int, keys: int, values: int):
        super().__init__()
        self.channels, self.keys, self.values = channels, keys, values
        self.query, self.key = nn.Linear(channels, keys), nn.Linear(channels, keys, bias=False)
        self.value = nn.Linear(channels, values)

    def forward(self, past: Tensor, real: Tensor, x: Tensor | None = None) -> Tensor:
        """As for ``DenseBlock``: (n, values), or (m, values)."""
        scale, lowest = 1 / math.sqrt(self.keys), torch.finfo(past.dtype).min
        key, value = self.key(past), self.value(past)  # (n, K), (n, V)
        if x is None:
            seen = torch.ones(len(past), len(past), dtype=torch.bool, device=past.device).tril() & real
            logits = scale * self.query(past) @ key.T  # (n, n)
            return torch.where(seen, logits, lowest).softmax(-1) @ value
        query = scale * self.query(x)
        earlier = torch.where(real, query @ key.T, lowest)  # (m, n)
        own = (query * self.key(x)).sum(-1, keepdim=True)  # (m, 1)
        weights = torch.cat([earlier, own], -1).softmax(-1)  # (m, n + 1)
        return weights[:, :-1] @ value + weights[:, -1:] * self.value(x)


class Past(NamedTuple):
    """Attributes: layers, for each layer its input (n, channels); real (n,); y (n, way) the support labels."""

    layers: tuple[Tensor, ...]
    real: Tensor
    y: Tensor


class SNAIL(Learner[Past]):
    """Read the support set as a sequence, and each query as its continuation.

    Support examples are presented in the order in which they are given; rows of padding count as nothing, as if they
    were not there. Queries continue the same sequence, each by itself, so what the layers made of the support set is
    computed once. No layer knows positions by number: a sequence longer than ``length`` is read as a whole by the
    attention blocks, and by each convolution block over its last ``length`` positions or more.

    Args:
        backbone: (n, *input) → (n, d).
        classes: label slots, the most classes a task may have.
        features: d; 0 takes ``backbone.out_features``.
        length: T, positions that a convolution block sees: way · shot + 1.
        filters: D.
        attention: (K, V) of each attention block; a convolution block stands between two of them.
        shuffle: in training, draw the order of the support set and the slots of the classes from torch's global
            generator.

    Raises:
        ValueError: a backbone of unknown length, or numbers out of range.

    Differs from the paper: dilations begin at 1, so that no position is skipped. A class without support examples gets
    no probability.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        classes: int = 20,
        features: int = 0,
        length: int = 21,
        filters: int = 128,
        attention: Sequence[Sequence[int]] = ((64, 32), (256, 128), (512, 256)),
        shuffle: bool = True,
    ):
        super().__init__()
        d = features_of(backbone, features)
        sizes = tuple(tuple(size) for size in attention)
        if classes < 2 or length < 2 or filters < 1 or not sizes or any(len(s) != 2 or min(s) < 1 for s in sizes):
            raise ValueError(
                f"classes={classes}, length={length}, filters={filters}, attention={sizes}; required are at least 2, "
                "2, 1, and one pair (K, V) or more of numbers above 0"
            )
        self.backbone, self.classes, self.features = backbone, classes, features
        self.length, self.filters, self.attention, self.shuffle = length, filters, sizes, shuffle
        channels, layers = d + classes, []
        for i, (keys, values) in enumerate(sizes):
            for r in range(math.ceil(math.log2(length)) if i else 0):
                layers.append(DenseBlock(channels, filters, 2**r))
                channels += filters
            layers.append(AttentionBlock(channels, keys, values))
            channels += values
        self.layers = nn.ModuleList(layers)
        self.out = nn.Linear(channels, classes)

    def adapt(self, support: Labelled, query_x: Tensor | None = None) -> Past:
        """What each layer reads of the support sequence."""
        require_classes(support.y)
        labels = to_slots(support.y, self.classes)
        x, real = padding_first(torch.cat([self.backbone(support.x).flatten(1), labels], -1), support.y)
        inputs = []
        for layer in self.layers:
            inputs.append(x)
            x = torch.cat([x, torch.where(real.unsqueeze(-1), layer(x, real), 0)], -1)
        return Past(tuple(inputs), real, support.y)

    def predict(self, adapted: Past, x: Tensor) -> Tensor:
        """The logits (m, way) at the position after the support sequence."""
        z = self.backbone(x).flatten(1)
        z = nn.functional.pad(z, (0, self.classes))  # (m, d + classes): no label
        for layer, past in zip(self.layers, adapted.layers, strict=True):
            z = torch.cat([z, layer(past, adapted.real, z)], -1)
        return mask_absent(self.out(z)[:, : adapted.y.shape[1]], adapted.y)

    def meta_loss(self, episode: Episode) -> Tensor:
        """The loss of the queries, in training after a support sequence and with label slots drawn at random."""
        (sx, sy), (qx, qy) = episode
        if self.training and self.shuffle:
            both = with_labels_permuted(torch.cat([sy, qy]))
            (sx, sy), qy = in_random_order(Labelled(sx, both[: len(sy)])), both[len(sy) :]
        return self.loss(self.answer(Labelled(sx, sy), qx), qy)
