"""What neural processes share: a normal distribution for each target, and what is made of it."""

import math
from abc import abstractmethod
from statistics import NormalDist

import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.episode import Episode, Labelled
from quickstudy.learner import Adapted, Learner, check_prediction


class NeuralProcess(Learner[Adapted]):
    """Reads the support set in one forward pass and predicts numbers with their uncertainty.

    ``predict`` is the mean, so ``loss`` and ``evaluate`` judge squared errors; ``meta_loss`` is a negative log
    likelihood. A subclass says ``adapt`` and ``distribution``, and keeps ``in_features`` and ``out_features``.
    """

    regression: bool = True
    in_features: int
    out_features: int

    @abstractmethod
    def distribution(self, adapted: Adapted, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (m, out_features) of a new target at each x (m, *input)."""

    def predict(self, adapted: Adapted, x: Tensor) -> Tensor:
        """The mean (m, out_features)."""
        return self.distribution(adapted, x)[0]

    def predictive(self, adapted: Adapted, x: Tensor) -> tuple[Tensor, Tensor]:
        """``distribution``, by the name that it has in ``BayesianMAML``."""
        return self.distribution(adapted, x)

    def interval(self, adapted: Adapted, x: Tensor, level: float = 0.9) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds (m, out_features) that hold a new target with probability ``level``, were it normal.

        Raises:
            ValueError: a level that is not between 0 and 1.
        """
        if not 0 < level < 1:
            raise ValueError(f"level={level}; required is a probability between 0 and 1, such as 0.9")
        mean, deviation = self.distribution(adapted, x)
        half = NormalDist().inv_cdf((1 + level) / 2) * deviation
        return mean - half, mean + half

    def negative_log_likelihood(self, adapted: Adapted, query: Labelled) -> Tensor:
        """−log N(y | mean, deviation²) of ``distribution``, in nats, a mean over the numbers of the targets."""
        mean, deviation = self.distribution(adapted, query.x)
        check_prediction(mean, query.y)
        return -log_normal(query.y, mean, deviation).mean()

    def meta_loss(self, episode: Episode) -> Tensor:
        """The negative log likelihood of the queries in nats per target number, a scalar."""
        return self.negative_log_likelihood(self.adapt(episode.support), episode.query)

    def points(self, support: Labelled) -> Tensor:
        """Inputs beside targets, (n, in_features + out_features).

        Raises:
            ValueError: another number of either than this learner was built for.
        """
        x = self.inputs(support.x)
        if support.y.shape[-1] != self.out_features:
            raise ValueError(
                f"targets of {support.y.shape[-1]} numbers; this learner was built for {self.out_features}: build it "
                f"with out_features={support.y.shape[-1]}; to tell classes apart take ProtoNet or InContext"
            )
        return torch.cat([x, support.y], -1)

    def inputs(self, x: Tensor) -> Tensor:
        """(m, *input) → (m, in_features).

        Raises:
            ValueError: examples of another length than this learner was built for.
        """
        x = x.flatten(1) if x.ndim > 1 else x.unsqueeze(-1)
        if x.shape[-1] != self.in_features:
            raise ValueError(
                f"examples of {x.shape[-1]} numbers; this learner was built for {self.in_features}: build it with "
                f"in_features={x.shape[-1]}"
            )
        return x


def log_normal(y: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """log N(y | mean, deviation²) of each number, in nats."""
    return -(((y - mean) / deviation).square() / 2 + deviation.log() + math.log(2 * math.pi) / 2)


def mean_and_deviation(output: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """The two halves of a decoder's output (..., 2·d): the mean, and least + softplus."""
    mean, raw = output.chunk(2, -1)
    return mean, least + F.softplus(raw)


def require_sizes(least_deviation: float, **sizes: int) -> None:
    """Refuse sizes below 1 and a deviation that is not above 0.

    Raises:
        ValueError: the numbers, named.
    """
    if min(sizes.values()) < 1 or not 0 < least_deviation < math.inf:
        given = ", ".join(f"{name}={size}" for name, size in sizes.items())
        raise ValueError(
            f"{given}, least_deviation={least_deviation}; required is at least 1 of each, and a finite deviation above "
            "0, without which the likelihood of targets without noise has no bound"
        )
