"""Meta-SGD against an explicit loop with a rate for each element, and by hand."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

import quickstudy as q
from quickstudy.learners import MAML, MetaSGD
from tests.contract import CASES, one, smooth


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("steps", [1, 3])
def test_the_meta_gradient_is_that_of_the_explicit_loop(steps):
    """Equation 3 written out, with rates that differ from element to element."""
    network, episode = smooth(), one(CASES["maml, own output"])
    learner = MetaSGD(network, head=None, inner_steps=steps)
    rates = [learner.update_rule.rates[f"network.{name}"] for name, _ in network.named_parameters()]
    with torch.no_grad():
        for rate in rates:
            rate.copy_(torch.rand_like(rate) - 0.2)
    names, start = zip(*network.named_parameters(), strict=True)
    fast = list(start)
    for _ in range(steps):
        logits = functional_call(network, dict(zip(names, fast, strict=True)), (episode.support.x,))
        grads = torch.autograd.grad(learner.loss(logits, episode.support.y), fast, create_graph=True)
        fast = [p - rate * g for p, rate, g in zip(fast, rates, grads, strict=True)]
    logits = functional_call(network, dict(zip(names, fast, strict=True)), (episode.query.x,))
    expected = torch.autograd.grad(learner.loss(logits, episode.query.y), [*start, *rates])
    ours = torch.autograd.grad(learner.meta_loss(episode), [*start, *rates])
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-14)


def test_one_step_by_hand():
    """f(x) = wx at w = 1; support (1, 3): L = (w − 3)², ∇L = −4; α = ¼, so w' = 2.

    Query (1, 1): L = (w' − 1)² with w' = w − 2α(w − 3): ∂w'/∂w = 1 − 2α = ½ and ∂w'/∂α = 4, so the meta-gradient is
    2(w' − 1)·½ = 1 for w, and 2(w' − 1)·4 = 8 for α.
    """
    network = nn.Linear(1, 1, bias=False)
    nn.init.ones_(network.weight)
    learner = MetaSGD(network, head=None, inner_lr=0.25)
    ones = torch.ones(1, 1)
    episode = q.Episode(q.Labelled(ones, 3 * ones), q.Labelled(ones, ones))
    assert float(learner.adapt(episode.support)["network.weight"].detach()) == 2
    rate = learner.update_rule.rates["network.weight"]
    assert [float(g) for g in torch.autograd.grad(learner.meta_loss(episode), [network.weight, rate])] == [1, 8]


def test_a_negative_rate_ascends():
    network, episode = smooth(), one(CASES["maml, own output"])
    losses = []
    for sign in (1, -1):
        learner = MetaSGD(network, head=None, inner_lr=0.1)
        with torch.no_grad():
            for rate in learner.update_rule.parameters():
                rate.mul_(sign)
        prediction = learner.predict(learner.adapt(episode.support), episode.support.x)
        losses.append(float(learner.loss(prediction, episode.support.y).detach()))
    before = float(learner.loss(network(episode.support.x), episode.support.y).detach())
    assert losses[0] < before < losses[1]


@pytest.mark.parametrize("head", ["shared", "prototypes", None])
def test_it_starts_as_maml(head):
    network, episode = smooth(), one(CASES["maml, own output"])
    ours, theirs = (
        learner.answer(episode.support, episode.query.x)
        for learner in (
            MetaSGD(network, head=head, inner_lr=0.2, inner_steps=2),
            MAML(network, head=head, inner_lr=0.2, inner_steps=2),
        )
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)


def test_the_rates_of_the_head_serve_any_way():
    learner = MetaSGD(q.MLP(6, (8,), 5), head="shared", inner_steps=2)
    assert {name: tuple(p.shape) for name, p in learner.like().items() if "head" in name} == {
        "head.weight": (1, 5),
        "head.bias": (1,),
    }
    for way in (2, 7):
        episode = one(CASES["maml, shared"], way=way)
        assert learner.answer(episode.support, episode.query.x).shape == (3 * way, way)


def test_only_what_adapts_has_rates():
    learner = MetaSGD(smooth(), head="shared", adapts="head.*")
    assert set(learner.adapt(one(CASES["maml, shared"]).support)) == {"head.weight", "head.bias", "support.y"}
    assert len(list(learner.update_rule.parameters())) == 2


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"inner_lr=-0\.1; required is a first rate of at least 0"):
        MetaSGD(smooth(), inner_lr=-0.1)
    with pytest.raises(ValueError, match=r"inner_steps=1 with head='shared' moves the head alone.*2 steps or more"):
        MetaSGD(smooth(), head="shared")
