"""Every learner against the contract of ``contract.py``, in float64."""

import copy
import inspect
from functools import partial

import pytest
import torch
from torch import Tensor, nn

import quickstudy as q
from quickstudy.backbones import BACKBONES
from quickstudy.backbones.norm import uses_batch_statistics
from quickstudy.episode import task
from quickstudy.learners import LEARNERS
from tests.contract import CASES, Case, episodes, one


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(params=CASES)
def case(request) -> Case:
    return CASES[request.param]


def leaves(adapted) -> list[Tensor]:
    if isinstance(adapted, Tensor):
        return [adapted]
    parts = adapted.values() if isinstance(adapted, dict) else adapted
    return [leaf for part in parts for leaf in leaves(part)]


def adapt(learner: q.Learner, support: q.Labelled, query_x: Tensor):
    """φ; a transductive learner is shown the queries."""
    return learner.adapt(support, query_x) if learner.transductive else learner.adapt(support)


def logits(learner: q.Learner, episode: q.Episode) -> Tensor:
    return learner.answer(episode.support, episode.query.x)


def gradient(learner: q.Learner, batch: q.Episode, strategy: str) -> tuple[Tensor, list[Tensor]]:
    loss = q.unrolled(learner, batch, strategy=strategy)
    if not list(learner.parameters()):
        return loss, []
    trained = [p for p in learner.parameters() if p.requires_grad]
    return loss, list(torch.autograd.grad(loss, trained))


def test_every_named_learner_is_held_to_the_contract():
    assert {type(case.build()) for case in CASES.values()} == set(LEARNERS.values())


@pytest.mark.parametrize("training", [True, False])
def test_nothing_is_written_to_self_and_the_answer_is_repeatable(case, training):
    learner, episode = case.build().train(training), one(case)
    before = copy.deepcopy(learner.state_dict()), set(vars(learner))
    first, second = (adapt(learner, episode.support, episode.query.x) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(leaves(first), leaves(second), strict=True))
    assert torch.equal(learner.predict(first, episode.query.x), learner.predict(first, episode.query.x))
    after = learner.state_dict()
    assert set(vars(learner)) == before[1]
    assert all(torch.equal(before[0][name], after[name]) for name in before[0])


@pytest.mark.parametrize("training", [True, False])
def test_loop_and_vmap_agree_in_loss_and_gradient(case, training):
    learner, batch = case.build().train(training), episodes(case, 3)
    if case.no_vmap:
        with pytest.raises(RuntimeError, match=case.no_vmap):
            gradient(learner, batch, "vmap")
        return
    (loss, grads), (vmap_loss, vmap_grads) = (gradient(learner, batch, s) for s in ("loop", "vmap"))
    torch.testing.assert_close(vmap_loss, loss, rtol=1e-10, atol=0)
    scale = max((float(g.abs().max()) for g in grads), default=1.0)
    for ours, theirs in zip(grads, vmap_grads, strict=True):
        assert float((ours - theirs).abs().max()) <= 1e-10 * scale


def test_the_order_of_the_support_set_does_not_matter(case):
    if case.ordered:
        pytest.skip(case.ordered)
    learner, episode = case.build().eval(), one(case)
    order = torch.randperm(len(episode.support.x), generator=torch.Generator().manual_seed(3))
    turned = q.Episode(q.Labelled(episode.support.x[order], episode.support.y[order]), episode.query)
    torch.testing.assert_close(logits(learner, turned), logits(learner, episode), rtol=1e-9, atol=1e-9)


def test_way_and_shot_are_free(case):
    learner = case.build().eval()
    for way, shot in ((2, 1), (7, 3)) if case.any_way else ((5, 1), (5, 4)):
        episode = one(case, way=way, shot=shot)
        prediction = logits(learner, episode)
        assert prediction.shape == episode.query.y.shape
        assert torch.isfinite(learner.loss(prediction, episode.query.y))


