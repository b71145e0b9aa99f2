"""Residual networks (He et al., Deep Residual Learning for Image Recognition, CVPR 2016, arXiv:1512.03385).

Each block adds its input to what its convolutions make of it; W is the identity or a 1×1 convolution.

    y = F(x) + W x     (2), and then the activation
"""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.backbones.conv4 import Norm
from quickstudy.backbones.norm import Affine, GroupStandardize, Standardize
from quickstudy.backbones.precision import Precision, require_precision, training_precision


class ResNet12(nn.Module):
    """Four blocks of three 3×3 convolutions, each with a 2×2 max-pool; the mean over positions.

    The form of Lee et al. 2019 (Meta-Learning with Differentiable Convex Optimization, arXiv:1904.03758): leaky ReLU of
    slope 0.1, a 1×1 convolution with normalisation on every shortcut.

    Args:
        in_channels: 1 for grey images.
        widths: channels of each block; each block halves the image.
        norm: "population", "batch" (see ``Standardize``) or "group" (8 groups, which must divide all widths).
        precision: of products in training; "bfloat16" is faster where the processor has it, and not for inner loops.

    Attributes:
        out_features: length of the embedding, the last width.

    Raises:
        ValueError: at construction, no widths, or an unknown norm; in use, images of other channels or too small: with
            four widths at least 16×16.

    Differs from the paper: DropBlock is left out, and the embedding is the mean over positions, which any image size
    allows, where theirs keeps all of them.
    """

    def __init__(
        self,
        in_channels: int = 1,
        widths: Sequence[int] = (64, 160, 320, 640),
        *,
        norm: Norm = "population",
        precision: Precision = "float32",
    ):
        super().__init__()
        _require(widths, norm)
        require_precision(precision)
        self.precision = precision
        self.in_channels, self.widths, self.norm, self.out_features = in_channels, tuple(widths), norm, widths[-1]
        channels = (in_channels, *self.widths)
        self.blocks = nn.Sequential(
            *(
                _Block(channels[i], width, norm, layers=3, slope=0.1, shortcut="always", pool=True)
                for i, width in enumerate(self.widths)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) → (n, out_features)."""
        _require_images(x, self.in_channels, 2 ** len(self.widths))
        with training_precision(self, self.precision, x):
            maps = self.blocks(x)
        return maps.to(x.dtype).mean((2, 3))


class ResNet18(nn.Module):
    """Four stages of two blocks of two 3×3 convolutions; the mean over positions (He et al. 2016, table 1).

    Args:
        in_channels: 3 for images in colour.
        widths: channels of each stage; each stage but the first halves the image by strides.
        norm: "population", "batch" (see ``Standardize``) or "group" (8 groups, which must divide all widths).
        precision: of products in training; "bfloat16" is faster where the processor has it, and not for inner loops.
        small_images: for images under 64 pixels: a 3×3 convolution in place of the first 7×7 one with stride 2, and no
            pooling after it.

    Attributes:
        out_features: length of the embedding, the last width.

    Raises:
        ValueError: at construction, no widths, or an unknown norm; in use, images of other channels or too small: with
            four widths at least 8×8, and 32×32 with ``small_images=False``.

    Differs from the paper: shortcuts of another shape are projections (its option B); no linear layer at the end;
    statistics of normalisation as in ``Standardize``.
    """

    def __init__(
        self,
        in_channels: int = 1,
        widths: Sequence[int] = (64, 128, 256, 512),
        *,
        norm: Norm = "population",
        small_images: bool = True,
        precision: Precision = "float32",
    ):
        super().__init__()
        _require(widths, norm)
        require_precision(precision)
        self.precision = precision
        self.in_channels, self.widths, self.norm, self.small_images = in_channels, tuple(widths), norm, small_images
        self.out_features = widths[-1]
        stem = _Convolution(in_channels, widths[0], 3 if small_images else 7, stride=1 if small_images else 2)
        self.stem = nn.Sequential(stem, _Normalise(widths[0], norm), nn.ReLU())
        if not small_images:
            self.stem.append(nn.MaxPool2d(3, stride=2, padding=1))
        blocks = []
        for i, width in enumerate(self.widths):
            stride = 2 if i else 1
            blocks.append(_Block(self.widths[max(i - 1, 0)], width, norm, stride=stride))
            blocks.append(_Block(width, width, norm))
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) → (n, out_features)."""
        _require_images(x, self.in_channels, 2 ** (len(self.widths) - 1) * (1 if self.small_images else 4))
        with training_precision(self, self.precision, x):
            maps = self.blocks(self.stem(x))
        return maps.to(x.dtype).mean((2, 3))


class SmallResNet(nn.Module):
    """For 28×28 characters: a 5×5 convolution and a 2×2 max-pool, then blocks of two 3×3 convolutions.

    A 2×2 max-pool follows each block but the last; the embedding is the mean over positions. Where widths change, the
    shortcut is a 1×1 convolution without normalisation.

    Args:
        in_channels: 1 for grey images.
        stem: channels of the first convolution.
        widths: channels of each block.
        norm: "population", "batch" (see ``Standardize``) or "group" (8 groups, which must divide all widths).
        precision: of products in training; "bfloat16" is faster where the processor has it, and not for inner loops.

    Attributes:
        out_features: length of the embedding, the last width.

    Raises:
        ValueError: at construction, no widths, or an unknown norm; in use, images of other channels or too small: with
            three widths at least 8×8.
    """

    def __init__(
        self,
        in_channels: int = 1,
        stem: int = 64,
        widths: Sequence[int] = (96, 128, 192),
        *,
        norm: Norm = "population",
        precision: Precision = "float32",
    ):
        super().__init__()
        _require(widths, norm)
        _require((stem,), norm)
        require_precision(precision)
        self.precision = precision
        self.in_channels, self.stem, self.widths, self.norm = in_channels, stem, tuple(widths), norm
        self.out_features = widths[-1]
        self.first = nn.Sequential(
            _Convolution(in_channels, stem, 5), _Normalise(stem, norm), nn.ReLU(), nn.MaxPool2d(2)
        )
        channels, last = (stem, *self.widths), len(self.widths) - 1
        self.blocks = nn.Sequential(
            *(_Block(channels[i], width, norm, shortcut="plain", pool=i < last) for i, width in enumerate(self.widths))
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) → (n, out_features)."""
        return self.with_maps(x)[0]

    def with_maps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The same, and the maps of the last block but one before their pooling, (n, widths[-2], h', w').

        With three blocks h' is h // 4; the maps are of the precision that the network trains in. Of a single block they
        are what it reads.
        """
        _require_images(x, self.in_channels, 2 ** max(1, len(self.widths)))
        with training_precision(self, self.precision, x):
            convolve, normalise, *rest = self.first
            z = nn.Sequential(*rest)(_normalised(convolve, normalise, x))
            *early, last = cast(Sequence[_Block], self.blocks)
            maps = z
            for block in early:
                maps = block.unpooled(z)
                z = F.max_pool2d(maps, 2)
            z = last(z)
        return z.to(x.dtype).mean((2, 3)), maps


class _Block(nn.Module):
    """Convolutions with normalisation, plus the shortcut, then (leaky) ReLU and a 2×2 max-pool if asked for.

    Args:
        in_channels, width: channels before and after.
        norm: see the networks.
        layers: 3×3 convolutions.
        stride: of the first one and of the shortcut.
        slope: of the ReLU below zero.
        shortcut: a 1×1 convolution "always", or where the shape changes: "normed", or "plain" without normalisation.
        pool: whether to halve the image at the end.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        norm: Norm,
        *,
        layers: int = 2,
        stride: int = 1,
        slope: float = 0.0,
        shortcut: str = "normed",
        pool: bool = False,
    ):
        super().__init__()
        self.slope, self.pool = slope, pool
        self.convolutions = nn.ModuleList(
            _Convolution(in_channels if i == 0 else width, width, 3, stride=stride if i == 0 else 1)
            for i in range(layers)
        )
        self.norms = nn.ModuleList(_Normalise(width, norm) for _ in range(layers))
        self.shortcut = nn.Sequential()  # the identity
        if shortcut == "always" or in_channels != width or stride > 1:
            self.shortcut.append(_Convolution(in_channels, width, 1, stride=stride))
            if shortcut != "plain":
                self.shortcut.append(_Normalise(width, norm))

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) → (n, width, h', w')."""
        z = self.unpooled(x)
        return F.max_pool2d(z, 2) if self.pool else z

    def unpooled(self, x: Tensor) -> Tensor:
        """The same before the image is halved."""
        z, last = x, len(self.norms) - 1
        for i, (convolve, normalise) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            z = _normalised(convolve, normalise, z)
            z = z if i == last else self._activate(z)
        return self._activate(z + self.shortcut(x))

    def _activate(self, z: Tensor) -> Tensor:
        alone = not torch.is_grad_enabled()  # z is a result of this block, which nobody else reads
        return F.leaky_relu(z, self.slope, inplace=alone) if self.slope else F.relu(z, inplace=alone)


class _Normalise(nn.Module):
    """The house normalisation with its affine map.

    "batch" statistics stay in PyTorch's own memory layout, as in ``Conv4``: in channels-last memory they are less
    accurate in float32, which long exact inner loops magnify.
    """

    def __init__(self, width: int, norm: Norm):
        super().__init__()
        self.contiguous = norm == "batch"
        self.layer = (
            nn.Sequential(GroupStandardize(width), Affine(width))
            if norm == "group"
            else Standardize(width, statistics=norm, affine=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.contiguous() if self.contiguous else x)


def _normalised(convolve: nn.Module, normalise: nn.Module, x: Tensor) -> Tensor:
    """normalise(convolve(x)); as one operator where the statistics are known before."""
    layer = cast(_Normalise, normalise).layer
    folded = layer.folded() if isinstance(layer, Standardize) else None
    return normalise(convolve(x)) if folded is None else convolve(x, *folded)


class _Convolution(nn.Module):
    """k×k convolution without bias, padded by k//2; initial weights of He et al. 2015 (arXiv:1502.01852).

    Few input channels go through a matrix product, which is faster on a CPU and leaves its result in channels-last
    memory.
    """

    def __init__(self, in_channels: int, width: int, size: int, *, stride: int = 1):
        super().__init__()
        self.size, self.stride = size, stride
        convolution = nn.Conv2d(in_channels, width, size, bias=False)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        self.weight = nn.Parameter(convolution.weight.detach())

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        """(n, in_channels, h, w) → (n, width, h', w'), times ``scale`` plus ``shift`` (width,) if they are given."""
        k, weight = self.size, self.weight if scale is None else self.weight * scale.view(-1, 1, 1, 1)
        if x.shape[1] > 4 or k not in (3, 5) or x.device.type != "cpu" or len(x) == 0:
            return F.conv2d(x, weight, shift, stride=self.stride, padding=k // 2)
        windows = F.pad(x, [k // 2] * 4).unfold(2, k, self.stride).unfold(3, k, self.stride)  # (n, c, h, w, k, k)
        n, _, h, w = windows.shape[:4]
        patches = windows.permute(0, 2, 3, 1, 4, 5).reshape(n * h * w, -1)  # (n·h·w, c·k²)
        flat = weight.flatten(1).T  # (c·k², width)
        flat = patches @ flat if shift is None else torch.addmm(shift, patches, flat)
        return flat.view(n, h, w, -1).permute(0, 3, 1, 2)  # (n, width, h, w)


def _require(widths: Sequence[int], norm: str) -> None:
    if not widths or min(widths) < 1 or norm not in ("population", "batch", "group"):
        raise ValueError(
            f"widths={tuple(widths)}, norm={norm!r}; required are widths of 1 channel or more, and a norm that is "
            "population, batch or group"
        )


def _require_images(x: Tensor, channels: int, least: int) -> None:
    if x.ndim != 4 or x.shape[1] != channels or min(x.shape[2:]) < least:
        raise ValueError(
            f"images of shape {tuple(x.shape[1:])} (channels, height, width); this network was built for {channels} "
            f"channel{'s' if channels > 1 else ''} and at least {least}×{least} pixels: convert or enlarge the images, "
            "or build it for theirs"
        )
