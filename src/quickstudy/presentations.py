"""Accuracy at the k-th presentation of a class in a sequence (Santoro et al. 2016, arXiv:1605.06065, section 4)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from quickstudy.episode import Labelled, TaskDistribution, check_episode, task
from quickstudy.evaluation import evaluating, mean_ci95
from quickstudy.learner import fit_to
from quickstudy.sequences import OnlineLearner


@dataclass(frozen=True)
class Presentations:
    """What ``presentation_accuracy`` measured.

    Attributes:
        accuracy: k → the fraction, in [0, 1], of examples that are judged rightly when their class comes for the k-th
            time; at k = 1 it can only be guessed.
        ci95: k → 1.96·sd/√sequences of the sequences' own fractions.
        way, length, sequences: classes and examples per sequence, and how many sequences.
    """

    accuracy: dict[int, float]
    ci95: dict[int, float]
    way: int
    length: int
    sequences: int

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it; the keys k are strings there."""
        by_k = {str(k): {"accuracy": mean, "ci95": self.ci95[k]} for k, mean in self.accuracy.items()}
        return {"presentations": by_k, "way": self.way, "length": self.length, "sequences": self.sequences}


def presentation_accuracy(
    learner: OnlineLearner[Any],
    tasks: TaskDistribution,
    *,
    sequences: int,
    generator: torch.Generator,
    at: Sequence[int] = (1, 2, 5, 10),
) -> Presentations:
    """Show each task as one sequence, support and queries mixed, and judge every example before its label is shown.

    Tasks of 5 classes with 1 support example and 9 queries are sequences of 50 in which each class comes ten times.

    Args:
        learner: put into evaluation mode for the time of the call.
        tasks: what to draw from.
        sequences: how many, at least 1.
        generator: draws the tasks and the order of their examples.
        at: the k to report, from 1 to the least number of examples of a class.

    Raises:
        ValueError: no sequence, or a k that some class does not reach.
    """
    if sequences < 1 or not at or min(at) < 1:
        raise ValueError(f"sequences={sequences}, at={tuple(at)}; required is at least 1 sequence and k of at least 1")
    rows, shape = [], (0, 0)
    with evaluating(learner):
        for _ in range(sequences):
            episode = task(tasks.sample(1, generator=generator), 0)
            check_episode(episode)
            (sx, sy), (qx, qy) = fit_to(episode, learner)
            order = torch.randperm(len(sx) + len(qx), generator=generator).to(sx.device)
            sequence = Labelled(torch.cat([sx, qx])[order], torch.cat([sy, qy])[order])
            rows.append(_right_at(learner.walk(sequence), sequence.y, at))
            shape = sequence.y.shape[1], len(order)
    found = [mean_ci95(values) for values in torch.stack(rows).T]
    accuracy, ci95 = ({k: pair[i] for k, pair in zip(at, found, strict=True)} for i in (0, 1))
    return Presentations(accuracy, ci95, *shape, sequences)


def _right_at(logits: Tensor, y: Tensor, at: Sequence[int]) -> Tensor:
    """For each k the fraction of the classes whose k-th example is judged rightly, (len(at),)."""
    least = int(y.sum(0).min())
    if max(at) > least:
        raise ValueError(
            f"the {max(at)}-th presentation was asked for, and a class is presented {least} times: draw tasks with "
            "more examples (shot + queries), or ask for earlier ones"
        )
    right = (logits.argmax(-1) == y.argmax(-1)) & (y.sum(-1) > 0)
    k_of = (y.cumsum(0) * y).sum(-1)  # (n,): which presentation of its class an example is
    return torch.stack([(right & (k_of == k)).sum() / y.shape[1] for k in at]).cpu()
