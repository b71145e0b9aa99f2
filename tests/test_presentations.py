"""Accuracy at the k-th presentation."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import quickstudy as q
from quickstudy.learners import MANN
from quickstudy.presentations import presentation_accuracy
from quickstudy.sequences import OnlineLearner


class Counts(OnlineLearner[Tensor]):
    """Right from the second presentation of each class on; wrong at the first."""

    def adapt(self, support, query_x=None):
        return support.y

    def predict(self, adapted, x):
        return adapted[: len(x)]

    def walk(self, sequence):
        assert not self.training
        assert not torch.is_grad_enabled()
        classes = sequence.y.argmax(-1).tolist()
        assert classes[:5] != [0, 1, 2, 3, 4]  # the support set as it was drawn
        assert classes[5:] not in (sorted(classes[5:]), [0, 1, 2, 3, 4] * (len(classes) // 5 - 1))  # the queries
        seen = (sequence.y.cumsum(0) * sequence.y).sum(-1, keepdim=True)
        return torch.where(seen > 1, sequence.y, sequence.y.roll(1, 1))


def tasks(**settings) -> q.ClassTasks:
    x = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
    return q.ClassTasks(x, [i // 10 for i in range(60)], **{"way": 5, "shot": 1, "queries": 9, **settings})


def test_each_presentation_is_judged_by_itself():
    found = presentation_accuracy(Counts(), tasks(), sequences=3, generator=torch.Generator().manual_seed(0))
    assert found.accuracy == {1: 0.0, 2: 1.0, 5: 1.0, 10: 1.0}
    assert (found.way, found.length, found.sequences) == (5, 50, 3)
    assert found.as_dict()["presentations"]["2"] == {"accuracy": 1.0, "ci95": 0.0}


def test_a_learner_is_judged_in_evaluation_mode_and_by_a_seed():
    learner = MANN(nn.Identity(), features=6, width=8, slots=6, word=4, heads=1).train()
    scores = [
        presentation_accuracy(learner, tasks(), sequences=2, generator=torch.Generator().manual_seed(1), at=(1, 3))
        for _ in range(2)
    ]
    assert scores[0] == scores[1]
    assert learner.training


def test_what_cannot_be_measured_is_refused():
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(ValueError, match="presented 4 times"):
        presentation_accuracy(Counts(), tasks(queries=3), sequences=1, generator=generator)
    bad: dict[str, Any]
    for bad in ({"sequences": 0}, {"sequences": 1, "at": ()}, {"sequences": 1, "at": (0, 1)}):
        with pytest.raises(ValueError, match="at least 1 sequence"):
            presentation_accuracy(Counts(), tasks(), generator=generator, **bad)
