"""One step of a coordinatewise rule on many tensors: large ones in place, small ones side by side in one call."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from quickstudy.optimizers.coordinatewise import CoordinatewiseRule, at_a_time, next_scales
from quickstudy.optimizers.targets import Target

_SMALL = 4  # a tensor is small if as many of its size fit into what is computed at a time


def step_elements(rule: CoordinatewiseRule, targets: list[Target], means: Tensor, states: list[dict[str, Any]]) -> None:
    """Step T tensors in place, and their states.

    Args:
        rule: on the device of the tensors, in the precision of the states.
        targets: with gradients, on one device, none of them empty.
        means: mean squares of the gradients, (T,).
        states: of each.
    """
    scales = next_scales(torch.cat([state["scales"] for state in states], 1), means)  # (2, T)
    torch._foreach_copy_([state["scales"] for state in states], list(scales.split(1, 1)))  # pyright: ignore[reportPrivateImportUsage]
    limit = at_a_time(means.device)
    small: dict[tuple[int, float], list[int]] = {}
    for i, (target, state) in enumerate(zip(targets, states, strict=True)):
        if target.p.numel() * _SMALL <= limit:
            small.setdefault((state["t"], target.lr), []).append(i)
        else:
            _step_large(rule, target, state)
    for (t, lr), numbers in small.items():
        for some in _filled([targets[i].p.numel() for i in numbers], limit):
            chosen = [numbers[i] for i in some]
            of_each = scales[:, chosen] if len(chosen) < len(targets) else scales
            _step_small(rule, [targets[i] for i in chosen], of_each, [states[i] for i in chosen], t, lr)
    for state in states:
        state["t"] += 1


def _step_large(rule: CoordinatewiseRule, target: Target, state: dict[str, Any]) -> None:
    p = target.p
    flat = p.reshape(-1)  # (N,)
    rule.update_in_place(flat, target.gradient.reshape(-1), state["scales"], state["elements"], state["t"], target.lr)
    if not p.is_contiguous():  # flat is a copy
        p.copy_(flat.view(p.shape))


def _step_small(
    rule: CoordinatewiseRule, targets: list[Target], scales: Tensor, states: list[dict[str, Any]], t: int, lr: float
) -> None:
    sizes = [target.p.numel() for target in targets]
    elements = torch.cat([state["elements"] for state in states], 1)  # (numbers, N of all)
    g = torch.cat([target.gradient.reshape(-1) for target in targets]).to(elements.dtype)
    repeats = torch.tensor(sizes, device=g.device)
    of_elements = scales.repeat_interleave(repeats, 1, output_size=len(g))  # (2, N of all)
    delta, new = rule.update(g, of_elements, {"elements": elements, "t": elements.new_full((), t)})
    torch._foreach_copy_([state["elements"] for state in states], list(new["elements"].split(sizes, 1)))  # pyright: ignore[reportPrivateImportUsage]
    parts = [part.view(target.p.shape) for part, target in zip(delta.split(sizes), targets, strict=True)]
    torch._foreach_add_([target.p for target in targets], parts, alpha=lr)  # pyright: ignore[reportPrivateImportUsage]


def _filled(sizes: list[int], limit: int) -> Iterator[list[int]]:
    """Numbers of the sizes in their order, as many together as the limit allows."""
    chosen, held = [], 0
    for i, size in enumerate(sizes):
        if chosen and held + size > limit:
            yield chosen
            chosen, held = [], 0
        chosen.append(i)
        held += size
    yield chosen
