"""Networks on real images and tables as optimisation problems: logistic regression, perceptrons, a small CNN."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from quickstudy.inner import Params
from quickstudy.optimizers.problem import Problems, between, choose, require_range

Activation = Literal["sigmoid", "tanh", "relu"]
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
}
JUDGED = 512
"""Examples, at most, on which a final loss is measured."""


@dataclass(frozen=True, eq=False)
class NetworkProblems:
    """Train a network on labelled examples, by mini-batches, from random weights.

    What is drawn once for each call of ``sample`` is the same for all its problems: depth, width, activation, size of a
    mini-batch, scale of the start. Every problem has its own weights and its own order of examples. Weights start
    uniform in ±scale/√fan_in, biases at 0.

    Args:
        x: examples (n, d), or images (n, channels, height, width) with ``convolutional``; weights have their precision.
        y: classes (n,), whole numbers from 0.
        depths: numbers of hidden layers; 0 is logistic regression.
        widths: range of the number of hidden units (of channels, with ``convolutional``), log-uniform.
        activations: "sigmoid", "tanh", "relu".
        batches: range of examples in a mini-batch, log-uniform.
        scale: range of the scale of the first weights, log-uniform; 1 is torch's own for linear layers.
        convolutional: hidden layers are 3×3 convolutions and 2×2 average pools.
        penalty: λ of ½λ‖w‖² on all weights, at least 0. Logistic regression on classes that a plane separates has no
            minimum without it: the loss goes to 0 as weights grow.
        name: of the data, for reports.

    Raises:
        ValueError: examples and labels that do not fit together or are no such numbers, an unknown activation, more
            layers than images can be halved, ranges that are none.
    """

    x: Tensor = field(repr=False)
    y: Tensor = field(repr=False)
    depths: tuple[int, ...] = (1, 2)
    widths: tuple[float, float] = (16, 32)
    activations: tuple[Activation, ...] = ("sigmoid", "tanh")
    batches: tuple[float, float] = (32, 128)
    scale: tuple[float, float] = (0.5, 2.0)
    convolutional: bool = False
    penalty: float = 0.0
    name: str = "data"

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y) or len(self.x) < 2 or self.y.ndim != 1:
            raise ValueError(
                f"x {tuple(self.x.shape)} and y {tuple(self.y.shape)}; required are at least two examples, with one "
                "class each"
            )
        if self.x.ndim != (4 if self.convolutional else 2):
            wanted = "(n, channels, height, width)" if self.convolutional else "(n, d)"
            raise ValueError(f"x has shape {tuple(self.x.shape)}; required is {wanted}: reshape it")
        if not self.x.is_floating_point() or self.y.is_floating_point() or int(self.y.min()) < 0:
            raise ValueError(
                f"x of type {self.x.dtype}, y of type {self.y.dtype} from {self.y.min().item():g}; required are "
                "floating point numbers, and classes as whole numbers from 0: convert them"
            )
        unknown = [a for a in self.activations if a not in _ACTIVATIONS]
        if unknown or not self.activations:
            raise ValueError(f"activations={self.activations}; choose some of {', '.join(_ACTIVATIONS)}")
        if not 0 <= self.penalty < math.inf:
            raise ValueError(f"penalty={self.penalty}; required is at least 0, such as 0.01")
        if not self.depths or min(self.depths) < 0 or (self.convolutional and min(self.depths) < 1):
            raise ValueError(f"depths={self.depths}; required are numbers of hidden layers, at least 0 (1 for a CNN)")
        if self.convolutional and min(self.x.shape[2:]) < 2 ** max(self.depths):
            raise ValueError(
                f"depths={self.depths} for images of {self.x.shape[2]} × {self.x.shape[3]}, which each layer halves: "
                "take fewer layers"
            )
        for name, bounds in (("widths", self.widths), ("batches", self.batches), ("scale", self.scale)):
            require_range(name, bounds)

    def sample(self, n: int, *, generator: torch.Generator) -> Problems:
        """Draw ``n`` networks of one shape."""
        depth, width = choose(self.depths, generator), round(between(self.widths, generator))
        activation = choose(self.activations, generator)
        size = min(len(self.x), max(1, round(between(self.batches, generator))))
        scale = between(self.scale, generator)
        shapes = self._shapes(depth, max(1, width))
        params: Params = {}
        for i, shape in enumerate(shapes):
            bound = scale / math.sqrt(math.prod(shape[1:]))
            uniform = 2 * torch.rand(n, *shape, generator=generator, dtype=self.x.dtype) - 1
            params[f"layers.{i}.weight"] = bound * uniform
            params[f"layers.{i}.bias"] = uniform.new_zeros(n, shape[0])
        rows = torch.randperm(len(self.x), generator=generator)[:JUDGED]

        def draw(generator: torch.Generator) -> tuple[Tensor, Tensor]:
            at = torch.randint(len(self.x), (n, size), generator=generator)
            return self.x[at], self.y[at]  # (n, size, ...), (n, size)

        judged = self.x[rows].expand(n, *self.x[rows].shape), self.y[rows].expand(n, -1)
        what = f"{activation} CNN" if self.convolutional else f"{activation} MLP" if depth else "logistic regression"
        layers = f", {depth} × {width}" if depth else ""
        return Problems(
            params=params,
            given=(),
            loss=partial(_loss, activation, self.convolutional, self.penalty),
            draw=draw,
            judged_on=judged,
            kind=f"{what}{layers} on {self.name}, batches of {size}",
        )

    def _shapes(self, depth: int, width: int) -> list[tuple[int, ...]]:
        """Of the weights, from the first layer to the last."""
        classes = int(self.y.max()) + 1
        if not self.convolutional:
            sizes = [self.x.shape[1], *[width] * depth, classes]
            return [(after, before) for before, after in itertools.pairwise(sizes)]
        channels = [self.x.shape[1], *[width] * depth]
        kernels: list[tuple[int, ...]] = [(b, a, 3, 3) for a, b in itertools.pairwise(channels)]
        side = self.x.shape[2] // 2**depth, self.x.shape[3] // 2**depth
        return [*kernels, (classes, width * side[0] * side[1])]


def _loss(
    activation: str, convolutional: bool, penalty: float, params: Params, given: Any, batch: tuple[Tensor, Tensor]
) -> Tensor:
    """Mean cross-entropy in nats, and the penalty."""
    x, y = batch
    act, last = _ACTIVATIONS[activation], len(params) // 2 - 1
    for i in range(last + 1):
        w, b = params[f"layers.{i}.weight"], params[f"layers.{i}.bias"]
        if convolutional and i < last:
            x = torch.nn.functional.avg_pool2d(act(torch.nn.functional.conv2d(x, w, b, padding=1)), 2)
            continue
        x = x.flatten(1) @ w.T + b
        x = act(x) if i < last else x
    loss = torch.nn.functional.cross_entropy(x, y)
    if penalty:
        loss = loss + 0.5 * penalty * sum(params[f"layers.{i}.weight"].square().sum() for i in range(last + 1))
    return loss
