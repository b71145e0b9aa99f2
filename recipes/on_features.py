"""What the recipes share that train on the features of a network which was trained before."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import quickstudy as qs


def backbone_of(path: Path) -> nn.Module:
    """The backbone that ``recipes/protonet_omniglot.py`` trained."""
    if not path.exists():
        raise ValueError(f"{path} is not there; run python recipes/protonet_omniglot.py with the same seed first")
    return qs.load(path).get_submodule("backbone")


@torch.no_grad()
def features(backbone: nn.Module, tasks: qs.ClassTasks, change: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """The features (n, d) of every example of ``tasks``, in their order; ``change`` is made to the images first."""
    found = []
    for rows in torch.arange(len(tasks.x)).split(500):
        x = tasks.examples(rows)
        found.append(backbone(x if change is None else change(x)))
    return torch.cat(found)


def labels(tasks: qs.ClassTasks) -> Tensor:
    """The class (n,) of every example."""
    return torch.arange(len(tasks)).repeat_interleave(tasks.counts)
