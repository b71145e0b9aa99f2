"""A few made characters that stand in for the built-in glyphs, which take seconds to draw."""

import numpy as np

from quickstudy.data import ClassData
from quickstudy.data.glyphs import SPLIT


def small_glyphs(*, classes: int = 4, examples: int = 8, size: int = 28) -> ClassData:
    """Two scripts for each part of the split; each class is a noisy pattern of its own."""
    random = np.random.default_rng(0)
    groups = [group for part in SPLIT for group in list(SPLIT[part])[:2] for _ in range(classes)]
    names = tuple(f"{group}/{i}" for i, group in enumerate(groups))
    patterns = random.integers(0, 2, (len(names), 1, 1, size // 4, size // 4)).repeat(4, 3).repeat(4, 4) * 200
    x = patterns + random.integers(0, 56, (len(names), examples, 1, size, size))
    y = np.arange(len(names)).repeat(examples)
    return ClassData(x.reshape(-1, 1, size, size).astype(np.uint8), y, names, tuple(groups))
