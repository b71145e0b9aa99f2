"""Memory for rare events: memory-based, an embedding with a key-value memory that is written example by example.

Łukasz Kaiser, Ofir Nachum, Aurko Roy, Samy Bengio. Learning to Remember Rare Events. ICLR 2017, arXiv:1703.03129.

A memory holds keys K of length 1, their values V (classes) and their ages A. For an example with q = f_θ(x)/‖f_θ(x)‖
and class v, let n_1, n_2, ... be the rows in the order of q · K[n], the nearest first (section 2):

    n_p = the first with V[n_p] = v,  n_b = the first with V[n_b] ≠ v
    loss(q, v, M) = [q · K[n_b] − q · K[n_p] + α]_+

    V[n_1] = v:  K[n_1] ← (q + K[n_1]) / ‖q + K[n_1]‖,  A[n_1] ← 0
    otherwise:   n' = argmax_i (A[i] + r_i),  K[n'] ← q,  V[n'] ← v,  A[n'] ← 0
    and every other age grows by 1

    p(y = c | x) = Σ_{i ≤ k, V[n_i] = c} softmax_i(t · q · K[n_i])
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from quickstudy.episode import Episode, Labelled
from quickstudy.functional import normalised, require_classes
from quickstudy.sequences import OnlineLearner, in_random_order

_NONE = -2.0  # below every cosine, for rows that do not take part


class Memory(NamedTuple):
    """Attributes: keys (size, d), values (size, way) one-hot (zero where nothing is), ages (size,) in steps."""

    keys: Tensor
    values: Tensor
    ages: Tensor


class RareMemory(OnlineLearner[Memory]):
    """Write each support example into a memory; a query belongs to the class of its nearest keys.

    Support examples are presented in the order in which they are given; rows of padding change nothing. Queries are
    read and not written. Keys are stored without gradient, as in the paper: the loss moves the embedding of an example
    towards and away from keys that stay where they are.

    Args:
        backbone: (n, *input) → (n, d).
        size: rows of the memory, at least the number of classes; when it is full the oldest row is overwritten.
        neighbours: k, how many of the nearest keys are read.
        margin: α, in cosines.
        sharpness: t.
        noise: in training, r_i is drawn from [0, noise) by torch's global generator, in steps of age; up to 1 it only
            decides between rows of the same age. Adapting draws nothing.
        shuffle: in training, present support and queries in an order drawn from torch's global generator.

    Raises:
        ValueError: numbers out of range; from ``adapt``, fewer rows than classes.

    Differs from the paper: a query's class is the sum of the softmax over all of the k nearest keys with that class;
    the paper answers with V[n_1], the class of the nearest. Each task begins with an empty memory; the paper also keeps
    one memory for a whole life. Where no key of the example's own class or none of another is stored, its loss is 0;
    n_p and n_b are looked for in the whole memory. A class that is not among the k nearest gets no probability.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        size: int = 256,
        neighbours: int = 256,
        margin: float = 0.1,
        sharpness: float = 40.0,
        noise: float = 1.0,
        shuffle: bool = True,
    ):
        super().__init__()
        if size < 2 or neighbours < 1 or margin < 0 or sharpness <= 0 or noise < 0:
            raise ValueError(
                f"size={size}, neighbours={neighbours}, margin={margin}, sharpness={sharpness}, noise={noise}; "
                "required are at least 2, 1, 0, above 0, and at least 0"
            )
        self.backbone, self.size, self.neighbours = backbone, size, neighbours
        self.margin, self.sharpness, self.noise, self.shuffle = margin, sharpness, noise, shuffle

    def adapt(self, support: Labelled, query_x: Tensor | None = None) -> Memory:
        """The memory after the support sequence."""
        require_classes(support.y)
        q = self.embed(support.x).detach()
        memory = self.start(q, support.y)
        for one, y in zip(q.unbind(), support.y.unbind(), strict=True):
            memory = self._written(memory, one, y)
        return memory

    def predict(self, adapted: Memory, x: Tensor) -> Tensor:
        """log p(y = c | x) up to a constant, (m, way)."""
        return self._read(adapted, self.embed(x))

    def walk(self, sequence: Labelled) -> Tensor:
        """The logits (n, way) of each example of a sequence, given before it is written."""
        q = self.embed(sequence.x)
        memory, logits = self.start(q, sequence.y), []
        for one, y in zip(q.unbind(), sequence.y.unbind(), strict=True):
            logits.append(self._read(memory, one.unsqueeze(0))[0])
            memory = self._written(memory, one.detach(), y)
        return torch.stack(logits)

    def meta_loss(self, episode: Episode) -> Tensor:
        """The memory loss, a mean over support and then queries as one sequence, all of which are written."""
        require_classes(episode.support.y)
        parts = [in_random_order(part) if self.training and self.shuffle else part for part in episode]
        x, y = (torch.cat(both) for both in zip(*parts, strict=True))
        q = self.embed(x)
        memory, compared = self.start(q, y), []
        for one, label in zip(q.detach().unbind(), y.unbind(), strict=True):
            compared.append(_neighbours(memory, one, label))
            memory = self._written(memory, one, label, noise=self.noise if self.training else 0.0)
        own, other, both_there = (torch.stack(part) for part in zip(*compared, strict=True))
        loss = ((q * other).sum(-1) - (q * own).sum(-1) + self.margin).relu()  # (n,)
        return torch.where(both_there, loss, 0).sum() / (y.sum(-1) > 0).sum().clamp(min=1)

    def embed(self, x: Tensor) -> Tensor:
        """q, embeddings (n, d) of length 1; an embedding of length 0 stays 0."""
        return normalised(self.backbone(x).flatten(1))

    def start(self, q: Tensor, y: Tensor) -> Memory:
        """An empty memory for embeddings (n, d) and labels (n, way)."""
        way = y.shape[-1]
        if way > self.size:
            raise ValueError(
                f"{way} classes for a memory of {self.size} rows; required is at least a row for each: build it with "
                f"size={way} or more"
            )
        return Memory(q.new_zeros(self.size, q.shape[-1]), y.new_zeros(self.size, way), q.new_zeros(self.size))

    def _read(self, memory: Memory, q: Tensor) -> Tensor:
        """Logits (m, way) for q (m, d)."""
        lowest = torch.finfo(q.dtype).min / 1e6  # so low that exp is 0, and a sum of many is still finite
        similarity = torch.where(_used(memory), q @ memory.keys.T, _NONE)  # (m, size)
        nearest = similarity.topk(min(self.neighbours, self.size))
        there = memory.values[nearest.indices] > 0  # (m, k, way)
        scores = torch.where(there, self.sharpness * nearest.values.unsqueeze(-1), lowest)
        return scores.logsumexp(1)

    def _written(self, memory: Memory, q: Tensor, y: Tensor, *, noise: float = 0.0) -> Memory:
        """The memory after an example q (d,), y (way,); padding leaves it as it is."""
        keys, values, ages = memory
        nearest = torch.where(_used(memory), keys @ q, _NONE).argmax(-1, keepdim=True)  # (1,)
        right = (values[nearest] * y).sum() > 0
        oldest = (ages + noise * torch.rand_like(ages) if noise else ages).argmax(-1, keepdim=True)
        key = torch.where(right, normalised(q + keys[nearest]), q)  # (1, d)
        rows = torch.arange(self.size, device=q.device) == torch.where(right, nearest, oldest)
        rows, real = rows & (y.sum() > 0), (y.sum() > 0).to(ages)
        return Memory(
            torch.where(rows.unsqueeze(-1), key, keys),
            torch.where(rows.unsqueeze(-1), y, values),
            torch.where(rows, 0, ages + real),
        )


def _used(memory: Memory) -> Tensor:
    """Which rows (size,) hold something."""
    return memory.values.sum(-1) > 0


def _neighbours(memory: Memory, q: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """K[n_p] and K[n_b] (d,) of an example q (d,), y (way,), and whether both are there."""
    own = (memory.values * y).sum(-1) > 0
    other = _used(memory) & ~own
    similarity = memory.keys @ q
    keys = [memory.keys[torch.where(mask, similarity, _NONE).argmax(-1, keepdim=True)][0] for mask in (own, other)]
    return keys[0], keys[1], own.any() & other.any()
