"""MAML against an explicit loop with ``torch.autograd.grad``, and its heads against what they should be."""

import copy

import pytest
import torch
from torch.func import functional_call

import quickstudy as q
from quickstudy.inner import SGD, unroll
from tests.contract import CASES, episodes, one, smooth


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_default_dtype(torch.float32)


def explicit_meta_gradient(network, episode, *, lr, steps, first_order):
    """Section 2.2 written out: no torch.func, no library code."""
    names, start = zip(*network.named_parameters(), strict=True)
    fast = list(start)
    for _ in range(steps):
        logits = functional_call(network, dict(zip(names, fast, strict=True)), (episode.support.x,))
        loss = -(episode.support.y * logits.log_softmax(-1)).sum() / len(logits)
        grads = torch.autograd.grad(loss, fast, create_graph=not first_order)
        fast = [p - lr * g for p, g in zip(fast, grads, strict=True)]
    logits = functional_call(network, dict(zip(names, fast, strict=True)), (episode.query.x,))
    loss = -(episode.query.y * logits.log_softmax(-1)).sum() / len(logits)
    return loss, torch.autograd.grad(loss, start)


@pytest.mark.parametrize("first_order", [False, True])
def test_the_meta_gradient_is_that_of_the_explicit_loop(first_order):
    network, episode = smooth(), one(CASES["maml, own output"])
    learner = q.MAML(network, head=None, inner_lr=0.3, inner_steps=4, first_order=first_order)
    loss = q.unrolled(learner, q.Episode(*(q.Labelled(x[None], y[None]) for x, y in episode)))
    grads = torch.autograd.grad(loss, list(network.parameters()))
    expected, expected_grads = explicit_meta_gradient(network, episode, lr=0.3, steps=4, first_order=first_order)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    for ours, theirs in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)


def test_a_class_vector_that_all_classes_share_cancels():
    """Start the shared head from any common vector instead of 0: predictions and meta-gradient stay the same."""
    learner, episode = q.MAML(smooth(), inner_lr=0.3, inner_steps=3), one(CASES["maml, shared"])
    common = torch.randn(5, requires_grad=True)
    start = {f"network.{name}": p for name, p in learner.network.named_parameters()}
    start |= {"head.weight": common.expand(5, 5), "head.bias": torch.zeros(5)}

    def loss(params, part):
        return learner.loss(learner._forward(params, part.x), part.y)

    phi = unroll(SGD(0.3), lambda p: loss(p, episode.support), start, steps=3)
    parameters = [*learner.network.parameters()]
    grads = torch.autograd.grad(loss(phi, episode.query), [*parameters, common])
    own = learner.meta_loss(episode)
    for ours, theirs in zip(torch.autograd.grad(own, parameters), grads, strict=False):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    assert float(grads[-1].abs().max()) < 1e-12


def test_without_inner_steps_the_prototype_head_is_a_protonet():
    network, episode = smooth(), one(CASES["maml, prototypes"])
    maml, protonet = q.MAML(network, head="prototypes", inner_steps=0), q.ProtoNet(network)
    ours, theirs = (
        learner.predict(learner.adapt(episode.support), episode.query.x).log_softmax(-1) for learner in (maml, protonet)
    )
    torch.testing.assert_close(ours, theirs)


def test_without_inner_steps_the_shared_head_knows_nothing():
    learner, episode = q.MAML(smooth(), inner_steps=0), one(CASES["maml, shared"])
    probability = learner.predict(learner.adapt(episode.support), episode.query.x).softmax(-1)
    torch.testing.assert_close(probability, torch.full_like(probability, 0.2))


def test_more_steps_at_test_than_in_training():
    learner, episode = q.MAML(smooth(), inner_lr=0.1, inner_steps=1), one(CASES["maml, shared"])
    losses = []
    for steps in (0, 1, 5, 20):
        learner.inner_steps = steps
        prediction = learner.predict(learner.adapt(episode.support), episode.support.x)
        losses.append(float(learner.loss(prediction, episode.support.y).detach()))
    assert losses == sorted(losses, reverse=True)


def test_adaptation_is_the_same_with_and_without_gradients():
    learner, episode = q.MAML(smooth(), inner_steps=2), one(CASES["maml, shared"])
    with torch.no_grad():
        quiet = learner.adapt(episode.support)
    for name, value in learner.adapt(episode.support).items():
        assert torch.equal(value, quiet[name])


def test_the_network_itself_never_changes():
    learner = q.MAML(smooth(), inner_steps=3, inner_lr=1.0)
    before = copy.deepcopy(learner.state_dict())
    q.unrolled(learner, episodes(CASES["maml, shared"]))
    assert all(torch.equal(value, before[name]) for name, value in learner.state_dict().items())


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="head='linear'"):
        q.MAML(smooth(), head="linear")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="head=None"):
        q.MAML(smooth(), regression=True)
    with pytest.raises(ValueError, match=r"'1' of the network keeps running statistics.*replace_all_batch_norm"):
        q.MAML(torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(4)))
    with pytest.raises(ValueError, match=r"head='shared' or 'prototypes'"):
        q.MAML(smooth(), head=None).adapt(one(CASES["maml, shared"], way=4).support)
    with pytest.raises(ValueError, match="at least 0"):
        q.MAML(smooth(), inner_lr=-0.1)
