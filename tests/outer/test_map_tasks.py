"""Strategies of a meta-batch: one answer, and no network that "auto" cannot serve."""

import gc
import logging
import re
import weakref
from contextlib import contextmanager

import pytest
import torch
from torch import nn

import quickstudy as q
import quickstudy.outer
from quickstudy.episode import task
from quickstudy.outer import choose, strategies


@contextmanager
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def maml() -> q.MAML:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return q.MAML(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)), inner_lr=0.3, inner_steps=2)


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


@pytest.mark.parametrize("strategy", ["auto", "loop", "threads", "vmap"])
@pytest.mark.parametrize("batch", [vectors, images])
def test_every_strategy_gives_each_task_its_own_value_in_order(strategy, batch):
    episodes = batch()
    values = q.map_tasks(lambda e: e.support.x.sum() - e.query.x.mean(), episodes, strategy=strategy)
    one_by_one = [task(episodes, i) for i in range(len(episodes.support.x))]
    expected = torch.stack([e.support.x.sum() - e.query.x.mean() for e in one_by_one])
    torch.testing.assert_close(values, expected)


def test_auto_says_which_and_why(caplog):
    choose._choices.clear()
    with caplog.at_level(logging.INFO, logger="quickstudy"):
        result("auto", NETWORKS["plain"])
        result("auto", NETWORKS["plain"])
    (record,) = caplog.records  # the second call remembers
    assert re.search(r"tasks run by '\w+': loop .* ms, .*vmap .* ms for 3 tasks", record.message)


def test_auto_keeps_the_loop_where_random_numbers_are_drawn():
    learner = q.ProtoNet(nn.Sequential(nn.Linear(6, 32), nn.Dropout())).train()
    choice = choose.choose_strategy(learner.meta_loss, vectors())
    assert choice.strategy == "loop"
    assert "draws random numbers" in choice.why


def test_auto_records_what_vmap_does_at_the_5th_call_with_the_same_bits():
    learner = maml()
    batch, kind = vectors(8), choose.kind_of(learner.meta_loss, vectors(8))
    choose._choices[kind.key] = choose.Choice("vmap", "", may_record=True)
    seen = []
    for _ in range(21):
        loss = q.unrolled(learner, batch)
        seen.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(learner.parameters()))]))
    assert choose._choices[kind.key].strategy == "trace"
    assert all(torch.equal(seen[0], g) for g in seen)


def test_a_strategy_that_gives_other_numbers_is_not_taken(monkeypatch):
    wrong = strategies.vmap
    monkeypatch.setattr(strategies, "vmap", lambda *a, **k: ((r := wrong(*a, **k))[0] * 1.001, r[1]))
    choose._choices.clear()
    choice = choose.choose_strategy(maml().meta_loss, vectors(8))
    choose._choices.clear()
    assert choice.strategy != "vmap"
    assert not choice.may_record
    assert "its numbers differ from the loop's" in choice.why


