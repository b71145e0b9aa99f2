"""SNAIL against its layers in slow loops over the whole sequence."""

import math

import pytest
import torch
from torch import nn

import quickstudy as q
from quickstudy.learners import SNAIL
from quickstudy.learners.snail import AttentionBlock, DenseBlock

SMALL = {"classes": 4, "features": 3, "length": 6, "filters": 4, "attention": ((5, 2), (3, 4)), "shuffle": False}


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_default_dtype(torch.float32)


def snail(**arguments) -> SNAIL:
    return SNAIL(nn.Identity(), **{**SMALL, **arguments})


def support(n: int = 7, way: int = 3) -> q.Labelled:
    return q.Labelled(torch.randn(n, 3), q.one_hot(torch.arange(n) % way, way))


def by_hand(learner: SNAIL, data: q.Labelled, x: torch.Tensor) -> torch.Tensor:
    """The logits at the last position of the sequence (x_1, y_1), ..., (x_n, y_n), (x, 0), position by position."""
    pad = (0, learner.classes - data.y.shape[1])
    rows = [torch.cat([a, nn.functional.pad(b, pad)]) for a, b in zip(data.x, data.y, strict=True)]
    rows.append(torch.cat([x, torch.zeros(learner.classes)]))
    for layer in learner.layers:
        new = []
        for t, row in enumerate(rows):
            if isinstance(layer, DenseBlock):
                earlier = rows[t - layer.dilation] if t >= layer.dilation else torch.zeros_like(row)
                f, g = layer.taps(torch.cat([earlier, row])).chunk(2)
                new.append(torch.tanh(f) * torch.sigmoid(g))
            else:
                assert isinstance(layer, AttentionBlock)
                query = layer.query(row)
                powers = [torch.exp(query @ layer.key(rows[s]) / math.sqrt(layer.keys)) for s in range(t + 1)]
                new.append(sum(p / sum(powers) * layer.value(rows[s]) for s, p in enumerate(powers)))
        rows = [torch.cat([row, more]) for row, more in zip(rows, new, strict=True)]
    return learner.out(rows[-1])[: data.y.shape[1]]


@pytest.mark.parametrize("n", [3, 5, 12])
def test_each_query_is_read_as_the_last_position_of_the_sequence(n):
    learner, data, new = snail(), support(n), torch.randn(2, 3)
    prediction = learner.predict(learner.adapt(data), new)
    torch.testing.assert_close(prediction, torch.stack([by_hand(learner, data, x) for x in new]))


def test_convolutions_see_as_many_positions_as_were_asked_for():
    assert [layer.dilation for layer in snail(length=6).layers if isinstance(layer, DenseBlock)] == [1, 2, 4]
    assert [layer.dilation for layer in snail(length=9).layers if isinstance(layer, DenseBlock)] == [1, 2, 4, 8]


def test_attention_reaches_the_first_example_of_a_long_sequence():
    learner, data, new = snail(), support(40), torch.randn(1, 3)
    other = q.Labelled(torch.cat([data.x[:1] + 1, data.x[1:]]), data.y)
    assert not torch.equal(learner.predict(learner.adapt(data), new), learner.predict(learner.adapt(other), new))


def test_padding_anywhere_changes_nothing():
    learner, (x, y), new = snail(), support(5), torch.randn(2, 3)
    zero = torch.zeros(1, 3)
    padded = q.Labelled(torch.cat([x[:1], x[:2], x[2:], x[:1]]), torch.cat([zero, y[:2], y[2:], zero]))
    padded = q.Labelled(torch.cat([padded.x[:3], x[3:4], padded.x[3:]]), torch.cat([padded.y[:3], zero, padded.y[3:]]))
    plain = learner.predict(learner.adapt(q.Labelled(x, y)), new)
    torch.testing.assert_close(learner.predict(learner.adapt(padded), new), plain)


def test_order_and_slots_are_drawn_in_training_alone():
    learner, data = snail(shuffle=True), support()
    episode = q.Episode(data, support(3))
    assert len({float(learner.train().meta_loss(episode).detach()) for _ in range(3)}) == 3
    assert learner.eval().meta_loss(episode) == learner.meta_loss(episode)


def test_support_and_queries_get_the_same_new_names(monkeypatch):
    learner, x = snail(shuffle=True).train(), torch.randn(3, 3)
    data, seen = q.Labelled(x, torch.eye(3)), []
    monkeypatch.setattr(learner, "answer", lambda support, _: seen.append(support) or torch.zeros(3, 3))
    monkeypatch.setattr(learner, "loss", lambda _, y: seen.append(y) or torch.zeros(()))
    names = set()
    for _ in range(10):
        learner.meta_loss(q.Episode(data, data))
        support, y = seen[-2:]
        for a, label in zip(support.x, support.y, strict=True):
            assert torch.equal(label, y[(x == a).all(-1)][0])
        names.add(tuple(y.argmax(-1).tolist()))
    assert len(names) > 1


def test_what_training_draws_passes_through_vmap():
    parts = [q.Labelled(torch.randn(4, 6, 3), torch.eye(3).repeat(2, 1).expand(4, 6, 3)) for _ in range(2)]
    loss = q.unrolled(snail(shuffle=True).train(), q.Episode(*parts), strategy="vmap")
    assert torch.isfinite(loss)


def test_more_classes_than_slots_are_refused():
    with pytest.raises(ValueError, match="5 classes for a learner with 4 label slots"):
        snail().adapt(support(5, 5))
    with pytest.raises(ValueError, match="two classes or more"):
        snail().adapt(support(3, 1))


def test_bad_arguments_are_refused():
    for bad in ({"classes": 1}, {"length": 1}, {"filters": 0}, {"attention": ()}, {"attention": ((3,),)}):
        with pytest.raises(ValueError, match="one pair"):
            snail(**bad)
    with pytest.raises(ValueError, match="features="):
        snail(features=0)


@pytest.mark.parametrize("value", [1.0, 0.0])
def test_examples_that_are_all_alike_give_finite_numbers(value):
    x = torch.full((6, 3), value)
    learner, y = snail(), q.one_hot(torch.tensor([0, 0, 2, 2, 0, -1]), 3)  # class 1 has no support
    prediction = learner.predict(learner.adapt(q.Labelled(x, y)), x[:1])
    assert torch.isfinite(prediction).all()
    assert float(prediction.softmax(-1)[0, 1].detach()) == 0
    prediction[0, 0].backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in learner.parameters() if p.grad is not None)


def test_a_thousand_support_examples_give_finite_numbers():
    learner, data = snail(), support(1000)
    with torch.no_grad():
        assert torch.isfinite(learner.predict(learner.adapt(data), data.x[:1])).all()
