"""In-context transformer: in-context, a support set read as tokens; no gradient step at test time.

A plain form of a family. Louis Kirsch, James Harrison, Jascha Sohl-Dickstein, Luke Metz. General-Purpose In-Context
Learning by Meta-Learning Transformers. 2022, arXiv:2212.04458. Noah Hollmann, Samuel Müller, Katharina Eggensperger,
Frank Hutter. TabPFN. ICLR 2023, arXiv:2207.01848. The answer is read off the attention to labelled examples, as in
Oriol Vinyals, Charles Blundell, Timothy Lillicrap, Koray Kavukcuoglu, Daan Wierstra. Matching Networks for One Shot
Learning. NeurIPS 2016, arXiv:1606.04080.

    s_i = W f_θ(x_i),  u = W f_θ(x)                                 a token for each support example and each query
    e_i = E(mean of s_j over the examples j of i's class)           its label embedding, anew at every layer
    s_i ← block(s_i + e_i; s_1 + e_1, ..., s_n + e_n)               support tokens look at one another
    u ← block(u; s_1 + e_1, ..., s_n + e_n)                         a query looks at the support alone
    p(y = k | x) = Σ_{i in class k} softmax_i(Q u · K s_i / √width)  the attention that class k gets

Labels have no numbers: what stands for a class is the mean of its members, so another order of the classes permutes the
logits exactly, and any number of classes is served.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from quickstudy.backbones.attention import AttentionBlock
from quickstudy.episode import Labelled
from quickstudy.functional import mask_absent, prototypes, require_classes
from quickstudy.learner import Learner

_START = 0.1  # what blocks and labels add before training, as a part of torch's own start


class Memory(NamedTuple):
    """Attributes: seen (layers, n, width), what queries look at in each layer; keys (n, width); labels y (n, way)."""

    seen: Tensor
    keys: Tensor
    y: Tensor


class InContext(Learner[Memory]):
    """Classify by a transformer that reads the support set.

    Args:
        backbone: (n, *input) → (n, features).
        features: length of the embedding; 0 takes ``backbone.out_features``.
        width: of the tokens, a multiple of ``heads``.
        layers: attention blocks, shared by support tokens and queries.
        heads: of every attention.

    Raises:
        ValueError: a backbone of unknown length, or numbers out of range.

    Differs from the papers: no positions, no causal order, and no table of label embeddings, so neither the order of
    the support set nor the names of the classes matter and there is no largest way. A class without support gets no
    probability. Classes with more examples get more attention before anything is learned. Weights start so that the
    learner is nearly a matching network on the tokens, which saves most of the early training.
    """

    def __init__(self, backbone: nn.Module, *, features: int = 0, width: int = 128, layers: int = 2, heads: int = 4):
        super().__init__()
        d = features or getattr(backbone, "out_features", None)
        if not isinstance(d, int) or d < 1:
            raise ValueError("the backbone does not say its out_features; required is their number: pass features=")
        if layers < 1:
            raise ValueError(f"layers={layers}; required is at least 1")
        self.backbone, self.features, self.width, self.layers, self.heads = backbone, features, width, layers, heads
        self.token = nn.Linear(d, width)
        self.blocks = nn.ModuleList([AttentionBlock(width, heads) for _ in range(layers)])
        self.label = nn.ModuleList([nn.Linear(width, width) for _ in range(layers)])
        self.last = nn.LayerNorm(width)
        self.query, self.key = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self._start_near_the_tokens()

    def adapt(self, support: Labelled, query_x: Tensor | None = None) -> Memory:
        """Let the support tokens look at one another, layer by layer."""
        y = support.y
        require_classes(y)
        there = y.sum(1) > 0  # (n,) padding is not looked at
        s, seen = self.embed(support.x), []
        for block, label in zip(self.blocks, self.label, strict=True):
            s = s + y @ label(prototypes(s, y))  # (n, width)
            seen.append(s)
            s = block(s, s, there)
        return Memory(torch.stack(seen), self.key(self.last(s)), y)

    def predict(self, adapted: Memory, x: Tensor) -> Tensor:
        """log Σ_{i in class k} exp(Q u · K s_i / √width), (m, way): softmax makes it the attention of class k."""
        seen, keys, y = adapted
        u, there = self.embed(x), y.sum(1) > 0
        for block, context in zip(self.blocks, seen, strict=True):
            u = block(u, context, there)
        scores = self.query(self.last(u)) @ keys.T / self.width**0.5  # (m, n)
        own = torch.where(y.T > 0, scores.unsqueeze(1), torch.finfo(scores.dtype).min)  # (m, way, n)
        return mask_absent(own.logsumexp(-1), y)

    @torch.no_grad()
    def _start_near_the_tokens(self) -> None:
        """Q and K the identity, and little added by blocks and labels: a query first matches what looks like it."""
        for last in (self.query, self.key):
            last.weight.copy_(torch.eye(self.width))
        for block, label in zip(self.blocks, self.label, strict=True):
            assert isinstance(block, AttentionBlock)
            assert isinstance(label, nn.Linear)
            for p in (block.attend.join.weight, block.narrow.weight, block.narrow.bias, label.weight, label.bias):
                p.mul_(_START)

    def embed(self, x: Tensor) -> Tensor:
        """Tokens without labels, (n, width)."""
        return self.token(self.backbone(x).flatten(1))
