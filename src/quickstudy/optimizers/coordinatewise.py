"""Learned update rules that treat every element of every parameter alike, from gradients alone.

Such a rule has few weights, serves networks of any size, and takes constant memory per parameter. The elements of all
parameters lie side by side along the last axis, so one call serves them all; features and states are the first axis.
Besides its own gradients an element sees two numbers of its tensor: how large gradients were there at most, and lately.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from quickstudy.inner import Params

State = dict[str, Tensor]
_CHUNK = 1 << 14  # elements at a time on one thread of a CPU: what is made on the way stays in its cache
_SHARED = 4  # times as many on several, which torch shares out in parts of 32,768
_MANY = 1 << 19  # elsewhere
_DECAY = 0.999
_RECENT = 0.9
TINY = 1e-30
_SMALL = 1e-10
BOUND = 8.0
_HORIZON = 100.0


class CoordinatewiseRule(nn.Module, ABC):
    """An update rule of the inner loop whose weights are meta-learned.

    A rule describes itself: every constructor argument is kept as an attribute of the same name.
    """

    @property
    @abstractmethod
    def numbers(self) -> int:
        """How many numbers of state each element takes."""

    @abstractmethod
    def update(self, g: Tensor, scales: Tensor, state: State) -> tuple[Tensor, State]:
        """One step of N elements.

        Args:
            g: their gradients, (N,).
            scales: mean squares of gradients in the tensor of each, the largest so far and the recent one, (2, N), or
                (2, 1) for elements of one tensor.
            state: "elements" (numbers, N) and "t" (), the steps so far.

        Returns:
            what is added to the elements, (N,), and the new "elements" and "t"; nothing is changed in place.
        """

    def update_in_place(self, p: Tensor, g: Tensor, scales: Tensor, elements: Tensor, t: int, lr: float) -> None:
        """The same step of one tensor at use, p ← p + lr · delta, in place. For ``torch.no_grad``.

        The one method to override with something faster; it has to give what ``update`` gives.

        Args:
            p: its elements, (N,), in any precision.
            g: their gradients, (N,), in any precision.
            scales: of the tensor, this gradient included, (2, 1), in the precision that is computed in.
            elements: (numbers, N) in that precision; overwritten.
            t: the steps so far.
            lr: a factor of what is added.
        """
        size, steps = at_a_time(p.device), elements.new_full((), t)
        for i in range(0, len(p), size):
            part = slice(i, i + size)
            delta, new = self.update(g[part].to(elements.dtype), scales, {"elements": elements[:, part], "t": steps})
            p[part].add_(delta, alpha=lr)
            elements[:, part] = new["elements"]

    def start(self, like: Tensor) -> State:
        """The state before the first step, all zero.

        Args:
            like: (N,), for its size, device and precision.
        """
        return {"elements": like.new_zeros(self.numbers, like.shape[-1]), "t": like.new_zeros(())}

    def init(self, params: Params) -> State:
        """The state of all elements of all parameters."""
        like = flat(params.values())
        return {**self.start(like), "scales": like.new_zeros(2, *like.shape)}

    def step(
        self, params: Params, grads: Mapping[str, Tensor], state: State, *, problems: int = 0
    ) -> tuple[Params, State]:
        """One step of all parameters.

        Args:
            params, grads: by name.
            state: theirs.
            problems: leading axes that count problems, each with tensors of its own.
        """
        ordered = [grads[name] for name in params]
        means = (mean_square(g, problems).expand(g.shape) for g in ordered)
        scales = next_scales(state["scales"], flat(means))
        delta, new = self.update(flat(ordered), scales, state)
        parts = delta.split([p.numel() for p in params.values()])
        stepped = (p + part.view(p.shape) for p, part in zip(params.values(), parts, strict=True))
        return dict(zip(params, stepped, strict=True)), {**new, "scales": scales}


def at_a_time(device: torch.device) -> int:
    """How many elements are computed at a time at use."""
    if device.type != "cpu":
        return _MANY
    return _CHUNK if torch.get_num_threads() == 1 else _SHARED * _CHUNK


def next_scales(scales: Tensor, mean: Tensor) -> Tensor:
    """The largest mean square so far, old ones counting less and less, and the recent one.

    Args:
        scales: before, (2, N) or (2, 1).
        mean: the mean square now, (N,) or (1,).
    """
    largest, recent = scales
    recent = torch.where(largest > 0, torch.lerp(mean, recent, _RECENT), mean)
    return torch.stack([torch.maximum(_DECAY * largest, mean), recent])


def inverse_root(square: Tensor) -> Tensor:
    """1/√square, and 0 where no gradient has been seen."""
    return torch.where(square > TINY, torch.rsqrt(square.clamp(min=TINY)), 0.0)


SCALING = (0.0, 0.8, 3.0)
"""What rules start with as weights of these numbers in the logarithm of a step: gradients above 1 are taken as they
are, as momentum takes them, and smaller ones nearly in units of their size, as Adam does."""
SCALES = 3
"""How many numbers ``read_scales`` gives."""


def read_scales(roots: Tensor) -> Tensor:
    """What a rule reads of a tensor's scales, (3, N), as moderate numbers: how small recent gradients are against the
    largest ones, and the logarithm of the largest ones where they are below 1, and where they are above.

    Args:
        roots: 1/√ of both scales, (2, N).
    """
    logs = torch.log(roots.clamp(min=_SMALL, max=1 / _SMALL))
    return torch.stack([(logs[1] - logs[0]).clamp(-1, 3) / 3, -logs[0].clamp(min=0) / 3, -logs[0].clamp(max=0) / 3])


def fading(t: Any) -> Any:
    """How much a rule still says of its own at step t, a number or tensor: 1 at first, ½ at step 100, then ever less.

    Beyond the horizon that it was trained on, a rule comes back to momentum.
    """
    return 1 / (1 + (t / _HORIZON) ** 2)


def bounded(s: Tensor) -> Tensor:
    """A logarithm of a factor between e⁻⁸ and e⁸, smoothly: far from its training a rule stays within that."""
    return BOUND * torch.tanh(s / BOUND)


def bounded_(s: Tensor) -> Tensor:
    """The same in place, of s / ``BOUND``."""
    return s.tanh_().mul_(BOUND)


def mean_square(g: Tensor, problems: int) -> Tensor:
    """The mean square of each tensor, with axes of size 1."""
    axes = tuple(range(problems, g.ndim))
    return g.square().mean(axes, keepdim=True) if axes else g.square()


def flat(tensors: Iterable[Tensor]) -> Tensor:
    """All elements side by side, (N,)."""
    return torch.cat([t.reshape(-1) for t in tensors])
