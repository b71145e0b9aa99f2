"""The residual networks against the same networks written with torch's own layers."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import quickstudy as q
from quickstudy.backbones import ResNet12, ResNet18, SmallResNet

NETWORKS = {
    "resnet12": lambda **a: ResNet12(1, (8, 8, 16, 16), **a),
    "resnet18": lambda **a: ResNet18(1, (8, 8, 16, 16), **a),
    "resnet18, large": lambda **a: ResNet18(1, (8, 8, 16, 16), small_images=False, **a),
    "small": lambda **a: SmallResNet(1, 8, (8, 16, 16), **a),
}


@pytest.fixture(params=NETWORKS)
def build(request):
    def make(**arguments):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return NETWORKS[request.param](**arguments)

    return make


def convolved(z, layer, stride=1):
    return F.conv2d(z, layer.weight, stride=stride, padding=layer.weight.shape[-1] // 2)


def normed(z, norm):
    return F.batch_norm(z, None, None, norm.layer.weight, norm.layer.bias, training=True)


def block(z, part, stride=1, activate=F.relu):
    """Convolution, norm, activation, ..., the last activation after the sum."""
    x = z
    for i, (convolution, norm) in enumerate(zip(part.convolutions, part.norms, strict=True)):
        z = normed(convolved(z, convolution, stride if i == 0 else 1), norm)
        z = activate(z) if i < len(part.norms) - 1 else z
    if len(part.shortcut) > 0:
        x = convolved(x, part.shortcut[0], stride)
    if len(part.shortcut) > 1:
        x = normed(x, part.shortcut[1])
    return activate(z + x)


def as_double(network):
    with torch.no_grad():
        for p in network.parameters():
            p += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    return network.double()


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_resnet12_is_the_network_of_the_literature(channels, generator):
    network = as_double(ResNet12(channels, (8, 8, 16, 16)))
    x = torch.rand(3, channels, 28, 31, generator=generator, dtype=torch.float64)
    z = x
    for part in network.blocks:
        assert len(part.norms) == 3
        assert len(part.shortcut) == 2
        z = F.max_pool2d(block(z, part, activate=lambda z: F.leaky_relu(z, 0.1)), 2)
    torch.testing.assert_close(network(x), z.mean((2, 3)))
    assert z.shape[1:] == (network.out_features, 1, 1)


@pytest.mark.parametrize("small", [True, False])
def test_resnet18_is_the_network_of_the_literature(small, generator):
    network = as_double(ResNet18(3, (8, 8, 16, 16), small_images=small))
    x = torch.rand(3, 3, 33 if small else 70, 40, generator=generator, dtype=torch.float64)
    z = F.relu(normed(convolved(x, network.stem[0], 1 if small else 2), network.stem[1]))
    assert network.stem[0].weight.shape[-1] == (3 if small else 7)
    z = z if small else F.max_pool2d(z, 3, stride=2, padding=1)
    for i, part in enumerate(network.blocks):
        assert len(part.shortcut) == (2 if i in (2, 4, 6) else 0)
        z = block(z, part, stride=2 if i in (2, 4, 6) else 1)
    torch.testing.assert_close(network(x), z.mean((2, 3)))


def test_small_resnet_is_what_its_docstring_says(generator):
    network = as_double(SmallResNet(1, 8, (8, 12, 16)))
    x = torch.rand(3, 1, 28, 28, generator=generator, dtype=torch.float64)
    z = F.max_pool2d(F.relu(normed(convolved(x, network.first[0]), network.first[1])), 2)
    for i, part in enumerate(network.blocks):
        assert len(part.shortcut) == (0 if i == 0 else 1)
        z = block(z, part)
        z = F.max_pool2d(z, 2) if i < 2 else z
    torch.testing.assert_close(network(x), z.mean((2, 3)))
    assert z.shape[1:] == (16, 3, 3)


def test_the_usual_numbers_of_parameters():
    widths = (3, 64, 160, 320, 640)
    twelve = sum(i * o * 9 + 2 * o * o * 9 + i * o + 4 * 2 * o for i, o in pairwise(widths))
    assert sum(p.numel() for p in ResNet12(3).parameters()) == twelve
    assert sum(p.numel() for p in ResNet18(3, small_images=False).parameters()) == 11_176_512  # torchvision's, less fc
    assert SmallResNet().out_features == 192


@pytest.mark.parametrize("norm", ["population", "batch", "group"])
def test_any_norm_learns_and_evaluates(build, norm, generator):
    network, x = build(norm=norm), torch.rand(4, 1, 32, 32, generator=generator)
    network(x).square().sum().backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in network.parameters())
    assert network.eval()(x).shape == (4, network.out_features)
    alone = torch.cat([network(torch.stack([one, one]))[:1] for one in x])
    assert torch.allclose(network(x), alone, atol=1e-4) is (norm != "batch")


def test_channels_last_and_autocast_train(build, generator):
    x = torch.rand(6, 1, 32, 32, generator=generator)
    plain = build()
    expected = plain(x)
    network = build().to(memory_format=torch.channels_last)
    torch.testing.assert_close(network(x.to(memory_format=torch.channels_last)), expected, rtol=1e-3, atol=1e-3)
    learner = q.ProtoNet(build())
    optimizer = torch.optim.Adam(learner.parameters(), lr=1e-3)
    tasks = q.ClassTasks(torch.rand(24, 1, 32, 32, generator=generator), [i // 6 for i in range(24)], way=3, queries=3)
    seen = []
    first = next(m for m in learner.modules() if isinstance(m, q.backbones.norm.Standardize))
    hook = first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        learner.backbone.train()(x)
        hook.remove()
        assert seen == [torch.bfloat16]
        for done in q.meta_train(learner, tasks, optimizer, steps=2, meta_batch=1, generator=generator):
            assert done.loss > 0
    norms = [m for m in learner.modules() if isinstance(m, q.backbones.norm.Standardize)]
    assert all(m.mean.dtype == torch.float32 and int(m.updates) == 1 for m in norms)
    assert all(p.dtype == torch.float32 for p in learner.parameters())


def test_loop_and_vmap_agree_in_second_order_maml(build, generator):
    network = build().double().train()
    learner = q.MAML(network, head="prototypes", inner_lr=0.01, inner_steps=1).double()
    tasks = q.ClassTasks(torch.rand(20, 1, 32, 32, generator=generator), [i // 5 for i in range(20)], way=2, queries=1)
    batch = q.Episode(*(q.Labelled(x.double(), y.double()) for x, y in tasks.sample(2, generator=generator)))
    found = []
    for strategy in ("loop", "vmap"):
        loss = q.unrolled(learner, batch, strategy=strategy)
        found.append((loss, torch.autograd.grad(loss, list(learner.parameters()))))
    (loss, looped), (other, mapped) = found
    torch.testing.assert_close(other, loss, rtol=1e-10, atol=0)
    scale = max(float(g.abs().max()) for g in looped)
    assert all(float((a - b).abs().max()) <= 1e-10 * scale for a, b in zip(looped, mapped, strict=True))


def test_a_learner_with_it_is_saved_whole(build, tmp_path, generator):
    learner = q.ProtoNet(build(norm="group"))
    q.save(learner, tmp_path / "learner.safetensors")
    x = torch.rand(2, 1, 32, 32, generator=generator)
    assert torch.equal(q.load(tmp_path / "learner.safetensors").backbone(x), learner.eval().backbone(x))


def test_images_that_do_not_fit_are_refused(build):
    network = build()
    with pytest.raises(ValueError, match=r"\(3, 32, 32\).*built for 1 channel and at least"):
        network(torch.zeros(2, 3, 32, 32))
    with pytest.raises(ValueError, match=r"\(1, 32, 7\).*at least \d+×\d+ pixels: convert"):
        network(torch.zeros(2, 1, 32, 7))
    with pytest.raises(ValueError, match=r"\(32, 32\)"):
        network(torch.zeros(2, 32, 32))
    with pytest.raises(ValueError, match="population, batch or group"):
        build(norm="layer")


@pytest.mark.parametrize("network", [ResNet12, ResNet18])
def test_no_widths_are_refused(network):
    with pytest.raises(ValueError, match="widths of 1 channel or more"):
        network(widths=())
    assert isinstance(network(widths=(8,)), nn.Module)
