"""The neural cache against its equations in slow loops; the contract of all learners; memory that is not there."""

import inspect
import math
from functools import partial

import pytest
import torch

import quickstudy as q
from quickstudy import saving
from quickstudy.backbones import RecurrentLM
from quickstudy.data.text import Vocabulary
from quickstudy.episode import task
from quickstudy.functional import perplexity
from quickstudy.inner import TorchOptim
from quickstudy.learners import NeuralCache
from quickstudy.tasks.text import TextTasks
from tests import test_contract
from tests.contract import Case, one

TEXTS = [f"{a} the {b} {c}" for a in ("see", "buy") for b in ("red", "old") for c in ("cat", "car", "hat")]
VOCABULARY = Vocabulary.of(TEXTS, size=40)
TASKS = TextTasks(TEXTS, ["cats"] * 6 + ["cars"] * 6, VOCABULARY, shot=3, queries=3, length=6)


def train(learner: q.Learner, tasks: TextTasks, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    generator, loss = torch.Generator().manual_seed(0), partial(q.unrolled, strategy="loop")
    drawn = q.meta_train(learner, tasks, optimizer, steps=steps, meta_batch=1, generator=generator, meta_loss=loss)
    return [step.loss for step in drawn]


def lm(cell="lstm") -> RecurrentLM:
    return RecurrentLM(len(VOCABULARY), 5, cell=cell)


CASES = {
    "linear": Case(lambda: NeuralCache(lm(), weight=0.3, sharpness=0.8), any_way=False, tasks=TASKS),
    "global": Case(lambda: NeuralCache(lm("gru"), combine="global", weight=0.6), any_way=False, tasks=TASKS),
    "fine-tuned": Case(lambda: q.MAML(lm(), head=None, inner_lr=0.5, inner_steps=2), any_way=False, tasks=TASKS),
}
OWN = {
    "test_every_named_learner_is_held_to_the_contract",
    "test_a_learner_learns",  # below, without the time that the choice of a strategy takes
}
CONTRACT = [n for n in dir(test_contract) if n.startswith("test_") and n not in OWN]


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", CONTRACT)
@pytest.mark.parametrize("kind", CASES)
def test_it_keeps_the_contract_of_all_learners(kind, name, tmp_path, monkeypatch):
    monkeypatch.setitem(saving._KNOWN, "NeuralCache", NeuralCache)
    test = getattr(test_contract, name)
    given = {"case": CASES[kind], "tmp_path": tmp_path, "training": True}
    wanted = inspect.signature(test).parameters
    assert set(wanted) <= set(given)
    test(**{key: value for key, value in given.items() if key in wanted})


@pytest.mark.parametrize("kind", ["linear", "global"])
def test_it_is_its_equations(kind):
    learner, episode = CASES[kind].build(), one(CASES[kind])
    (sx, sy), (qx, _) = episode
    prediction = learner.predict(learner.adapt(episode.support), qx)
    assert prediction.shape == (*qx.shape, len(VOCABULARY))
    with torch.no_grad():
        rate, theta = float(learner.logit_weight.sigmoid()), float(learner.log_sharpness.exp())
        memory = []
        for x, y in zip(sx, sy, strict=True):
            for t in range(len(x)):
                if y[t].sum() > 0:
                    memory.append((learner.network.hidden(x[None, : t + 1])[0, -1], int(y[t].argmax())))
        for m, x in enumerate(qx):
            for t in range(len(x)):
                h = learner.network.hidden(x[None, : t + 1])[0, -1]
                o = learner.network.scores(h)
                found = torch.zeros(len(VOCABULARY))
                for key, token in memory:
                    alpha = math.log(rate / (1 - rate)) if kind == "global" else 0.0
                    found[token] += torch.exp(theta * (h * key).sum() + alpha)
                if kind == "linear":
                    p = (1 - rate) * torch.exp(o) / torch.exp(o).sum() + rate * found / found.sum()
                else:
                    p = (torch.exp(o) + found) / (torch.exp(o) + found).sum()
                torch.testing.assert_close(prediction[m, t].exp(), p, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["linear", "global"])
def test_probabilities_sum_to_one(kind):
    episode = one(CASES[kind])
    learner = CASES[kind].build()
    total = learner.predict(learner.adapt(episode.support), episode.query.x).exp().sum(-1)
    torch.testing.assert_close(total, torch.ones_like(total))


@pytest.mark.parametrize("combine", ["linear", "global"])
def test_no_weight_and_no_memory_are_the_plain_model(combine):
    support, query = one(CASES["linear"])
    network = lm()
    plain = network(query.x).log_softmax(-1)
    off = NeuralCache(network, combine=combine, weight=0.0)
    torch.testing.assert_close(off.predict(off.adapt(support), query.x), plain)
    on = NeuralCache(network, combine=combine, weight=0.5)
    nothing = q.Labelled(support.x[:0], support.y[:0])
    torch.testing.assert_close(on.predict(on.adapt(nothing), query.x), plain)
    padding = q.Labelled(support.x, torch.zeros_like(support.y))
    torch.testing.assert_close(on.predict(on.adapt(padding), query.x), plain)
    assert not torch.allclose(on.predict(on.adapt(support), query.x), plain)


def test_an_empty_support_leaves_a_fine_tuned_model_as_it_is():
    support, query = one(CASES["linear"])
    network = lm()
    nothing = q.Labelled(support.x[:0], support.y[:0])
    for rule in (None, TorchOptim("Adam", lr=0.1)):
        learner = q.MAML(network, head=None, inner_lr=0.5, inner_steps=2, mode="first_order", rule=rule)
        torch.testing.assert_close(learner.predict(learner.adapt(nothing), query.x), network(query.x))


def test_padding_behind_a_sentence_changes_nothing():
    learner, (support, query) = CASES["linear"].build(), one(CASES["linear"])
    filler = torch.full((len(support.x), 2), 7)
    longer = q.Labelled(
        torch.cat([support.x, filler], 1), torch.cat([support.y, torch.zeros(len(filler), 2, len(VOCABULARY))], 1)
    )
    wanted = learner.predict(learner.adapt(support), query.x)
    torch.testing.assert_close(learner.predict(learner.adapt(longer), query.x), wanted)


def test_the_loss_is_the_mean_over_real_tokens():
    learner, (support, query) = CASES["linear"].build(), one(CASES["linear"])
    prediction = learner.predict(learner.adapt(support), query.x)
    told = [
        prediction[i, t, int(y.argmax())] for i, row in enumerate(query.y) for t, y in enumerate(row) if y.sum() > 0
    ]
    mean = -torch.stack(told).mean()
    torch.testing.assert_close(learner.loss(prediction, query.y), mean)
    torch.testing.assert_close(perplexity(prediction, query.y), mean.exp())


def test_perplexity_of_a_guess_is_the_vocabulary():
    y = q.one_hot(torch.tensor([[3, 1, -1]]), 9)
    torch.testing.assert_close(perplexity(torch.zeros(1, 3, 9), y), torch.tensor(9.0))


@pytest.mark.parametrize("combine", ["linear", "global"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_the_network_thinks_impossible_costs_what_it_says(combine, dtype):
    """A probability far below the smallest number is still counted in nats, with its gradient."""
    support, query = one(CASES["linear"])
    y = q.one_hot(torch.zeros(query.x.shape, dtype=torch.long), len(VOCABULARY)).to(dtype)
    sy = support.y.to(dtype)
    sy[..., 0] = 0  # token 0 never comes
    learner = NeuralCache(lm(), combine=combine, weight=0.3, sharpness=0.8).to(dtype)
    with torch.no_grad():
        learner.network.bias[0] = -200
    loss = learner.loss(learner.predict(learner.adapt(q.Labelled(support.x, sy)), query.x), y)
    (gradient,) = torch.autograd.grad(loss, learner.network.bias)
    assert 150 < float(loss.detach()) < 250
    assert float(gradient[0]) == pytest.approx(-1, abs=1e-3)


def test_a_sentence_that_was_read_becomes_likelier():
    learner, (support, _) = NeuralCache(lm(), weight=0.5, sharpness=1.0), one(CASES["linear"])
    told = learner.adapt(support)
    nothing = learner.adapt(q.Labelled(support.x[:0], support.y[:0]))
    with_memory, without = (learner.loss(learner.predict(phi, support.x), support.y) for phi in (told, nothing))
    assert with_memory < without


def test_weight_and_sharpness_are_learned_with_a_frozen_network():
    learner = CASES["linear"].build()
    learner.network.requires_grad_(False)
    optimizer = torch.optim.Adam([p for p in learner.parameters() if p.requires_grad], lr=0.1)
    losses = train(learner, TASKS, optimizer, 30)
    assert sum(losses[-5:]) < sum(losses[:5])
    assert float(learner.logit_weight.detach().sigmoid()) != pytest.approx(0.3)


def test_the_network_is_trained_without_support():
    learner = CASES["linear"].build()
    tasks = TextTasks(TEXTS, ["all"] * 12, VOCABULARY, shot=0, queries=8)
    optimizer = torch.optim.Adam(learner.network.parameters(), lr=0.03)
    generator = torch.Generator().manual_seed(0)
    losses = [
        step.loss for step in q.meta_train(learner, tasks, optimizer, steps=15, meta_batch=1, generator=generator)
    ]
    assert losses[-1] < losses[0] - 0.5


@pytest.mark.parametrize("combine", ["linear", "global"])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_degenerate_memories_give_finite_numbers(combine, scale):
    episode = one(CASES["linear"])
    same = q.Labelled(episode.support.x[:1].repeat(1000, 1), episode.support.y[:1].repeat(1000, 1, 1))
    learner = NeuralCache(lm(), combine=combine, weight=0.5, sharpness=2.0)
    with torch.no_grad():
        learner.network.embedding.weight.mul_(scale)
    loss = learner.meta_loss(q.Episode(same, q.Labelled(episode.query.x[:1], episode.query.y[:1])))
    grads = torch.autograd.grad(loss, list(learner.parameters()), allow_unused=True)
    assert torch.isfinite(loss)
    assert all(bool(torch.isfinite(g).all()) for g in grads if g is not None)


def test_numbers_out_of_range_are_refused():
    for arguments in ({"weight": 1.0}, {"weight": -0.1}, {"sharpness": 0.0}, {"sharpness": math.inf}):
        with pytest.raises(ValueError, match="required are 0 ≤ λ < 1 and θ > 0"):
            NeuralCache(lm(), **arguments)
    with pytest.raises(ValueError, match="combine='both'; choose 'linear' or 'global'"):
        NeuralCache(lm(), combine="both")  # pyright: ignore


def test_another_vocabulary_and_a_single_token_are_refused():
    learner, (support, query) = CASES["linear"].build(), one(CASES["linear"])
    with pytest.raises(ValueError, match=r"scores \d+ tokens and the support text is labelled over 7"):
        learner.predict(learner.adapt(q.Labelled(support.x, support.y[..., :7])), query.x)
    with pytest.raises(ValueError, match="required are one-hot rows over two classes or more"):
        learner.adapt(q.Labelled(support.x, support.y[..., :1]))


def test_a_meta_batch_keeps_whole_numbers_whole():
    batch = TASKS.sample(2, generator=torch.Generator().manual_seed(0))
    assert task(batch, 1).support.x.dtype == torch.int64
