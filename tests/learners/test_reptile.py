"""Reptile against algorithm 1 with ``torch.optim``, and its expected step on a quadratic."""

import copy

import pytest
import torch
from torch import nn

import quickstudy as q
from quickstudy.inner import SGD
from quickstudy.learners import Reptile
from tests.contract import CASES, one, smooth


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_default_dtype(torch.float32)


def both(episode):
    return q.Labelled(*(torch.cat(parts) for parts in zip(episode.support, episode.query, strict=True)))


def trained(network, examples, *, lr, steps, momentum=0.0, parts=1):
    """A copy of the network after plain training on a task."""
    network = copy.deepcopy(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=lr, momentum=momentum)
    for t in range(steps):
        x, y = examples.x[t % parts :: parts], examples.y[t % parts :: parts]
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    return list(network.parameters())


def test_an_outer_step_of_sgd_is_algorithm_one():
    """θ ← θ + ε(φ − θ), with φ from support and query together."""
    network, episode = smooth(), one(CASES["maml, own output"])
    learner = Reptile(network, head=None, inner_lr=0.3, train_steps=4, inner_steps=9)
    phi = trained(network, both(episode), lr=0.3, steps=4)
    expected = [p.detach() + 0.5 * (new - p.detach()) for p, new in zip(network.parameters(), phi, strict=True)]
    learner.meta_loss(episode).backward()
    torch.optim.SGD(network.parameters(), lr=0.5).step()
    for ours, theirs in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)


def test_a_meta_batch_moves_by_the_mean_of_its_tasks():
    """Algorithm 2, and the value: half the squared distance, a mean over tasks."""
    network, case = smooth(), CASES["maml, own output"]
    tasks = [one(case, seed=seed) for seed in (1, 2)]
    learner = Reptile(network, head=None, inner_lr=0.2, inner_steps=3)
    batch = q.Episode(
        *(q.Labelled(*(torch.stack(parts) for parts in zip(*pair, strict=True))) for pair in zip(*tasks, strict=True))
    )
    loss = q.unrolled(learner, batch)
    moves = []
    for episode in tasks:
        phi = trained(network, both(episode), lr=0.2, steps=3)
        moves.append(
            torch.cat([(p - new).detach().flatten() for p, new in zip(network.parameters(), phi, strict=True)])
        )
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()))])
    torch.testing.assert_close(gradient, (moves[0] + moves[1]) / 2, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(loss.detach(), sum(m.square().sum() for m in moves) / 4, rtol=1e-10, atol=0)


def test_rules_and_minibatches_are_those_of_torch_optim():
    network, episode = smooth(), one(CASES["maml, own output"])
    learner = Reptile(network, head=None, rule=SGD(0.1, momentum=0.9), inner_steps=5, inner_batch=7)
    examples = both(episode)
    parts = -(-len(examples.x) // 7)
    phi = trained(network, examples, lr=0.1, steps=5, momentum=0.9, parts=parts)
    gradients = torch.autograd.grad(learner.meta_loss(episode), list(network.parameters()))
    for g, p, new in zip(gradients, network.parameters(), phi, strict=True):
        torch.testing.assert_close(g, (p - new).detach(), rtol=1e-10, atol=1e-14)


def test_it_ends_between_two_quadratics():
    """f(x) = w on tasks L = (w − 1)² and (w − 5)²: their mean start is w = 3."""
    network = nn.Linear(1, 1, bias=False)
    ones = torch.ones(2, 1, 1)
    targets = torch.tensor([1.0, 5.0]).view(2, 1, 1)
    batch = q.Episode(q.Labelled(ones, targets), q.Labelled(ones, targets))
    learner = Reptile(network, head=None, inner_lr=0.1, inner_steps=3)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    for _ in range(50):
        optimizer.zero_grad()
        q.unrolled(learner, batch).backward()
        optimizer.step()
    assert float(network.weight.detach()) == pytest.approx(3, abs=1e-9)


def test_adaptation_at_test_sees_the_support_set_alone_and_takes_inner_steps():
    network, episode = smooth(), one(CASES["maml, own output"])
    learner = Reptile(network, head=None, inner_lr=0.3, train_steps=1, inner_steps=6)
    phi = learner.adapt(episode.support)
    for ours, theirs in zip(phi.values(), trained(network, episode.support, lr=0.3, steps=6), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)


def test_a_head_is_no_part_of_the_meta_loss():
    learner, episode = Reptile(smooth(), head="shared", inner_lr=0.3), one(CASES["reptile"])
    phi = learner.adapt(both(episode))
    distance = sum(
        0.5 * float((p - phi[f"network.{name}"]).detach().square().sum())
        for name, p in learner.network.named_parameters()
    )
    assert float(learner.meta_loss(episode).detach()) == pytest.approx(distance, rel=1e-10)


def test_the_support_set_makes_the_prototypes_and_all_examples_train():
    learner, episode = Reptile(smooth(), head="prototypes", inner_lr=0.3, inner_steps=4), one(CASES["reptile"])
    network, examples = copy.deepcopy(learner.network), both(episode)
    with torch.no_grad():
        z = network(episode.support.x)
        centres = torch.stack([z[row == 1].mean(0) for row in episode.support.y.T])
        head = nn.Linear(centres.shape[1], len(centres))
        head.weight.copy_(2 * centres)
        head.bias.copy_(-centres.square().sum(1))
    trained_too = trained(nn.Sequential(network, head), examples, lr=0.3, steps=4)
    moves = [p - new for p, new in zip(learner.network.parameters(), trained_too[:-2], strict=True)]
    gradients = torch.autograd.grad(learner.meta_loss(episode), list(learner.network.parameters()))
    for g, move in zip(gradients, moves, strict=True):
        torch.testing.assert_close(g, move.detach(), rtol=1e-9, atol=1e-13)


def test_frozen_parameters_do_not_count():
    network = smooth()
    network[0].requires_grad_(False)
    learner = Reptile(network, head=None)
    learner.meta_loss(one(CASES["maml, own output"])).backward()
    assert network[0].weight.grad is None
    assert float(network[2].weight.grad.abs().sum()) > 0


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="train_steps=0; required is at least 1 inner step"):
        Reptile(smooth(), train_steps=0)
    with pytest.raises(ValueError, match="lr=-1"):
        Reptile(smooth(), inner_lr=-1)
