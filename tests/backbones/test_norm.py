"""Normalisation layers against torch's own operators and against second derivatives by differences."""

import pytest
import torch
import torch.nn.functional as F
from torch.func import grad, vmap

import quickstudy as q
from quickstudy.backbones.norm import Affine, GroupStandardize, Standardize, uses_batch_statistics


@pytest.fixture
def x(generator):
    return torch.randn(6, 8, 5, 5, generator=generator, dtype=torch.float64) * 3 + 1


def test_batch_statistics_equal_torch(x):
    for statistics in ("batch", "population"):
        layer = Standardize(8, statistics=statistics).double().train()
        torch.testing.assert_close(layer(x), F.batch_norm(x, None, None, training=True))


def test_population_statistics_are_stored_by_observe_alone(x):
    layer = Standardize(8).double()
    layer.train()(x)
    assert torch.equal(layer.mean, torch.zeros(8, dtype=torch.float64))
    layer.observe(x)  # the first observation replaces the initial values
    torch.testing.assert_close(layer.mean, x.mean((0, 2, 3)))
    torch.testing.assert_close(layer.var, x.var((0, 2, 3)))
    torch.testing.assert_close(layer.eval()(x), F.batch_norm(x, layer.mean, layer.var, training=False))
    for _ in range(20):
        layer.observe(x)
    before = layer.mean.clone()
    layer.observe(x + 1)
    torch.testing.assert_close(layer.mean, before + 0.1)


def test_in_evaluation_one_example_cannot_influence_another(x):
    layer = Standardize(8).double().eval()
    assert torch.equal(layer(x)[:1], layer(x[:1]))
    assert not uses_batch_statistics(layer)
    assert uses_batch_statistics(Standardize(8, statistics="batch"))
    assert uses_batch_statistics(torch.nn.BatchNorm2d(8, track_running_stats=False))


def test_group_standardize_equals_torch_also_under_vmap(x):
    layer = GroupStandardize(8, 4)
    torch.testing.assert_close(layer(x), F.group_norm(x, 4))
    tasks = torch.stack([x, 2 * x])
    torch.testing.assert_close(vmap(layer)(tasks), torch.stack([layer(t) for t in tasks]))
    with pytest.raises(ValueError, match="multiple of 8"):
        GroupStandardize(12)


def test_adapted_affine_parameters_have_right_second_derivatives_under_vmap(x, generator):
    """The fused operator with affine parameters is off by per cents here; ours is exact."""
    layer, affine = Standardize(8, statistics="batch").double(), Affine(8).double()

    def adapted_loss(weight, x):
        def loss(parameters):
            return torch.func.functional_call(affine, parameters, (layer(x * x),)).tanh().square().sum()

        parameters = {"weight": weight, "bias": torch.zeros(8, dtype=torch.float64)}
        g = grad(loss)(parameters)
        return loss({name: p - 0.01 * g[name] for name, p in parameters.items()})

    tasks = torch.stack([x, x.flip(0) + 0.3])
    weight = 1 + 0.1 * torch.randn(8, generator=generator, dtype=torch.float64)
    total = grad(lambda w: vmap(adapted_loss, in_dims=(None, 0))(w, tasks).sum())(weight)
    looped = sum(grad(adapted_loss)(weight, t) for t in tasks)
    torch.testing.assert_close(total, looped, rtol=1e-10, atol=1e-12)
    step = 1e-5
    for k in range(3):
        e = torch.zeros(8, dtype=torch.float64)
        e[k] = step
        difference = sum(adapted_loss(weight + e, t) - adapted_loss(weight - e, t) for t in tasks) / (2 * step)
        torch.testing.assert_close(total[k], difference, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("statistics", ["batch", "population"])
def test_the_fused_affine_map_is_standardize_then_affine(x, generator, statistics):
    fused, plain = Standardize(8, statistics=statistics, affine=True).double(), Standardize(8, statistics=statistics)
    affine = Affine(8).double()
    assert plain.double().weight is None
    assert [name for name, _ in fused.named_parameters()] == ["weight", "bias"]
    values = {name: torch.randn(8, generator=generator, dtype=torch.float64) for name in ("weight", "bias")}
    fused.load_state_dict(values, strict=False)
    affine.load_state_dict(values)
    for training in (True, False):
        for layer in (fused, plain):
            layer.train(training)
            if statistics == "population":
                layer.observe(x)
        torch.testing.assert_close(fused(x), affine(plain(x)))


def _two_steps_of_maml(statistics, strategy):
    """The meta-loss and meta-gradient of second-order MAML over a network that ends in the fused layer."""
    torch.manual_seed(0)
    layer = Standardize(8, statistics=statistics, affine=True)
    network = torch.nn.Sequential(torch.nn.Linear(6, 8), layer, torch.nn.Tanh(), torch.nn.Linear(8, 5)).double()
    learner = q.MAML(network, inner_lr=0.5, inner_steps=2).double()
    tasks = q.ClassTasks(torch.randn(40, 6).double(), [i // 8 for i in range(40)], way=3, shot=2, queries=3)
    torch.set_default_dtype(torch.float64)
    try:
        batch = tasks.sample(3, generator=torch.Generator().manual_seed(0))
    finally:
        torch.set_default_dtype(torch.float32)
    loss = q.unrolled(learner, batch, strategy=strategy)
    return learner, batch, loss, torch.autograd.grad(loss, list(learner.parameters()))


@pytest.mark.parametrize("statistics", ["batch", "population"])
def test_second_order_maml_through_the_fused_affine_map(statistics):
    with torch.random.fork_rng():
        learner, batch, loss, looped = _two_steps_of_maml(statistics, "loop")
        _, _, other, grads = _two_steps_of_maml(statistics, "vmap")
        torch.testing.assert_close(other, loss, rtol=1e-10, atol=0)
        for a, b in zip(looped, grads, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)
    weight, step = learner.network[1].weight, 1e-5
    at = [name for name, _ in learner.named_parameters()].index("network.1.weight")
    for k in range(2):
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                weight[k] += sign * step
                ends.append(q.unrolled(learner, batch, strategy="loop"))
                weight[k] -= sign * step
        torch.testing.assert_close(looped[at][k], (ends[0] - ends[1]) / (2 * step), rtol=1e-6, atol=1e-9)


def test_half_precision_is_answered_in_half_precision(x):
    for affine in (False, True):
        layer = Standardize(8, affine=affine)
        for training in (True, False):
            layer.train(training)
            half = x.bfloat16()
            layer.observe(half)
            assert layer.mean.dtype == torch.float32
            assert layer(half).dtype == torch.bfloat16
            torch.testing.assert_close(layer(half).float(), layer(half.float()), rtol=0.02, atol=0.02)
