"""Triplet embeddings: metric-based, any loss over the pairs and triplets of a task.

Florian Schroff, Dmitry Kalenichenko, James Philbin. FaceNet: A Unified Embedding for Face Recognition and Clustering.
CVPR 2015, arXiv:1503.03832. Alexander Hermans, Lucas Beyer, Bastian Leibe. In Defense of the Triplet Loss for Person
Re-Identification. 2017, arXiv:1703.07737.

An example, the anchor, shall be closer to every example of its class than to any other one, by a margin m. With unit
vectors z_i = f_θ(x_i)/‖f_θ(x_i)‖ and D_ij = ‖z_i − z_j‖, each anchor a is judged by its hardest triplet (the batch-hard
loss L_BH of Hermans et al.), with the hinge [·]₊, or softly with ln(1 + exp(·)) and m = 0:

    L = mean_a [ m + max_{p: y_p = y_a} D_ap − min_{n: y_n ≠ y_a} D_an ]₊

A new task is answered by distance, to the class means or to the nearest support example:

    p(y = k | x) = softmax_k(−s min_{i of class k} ‖z − c_i‖²)
"""

import copy
import importlib
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.episode import Episode, Labelled
from quickstudy.functional import normalised, prototypes, require_classes, squared_euclidean
from quickstudy.inner.capture import is_batched
from quickstudy.learner import Learner


class Points(NamedTuple):
    """Attributes: points (n, d) that stand for classes, and y (n, way), 1 where a point stands for the class."""

    points: Tensor
    y: Tensor