def test_relabelling_the_classes_permutes_the_logits(case):
    if case.regression or not case.any_way:
        pytest.skip("there are no classes, or the network itself tells them apart")
    if case.slots:
        pytest.skip(case.slots)
    learner, episode = case.build().eval(), one(case)
    order = torch.tensor([3, 1, 4, 0, 2])
    turned = q.Episode(q.Labelled(episode.support.x, episode.support.y[:, order]), episode.query)
    torch.testing.assert_close(logits(learner, turned), logits(learner, episode)[:, order], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("training", [True, False])
def test_padding_is_ignored(case, training):
    learner, episode = case.build().train(training), one(case)
    if case.regression:
        pytest.skip("a target of 0 is a number, not padding")
    if (training and case.images) or uses_batch_statistics(learner):
        pytest.skip("batch statistics see every row, so padding needs stored ones")
    (sx, sy), (qx, qy) = episode
    filler = torch.full_like(sx[:3], 0.5)
    padded = q.Labelled(torch.cat([sx, filler]), torch.cat([sy, torch.zeros_like(sy[:3])]))
    plain, with_padding = adapt(learner, episode.support, qx), adapt(learner, padded, qx)
    torch.testing.assert_close(learner.predict(with_padding, qx), learner.predict(plain, qx), rtol=1e-9, atol=1e-9)
    more = learner.predict(plain, torch.cat([qx, filler]))
    labels = torch.cat([qy, torch.zeros_like(qy[:3])])
    torch.testing.assert_close(learner.loss(more, labels), learner.loss(more[: len(qx)], qy))


def test_an_inductive_learner_judges_each_query_by_itself(case):
    learner, episode = case.build().eval(), one(case)
    adapted = adapt(learner, episode.support, episode.query.x)
    together = learner.predict(adapted, episode.query.x)
    pairs = [torch.stack([x, x]) for x in episode.query.x]
    answer = partial(learner.answer, episode.support) if learner.transductive else partial(learner.predict, adapted)
    alone = torch.cat([answer(pair)[:1] for pair in pairs])
    same = torch.allclose(together, alone, rtol=1e-9, atol=1e-9)
    assert same is not (learner.transductive or uses_batch_statistics(learner))


def test_query_labels_cannot_reach_the_prediction(case):
    learner, episode = case.build().eval(), one(case)
    seen = []
    other = q.Episode(episode.support, q.Labelled(episode.query.x, torch.full_like(episode.query.y, torch.nan)))
    for e in (episode, other):
        seen.append(logits(learner, e))
    assert torch.equal(*seen)


def test_the_meta_gradient_is_the_derivative_of_the_meta_loss(case):
    learner, episode = case.build().eval(), one(case)
    check = q.check_meta_gradient(learner, episode)
    assert (check.relative_error <= 1e-6) is case.exact
    assert bool(check.computed) is case.trains


def test_frozen_parameters_stay(case):
    learner = case.build()
    frozen = {name for name, p in learner.named_parameters() if not p.requires_grad}
    episode = one(case)
    adapted = adapt(learner, episode.support, episode.query.x)
    assert not frozen & set(adapted if isinstance(adapted, dict) else ())


def test_every_meta_parameter_is_trained(case):
    learner, batch = case.build().train(), episodes(case)
    _, grads = gradient(learner, batch, "loop")
    assert bool(grads) is case.trains
    assert all(bool(torch.isfinite(g).all()) and bool(g.abs().sum() > 0) for g in grads)


def test_save_and_load_give_the_same_learner(case, tmp_path):
    learner, episode = case.build().eval(), one(case)
    q.save(learner, tmp_path / "learner.safetensors")
    networks = {name: getattr(learner, name, None) for name in inspect.signature(type(learner)).parameters}
    known = (*BACKBONES.values(), nn.Identity)
    own = [name for name, net in networks.items() if isinstance(net, nn.Module) and not isinstance(net, known)]
    twin = q.load(tmp_path / "learner.safetensors", **{name: getattr(case.build(), name) for name in own})
    assert type(twin) is type(learner)
    assert torch.equal(logits(twin, episode), logits(learner, episode))


def test_a_learner_learns(case):
    """A few outer steps lower the loss of the queries on the tasks they saw."""
    if not case.trains:
        return
    learner, batch = case.build().train(), episodes(case, 2)
    optimizer = torch.optim.Adam(learner.parameters(), lr=1e-2)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = q.unrolled(learner, batch)
        loss.backward()
        own = case.query_loss or bool(case.own_loss)
        judged = loss if own else sum(q.Learner.meta_loss(learner, task(batch, i)) for i in range(2))
        optimizer.step()
        losses.append(float(judged.detach()))
    assert losses[-1] < losses[0]


def test_one_task_of_a_meta_batch_is_that_task(case):
    learner, batch = case.build().eval(), episodes(case, 2)
    tasks = [task(batch, i) for i in range(2)]
    own = torch.stack([learner.meta_loss(episode) for episode in tasks])
    torch.testing.assert_close(q.unrolled(learner, batch), own.mean())
    if case.query_loss:
        torch.testing.assert_close(
            own, torch.stack([learner.loss(logits(learner, episode), episode.query.y) for episode in tasks])
        )
