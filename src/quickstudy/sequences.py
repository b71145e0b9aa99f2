"""Tasks as sequences, for learners that read their examples one after the other."""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from quickstudy.episode import Labelled
from quickstudy.learner import Adapted, Learner


class OnlineLearner(Learner[Adapted]):
    """A learner that can also be asked at every step of a sequence."""

    @abstractmethod
    def walk(self, sequence: Labelled) -> Tensor:
        """The logits (n, way) of each example of a sequence, given before its label is seen."""


def to_slots(y: Tensor, classes: int) -> Tensor:
    """One-hot rows (n, way) as rows over ``classes`` label slots, (n, classes): columns of zeros are added.

    Raises:
        ValueError: more classes than slots.
    """
    way = y.shape[-1]
    if way > classes:
        raise ValueError(
            f"{way} classes for a learner with {classes} label slots; required are at most {classes}: build and train "
            f"it with classes={way} or more"
        )
    return nn.functional.pad(y, (0, classes - way))


def in_random_order(data: Labelled) -> Labelled:
    """The same examples in an order that torch's global generator draws."""
    order = torch.rand(len(data.x), device=data.x.device).argsort()
    return Labelled(data.x[order], data.y[order])


def with_labels_permuted(y: Tensor) -> Tensor:
    """The columns of y (n, way) in an order that torch's global generator draws: the classes change their names."""
    return y[:, torch.rand(y.shape[-1], device=y.device).argsort()]


def padding_first(values: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of padding moved to the front and set to zero, where a causal layer takes them for what is before the start.

    Args:
        values: (n, d).
        y: (n, way), all-zero rows are padding.

    Returns:
        the rows (n, d), real ones in their order, and which are real (n,).
    """
    real = y.sum(-1) > 0
    order = real.long().sort(stable=True).indices
    real = real[order]
    return torch.where(real.unsqueeze(-1), values[order], 0), real


def features_of(backbone: nn.Module, features: int) -> int:
    """The length of the backbone's embedding: ``features``, or if that is 0 what the backbone says.

    Raises:
        ValueError: neither says it.
    """
    d = features or getattr(backbone, "out_features", None)
    if not isinstance(d, int) or d < 1:
        raise ValueError("the backbone does not say its out_features; required is their number: pass features=")
    return d
