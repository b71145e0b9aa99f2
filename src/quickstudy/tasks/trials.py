"""Fixed, published trials as episodes."""

import numpy as np
import torch

from quickstudy.data.trials import Trial
from quickstudy.episode import Episode, Labelled, one_hot


def as_episode(trial: Trial) -> Episode:
    """One trial as a task: images as floats in [0, 1], labels as one-hot rows over the trial's classes."""

    def labelled(x: np.ndarray, y: np.ndarray) -> Labelled:
        images = torch.from_numpy(x).to(torch.get_default_dtype()) / 255
        return Labelled(images, one_hot(torch.from_numpy(y), len(trial.classes)))

    return Episode(labelled(trial.support_x, trial.support_y), labelled(trial.query_x, trial.query_y))
