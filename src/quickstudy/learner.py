"""What a learner is: from a support set to something adapted, and from that to predictions."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from quickstudy.episode import Episode, Labelled, is_regression

Adapted = TypeVar("Adapted")


class Learner(nn.Module, ABC, Generic[Adapted]):
    """A learner of tasks; ``parameters()`` are the meta-parameters θ.

    ``adapt`` and ``predict`` see one task, without a task axis, and write nothing to ``self``: asked twice, the answer
    is the same. ``way`` is read from the labels, so a learner serves any number of classes its method permits. Every
    constructor argument is kept as an attribute of the same name: that is what ``save`` writes and ``load`` rebuilds.
    """

    transductive: ClassVar[bool] = False
    """Whether ``adapt`` looks at ``query_x``."""

    embeds_by: ClassVar[tuple[str, ...]] = ("embed", "backbone", "network")
    """Attributes of which the first that is there takes examples (n, *input), and nothing else, to an embedding.

    It is for maps and distances; where there is none, the examples themselves are theirs.
    """

    regression: bool = False
    """Whether targets are numbers even when they have several columns (a single column always is)."""

    progress: float = 1.0
    """How much of meta-training is done, in [0, 1]; like ``training``, ``meta_train`` sets it."""

    watches_progress: bool = False
    """Whether the meta-loss depends on ``progress``; then no strategy may record it."""

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

    def answer(self, support: Labelled, query_x: Tensor) -> Tensor:
        """Adapt and predict; only a transductive learner is shown the queries while it adapts."""
        adapted = self.adapt(support, query_x) if self.transductive else self.adapt(support)
        return self.predict(adapted, query_x)

    def meta_loss(self, episode: Episode) -> Tensor:
        """What meta-training lowers, a scalar for one task: by default the loss of the queries after adaptation.

        A learner that trains by another loss says so here; its gradient is the estimate of the meta-gradient.
        """
        return self.loss(self.answer(episode.support, episode.query.x), episode.query.y)

    def passes(self, episode: Episode) -> list[Callable[[], Any]]:
        """The forward passes whose inputs population statistics of normalisation layers should describe.

        By default one: the prediction of the queries after adaptation.
        """
        support, query = episode
        adapted = self.adapt(support, query.x) if self.transductive else self.adapt(support)
        return [lambda: self.predict(adapted, query.x)]

    def predicts_numbers(self, y: Tensor) -> bool:
        """Whether these targets (..., d) are numbers to this learner, and not a choice between classes."""
        return self.regression or is_regression(y)

    def loss(self, prediction: Tensor, y: Tensor) -> Tensor:
        """The loss of one task, a scalar: cross-entropy in nats, or mean squared error for regression targets."""
        check_prediction(prediction, y)
        if self.predicts_numbers(y):
            return (prediction - y).square().mean()
        return cross_entropy(prediction, y)


def check_prediction(prediction: Tensor, y: Tensor) -> None:
    """Refuse a prediction of another shape than its targets, which would broadcast or be judged wrongly.

    Raises:
        ValueError: the shapes differ.
    """
    if prediction.shape != y.shape:
        raise ValueError(
            f"the prediction has shape {tuple(prediction.shape)} and the targets {tuple(y.shape)}; required is one "
            "prediction of the same shape for each query: a learner with a fixed number of outputs serves one way"
        )


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Mean cross-entropy in nats over the rows of ``y`` that are not padding.

    Args:
        logits: (n, way).
        y: (n, way) one-hot; an all-zero row counts for nothing.
    """
    return -(y * torch.log_softmax(logits, dim=-1)).sum() / y.sum().clamp(min=1)


def device_of(learner: nn.Module) -> torch.device:
    """Where the learner's parameters are; the CPU for one without parameters."""
    return next((p.device for p in learner.parameters()), torch.device("cpu"))


def fit_to(episode: Episode, learner: nn.Module) -> Episode:
    """The episode or meta-batch on the learner's device, floating point numbers and labels in its precision."""
    kinds = (p.dtype for p in learner.parameters() if p.is_floating_point())
    dtype = next(kinds, torch.get_default_dtype())
    device = device_of(learner)

    def move(part: Labelled) -> Labelled:
        x = part.x.to(device, dtype) if part.x.is_floating_point() else part.x.to(device)
        return Labelled(x, part.y.to(device, dtype))

    return Episode(move(episode.support), move(episode.query))
