"""Local descriptors: what stands in a row, and what they cannot describe."""

import pytest
import torch
from torch import nn

from quickstudy.backbones import MLP, LocalDescriptors, SmallResNet


def test_a_row_holds_the_embedding_the_places_and_their_weights(generator):
    network = LocalDescriptors(SmallResNet(1, 8, (8, 12, 16)), dim=5, image_size=20).double().eval()
    nn.init.normal_(network.weigh.weight, generator=generator)
    x = torch.rand(3, 1, 20, 20, generator=generator, dtype=torch.float64)
    assert network.grid == (5, 5)
    assert network.out_features == 16 + 25 * 6
    z, u, w = network(x).split([16, 25 * 5, 25], 1)
    embedding, maps = network.network.with_maps(x)
    assert maps.shape == (3, 12, 5, 5)
    torch.testing.assert_close(z, embedding / embedding.norm(dim=1, keepdim=True))
    weight, bias = network.describe.weight[:, :, 0, 0], network.describe.bias
    for n in range(3):
        for p in range(25):
            place = weight @ maps[n, :, p // 5, p % 5] + bias
            torch.testing.assert_close(u[n, 5 * p : 5 * p + 5], place / place.norm())
    scores = torch.stack([(network.weigh.weight[0, :, 0, 0] * maps[n].permute(1, 2, 0)).sum(-1) for n in range(3)])
    torch.testing.assert_close(w, scores.flatten(1).softmax(1))


def test_at_first_every_place_counts_the_same(generator):
    w = LocalDescriptors(SmallResNet(1, 8, (8, 8)), dim=3)(torch.rand(2, 1, 28, 28, generator=generator))[:, -14 * 14 :]
    torch.testing.assert_close(w, torch.full((2, 196), 1 / 196))


def test_an_image_of_nothing_has_a_finite_row_and_a_finite_derivative():
    network = LocalDescriptors(SmallResNet(1, 8, (8, 8)), dim=3)
    row = network(torch.zeros(2, 1, 28, 28))
    row.square().sum().backward()
    assert torch.isfinite(row).all()
    assert all(bool(torch.isfinite(p.grad).all()) for p in network.parameters() if p.grad is not None)


def test_what_cannot_be_described_is_refused():
    for network, words in (
        (MLP(4, (8,), 5), "MLP has no maps between its blocks; required is a SmallResNet"),
        (SmallResNet(1, 8, (8,)), "SmallResNet has no maps between its blocks"),
    ):
        with pytest.raises(ValueError, match=words):
            LocalDescriptors(network)
    with pytest.raises(ValueError, match="image_size=3; required are 1 number or more, and images of at least 4 pixel"):
        LocalDescriptors(SmallResNet(), image_size=3)
    with pytest.raises(ValueError, match="images of 20×28 pixels were given; required are 28×28: resize them"):
        LocalDescriptors(SmallResNet())(torch.zeros(1, 1, 20, 28))
