"""Labelled examples of many classes as arrays: what every reader in this package returns."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ClassData:
    """Examples of many classes, each class in one group (an alphabet, a script, a speaker).

    Args:
        x: examples, (n, *input); images are (n, 1, height, width) uint8 with bright ink on a dark ground.
        y: (n,) int64, the index of each example's class in ``classes``.
        classes: the class names, unique.
        groups: the group of each class, as long as ``classes``.
    """

    x: np.ndarray
    y: np.ndarray
    classes: tuple[str, ...]
    groups: tuple[str, ...]

    def select(self, classes: Iterable[str]) -> "ClassData":
        """Only these classes, in the given order.

        Raises:
            ValueError: a class that is not there (all such are counted, the first is named).
        """
        chosen = tuple(classes)
        index = {name: i for i, name in enumerate(self.classes)}
        missing = [name for name in chosen if name not in index]
        if missing:
            raise ValueError(
                f"{len(missing)} of {len(chosen)} classes are not in the data, the first is {missing[0]!r}; "
                f"the data hold {len(self.classes)} classes such as {self.classes[:2]}: check the list of names"
            )
        renumber = np.full(len(self.classes), -1, dtype=np.int64)
        renumber[[index[name] for name in chosen]] = np.arange(len(chosen))
        keep = renumber[self.y] >= 0
        return ClassData(
            x=self.x[keep],
            y=renumber[self.y[keep]],
            classes=chosen,
            groups=tuple(self.groups[index[name]] for name in chosen),
        )

    def checksum(self) -> str:
        """SHA-256 over arrays and names, in hexadecimal: the same data on any machine give the same text."""
        digest = hashlib.sha256()
        for part in (self.x, self.y):
            digest.update(f"{part.dtype.str}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).data)
        digest.update("\n".join((*self.classes, *self.groups)).encode())
        return digest.hexdigest()
