"""CAVIA against an explicit loop, by hand, and against MAML on a network whose first bias is its context."""

import pytest
import torch
from torch import nn

import quickstudy as q
from quickstudy.learners import CAVIA
from tests.contract import CASES, conv, one, reads_context


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("mode", ["reverse", "recompute", "first_order"])
@pytest.mark.parametrize("name", ["cavia", "cavia, conv4"])
def test_the_meta_gradient_is_that_of_the_explicit_loop(name, mode):
    k, episode = (3, one(CASES[name])) if name == "cavia" else (4, one(CASES[name]))
    network = CASES[name].build().network
    learner = CAVIA(network, context=k, inner_lr=0.5, inner_steps=3, mode=mode)

    def loss(context, part):
        x, y = part
        told = context.reshape(1, k, *[1] * (x.ndim - 2)) + x.new_zeros(len(x), k, *x.shape[2:])
        return -network(torch.cat([x, told], 1)).log_softmax(-1)[y == 1].mean()

    context = torch.zeros(k, requires_grad=True)
    for _ in range(3):
        (g,) = torch.autograd.grad(loss(context, episode.support), context, create_graph=mode != "first_order")
        context = context - 0.5 * g
    expected = loss(context, episode.query)
    torch.testing.assert_close(learner.adapt(episode.support)["context"], context, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(learner.meta_loss(episode), expected, rtol=1e-12, atol=0)
    parameters = list(network.parameters())
    for ours, theirs in zip(
        torch.autograd.grad(learner.meta_loss(episode), parameters),
        torch.autograd.grad(expected, parameters),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-13)


def test_one_step_by_hand():
    """f(x, c) = x + 2c; support (0, 3): L = (2c − 3)², ∇L(0) = −12; α = ¼, so c = 3 and f(1, c) = 7."""
    network = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[1.0, 2.0]]))
    learner = CAVIA(network, context=1, inner_lr=0.25)
    adapted = learner.adapt(q.Labelled(torch.zeros(1, 1), torch.tensor([[3.0]])))
    assert {name: value.tolist() for name, value in adapted.items()} == {"context": [3.0]}
    assert learner.predict(adapted, torch.ones(1, 1)).tolist() == [[7.0]]


def test_a_context_read_by_the_identity_is_a_bias_that_adapts():
    """W = [V, I] makes the first layer Vx + c: MAML with that bias alone, from 0."""
    hidden, out = nn.Linear(6, 4), nn.Linear(4, 5)
    wide = nn.Linear(10, 4, bias=False)
    with torch.no_grad():
        hidden.bias.zero_()
        wide.weight.copy_(torch.cat([hidden.weight, torch.eye(4)], dim=1))
    episode = one(CASES["cavia"])
    told = CAVIA(nn.Sequential(wide, nn.Tanh(), out), context=4, inner_lr=0.7, inner_steps=4)
    biased = q.MAML(nn.Sequential(hidden, nn.Tanh(), out), head=None, adapts="0.bias", inner_lr=0.7, inner_steps=4)
    for ours, theirs in zip(told.adapt(episode.support).values(), biased.adapt(episode.support).values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(told.meta_loss(episode), biased.meta_loss(episode), rtol=1e-12, atol=0)


def test_without_steps_the_context_is_zero():
    learner, episode = CAVIA(reads_context(6, 5), context=3, inner_steps=0), one(CASES["cavia"])
    assert learner.adapt(episode.support)["context"].tolist() == [0, 0, 0]


def test_rates_can_be_learned_for_the_context_alone():
    learner = CAVIA(reads_context(6, 5), context=3)
    assert {name: tuple(p.shape) for name, p in learner.like().items()} == {"context": (3,)}


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="context=0; required is at least 1 number that adapts"):
        CAVIA(reads_context(6, 5), context=0)
    with pytest.raises(ValueError, match="lr=-1"):
        CAVIA(reads_context(6, 5), inner_lr=-1)
    with pytest.raises(ValueError, match=r"'blocks\.0\.normalise' of the network normalises.*norm='group'"):
        CAVIA(conv(in_channels=4), context=3)
    norm = nn.Sequential(nn.Linear(9, 5), nn.BatchNorm1d(5, track_running_stats=False))
    with pytest.raises(ValueError, match="'1' of the network normalises each channel"):
        CAVIA(norm, context=3)
    with pytest.raises(ValueError, match=r"examples of type torch\.int64; a context can be joined to floating point"):
        CAVIA(reads_context(6, 5), context=3).adapt(q.Labelled(torch.zeros(4, 6, dtype=torch.int64), torch.eye(5)[:4]))
    with pytest.raises(ValueError, match="with head=None both must be equal"):
        CAVIA(reads_context(6, 5), context=3).adapt(one(CASES["cavia"], way=4).support)
    with pytest.raises(ValueError, match="examples of 11 numbers; this network was built for 6"):
        CAVIA(q.MLP(6, (4,), 5)).adapt(one(CASES["cavia"]).support)
