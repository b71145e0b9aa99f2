"""RareMemory against its write rule and loss in slow loops."""

from typing import Any

import pytest
import torch
from torch import nn

import quickstudy as q
from quickstudy.learners import RareMemory


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_default_dtype(torch.float32)


def rare(backbone: nn.Module | None = None, **arguments: Any) -> RareMemory:
    settings: dict[str, Any] = {"size": 6, "noise": 0.0, "shuffle": False, **arguments}
    return RareMemory(backbone or nn.Identity(), **settings)


def sequence(n: int = 12, way: int = 3) -> q.Labelled:
    return q.Labelled(torch.randn(n, 4), q.one_hot(torch.arange(n) % way, way))


def by_hand(data: q.Labelled, size: int, margin: float) -> tuple[dict[int, tuple[torch.Tensor, int, int]], float]:
    """For each row that was written (key, class, age) at the end, and the mean loss."""
    rows: dict[int, tuple[torch.Tensor, int]] = {}
    ages, losses = [0] * size, []
    for x, y in zip(data.x, data.y, strict=True):
        query, v = x / x.norm(), int(y.argmax())
        near = sorted(rows, key=lambda i, query=query: -float(query @ rows[i][0]))
        own, other = ([i for i in near if (rows[i][1] == v) is same] for same in (True, False))
        both = own and other
        losses.append(max(0.0, float(query @ rows[other[0]][0] - query @ rows[own[0]][0]) + margin) if both else 0.0)
        if near and rows[near[0]][1] == v:
            place = near[0]
            key = query + rows[place][0]
            key = key / key.norm()
        else:
            place, key = ages.index(max(ages)), query
        ages = [0 if i == place else age + 1 for i, age in enumerate(ages)]
        rows[place] = (key, v)
    return {i: (key, v, ages[i]) for i, (key, v) in rows.items()}, sum(losses) / len(losses)


@pytest.mark.parametrize("size", [4, 6, 30])
def test_the_memory_and_the_loss_are_those_of_the_loop(size):
    learner, data = rare(size=size, margin=0.3).eval(), sequence()
    rows, loss = by_hand(data, size, 0.3)
    memory = learner.adapt(data)
    assert {i for i in range(size) if float(memory.values[i].sum())} == set(rows)
    for i, row in rows.items():
        torch.testing.assert_close(memory.keys[i], row[0])
        assert (int(memory.values[i].argmax()), int(memory.ages[i])) == row[1:]
    episode = q.Episode(q.Labelled(data.x[:3], data.y[:3]), q.Labelled(data.x[3:], data.y[3:]))
    assert float(learner.meta_loss(episode)) == pytest.approx(loss, abs=1e-12)


def test_probabilities_are_the_softmax_over_the_nearest_keys():
    learner, data, new = rare(neighbours=3, sharpness=5.0, size=12), sequence(), torch.randn(4, 4)
    memory = learner.adapt(data)
    probabilities = learner.predict(memory, new).softmax(-1)
    used = [i for i in range(12) if float(memory.values[i].sum())]
    for x, found in zip(new, probabilities, strict=True):
        near = sorted(used, key=lambda i: -float(x @ memory.keys[i]) / float(x.norm()))[:3]
        weights = torch.stack([torch.exp(5 * x @ memory.keys[i] / x.norm()) for i in near])
        expected = torch.zeros(3)
        for i, w in zip(near, weights / weights.sum(), strict=True):
            expected[int(memory.values[i].argmax())] += w
        torch.testing.assert_close(found, expected)


def test_keys_are_stored_without_gradient_and_queries_carry_it():
    learner = rare(nn.Linear(4, 4))
    assert not any(part.requires_grad for part in learner.adapt(sequence()))
    data = sequence()
    learner.meta_loss(q.Episode(data, data)).backward()
    assert all(float(p.grad.abs().sum()) > 0 for p in learner.parameters() if p.grad is not None)


