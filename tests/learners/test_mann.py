"""MANN against its equations in slow loops."""

import pytest
import torch
from torch import nn

import quickstudy as q
from quickstudy.learners import MANN

SMALL = {"classes": 4, "features": 3, "width": 6, "slots": 5, "word": 4, "heads": 2, "shuffle": False}


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_default_dtype(torch.float32)


def mann(**arguments) -> MANN:
    return MANN(nn.Identity(), **{**SMALL, **arguments})


def sequence(n: int = 7, way: int = 3) -> q.Labelled:
    return q.Labelled(torch.randn(n, 3), q.one_hot(torch.arange(n) % way, way))


def by_hand(learner: MANN, data: q.Labelled) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits of each step and the memory at the end, row by row and head by head."""
    heads, slots, word, width = learner.heads, learner.slots, learner.word, learner.width
    memory = torch.zeros(slots, word)
    used_before, written_before = torch.zeros(slots), torch.zeros(slots)
    hidden, cell, label = torch.zeros(width), torch.zeros(width), torch.zeros(learner.classes)
    vectors, logits = torch.zeros(heads, word), []
    for x, y in zip(data.x, data.y, strict=True):
        into = torch.cat([x, label, vectors.flatten()])
        if learner.controller == "lstm":
            gates = learner.control(torch.cat([into, hidden]))
            i, f, g, o = (gates[k * width : (k + 1) * width] for k in range(4))
            cell = torch.sigmoid(f + 1) * cell + torch.sigmoid(i) * torch.tanh(g)
            hidden = torch.sigmoid(o) * torch.tanh(cell)
        else:
            hidden = torch.relu(learner.control(into))
        emitted = learner.emit(torch.cat([hidden, x])).view(heads, -1)
        reads, sigmas, keys, new_vectors = [], [], [], []
        for h in range(heads):
            key = torch.tanh(emitted[h, :word])
            beta = 1 + torch.log1p(torch.exp(emitted[h, word + 1])) if learner.sharpness else 1.0
            cosines = [key @ row / ((key.norm() ** 2 + 1e-2) * (row.norm() ** 2 + 1e-2)).sqrt() for row in memory]
            powers = [torch.exp(beta * c) for c in cosines]
            reads.append(torch.stack([p / sum(powers) for p in powers]))
            sigmas.append(torch.sigmoid(emitted[h, word]))
            keys.append(key)
            new_vectors.append(torch.stack([reads[h][i] * memory[i] for i in range(slots)]).sum(0))
        vectors = torch.stack(new_vectors)
        logits.append(learner.out(torch.cat([hidden, vectors.flatten()]))[: data.y.shape[1]])

        label = nn.functional.pad(y, (0, learner.classes - len(y)))
        used = torch.stack([learner.decay * used_before[i] + sum(r[i] for r in reads) + written_before[i]
                            for i in range(slots)])  # fmt: skip
        free = sorted(range(slots), key=lambda i: (float(used[i].detach()), i))[:heads]
        codes = (learner.bind.weight @ label).view(heads, word)
        new_memory, written_before = [], torch.zeros(slots)
        for i in range(slots):
            row = torch.zeros(word) if i in free else memory[i]
            for h in range(heads):
                w_write = sigmas[h] * reads[h][i] + (1 - sigmas[h]) * (1.0 if i == free[h] else 0.0)
                row = row + w_write * (keys[h] + codes[h])
                written_before = written_before + w_write * (torch.arange(slots) == i)
            new_memory.append(row)
        memory, used_before = torch.stack(new_memory), used
    return torch.stack(logits), memory


@pytest.mark.parametrize("arguments", [{}, {"controller": "feedforward"}, {"sharpness": False, "decay": 0.5}])
def test_each_step_is_that_of_the_loop(arguments):
    learner, data = mann(**arguments), sequence()
    logits, memory = by_hand(learner, data)
    torch.testing.assert_close(learner.walk(data), logits)
    torch.testing.assert_close(learner.adapt(data).state.memory, memory)


def test_least_used_rows_are_written_first_and_then_overwritten():
    learner = mann(heads=1, slots=3)
    with torch.no_grad():
        learner.emit.bias[learner.word] = -50.0  # σ(α) = 0: only least used rows are written
    data = sequence()
    after = [learner.adapt(q.Labelled(data.x[:n], data.y[:n])).state for n in (1, 2, 3, 4)]
    assert [int((state.memory.abs().sum(-1) > 1e-9).sum()) for state in after] == [1, 2, 3, 3]
    changed = ((after[3].memory - after[2].memory).abs() > 1e-9).any(-1)
    used = after[2].usage + learner._look(after[2], data.x[3]).read.sum(0)
    assert changed.tolist() == [i == int(used.argmin()) for i in range(3)]


def test_an_untrained_memory_answers_by_content():
    """The label is already in the row that a key like its own finds: training does not have to discover binding."""
    learner = MANN(nn.Identity(), classes=5, features=64, shuffle=False)
    x = torch.randn(5, 64)
    state = learner.adapt(q.Labelled(x, torch.eye(5))).state
    new = x + 0.3 * torch.randn(5, 64)
    with torch.no_grad():
        codes = learner.bind.weight.view(4, -1, 5)  # (heads, word, classes)
        votes = torch.einsum("nhw,hwc->nc", learner._look(state, new).vectors, codes)
    votes = votes - votes.mean(0)
    assert votes.argmax(-1).tolist() == [0, 1, 2, 3, 4]


def test_the_last_support_example_is_in_memory():
    learner, data = mann(), sequence(3)
    before = learner.adapt(q.Labelled(data.x[:2], data.y[:2])).state.memory
    assert not torch.equal(learner.adapt(data).state.memory, before)


def test_a_sequence_without_examples_leaves_the_empty_memory():
    learner, data = mann(), sequence(0)
    assert learner.walk(data).shape == (0, 3)
    assert torch.equal(learner.adapt(data).state.memory, torch.zeros(5, 4))


def test_a_query_is_the_next_step_of_the_support_sequence():
    learner, data, new = mann(), sequence(), torch.randn(2, 3)
    prediction = learner.predict(learner.adapt(data), new)
    for x, row in zip(new, prediction, strict=True):
        longer = q.Labelled(torch.cat([data.x, x[None]]), torch.cat([data.y, data.y[:1]]))
        torch.testing.assert_close(row, learner.walk(longer)[-1])


def test_padding_between_examples_changes_nothing():
    learner, (x, y) = mann(), sequence(4)
    padded = q.Labelled(torch.cat([x[:2], x[:1], x[2:]]), torch.cat([y[:2], torch.zeros(1, 3), y[2:]]))
    for a, b in zip(learner.adapt(q.Labelled(x, y)).state, learner.adapt(padded).state, strict=True):
        assert torch.equal(a, b)


def test_the_loss_counts_every_step_and_labels_come_one_step_late():
    learner, data = mann().eval(), sequence()
    episode = q.Episode(q.Labelled(data.x[:3], data.y[:3]), q.Labelled(data.x[3:], data.y[3:]))
    logits, _ = by_hand(learner, data)
    each = torch.stack([-row.log_softmax(-1)[y.argmax()] for row, y in zip(logits, data.y, strict=True)])
    torch.testing.assert_close(learner.meta_loss(episode), each.mean())
    other = q.Labelled(data.x, torch.cat([data.y[:3], data.y[3:4].roll(1), data.y[4:]]))
    assert torch.equal(learner.walk(other)[:4], learner.walk(data)[:4])
    assert not torch.equal(learner.walk(other)[4], learner.walk(data)[4])


def test_order_and_slots_are_drawn_in_training_alone():
    learner, data = mann(shuffle=True), sequence()
    episode = q.Episode(q.Labelled(data.x[:3], data.y[:3]), q.Labelled(data.x[3:], data.y[3:]))
    losses = {float(learner.train().meta_loss(episode).detach()) for _ in range(3)}
    assert len(losses) == 3
    assert learner.eval().meta_loss(episode) == learner.meta_loss(episode)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        again = [learner.train().meta_loss(episode) for _ in range(2)]
        torch.manual_seed(5)
        assert torch.equal(torch.stack(again), torch.stack([learner.meta_loss(episode) for _ in range(2)]))


def test_more_classes_than_slots_are_refused():
    with pytest.raises(ValueError, match="5 classes for a learner with 4 label slots"):
        mann().adapt(sequence(5, 5))
    with pytest.raises(ValueError, match="two classes or more"):
        mann().adapt(sequence(3, 1))


def test_bad_arguments_are_refused():
    for bad in ({"classes": 1}, {"slots": 1}, {"decay": 1.5}, {"heads": 0}):
        with pytest.raises(ValueError, match="as many slots as heads"):
            mann(**bad)
    with pytest.raises(ValueError, match="lstm"):
        mann(controller="gru")
    with pytest.raises(ValueError, match="features="):
        mann(features=0)


@pytest.mark.parametrize("value", [1.0, 0.0])
def test_examples_that_are_all_alike_give_finite_numbers(value):
    x = torch.full((6, 3), value)
    learner, y = mann(), q.one_hot(torch.tensor([0, 0, 2, 2, 0, -1]), 3)  # class 1 has no support
    prediction = learner.predict(learner.adapt(q.Labelled(x, y)), x[:1])
    assert torch.isfinite(prediction).all()
    assert float(prediction.softmax(-1)[0, 1].detach()) == 0
    prediction[0, 0].backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in learner.parameters() if p.grad is not None)


def test_a_thousand_support_examples_give_finite_numbers():
    learner, data = mann(), sequence(1000)
    with torch.no_grad():
        assert torch.isfinite(learner.predict(learner.adapt(data), data.x[:1])).all()
