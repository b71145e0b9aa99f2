"""One version of a task: embeddings are computed once, and nothing is measured that would take seconds."""

import math

import pytest
import torch

import quickstudy as q
from quickstudy.learners import LocalMatching, MatchingNet, SimpleShot
from quickstudy.packing import Packed
from quickstudy.readers import ImageReader
from quickstudy.serve import adapted as adapted_module
from quickstudy.serve.adapted import Adapted
from quickstudy.serve.embedded import tensor_bytes
from quickstudy.serve.rows import Support

KNOWN = {"coverage": 0.8, "false_alarms": 0.2}


def network() -> q.Conv4:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return q.Conv4(width=4)


LEARNERS = {
    "ProtoNet": lambda: q.ProtoNet(network()),
    "SimpleShot": lambda: SimpleShot(network(), centre=[0.1] * 4, views=((0, 1), (1, 0)), scale=3.0),
    "LocalMatching": lambda: LocalMatching(network(), dim=1, grid=(1, 1)),  # 2 of the whole, 1 of a place, its weight
    "MatchingNet": lambda: MatchingNet(network()),
    "NearestNeighbour": lambda: q.NearestNeighbour(),
}


def packed(name: str) -> Packed:
    return Packed(LEARNERS[name]().eval(), ImageReader())


def examples(n: int, classes: int = 3) -> tuple[Support, torch.Tensor]:
    """Of classes that differ in their brightness."""
    x = torch.rand(n, 1, 28, 28, generator=torch.Generator().manual_seed(1)) * 0.3
    labels = tuple(f"class {i % classes}" for i in range(n))
    x += torch.tensor([i % classes for i in range(n)]).view(-1, 1, 1, 1) * 0.3
    return Support(n, tuple(f"e{i}" for i in range(n)), labels, (b"",) * n), x


def part(support: Support, x: torch.Tensor, keep: list[int]) -> tuple[Support, torch.Tensor]:
    ids, labels = [support.ids[i] for i in keep], [support.labels[i] for i in keep]
    return Support(len(keep), tuple(ids), tuple(labels), ()), x[keep]


@pytest.fixture
def passes(monkeypatch) -> list[int]:
    """How many examples went through a network of four blocks, each time."""
    seen = []
    forward = q.Conv4.forward

    def counted(self, x):
        seen.append(len(x))
        return forward(self, x)

    monkeypatch.setattr(q.Conv4, "forward", counted)
    return seen


@pytest.mark.parametrize("name", LEARNERS)
def test_it_answers_as_the_classifier_does(name, tmp_path):
    learner, (support, x) = packed(name), examples(24)
    queries = x[:5].flip(2)
    found = Adapted(learner, support, x)
    plain = q.FewShotClassifier(learner, false_alarms=0.2).fit(x, list(support.labels))
    answers = found.answer(queries, **KNOWN)
    expected = plain.predict_proba(queries).tolist()
    for answer, row, inside in zip(answers, expected, plain.predict_set(queries, 0.8), strict=True):
        of = dict(answer.ranking)
        assert [of[label] for label in plain.classes_] == pytest.approx(row, abs=1e-4)
        assert set(answer.inside) == set(inside)
    assert [answer.unknown for answer in answers] == plain.is_unknown(queries).tolist()
    found.save(tmp_path / "model")
    assert list(q.load_model(tmp_path / "model").predict(queries)) == list(plain.predict(queries))


@pytest.mark.parametrize("name", ["ProtoNet", "SimpleShot", "LocalMatching"])
def test_only_new_examples_are_embedded_and_the_map_embeds_none(name, passes):
    learner, (support, x) = packed(name), examples(12)
    views = 3 if name == "SimpleShot" else 1
    before = Adapted(learner, *part(support, x, list(range(11))))
    assert sum(passes) == 11 * views
    before.map(None)
    keep = [0, 2, 3, 11, 5, 6, 1]  # some are gone, one is new, and their order is another
    after = Adapted(learner, *part(support, x, keep), before)
    after.map(None)
    assert sum(passes) == 12 * views
    anew = Adapted(learner, *part(support, x, keep))
    for one, other in zip(after.map(x[:2]), anew.map(x[:2]), strict=True):
        assert torch.allclose(places(one), places(other), atol=1e-4)
    one, other = after.answer(x[:2], **KNOWN)[0], anew.answer(x[:2], **KNOWN)[0]
    assert one.ranking[0][0] == other.ranking[0][0]


def places(found) -> torch.Tensor:
    return torch.tensor([[place["x"], place["y"]] for place in found])


def test_other_learners_embed_for_the_map_alone_and_once(passes):
    learner, (support, x) = packed("MatchingNet"), examples(12)
    before = Adapted(learner, *part(support, x, list(range(11))))
    del passes[:]
    before.map(None)
    before.map(None)
    assert sum(passes) == 11
    after = Adapted(learner, support, x, before)
    del passes[:]
    after.map(None)
    assert sum(passes) == 1


def test_where_examples_depend_on_each_other_all_are_embedded_again(passes):
    learner = Packed(q.ProtoNet(q.Conv4(width=4, norm="batch")).eval(), ImageReader())
    support, x = examples(12)
    before = Adapted(learner, *part(support, x, list(range(11))))
    Adapted(learner, support, x, before)
    assert sum(passes) == 11 + 12


def test_of_many_examples_nothing_is_measured_that_takes_passes(monkeypatch, passes):
    monkeypatch.setattr(adapted_module, "MEASURED", 20)
    support, x = examples(24)
    many = Adapted(packed("MatchingNet"), support, x)
    few = Adapted(packed("MatchingNet"), *part(support, x, list(range(20))))
    assert few.answer(x[:1], **KNOWN)[0].unknown_score is not None
    del passes[:]
    (answer,) = many.answer(x[:1], **KNOWN)
    assert sum(passes) <= 1 + 24
    assert (answer.unknown, answer.unknown_score) == (False, None)
    assert len(answer.inside) == 3
    means = Adapted(packed("ProtoNet"), support, x)
    del passes[:]
    assert means.answer(x[:1], **KNOWN)[0].unknown_score is not None  # from embeddings that are there
    assert sum(passes) == 1


def test_bytes_are_counted_in_whatever_a_learner_adapts():
    four = torch.zeros(4)
    assert tensor_bytes([four, (four, {"a": four, "b": None}), torch.nn.Linear(3, 1), "text"]) == 3 * 16 + 16
    support, x = examples(6)
    assert Adapted(packed("ProtoNet"), support, x).nbytes >= x.nbytes
    assert Adapted(packed("ProtoNet"), *part(support, x, [0])).nbytes == 0


def test_a_direction_of_the_map_has_one_sign():
    found = Adapted(packed("MatchingNet"), *examples(12))
    _, axes, _, _ = found._plane
    assert axes.shape[1] == 2
    for axis in axes.T:
        assert max(axis, key=abs) > 0


def test_a_score_that_json_cannot_hold_is_in_no_answer(monkeypatch):
    support, x = examples(12)
    found = Adapted(packed("ProtoNet"), support, x)
    strange = torch.tensor([math.nan, math.inf, -math.inf]), torch.tensor([False, True, False])
    monkeypatch.setattr(found._trusted, "unknown", lambda *given: strange)
    answers = found.answer(x[:3], **KNOWN)
    assert all(answer.unknown_score is not None and math.isfinite(answer.unknown_score) for answer in answers)
    assert [answer.unknown for answer in answers] == [False, True, False]
