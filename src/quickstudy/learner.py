"""What a learner is: from a support set to something adapted, and from that to predictions."""

from abc import ABC, abstractmethod
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from quickstudy.episode import Labelled, is_regression

Adapted = TypeVar("Adapted")


class Learner(nn.Module, ABC, Generic[Adapted]):
    """A learner of tasks; ``parameters()`` are the meta-parameters θ.

    ``adapt`` and ``predict`` see one task, without a task axis, and write nothing to ``self``: asked twice, the answer
    is the same. ``way`` is read from the labels, so a learner serves any number of classes its method permits. Every
    constructor argument is kept as an attribute of the same name: that is what ``save`` writes and ``load`` rebuilds.
    """

    transductive: ClassVar[bool] = False
    """Whether ``adapt`` looks at ``query_x``."""

    regression: bool = False
    """Whether targets are numbers even when they have several columns (a single column always is)."""

    @abstractmethod
    def adapt(self, support: Labelled, query_x: Tensor | None = None) -> Adapted:
        """θ, support → φ.

        Args:
            support: x (n, *input), y (n, way) one-hot or (n, d) targets.
            query_x: (m, *input), looked at by transductive learners only.
        """

    @abstractmethod
    def predict(self, adapted: Adapted, x: Tensor) -> Tensor:
        """φ, x (m, *input) → logits (m, way) or targets (m, d)."""

    def loss(self, prediction: Tensor, y: Tensor) -> Tensor:
        """The loss of one task, a scalar: cross-entropy in nats, or mean squared error for regression targets."""
        if self.regression or is_regression(y):
            return (prediction - y).square().mean()
        return cross_entropy(prediction, y)


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Mean cross-entropy in nats over the rows of ``y`` that are not padding.

    Args:
        logits: (n, way).
        y: (n, way) one-hot; an all-zero row counts for nothing.
    """
    return -(y * torch.log_softmax(logits, dim=-1)).sum() / y.sum().clamp(min=1)