@pytest.mark.parametrize("strategy", ["loop", "threads", "vmap", "trace"])
def test_tasks_may_be_weighted_unequally_afterwards(strategy):
    learner, batch = maml(), vectors(4)
    weights = torch.tensor([1.0, -2.0, 0.0, 0.5])
    parameters = list(learner.parameters())
    with two_threads():
        ours = torch.autograd.grad(
            (weights * q.map_tasks(learner.meta_loss, batch, strategy=strategy)).sum(), parameters
        )
    losses = torch.stack([learner.meta_loss(task(batch, i)) for i in range(4)])
    for a, b in zip(ours, torch.autograd.grad((weights * losses).sum(), parameters), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("strategy", ["loop", "threads", "vmap"])
def test_what_was_computed_before_is_differentiated_too(strategy):
    """A tensor that all tasks share, and that is no leaf."""
    w = torch.ones(6, requires_grad=True)
    shared = (w * w).exp()
    values = q.map_tasks(lambda e: (e.support.x @ shared).sum(), vectors(), strategy=strategy)
    (values.sum() + shared.sum()).backward()  # the graph before is still whole
    torch.testing.assert_close(w.grad, 2 * torch.e * (vectors().support.x.sum((0, 1)) + 1))


@pytest.mark.parametrize("strategy", ["loop", "threads", "vmap"])
def test_a_function_may_give_more_than_a_number(strategy):
    w = torch.ones(6, requires_grad=True)
    values = q.map_tasks(lambda e: e.support.x * w, vectors(), strategy=strategy)
    assert values.shape == vectors().support.x.shape
    torch.testing.assert_close(torch.autograd.grad(values.sum(), w)[0], vectors().support.x.sum((0, 1)))


@pytest.mark.parametrize("strategy", ["loop", "threads", "auto"])
def test_tasks_of_unequal_shapes_come_as_a_list(strategy):
    tasks = [task(vectors(1), 0), task(images(1), 0)]
    values = q.map_tasks(lambda e: e.support.x.sum(), tasks, strategy=strategy)
    torch.testing.assert_close(values, torch.stack([e.support.x.sum() for e in tasks]))
    with pytest.raises(q.outer.Refused, match="needs tasks of equal shape: use 'loop' or 'threads'"):
        q.map_tasks(lambda e: e.support.x.sum(), tasks, strategy="vmap")


def test_as_many_tasks_run_at_once_as_the_memory_allows(monkeypatch):
    learner, batch, sizes = maml(), vectors(8), []
    one = strategies.bytes_of_a_task(learner.meta_loss, task(batch, 0))
    run = strategies.vmapped
    monkeypatch.setattr(strategies, "vmapped", lambda f, part: sizes.append(len(part.support.x)) or run(f, part))
    expected = q.map_tasks(learner.meta_loss, batch, strategy="loop")
    torch.testing.assert_close(q.map_tasks(learner.meta_loss, batch, strategy="vmap", memory=3 * one), expected)
    assert sizes == [3, 3, 2]
    with pytest.raises(
        ValueError, match=r"one task takes about .* allow more, or let a task take less: mode='recompute'"
    ):
        q.map_tasks(learner.meta_loss, batch, strategy="loop", memory=one // 2)


def test_only_one_graph_lives_at_a_time():
    """The first task's intermediate results are gone when the third one begins."""
    alive, learner = [], maml()

    def f(episode):
        alive.append(sum(value() is not None for value in values))
        loss = learner.meta_loss(episode)
        values.append(weakref.ref(loss))
        return loss

    values: list = []
    q.map_tasks(f, vectors(4), strategy="loop")
    assert alive == [0, 0, 0, 0]


def test_a_meta_gradient_of_several_tasks_has_no_further_derivative():
    learner = maml()
    loss = q.map_tasks(learner.meta_loss, vectors(3), strategy="loop").sum()
    with pytest.raises(RuntimeError, match="differentiated once"):
        torch.autograd.grad(loss, list(learner.parameters()), create_graph=True)


def test_a_record_is_made_anew_when_a_setting_changes():
    learner, batch = maml(), vectors(4)
    first = float(q.unrolled(learner, batch, strategy="trace").detach())
    learner.inner_steps = 1
    again = float(q.unrolled(learner, batch, strategy="trace").detach())
    assert again != first
    assert again == pytest.approx(float(q.unrolled(learner, batch, strategy="loop").detach()), rel=1e-5)


@pytest.mark.parametrize(
    ("f", "reason"),
    [
        (lambda: lambda e: e.support.x.sum(), "only a method of a module can be recorded"),
        (lambda: q.MAML(nn.Linear(6, 4), multi_step=0.5).train().meta_loss, "changes with the progress of training"),
        (lambda: q.ProtoNet(nn.Sequential(nn.Linear(6, 4), nn.Dropout())).train().meta_loss, "draws random numbers"),
        (lambda: q.ProtoNet(Branching()).meta_loss, "vmap: .*item"),
    ],
)
def test_what_cannot_be_recorded_says_why(f, reason):
    with pytest.raises(q.outer.Refused, match=reason):
        q.map_tasks(f(), vectors(), strategy="trace")


def test_threads_refuse_random_numbers_and_a_single_processor():
    learner = q.ProtoNet(nn.Sequential(nn.Linear(6, 4), nn.Dropout())).train()
    with two_threads(), pytest.raises(q.outer.Refused, match="draws random numbers"):
        q.map_tasks(learner.meta_loss, vectors(), strategy="threads")


def test_threads_may_run_a_learner_that_calls_its_network_with_functional_call():
    """Which writes to the module while it runs: each thread has its own replica."""

    class Writes(q.ProtoNet):
        def adapt(self, support, query_x=None):
            params = {n: p * support.x.mean() for n, p in self.backbone.named_parameters()}
            z = torch.func.functional_call(self.backbone, params, (support.x,))
            return type(super().adapt(support))(support.y.T @ z, support.y)

    learner = Writes(nn.Sequential(*(nn.Linear(6, 6) for _ in range(20))))
    batch = vectors(16)
    expected = q.map_tasks(learner.meta_loss, batch, strategy="loop")
    with two_threads():
        for _ in range(5):
            torch.testing.assert_close(q.map_tasks(learner.meta_loss, batch, strategy="threads"), expected)


def test_vmap_that_was_asked_for_is_not_replaced():
    with pytest.raises(q.outer.Refused, match="vmap: "):
        result("vmap", Branching)


@pytest.mark.parametrize("tasks", [[], vectors(0)])
def test_no_tasks_are_refused(tasks):
    with pytest.raises(ValueError, match="no tasks were given"):
        q.map_tasks(lambda e: e.query.x.sum(), tasks)


def test_an_error_of_the_network_itself_is_raised():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        result("auto", lambda: nn.Linear(7, 4))


def test_an_unknown_strategy_is_refused():
    with pytest.raises(ValueError, match="strategy='fast'; choose among 'auto', 'loop', 'threads', 'vmap'"):
        q.map_tasks(lambda e: e.query.x.sum(), vectors(), strategy="fast")  # pyright: ignore


@pytest.mark.parametrize("strategy", ["loop", "vmap"])
def test_hooks_of_a_parameter_see_the_sum_over_tasks_once(strategy):
    learner = maml()
    grads = []
    for scale in (1.0, 0.5):
        p = next(learner.parameters())
        p.register_hook(lambda g, scale=scale: g * scale)
        learner.zero_grad()
        q.unrolled(learner, vectors(), strategy=strategy).backward()
        grads.append(p.grad)
    torch.testing.assert_close(grads[1], 0.5 * grads[0])


@pytest.mark.parametrize("strategy", ["auto", "loop", "vmap", "trace"])
def test_a_learner_is_freed_with_all_that_was_remembered_of_it(strategy):
    learner = maml()
    q.unrolled(learner, vectors(5), strategy=strategy).backward()
    weight = weakref.ref(learner.network[0].weight)  # pyright: ignore
    del learner
    gc.collect()
    assert weight() is None
