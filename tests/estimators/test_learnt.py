"""What is learnt from examples: who embeds them, and when trust is measured."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import quickstudy as q
from quickstudy.estimators import learnt as learnt_module
from quickstudy.estimators.learnt import Learnt, Trusted, embedding
from quickstudy.packing import Packed
from quickstudy.readers import ArrayReader
from tests.contract import CASES, one


@pytest.mark.parametrize("name", CASES)
def test_every_learner_says_what_embeds_its_examples(name):
    torch.set_default_dtype(torch.float64)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            learner = CASES[name].build()
        x = one(CASES[name]).query.x
        z = embedding(learner, x)
    finally:
        torch.set_default_dtype(torch.float32)
    assert z.shape[0] == len(x)
    assert z.ndim == 2
    own = any(getattr(learner, part, None) is not None for part in learner.embeds_by)
    assert own or torch.equal(z, x.flatten(1))


def test_an_error_of_the_network_is_not_hidden():
    learner = q.ProtoNet(nn.Linear(3, 2))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        embedding(learner, torch.zeros(4, 5))


def test_labels_are_those_that_were_given():
    learnt = Learnt.of(q.NearestNeighbour(), torch.arange(4.0).view(4, 1), ["b", "a", "c", "a"])
    assert (learnt.classes, learnt.labels) == (["a", "b", "c"], ["b", "a", "c", "a"])


def test_trust_is_measured_once_at_the_first_question_and_only_if_it_may_be(monkeypatch):
    asked = []
    measured = learnt_module._measured
    monkeypatch.setattr(learnt_module, "_measured", lambda *given: (asked.append(1), measured(*given))[1])
    packed = Packed(q.NearestNeighbour(), ArrayReader())
    x = torch.rand(12, 2, generator=torch.Generator().manual_seed(0))
    support = Learnt.of(packed.learner, x, [i % 3 for i in range(12)]).support
    trusted = Trusted(packed, support)
    assert not asked
    assert trusted.get() is trusted.get() is not None
    assert len(asked) == 1
    assert Trusted(packed, support, measure=False).get() is None
    known = Trusted(replace(packed, trust=trusted.get()), support)
    assert known.get() is trusted.get()
    assert len(asked) == 1
    assert (trusted.came_with_learner, known.came_with_learner) == (False, True)
