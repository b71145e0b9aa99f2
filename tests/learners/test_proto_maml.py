"""Proto-MAML against an explicit loop, and its first predictions against a ProtoNet's."""

import pytest
import torch
from torch.func import functional_call

import quickstudy as q
from quickstudy.learners import ProtoMAML
from tests.contract import CASES, one, smooth


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("mode", ["reverse", "recompute", "first_order"])
def test_the_meta_gradient_is_that_of_the_explicit_loop(mode):
    network, episode = smooth(), one(CASES["proto_maml"], shot=3)
    learner = ProtoMAML(network, inner_lr=0.1, inner_steps=3, mode=mode)
    names, start = zip(*network.named_parameters(), strict=True)
    z = network(episode.support.x)
    centres = torch.stack([z[episode.support.y[:, k] == 1].mean(0) for k in range(5)])
    fast = [*(p.clone() for p in start), 2 * centres, -(centres**2).sum(1)]  # the head counts as given

    def loss(part):
        features = functional_call(network, dict(zip(names, fast, strict=False)), (part.x,))
        logits = features @ fast[-2].T + fast[-1]
        return -logits.log_softmax(-1)[part.y == 1].mean()

    for _ in range(3):
        grads = torch.autograd.grad(loss(episode.support), fast, create_graph=mode != "first_order", retain_graph=True)
        fast = [p - 0.1 * g for p, g in zip(fast, grads, strict=True)]
    expected = loss(episode.query)
    torch.testing.assert_close(learner.meta_loss(episode), expected, rtol=1e-12, atol=0)
    for ours, theirs in zip(
        torch.autograd.grad(learner.meta_loss(episode), start), torch.autograd.grad(expected, start), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-13)


def test_without_steps_it_is_a_protonet():
    network, episode = smooth(), one(CASES["proto_maml"], shot=3)
    ours, theirs = (
        learner.answer(episode.support, episode.query.x).log_softmax(-1)
        for learner in (ProtoMAML(network, inner_steps=0), q.ProtoNet(network))
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_a_class_without_examples_gets_no_probability():
    learner, episode = ProtoMAML(smooth()), one(CASES["proto_maml"], way=3)
    wider = q.Labelled(episode.support.x, torch.cat([episode.support.y, torch.zeros(6, 1)], dim=1))
    probability = learner.answer(wider, episode.query.x).softmax(-1).detach()
    assert float(probability[:, 3].max()) == 0
    assert bool(torch.isfinite(probability).all())


def test_numbers_to_predict_and_negative_arguments_are_refused():
    with pytest.raises(ValueError, match="tells classes apart"):
        ProtoMAML(smooth()).adapt(q.Labelled(torch.randn(4, 6), torch.randn(4, 1)))
    with pytest.raises(ValueError, match="lr=-1"):
        ProtoMAML(smooth(), inner_lr=-1)
    with pytest.raises(ValueError, match="inner_steps=-1"):
        ProtoMAML(smooth(), inner_steps=-1)
