"""Meta-Curvature against Kronecker products written out, and against MAML, which it starts as."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

import quickstudy as q
from quickstudy.learners import MAML, MetaCurvature
from tests.contract import CASES, one, smooth


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_default_dtype(torch.float32)


def random_matrices(learner):
    with torch.no_grad():
        for m in learner.update_rule.parameters():
            m.add_(0.3 * torch.randn_like(m))
    return [*learner.update_rule.parameters()]


def explicit(network, episode, loss, transform, *, lr, steps):
    """Parameters after ``steps`` steps along ``transform(name, gradient)``, then the query loss."""
    names, start = zip(*network.named_parameters(), strict=True)
    fast = list(start)
    for _ in range(steps):
        output = functional_call(network, dict(zip(names, fast, strict=True)), (episode.support.x,))
        grads = torch.autograd.grad(loss(output, episode.support.y), fast, create_graph=True)
        fast = [p - lr * transform(name, g) for name, p, g in zip(names, fast, grads, strict=True)]
    output = functional_call(network, dict(zip(names, fast, strict=True)), (episode.query.x,))
    return loss(output, episode.query.y)


def compare(learner, network, episode, transform):
    matrices = random_matrices(learner)
    expected = explicit(network, episode, learner.loss, transform, lr=learner.inner_lr, steps=learner.inner_steps)
    ours, wanted = learner.meta_loss(episode), [*network.parameters(), *matrices]
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=0)
    for a, b in zip(torch.autograd.grad(ours, wanted), torch.autograd.grad(expected, wanted), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-13)


def test_linear_layers_are_preconditioned_by_a_kronecker_product():
    """Equation 5 for a matrix, flattened by rows: vec(M_o G M_iᵀ) = (M_o ⊗ M_i) vec(G)."""
    network, episode = smooth(), one(CASES["maml, own output"])
    learner = MetaCurvature(network, head=None, inner_lr=0.2, inner_steps=2)

    def transform(name, g):
        m = [learner.update_rule.matrices[f"network.{name}.{axis}"] for axis in range(g.ndim)]
        return (torch.kron(*m) @ g.flatten()).view(g.shape) if g.ndim == 2 else m[0] @ g

    compare(learner, network, episode, transform)


def test_convolutions_have_a_matrix_for_outputs_inputs_and_positions():
    network = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 4))
    y = q.one_hot(torch.arange(8) % 4, 4)
    episode = q.Episode(q.Labelled(torch.randn(8, 2, 3, 3), y), q.Labelled(torch.randn(8, 2, 3, 3), y))
    learner = MetaCurvature(network, head=None, inner_lr=0.3, inner_steps=2)

    def transform(name, g):
        m = [learner.update_rule.matrices[f"network.{name}.{axis}"] for axis in range(min(g.ndim, 3))]
        if g.ndim == 4:
            return torch.einsum("oa,ib,fc,abc->oif", *m, g.flatten(2)).view(g.shape)
        return m[0] @ g @ m[1].T if g.ndim == 2 else m[0] @ g

    compare(learner, network, episode, transform)
    sizes = [m.shape[0] for name, m in learner.update_rule.named_parameters() if "network/0/weight" in name]
    assert sizes == [3, 2, 4]


@pytest.mark.parametrize("head", ["shared", "prototypes", None])
def test_it_starts_as_maml(head):
    network, episode = smooth(), one(CASES["maml, own output"])
    ours, theirs = (
        learner.answer(episode.support, episode.query.x)
        for learner in (MetaCurvature(network, head=head), MAML(network, head=head))
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)


def test_the_head_has_a_matrix_over_its_features_and_one_number_over_classes():
    learner = MetaCurvature(q.MLP(6, (8,), 5))
    sizes = {name: m.numel() for name, m in learner.update_rule.named_parameters() if "head" in name}
    assert sorted(sizes.values()) == [1, 1, 25]
    for way in (2, 7):
        episode = one(CASES["maml, shared"], way=way)
        assert learner.answer(episode.support, episode.query.x).shape == (3 * way, way)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="lr=-1"):
        MetaCurvature(smooth(), inner_lr=-1)
    with pytest.raises(ValueError, match=r"inner_steps=1 with head='shared' moves the head alone.*2 steps or more"):
        MetaCurvature(smooth(), inner_steps=1)
