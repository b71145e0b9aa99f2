"""A vector for the whole of an image, and one for each place in it."""

import torch
from torch import Tensor, nn

from quickstudy.backbones.precision import training_precision
from quickstudy.backbones.resnet import SmallResNet
from quickstudy.functional import normalised


class LocalDescriptors(nn.Module):
    """The embedding z of an image, a descriptor u_p of each place p in it and the weight w_p that the place has.

    All three come from one pass: the descriptors are a 1×1 convolution of the maps in the middle of the network, the
    weights the softmax over places of another one. They stand in one row, so that all that is known of an image can be
    kept and stacked: z of unit length; the places, one row of them after the other, each of unit length; the weights.
    What is zero stays zero.

    Args:
        network: reads images to z and to maps (n, c, h, w): a ``SmallResNet``.
        dim: numbers of each place's descriptor.
        image_size: side of the square images, in pixels.

    Attributes:
        grid: (h, w), the places.
        out_features: d + h·w·(dim + 1) numbers in a row.

    Raises:
        ValueError: another network, a network without maps between its blocks, or images that leave no place.
    """

    def __init__(self, network: SmallResNet, *, dim: int = 64, image_size: int = 28):
        super().__init__()
        if not isinstance(network, SmallResNet) or len(network.widths) < 2:
            raise ValueError(
                f"{type(network).__name__} has no maps between its blocks; required is a SmallResNet of two blocks or "
                "more: choose the backbone small_resnet"
            )
        side = image_size // 2 ** (len(network.widths) - 1)
        if side < 1 or dim < 1:
            raise ValueError(
                f"dim={dim}, image_size={image_size}; required are 1 number or more, and images of at least "
                f"{2 ** (len(network.widths) - 1)} pixels a side"
            )
        self.network, self.dim, self.image_size = network, dim, image_size
        self.grid = (side, side)
        self.out_features = network.out_features + side * side * (dim + 1)
        self.describe = nn.Conv2d(network.widths[-2], dim, 1)
        self.weigh = nn.Conv2d(network.widths[-2], 1, 1)
        nn.init.zeros_(self.weigh.weight)  # every place counts the same at first
        nn.init.zeros_(self.weigh.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, image_size, image_size) → (n, out_features)."""
        if x.shape[-2:] != (self.image_size, self.image_size):
            raise ValueError(
                f"images of {x.shape[-2]}×{x.shape[-1]} pixels were given; required are {self.image_size}×"
                f"{self.image_size}: resize them, or build LocalDescriptors(..., image_size=...)"
            )
        z, maps = self.network.with_maps(x)
        with training_precision(self, self.network.precision, x):
            places, weights = self.describe(maps), self.weigh(maps)
        places = normalised(places.to(x.dtype).flatten(2).transpose(1, 2))  # (n, h·w, dim)
        weights = weights.to(x.dtype).flatten(1).softmax(1)  # (n, h·w)
        return torch.cat([normalised(z), places.flatten(1), weights], 1)
