"""Recordings as log-mel images: time from left to right, pitch from top to bottom."""

import os
from dataclasses import dataclass
from io import IOBase
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from quickstudy.data.sounds import as_samples, read_sound, sound_image
from quickstudy.readers.examples import as_items, require_examples, shown
from quickstudy.readers.reader import Reader


@dataclass(frozen=True)
class SoundReader(Reader):
    """Each recording as one image (1, 40, frames) in units of 10 nats of power above silence, which is 0.

    Frames are 32 ms long and 20 ms apart; 40 of them are 0.81 s. Shorter recordings are followed by silence. Of longer
    ones the quiet start is passed over as far as it must be cut anyway, and then the end is cut off.

    Args:
        rate: samples per second that recordings are brought to.
        frames: how many.

    Examples are a list of paths (text or ``Path``), bytes or open files of wav, flac, ogg, mp3 or aiff, which need the
    extra ``audio``, and of pairs (samples, rate) with samples (n,), (n, channels) or (channels, n) in [−1, 1] and up
    to 8 channels, in any mixture.
    """

    kind: ClassVar[str] = "sounds"
    rate: int = 8000
    frames: int = 40

    def __post_init__(self) -> None:
        whole = all(isinstance(n, int) and not isinstance(n, bool) for n in (self.rate, self.frames))
        if not whole or not 8000 <= self.rate <= 48_000 or not 1 <= self.frames <= 3000:
            raise ValueError(
                f"rate={self.rate!r}, frames={self.frames!r}; required are 8000 to 48000 samples per second and 1 to "
                "3000 frames of 20 ms"
            )

    def fit(self, X: Any) -> "SoundReader":
        """The same: there is nothing to learn of the recordings."""
        return self

    def read(self, X: Any) -> Tensor:
        if _is_pair(X):
            raise ValueError(
                "X is a single pair (samples, rate); required is a list of sounds, one for each example: pass [X]"
            )
        items = as_items(X, "sounds")
        require_examples(len(items), "sounds")
        images = [
            sound_image(self._samples(i, item), rate=self.rate, frames=self.frames) for i, item in enumerate(items)
        ]
        return torch.from_numpy(np.stack(images))  # (n, 1, 40, frames)

    def _samples(self, i: int, item: Any) -> np.ndarray:
        name = f"sound {i}"
        if isinstance(item, (tuple, list)) and _is_pair(item):
            samples, rate = item
            return as_samples(_as_array(samples), int(rate), rate=self.rate, name=name)
        if isinstance(item, (str, os.PathLike)):
            item = Path(item)
            name = str(item)
        elif not isinstance(item, (bytes, IOBase)):
            raise ValueError(
                f"{name} is {shown(item)} of type {type(item).__name__}; required is a path, bytes, an open file or a "
                "pair (samples, rate)"
            )
        try:
            return read_sound(cast(Any, item), rate=self.rate, name=name)
        except OSError as error:
            raise ValueError(
                f"{name} cannot be opened ({error.strerror or error}): check the path and its rights"
            ) from error


def _is_pair(X: Any) -> bool:
    """Whether it is one recording (samples, rate)."""
    if not isinstance(X, (tuple, list)) or len(X) != 2:
        return False
    return isinstance(X[1], (int, np.integer)) and not isinstance(X[0], (str, bytes, os.PathLike, IOBase))


def _as_array(samples: Any) -> np.ndarray:
    try:
        return samples.numpy(force=True) if isinstance(samples, Tensor) else np.asarray(samples)
    except ValueError as error:
        raise ValueError(
            f"samples form no array ({error}); required are floats, (n,), (n, channels) or (channels, n)"
        ) from error
