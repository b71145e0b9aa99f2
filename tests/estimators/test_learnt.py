"""What is learnt from examples: who embeds them, and when trust is measured."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import quickstudy as q
from quickstudy.estimators import learnt as learnt_module
from quickstudy.estimators.learnt import Learnt, Trusted, embedding
from quickstudy.packing import Packed
from quickstudy.readers import ArrayReader, TableReader
from quickstudy.trust import Trust
from tests.contract import CASES, one
from tests.trust.made import made


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


@pytest.mark.parametrize("counts", [(2, 2, 2), (4, 1, 1)])
def test_what_holds_is_asked_for_the_way_and_the_mean_shot(counts):
    quarter, four = made(way=3, shot=1, temperature=0.25), made(way=3, shot=4, temperature=4.0)
    trust = Trust((quarter, four), "margin", "probability", "made")
    packed = Packed(q.NearestNeighbour(), ArrayReader(), trust)
    support = Learnt.of(packed.learner, torch.rand(6, 2), [c for c in range(3) for _ in range(counts[c])]).support
    _, found = Trusted(packed, support).calibrated("test")
    assert (found.way, found.shot) == (3, 2)
    assert found.temperature == pytest.approx(1.0)  # half way between 1 and 4 shots, and between 1/4 and 4


def test_examples_in_double_precision_meet_a_network_in_single():
    x = [[float(i), -i / 3] for i in range(6)]
    model = q.FewShotClassifier(q.ProtoNet(q.MLP(2, (4,), 3)), reader=TableReader()).fit(x, list("ababab"))
    assert model.support_.x.dtype == torch.float32
    assert model.predict_proba(x).shape == (6, 2)
