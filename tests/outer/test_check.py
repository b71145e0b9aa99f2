"""The check of a meta-gradient finds what is right and what is wrong."""

import copy

import pytest
import torch
from torch import nn

import quickstudy as q
from quickstudy.episode import task


def episode() -> q.Episode:
    x = torch.randn(30, 5, generator=torch.Generator().manual_seed(1))
    tasks = q.ClassTasks(x, [i // 10 for i in range(30)], way=3, shot=2, queries=4)
    return task(tasks.sample(1, generator=torch.Generator().manual_seed(0)), 0)


def network(*activations: nn.Module) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 8), *activations, nn.Linear(8, 3))


class Detached(q.ProtoNet):
    """Forgets that the prototypes depend on θ."""

    def adapt(self, support, query_x=None):
        centres, y = super().adapt(support)
        return type(super().adapt(support))(centres.detach(), y)


class Frozen(q.ProtoNet):
    """Forgets everything: the loss has no gradient at all."""

    def predict(self, adapted, x):
        return super().predict(adapted, x).detach()


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU])
def test_exact_maml_passes(activation):
    check = q.check_meta_gradient(q.MAML(network(activation()), head=None, inner_lr=0.3, inner_steps=3), episode())
    assert float(check) == check.relative_error < 1e-7
    assert len(check.computed) == len(check.measured) == 4
    assert any(abs(value) > 1e-3 for value in check.measured)


@pytest.mark.parametrize(
    "learner",
    [
        lambda: q.MAML(network(nn.Tanh()), head=None, inner_lr=0.3, inner_steps=3, first_order=True),
        lambda: Detached(network(nn.Tanh())),
        lambda: Frozen(network(nn.Tanh())),
    ],
)
def test_a_wrong_gradient_is_found(learner):
    assert float(q.check_meta_gradient(learner(), episode())) > 1e-2


def test_the_computed_values_are_those_of_backpropagation():
    learner = q.ProtoNet(network(nn.Tanh())).double()
    e = q.Episode(*(q.Labelled(part.x.double(), part.y.double()) for part in episode()))
    check = q.check_meta_gradient(learner, e, directions=1, generator=torch.Generator().manual_seed(7))
    loss = learner.loss(learner.predict(learner.adapt(e.support), e.query.x), e.query.y)
    grads = torch.autograd.grad(loss, list(learner.parameters()))
    generator = torch.Generator().manual_seed(7)
    v = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in learner.parameters()]
    norm = torch.cat([x.flatten() for x in v]).norm()
    assert check.computed == (pytest.approx(float(sum((g * x).sum() for g, x in zip(grads, v, strict=True)) / norm)),)


def test_the_learner_is_left_as_it_was():
    learner = q.MAML(network(nn.Tanh())).train()
    before = copy.deepcopy(learner.state_dict())
    q.check_meta_gradient(learner, episode())
    assert learner.training
    for name, now in learner.state_dict().items():
        assert now.dtype == torch.float32
        assert torch.equal(before[name], now)
    assert all(p.grad is None for p in learner.parameters())


def test_the_global_random_state_is_left_alone_and_the_result_repeats():
    before = torch.get_rng_state()
    first, second = (q.check_meta_gradient(q.MAML(network(nn.Tanh())), episode()) for _ in range(2))
    assert first == second
    assert torch.equal(before, torch.get_rng_state())


def test_a_learner_without_parameters_has_nothing_to_check():
    check = q.check_meta_gradient(q.NearestNeighbour(), episode())
    assert float(check) == 0
    assert check.computed == ()


def test_parameters_that_are_kept_fixed_are_not_checked():
    learner = q.MAML(network(nn.Tanh()), head=None)
    for p in learner.network[0].parameters():  # pyright: ignore
        p.requires_grad_(False)
    assert float(q.check_meta_gradient(learner, episode())) < 1e-7


def test_an_episode_that_is_none_is_refused():
    support, query = episode()
    with pytest.raises(ValueError, match="not one-hot"):
        q.check_meta_gradient(q.NearestNeighbour(), q.Episode(q.Labelled(support.x, support.y * 3), query))
