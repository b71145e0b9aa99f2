"""Fixed, published trials as episodes."""

import numpy as np
import torch
from torch import nn

from quickstudy.data.trials import Trial
from quickstudy.episode import Episode, Labelled, one_hot


def as_episode(trial: Trial) -> Episode:
    """One trial as a task: images as floats in [0, 1], labels as one-hot rows over the trial's classes."""

    def labelled(x: np.ndarray, y: np.ndarray) -> Labelled:
        images = torch.from_numpy(x).to(torch.get_default_dtype()) / 255
        return Labelled(images, one_hot(torch.from_numpy(y), len(trial.classes)))

    return Episode(labelled(trial.support_x, trial.support_y), labelled(trial.query_x, trial.query_y))


def image_size_for(learner: nn.Module) -> int:
    """The side in pixels of the images that a learner reads, from its network; 28 where that does not say.

    Raises:
        ValueError: a network for more than one input channel: trials are read as grey images.
    """
    network = innermost(learner)
    channels, size = getattr(network, "in_channels", 1), getattr(network, "image_size", 28)
    if channels != 1:
        raise ValueError(
            f"the learner reads images of {channels} channels, and trials are read as grey images of 1: use a learner "
            "for grey images, or evaluate_episodes() on episodes of your own"
        )
    return size if isinstance(size, int) else 28


def innermost(module: nn.Module) -> nn.Module:
    """The backbone of the network of a learner."""
    for name in ("backbone", "network"):
        inner = getattr(module, name, None)
        if isinstance(inner, nn.Module):
            return innermost(inner)
    return module
