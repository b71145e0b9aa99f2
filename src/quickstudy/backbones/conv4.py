"""Conv4: the four-block convolutional network of the few-shot literature (Vinyals et al. 2016, arXiv:1606.04080).

ConvMaps keeps its feature maps in place of a vector (Sung et al. 2018, arXiv:1711.06025).
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.backbones.norm import Affine, GroupStandardize, Standardize
from quickstudy.backbones.precision import Precision, require_precision, training_precision

Norm = Literal["population", "batch", "group"]


class ConvBlock(nn.Module):
    """3×3 convolution → normalisation → 2×2 max-pool → affine → ReLU; or a stride of 2 in place of the pooling.

    With ``shrink=False`` neither: height and width stay. A faster convolution block for some machine would replace this
    class and nothing else.

    Differs from the paper: pooling stands between the normalisation and its affine map, which touches four times fewer
    numbers and is the same function wherever the scale is positive (it starts at 1). The convolution has no bias, which
    the normalisation would remove.

    With "batch" statistics, those of the MAML protocol, activations stay in PyTorch's own layout: in channels-last
    memory the normalisation is up to 50 times less accurate in float32, which long exact inner loops magnify. Otherwise
    they take the layout of the first convolution, in which pooling is several times faster.
    """

    def __init__(self, in_channels: int, width: int, *, norm: Norm, pool: bool, shrink: bool = True):
        super().__init__()
        self.stride = 2 if shrink and not pool else 1
        self.pooled = shrink and pool
        self.weight = nn.Parameter(nn.init.xavier_uniform_(nn.Conv2d(in_channels, width, 3).weight.detach()))
        self.normalise = GroupStandardize(width) if norm == "group" else Standardize(width, statistics=norm)
        self.affine = Affine(width)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) → (n, width, h//2, w//2), rounded up with strides."""
        return self.after_convolution(_convolve(x, self.weight, self.stride))

    def after_convolution(self, x: Tensor) -> Tensor:
        """The block behind its convolution: (n, width, h, w) → (n, width, h//2, w//2) with pooling."""
        if isinstance(self.normalise, Standardize) and self.normalise.statistics == "batch":
            x = x.contiguous()
        x = self.normalise(x)
        if self.pooled:
            x = F.max_pool2d(x, 2)
        return F.relu(self.affine(x))


class Conv4(nn.Module):
    """Four 3×3 blocks, flattened: 28×28 images become vectors of ``width`` numbers.

    Args:
        in_channels: 1 for grey images.
        width: channels of every block.
        norm: "population", "batch" (see ``Standardize``) or "group" (8 groups: needs no statistics at all).
        pool: "max" (Vinyals et al.; ProtoNet) or "stride": strided convolutions and a mean over positions at the end
            (MAML on Omniglot).
        image_size: height and width of the input in pixels, at least 16 with pooling.
        precision: of products in training; "bfloat16" is faster where the processor has it, and not for inner loops.

    Attributes:
        out_features: length of the embedding.
    """

    def __init__(
        self,
        in_channels: int = 1,
        width: int = 64,
        *,
        norm: Norm = "population",
        pool: Literal["max", "stride"] = "max",
        image_size: int = 28,
        precision: Precision = "float32",
    ):
        super().__init__()
        require_precision(precision)
        if norm not in ("population", "batch", "group") or pool not in ("max", "stride"):
            raise ValueError(f"norm={norm!r}, pool={pool!r}: norm is population, batch or group; pool is max or stride")
        if pool == "max" and image_size < 16:
            raise ValueError(
                f"images of {image_size}×{image_size} leave nothing after four poolings; required are 16×16 or more: "
                "resize them, or use pool='stride'"
            )
        self.in_channels, self.width, self.pool, self.image_size = in_channels, width, pool, image_size
        self.norm: Norm = norm
        self.precision: Precision = precision
        self.blocks = nn.Sequential(
            *(ConvBlock(in_channels if i == 0 else width, width, norm=norm, pool=pool == "max") for i in range(4))
        )
        self.out_features = width * (image_size // 16) ** 2 if pool == "max" else width

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, image_size, image_size) → (n, out_features)."""
        _require_images(x, self.in_channels, self.image_size)
        with training_precision(self, self.precision, x):
            maps = self.blocks(x)
        maps = maps.to(x.dtype)
        return maps.mean((2, 3)) if self.pool == "stride" else maps.flatten(1)


class ConvMaps(nn.Module):
    """Four 3×3 blocks of which the first two pool: 28×28 images become ``width`` maps of 7×7.

    Args:
        in_channels: 1 for grey images.
        width: channels of every block.
        norm: as in ``Conv4``.
        image_size: height and width of the input in pixels, at least 4.
        precision: as in ``Conv4``.

    Attributes:
        out_shape: (width, image_size // 4, image_size // 4) of the maps.

    Differs from the paper (Sung et al. 2018): every convolution is padded by 1.
    """

    def __init__(
        self,
        in_channels: int = 1,
        width: int = 64,
        *,
        norm: Norm = "population",
        image_size: int = 28,
        precision: Precision = "float32",
    ):
        super().__init__()
        require_precision(precision)
        if norm not in ("population", "batch", "group"):
            raise ValueError(f"norm={norm!r}; choose population, batch or group")
        if image_size < 4:
            raise ValueError(f"images of {image_size}×{image_size} leave nothing after two poolings; required are 4×4")
        self.in_channels, self.width, self.image_size = in_channels, width, image_size
        self.norm: Norm = norm
        self.precision: Precision = precision
        self.blocks = nn.Sequential(
            *(
                ConvBlock(in_channels if i == 0 else width, width, norm=norm, pool=True, shrink=shrink)
                for i, shrink in enumerate((True, True, False, False))
            )
        )
        self.out_shape = (width, image_size // 4, image_size // 4)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, image_size, image_size) → (n, *out_shape)."""
        _require_images(x, self.in_channels, self.image_size)
        with training_precision(self, self.precision, x):
            maps = self.blocks(x)
        return maps.to(x.dtype)


def _require_images(x: Tensor, channels: int, size: int) -> None:
    if tuple(x.shape[1:]) != (channels, size, size):
        raise ValueError(
            f"images of shape {tuple(x.shape[1:])} (channels, height, width); this network was built for "
            f"{(channels, size, size)}: convert the images, or build it for theirs"
        )


def _convolve(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """3×3 convolution with padding 1; few input channels go through a matrix product, several times faster on a CPU.

    That product leaves its result in channels-last memory, and the layers behind it keep it there.
    """
    if x.shape[1] > 4:
        return F.conv2d(x, weight, stride=stride, padding=1)
    windows = F.pad(x, (1, 1, 1, 1)).unfold(2, 3, stride).unfold(3, 3, stride)  # (n, c, h, w, 3, 3)
    n, _, h, w = windows.shape[:4]
    patches = windows.permute(0, 2, 3, 1, 4, 5).reshape(n * h * w, -1)  # (n·h·w, c·9)
    return (patches @ weight.flatten(1).T).view(n, h, w, -1).permute(0, 3, 1, 2)  # (n, width, h, w)
