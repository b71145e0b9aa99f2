"""Normalisation for networks that meet one small task at a time.

Stock batch norm writes running statistics to itself in its forward pass: adapting would change the learner, and
``torch.func`` refuses it. Here the forward pass only reads; ``meta_train`` moves the population statistics between
outer steps. The affine map is a layer of its own where a block pools in between, and part of ``Standardize`` where
nothing does: one fused operator is then much faster. Under ``vmap`` that operator has silently wrong second derivatives
if its affine parameters adapt; the strategies of quickstudy take it apart there (``quickstudy.inner.Unfused``).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Statistics = Literal["batch", "population"]
_EPS = 1e-5


class Standardize(nn.Module):
    """(x − mean) / √(var + 1e-5) per channel; with ``affine`` · weight + bias.

    Args:
        channels: size of axis 1.
        statistics: "population": the batch's own mean and variance in training, stored ones in evaluation, so that
            one query cannot influence another. "batch": always the batch's own; predictions then depend on the other
            queries, which evaluation reports as transductive.
        affine: a learned scale and shift per channel, starting at 1 and 0, in the same operator.

    Mixed precision: numbers in half precision are answered in half precision, with statistics in that of the layer.
    """

    mean: Tensor
    var: Tensor
    updates: Tensor

    def __init__(self, channels: int, *, statistics: Statistics = "population", affine: bool = False):
        super().__init__()
        self.channels = channels
        self.statistics = statistics
        self.affine = affine
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None
        if statistics == "population":
            self.register_buffer("mean", torch.zeros(channels))
            self.register_buffer("var", torch.ones(channels))
            self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, *space) → the same shape."""
        if self.training or self.statistics == "batch":
            return F.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=_EPS)
        shape = (-1,) + (1,) * (x.ndim - 2)
        scale = (self.var + _EPS).rsqrt()
        if self.weight is None or self.bias is None:
            return ((x - self.mean.view(shape)) * scale.view(shape)).to(x.dtype)
        scale = scale * self.weight
        return torch.addcmul((self.bias - self.mean * scale).view(shape), x, scale.view(shape)).to(x.dtype)

    def folded(self) -> tuple[Tensor, Tensor] | None:
        """Scale and shift (channels,) that do what the layer does in evaluation, for the operator before it.

        None where it depends on the batch, or where someone watches the layer's inputs.
        """
        if self.training or self.statistics == "batch" or self._forward_pre_hooks or self._forward_hooks:
            return None
        scale = (self.var + _EPS).rsqrt()
        if self.weight is None or self.bias is None:
            return scale, -self.mean * scale
        scale = scale * self.weight
        return scale, self.bias - self.mean * scale

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Move the population statistics towards those of ``x`` (n, channels, *space): by 1/k, at least 0.1."""
        var, mean = torch.var_mean(x.to(self.mean.dtype).transpose(0, 1).flatten(1), dim=1)
        self.updates += 1
        weight = max(0.1, 1 / int(self.updates))
        self.mean.lerp_(mean, weight)
        self.var.lerp_(var, weight)


class GroupStandardize(nn.Module):
    """Standardise each example over groups of channels (Wu & He 2018, arXiv:1803.08494); needs no statistics.

    Args:
        channels: size of axis 1, a multiple of ``groups``.
        groups: how many.
    """

    def __init__(self, channels: int, groups: int = 8):
        super().__init__()
        if channels % groups:
            raise ValueError(f"{channels} channels in {groups} groups; required is a multiple of {groups}")
        self.channels, self.groups = channels, groups

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, *space) → the same shape."""
        # three axes: on four, the operator asks for the memory format, which vmap cannot answer
        return F.group_norm(x.flatten(2), self.groups).view(x.shape)


class Affine(nn.Module):
    """A learned scale and shift per channel, starting at 1 and 0."""

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, *space) → the same shape."""
        shape = (-1,) + (1,) * (x.ndim - 2)
        return x * self.weight.view(shape) + self.bias.view(shape)


def uses_batch_statistics(module: nn.Module) -> bool:
    """Whether in evaluation mode the output for one example depends on the other examples of its batch."""
    return any(
        (isinstance(m, Standardize) and m.statistics == "batch")
        or (isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_mean is None)
        for m in module.modules()
    )
