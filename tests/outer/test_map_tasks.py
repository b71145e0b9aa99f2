"""Strategies of a meta-batch: one answer, and no network that "auto" cannot serve."""

import pytest
import torch
from torch import nn

import quickstudy as q
from quickstudy.episode import task


def vectors(n: int = 3) -> q.Episode:
    x = torch.randn(60, 6, generator=torch.Generator().manual_seed(1))
    tasks = q.ClassTasks(x, [i // 10 for i in range(60)], way=3, shot=2, queries=3)
    return tasks.sample(n, generator=torch.Generator().manual_seed(0))


def images(n: int = 2) -> q.Episode:
    x = torch.randn(30, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    tasks = q.ClassTasks(x, [i // 5 for i in range(30)], way=3, shot=1, queries=2)
    return tasks.sample(n, generator=torch.Generator().manual_seed(0))


class Recurrent(nn.Module):
    """vmap has no rule for recurrent layers."""

    def __init__(self):
        super().__init__()
        self.cell = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x):
        return self.cell(x.view(len(x), 2, 3))[0][:, -1]


class Branching(nn.Module):
    """vmap refuses control flow that depends on data."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 4)

    def forward(self, x):
        return self.layer(x) if float(x.detach().sum()) > 0 else self.layer(-x)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.attend = nn.Linear(3, 4), nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        z = self.embed(x.view(len(x), 2, 3))
        return self.attend(z, z, z)[0].mean(1)


NETWORKS = {
    "stock batch norm": lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4, momentum=None)),
    "recurrent": Recurrent,
    "branching": Branching,
    "attention": Attention,
    "plain": lambda: nn.Linear(6, 4),
}


def result(strategy: str, build, n: int = 3):
    """Loss, gradients, and the state that the forward pass leaves."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        learner = q.ProtoNet(build()).train()
    loss = q.unrolled(learner, vectors(n), strategy=strategy)  # pyright: ignore
    loss.backward()
    grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in learner.parameters()]
    return [loss.detach(), *grads, *learner.buffers()]


@pytest.mark.parametrize("name", NETWORKS)
def test_auto_serves_every_network_with_the_numbers_of_the_loop(name):
    for ours, theirs in zip(result("auto", NETWORKS[name]), result("loop", NETWORKS[name]), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_auto_runs_a_network_with_dropout_and_draws_anew_for_each_task():
    learner = q.ProtoNet(nn.Sequential(nn.Linear(6, 32), nn.Dropout())).train()
    twice = q.Episode(*(q.Labelled(*(t[:1].expand(2, *t.shape[1:]) for t in part)) for part in vectors(1)))
    losses = q.map_tasks(lambda e: learner.loss(learner.predict(learner.adapt(e.support), e.query.x), e.query.y), twice)
    assert losses.shape == (2,)
    assert not torch.equal(losses[0], losses[1])


@pytest.mark.parametrize("strategy", ["auto", "loop", "vmap"])
@pytest.mark.parametrize("batch", [vectors, images])
def test_every_strategy_gives_each_task_its_own_value_in_order(strategy, batch):
    episodes = batch()
    values = q.map_tasks(lambda e: e.support.x.sum() - e.query.x.mean(), episodes, strategy=strategy)
    one_by_one = [task(episodes, i) for i in range(len(episodes.support.x))]
    expected = torch.stack([e.support.x.sum() - e.query.x.mean() for e in one_by_one])
    torch.testing.assert_close(values, expected)


@pytest.mark.parametrize(("batch", "expected"), [(vectors, True), (images, False)])
def test_auto_takes_vmap_for_vectors_and_the_loop_for_images_on_a_cpu(batch, expected):
    seen = []

    def f(episode):
        seen.append(torch._C._functorch.is_batchedtensor(episode.support.x))
        return episode.support.x.sum()

    q.map_tasks(f, batch())
    assert seen[0] is expected
    assert len(seen) == (1 if expected else 2)


def test_vmap_that_was_asked_for_is_not_replaced():
    with pytest.raises(RuntimeError):
        result("vmap", Recurrent)


def test_an_error_of_the_network_itself_is_raised():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        result("auto", lambda: nn.Linear(7, 4))


def test_an_unknown_strategy_is_refused():
    with pytest.raises(ValueError, match="strategy='threads'; choose 'auto', 'loop' or 'vmap'"):
        q.map_tasks(lambda e: e.query.x.sum(), vectors(), strategy="threads")  # pyright: ignore
