"""One task as data: a support set to learn from and a query set to be judged on.

Read this file and ``learner.py`` first; everything else is a function on what they define.
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Labelled(NamedTuple):
    """Examples with their targets; a pytree, so it passes through ``torch.func.vmap``.

    A meta-batch is the same tuple with a leading task axis on both tensors.

    Attributes:
        x: (n, *input).
        y: (n, way) one-hot rows, where an all-zero row is padding; or (n, d) regression targets.
    """

    x: Tensor
    y: Tensor


class Episode(NamedTuple):
    """A task: ``support`` is what a learner adapts to, ``query`` is what it is judged on."""

    support: Labelled
    query: Labelled


class TaskDistribution(Protocol):
    """p(T): anything that draws tasks."""

    def sample(self, n: int, *, generator: torch.Generator) -> Episode:
        """Draw ``n`` tasks of the same shape, as one episode with a leading axis of ``n``."""
        ...


def task(episodes: Episode, i: int) -> Episode:
    """The i-th task of a meta-batch."""
    (sx, sy), (qx, qy) = episodes
    return Episode(Labelled(sx[i], sy[i]), Labelled(qx[i], qy[i]))


def one_hot(labels: Tensor, way: int) -> Tensor:
    """(..., n) integers in [0, way) → (..., n, way) float rows; a label of -1 becomes an all-zero row (padding)."""
    return (labels.unsqueeze(-1) == torch.arange(way, device=labels.device)).to(torch.get_default_dtype())


def is_regression(y: Tensor) -> bool:
    """Whether targets (..., n, d) are numbers: a single column cannot be a choice between classes."""
    return y.shape[-1] == 1


def check_episode(episode: Episode, *, regression: bool = False) -> None:
    """Refuse tasks that no learner could learn from; works on one task and on a meta-batch.

    Args:
        episode: the task or meta-batch.
        regression: the targets are numbers (a single column always is), so they need not be one-hot.

    Raises:
        ValueError: shapes that do not belong together, NaN or infinite values, labels that are not one-hot.
    """
    for name, (x, y) in (("support", episode.support), ("query", episode.query)):
        if y.ndim < 2 or x.shape[: y.ndim - 1] != y.shape[:-1]:
            raise ValueError(
                f"{name}: x has shape {tuple(x.shape)} and y {tuple(y.shape)}; required is one row of y (one-hot, or "
                "targets) for each example of x: turn integer labels into rows with quickstudy.one_hot(labels, way)"
            )
        for part, values in (("x", x), ("y", y)):
            if values.is_floating_point() and not bool(torch.isfinite(values).all()):
                raise ValueError(
                    f"{name}.{part} holds NaN or infinite values; required are finite numbers: clean or impute the data"
                )
        if not (regression or is_regression(y)) and not bool((((y == 0) | (y == 1)).all(-1) & (y.sum(-1) <= 1)).all()):
            raise ValueError(
                f"{name}.y is not one-hot; required are rows with a single 1 (or all 0 for padding): use "
                "quickstudy.one_hot(labels, way), or a learner with regression=True for targets that are numbers"
            )
    ways = episode.support.y.shape[-1], episode.query.y.shape[-1]
    if ways[0] != ways[1]:
        raise ValueError(f"support has {ways[0]} classes and query {ways[1]}: label both over the same classes")
