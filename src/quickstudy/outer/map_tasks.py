"""Apply a function to every task of a meta-batch."""

from collections.abc import Callable
from contextlib import suppress
from typing import Literal

import torch
from torch import Tensor

from quickstudy.episode import Episode, task
from quickstudy.inner import Unfused

Strategy = Literal["auto", "loop", "vmap"]


def map_tasks(f: Callable[[Episode], Tensor], episodes: Episode, *, strategy: Strategy = "auto") -> Tensor:
    """f(task) for each task, stacked along a leading axis.

    Args:
        f: a function of one task.
        episodes: a meta-batch, leading axis n.
        strategy: "loop", one task after the other: serves everything. "vmap": all tasks in one pass, several times
            faster for small networks. Both give the same numbers. "auto": vmap for tasks whose examples are vectors or
            that live on an accelerator; loop for images on a CPU, where grouped convolutions are slower, and where
            vmap refuses ``f`` (recurrent layers, control flow that depends on data): ask for "loop" there, and the
            attempt is saved.
    """
    if strategy == "auto":
        x = episodes.support.x
        if x.ndim <= 3 or x.device.type != "cpu":
            with suppress(RuntimeError):  # what is wrong with ``f`` itself is raised again by the loop
                return map_tasks(f, episodes, strategy="vmap")
        strategy = "loop"
    if strategy == "vmap":
        with Unfused():
            return torch.func.vmap(f, randomness="different")(episodes)
    if strategy == "loop":
        return torch.stack([f(task(episodes, i)) for i in range(len(episodes.support.x))])
    raise ValueError(f"strategy={strategy!r}; choose 'auto', 'loop' or 'vmap'")
