"""Conv4 against the same network written with torch's own layers."""

import pytest
import torch
import torch.nn.functional as F

from quickstudy.backbones import MLP, Conv4, ConvMaps


@pytest.mark.parametrize("channels", [1, 3, 6])
@pytest.mark.parametrize("pool", ["max", "stride"])
def test_conv4_is_the_network_of_the_literature(channels, pool, generator):
    torch.set_default_dtype(torch.float64)
    try:
        network = Conv4(channels, 8, norm="batch", pool=pool, image_size=28)
    finally:
        torch.set_default_dtype(torch.float32)
    x = torch.rand(5, channels, 28, 28, generator=generator, dtype=torch.float64)
    z = x
    for block in network.blocks:
        z = F.conv2d(z, block.weight, padding=1, stride=1 if pool == "max" else 2)
        z = F.relu(F.batch_norm(z, None, None, block.affine.weight, block.affine.bias, training=True))
        z = F.max_pool2d(z, 2) if pool == "max" else z
    z = z.flatten(1) if pool == "max" else z.mean((2, 3))
    torch.testing.assert_close(network(x), z)
    assert z.shape == (5, network.out_features)


def test_conv4_has_the_usual_number_of_parameters():
    weights = sum(p.numel() for p in Conv4().parameters())
    assert weights == 64 * 9 + 3 * 64 * 64 * 9 + 4 * 2 * 64


def test_images_of_another_shape_are_refused_with_both_shapes():
    with pytest.raises(ValueError, match=r"\(3, 28, 28\).*\(1, 28, 28\)"):
        Conv4()(torch.zeros(2, 3, 28, 28))
    with pytest.raises(ValueError, match="16×16"):
        Conv4(image_size=12)
    with pytest.raises(ValueError, match="norm is"):
        Conv4(norm="layer")  # pyright: ignore[reportArgumentType]


def test_mlp_is_linear_layers_with_relu(generator):
    network = MLP(6, (5, 4), 3)
    x = torch.randn(7, 2, 3, generator=generator)
    a, _, b, _, c = network.layers
    torch.testing.assert_close(network(x), c(F.relu(b(F.relu(a(x.flatten(1)))))))


def test_examples_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"of 5 numbers.*built for 6"):
        MLP(6)(torch.zeros(2, 5))


@pytest.mark.parametrize("size", [28, 30, 16])
def test_conv_maps_pools_after_its_first_two_blocks(size, generator):
    torch.set_default_dtype(torch.float64)
    try:
        network = ConvMaps(1, 8, norm="batch", image_size=size)
    finally:
        torch.set_default_dtype(torch.float32)
    x = z = torch.rand(5, 1, size, size, generator=generator, dtype=torch.float64)
    for i, block in enumerate(network.blocks):
        z = F.conv2d(z, block.weight, padding=1)
        z = F.relu(F.batch_norm(z, None, None, block.affine.weight, block.affine.bias, training=True))
        z = F.max_pool2d(z, 2) if i < 2 else z
    torch.testing.assert_close(network(x), z)
    assert z.shape == (5, *network.out_shape)
    assert network.out_shape == (8, size // 4, size // 4)


def test_conv_maps_refuses_what_it_was_not_built_for():
    with pytest.raises(ValueError, match=r"\(3, 28, 28\).*\(1, 28, 28\)"):
        ConvMaps()(torch.zeros(2, 3, 28, 28))
    with pytest.raises(ValueError, match="4×4"):
        ConvMaps(image_size=3)
    with pytest.raises(ValueError, match="norm='layer'; choose"):
        ConvMaps(norm="layer")  # pyright: ignore[reportArgumentType]
