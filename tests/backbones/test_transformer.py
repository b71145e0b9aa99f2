"""The transformer against its equations, and through the inner loop."""

import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F

import quickstudy as q
from quickstudy.backbones import BACKBONES, Transformer
from quickstudy.backbones.transformer import positions


@pytest.fixture
def network() -> Transformer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Transformer(3, 8, 2, 2).double()


def attention(layer, z):
    """Head by head, query by query."""
    w = layer.self_attn
    query, key, value = (z @ w.in_proj_weight.T + w.in_proj_bias).chunk(3, -1)  # each (n, time, 8)
    heads = []
    for part in (slice(0, 4), slice(4, 8)):
        rows = []
        for t in range(z.shape[1]):
            scores = (query[:, t, None, part] * key[..., part]).sum(-1) / math.sqrt(4)  # (n, time)
            rows.append((scores.softmax(-1)[..., None] * value[..., part]).sum(1))
        heads.append(torch.stack(rows, 1))
    return torch.cat(heads, -1) @ w.out_proj.weight.T + w.out_proj.bias


@pytest.mark.parametrize("training", [True, False])
def test_it_is_the_encoder_of_the_paper_with_norms_first(network, training, generator):
    x = torch.randn(5, 6, 3, generator=generator, dtype=torch.float64)
    z = x @ network.read.weight.T + network.read.bias
    for t in range(6):
        for i in range(4):
            z[:, t, 2 * i] += math.sin(t / 10000 ** (2 * i / 8))
            z[:, t, 2 * i + 1] += math.cos(t / 10000 ** (2 * i / 8))
    for layer in network.blocks:
        z = z + attention(layer, F.layer_norm(z, (8,)))
        z = z + layer.linear2(F.gelu(layer.linear1(F.layer_norm(z, (8,)))))
    z = F.layer_norm(z, (8,)).mean(1)
    torch.testing.assert_close(network.train(training)(x), z)
    assert z.shape == (5, network.out_features)


def test_positions_differ_and_are_bounded():
    rows = positions(50, 8)
    assert torch.unique(rows, dim=0).shape == (50, 8)
    assert float(rows.abs().max()) <= 1


def test_layers_start_with_weights_of_their_own(network):
    first, second = (layer.linear1.weight for layer in network.blocks)
    assert not torch.equal(first, second)


@pytest.fixture
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("name", ["lstm", "transformer"])
def test_modes_and_strategies_give_one_meta_gradient(name, generator):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = BACKBONES[name](3, 8)
    x = torch.randn(30, 4, 3, generator=generator)
    batch = q.ClassTasks(x, [i // 6 for i in range(30)], way=3, shot=2, queries=2).sample(2, generator=generator)
    found = []
    for mode, strategy in product(("reverse", "recompute"), ("loop", "vmap")):
        learner = q.MAML(network, inner_lr=0.2, inner_steps=2, mode=mode).eval()
        loss = q.unrolled(learner, batch, strategy=strategy)
        found.append(torch.autograd.grad(loss, list(learner.parameters())))
    for other in found[1:]:
        for ours, theirs in zip(found[0], other, strict=True):
            torch.testing.assert_close(theirs, ours, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("shape", [(5, 3), (5, 0, 3), (5, 6, 2)])
def test_other_shapes_are_refused(network, shape):
    with pytest.raises(ValueError, match=r"built for \(time, 3\)"):
        network(torch.zeros(shape, dtype=torch.float64))


@pytest.mark.parametrize("sizes", [(0, 8, 2, 2), (3, 8, 0, 2), (3, 8, 2, 3), (3, 9, 2, 3)])
def test_sizes_are_checked(sizes):
    with pytest.raises(ValueError, match="even width that is a multiple of heads"):
        Transformer(*sizes)