def test_walking_is_reading_before_each_write():
    learner, data = rare(), sequence()
    logits = learner.walk(data)
    for n in (1, 5, 11):
        memory = learner.adapt(q.Labelled(data.x[:n], data.y[:n]))
        torch.testing.assert_close(logits[n], learner.predict(memory, data.x[n : n + 1])[0])


def test_noise_up_to_one_decides_only_between_rows_of_the_same_age():
    learner, data = rare(noise=1.0, size=4).train(), sequence(3)
    assert learner.adapt(data).ages.tolist() == rare(size=4).adapt(data).ages.tolist()  # adapting draws nothing
    memory = learner.start(data.x, data.y)
    places = set()
    for _ in range(20):
        written = learner._written(memory, data.x[0], data.y[0], noise=1.0)
        places.add(int(written.values.sum(-1).argmax()))
        full = written._replace(ages=torch.tensor([3.0, 7.0, 2.0, 0.0]), values=torch.eye(3)[[1, 1, 1, 1]])
        assert int(learner._written(full, data.x[0], data.y[0], noise=1.0).ages.argmin()) == 1
    assert len(places) > 1


def test_order_is_drawn_in_training_alone():
    learner, data = rare(nn.Linear(4, 4), shuffle=True, margin=1.0), sequence(20)
    episode = q.Episode(data, data)
    assert len({float(learner.train().meta_loss(episode).detach()) for _ in range(5)}) > 1
    assert learner.eval().meta_loss(episode) == learner.meta_loss(episode)


def test_what_training_draws_passes_through_vmap():
    parts = [q.Labelled(torch.randn(4, 6, 4), torch.eye(3).repeat(2, 1).expand(4, 6, 3)) for _ in range(2)]
    learner = rare(nn.Linear(4, 4), shuffle=True, noise=1.0, size=4).train()
    assert torch.isfinite(q.unrolled(learner, q.Episode(*parts), strategy="vmap"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_many_queries_of_a_class_without_support_have_a_finite_loss(dtype):
    learner, data = rare(neighbours=2).to(dtype), sequence(6, 2)
    support = q.Labelled(data.x.to(dtype), nn.functional.pad(data.y, (0, 1)).to(dtype))
    y = torch.tensor([[0.0, 0.0, 1.0]], dtype=dtype).repeat(1000, 1)
    loss = learner.loss(learner.predict(learner.adapt(support), torch.randn(1000, 4, dtype=dtype)), y)
    assert torch.isfinite(loss)


def test_fewer_rows_than_classes_are_refused():
    with pytest.raises(ValueError, match="7 classes for a memory of 6 rows"):
        rare().adapt(sequence(7, 7))
    with pytest.raises(ValueError, match="two classes or more"):
        rare().adapt(sequence(3, 1))


def test_bad_arguments_are_refused():
    bad: dict[str, Any]
    for bad in ({"size": 1}, {"neighbours": 0}, {"margin": -0.1}, {"sharpness": 0.0}, {"noise": -1.0}):
        with pytest.raises(ValueError, match="required are at least 2, 1, 0, above 0, and at least 0"):
            rare(**bad)


@pytest.mark.parametrize("value", [1.0, 0.0])
def test_examples_that_are_all_alike_give_finite_numbers(value):
    x = torch.full((6, 4), value)
    learner, y = rare(nn.Linear(4, 4, bias=False)), q.one_hot(torch.tensor([0, 0, 2, 2, 0, -1]), 3)
    support = q.Labelled(x, y)  # class 1 has no support
    prediction = learner.predict(learner.adapt(support), x[:1])
    assert torch.isfinite(prediction).all()
    assert float(prediction.softmax(-1)[0, 1].detach()) == 0
    (prediction[0, 0] + learner.meta_loss(q.Episode(support, support))).backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in learner.parameters() if p.grad is not None)


def test_a_thousand_support_examples_give_finite_numbers():
    learner, data = rare(), sequence(1000)
    assert torch.isfinite(learner.predict(learner.adapt(data), data.x[:1])).all()