class TripletEmbedding(Learner[Points]):
    """Train by the hardest triplet of each example, answer by the nearest class mean or example.

    Args:
        backbone: (n, *input) → (n, d).
        margin: m, in units of distance between unit vectors, which lie at most 2 apart; None is the soft form. Not used
            with ``metric_loss``.
        answer_by: "mean" of each class's unit vectors, or "nearest" support example.
        scale: s, one over the temperature of the probabilities; training does not depend on it.
        metric_loss: another loss over the task's examples, of pytorch-metric-learning: the name of its class, for its
            default arguments, or an object. It is given the unit vectors and whole-number labels. One with parameters
            for each class (proxies) makes no sense, since tasks number their classes anew.
        miner: which triplets or pairs that loss takes: name or object alike.

    Raises:
        ValueError: ``margin`` or ``scale`` out of range, an unknown ``answer_by``, a miner without a loss, a name that
            pytorch-metric-learning does not have, or that library missing.
        RuntimeError: ``metric_loss`` under vmap, where the number of triplets cannot depend on the data.

    Saving: objects are saved by their weights alone, and ``load(path, metric_loss=..., miner=...)`` needs them again;
    names are saved.

    Differs from the papers: distances are not squared (Schroff et al. square them; Hermans et al. found that to
    collapse more often), embeddings have unit length (Hermans et al. do without), and triplets come from few-shot
    tasks, support and queries together. The mean is over anchors with a companion and an opponent.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        margin: float | None = 0.2,
        answer_by: Literal["mean", "nearest"] = "mean",
        scale: float = 10.0,
        metric_loss: nn.Module | str | None = None,
        miner: nn.Module | str | None = None,
    ):
        super().__init__()
        if (margin is not None and not margin > 0) or not scale > 0 or answer_by not in ("mean", "nearest"):
            raise ValueError(
                f"margin={margin}, scale={scale}, answer_by={answer_by!r}; required are numbers above 0 (or None for "
                "the soft margin), and 'mean' or 'nearest'"
            )
        for part, value in (("metric_loss", metric_loss), ("miner", miner)):
            if not isinstance(value, nn.Module | str | None):
                raise ValueError(
                    f"{part} is a {type(value).__name__}; required is the name of a class of pytorch-metric-learning "
                    "or an object of one: wrap a function in an nn.Module"
                )
        if miner is not None and metric_loss is None:
            raise ValueError("a miner was given without a metric_loss to mine for: pass both, or neither")
        self.backbone, self.margin, self.answer_by, self.scale = backbone, margin, answer_by, scale
        self.metric_loss, self.miner = metric_loss, miner
        self._named = nn.ModuleDict(
            {
                part: _of_library(part, where, value)
                for (part, where), value in zip(_PARTS.items(), (metric_loss, miner), strict=True)
                if isinstance(value, str)
            }
        )

    def embed(self, x: Tensor) -> Tensor:
        """x (n, *input) → unit vectors (n, d); zero where the backbone gives zero."""
        return normalised(self.backbone(x).flatten(1))

    def adapt(self, support: Labelled, query_x: Tensor | None = None) -> Points:
        """The mean of each class, or all examples."""
        require_classes(support.y)
        z = self.embed(support.x)
        if self.answer_by == "nearest":
            return Points(z, support.y)
        return Points(prototypes(z, support.y), torch.diag((support.y.sum(0) > 0).to(z.dtype)))

    def predict(self, adapted: Points, x: Tensor) -> Tensor:
        """Minus s times the squared distance to the nearest point of each class, (m, way)."""
        near = -self.scale * squared_euclidean(self.embed(x), adapted.points)  # (m, n)
        lowest = torch.finfo(near.dtype).min  # of a class without a point
        return torch.where(adapted.y > 0, near.unsqueeze(-1), lowest).amax(1)  # (m, n, way) → (m, way)

    def meta_loss(self, episode: Episode) -> Tensor:
        """The loss over support and queries together, in units of distance; nats in the soft form."""
        support, query = episode
        require_classes(support.y)
        z, y = self.embed(torch.cat([support.x, query.x])), torch.cat([support.y, query.y])
        return batch_hard(z, y, self.margin) if self.metric_loss is None else self._by_library(z, y)

    def passes(self, episode: Episode) -> list[Callable[[], Any]]:
        """One: support and queries together, as in training."""
        return [lambda: self.backbone(torch.cat([episode.support.x, episode.query.x]))]

    def _by_library(self, z: Tensor, y: Tensor) -> Tensor:
        if is_batched(z) or is_batched(y):
            raise RuntimeError(
                "metric_loss chooses a number of triplets that depends on the data, which vmap cannot: use "
                "strategy='loop' or 'threads'"
            )
        real = y.sum(1) > 0
        z, labels = z[real], y[real].argmax(1)
        loss, miner = (self._named[part] if part in self._named else getattr(self, part) for part in _PARTS)
        pairs = None if miner is None else copy.copy(miner)(z, labels)  # a miner writes its counts to itself
        return loss(z, labels, pairs)


def batch_hard(z: Tensor, y: Tensor, margin: float | None) -> Tensor:
    """L_BH over all examples that have another one of their class and one of another class; 0 if none has.

    Args:
        z: embeddings (n, d).
        y: (n, way) one-hot; an all-zero row counts for nothing.
        margin: m of the hinge, or None for ln(1 + exp(·)).
    """
    real = y.sum(1) > 0
    same = y @ y.T > 0  # (n, n)
    companions = same & ~torch.eye(len(y), dtype=torch.bool, device=y.device)
    opponents = real[:, None] & real[None, :] & ~same
    distance = _root(squared_euclidean(z, z))  # (n, n)
    farthest = torch.where(companions, distance, 0).amax(1)  # D_ap
    closest = torch.where(opponents, distance, torch.finfo(z.dtype).max).amin(1)  # D_an
    anchors = companions.any(1) & opponents.any(1)
    violation = torch.where(anchors, farthest - closest, 0)
    each = F.softplus(violation) if margin is None else F.relu(margin + violation)
    return torch.where(anchors, each, 0).sum() / anchors.sum().clamp(min=1)


def _root(squares: Tensor) -> Tensor:
    """√x with a derivative of 0 where x is 0 by rounding, as between an example and its copy."""
    tiny = 10 * torch.finfo(squares.dtype).eps
    return torch.where(squares > tiny, squares.clamp(min=tiny).sqrt(), 0)


_PARTS = {"metric_loss": "losses", "miner": "miners"}  # argument: module of the library


def _of_library(part: str, where: str, name: str) -> nn.Module:
    """A loss or miner of pytorch-metric-learning by its name, with its default arguments."""
    try:
        library = importlib.import_module(f"pytorch_metric_learning.{where}")
    except ImportError as error:
        raise ValueError(
            f"{part}={name!r} names a class of pytorch-metric-learning, which is not installed: "
            "pip install 'quickstudy[metric]'"
        ) from error
    cls = getattr(library, name, None)
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise ValueError(f"{part}={name!r} is no class of pytorch_metric_learning.{where}: see its documentation")
    try:
        return cls()
    except TypeError as error:
        raise ValueError(f"{part}={name!r} needs arguments ({error}): build it and pass the object") from error
