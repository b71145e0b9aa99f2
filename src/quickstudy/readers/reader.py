"""What a reader is: from what a person has (files, a table, texts) to the numbers that a learner reads."""

import dataclasses
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

from torch import Tensor


class Reader(ABC):
    """A frozen dataclass of plain JSON values, so that it travels in a model file.

    Reading changes nothing and draws nothing: the same examples give the same numbers.
    """

    kind: ClassVar[str]
    """Its name in ``READERS``."""

    @abstractmethod
    def fit(self, X: Any) -> Self:
        """The reader that has learnt what it needs to know of the training examples ``X``; ``self`` stays as it is."""

    @abstractmethod
    def read(self, X: Any) -> Tensor:
        """Examples as (n, *input), float32 but for tables, which are float64.

        Raises:
            ValueError: no example, or one that cannot be read; the message names it.
        """

    def as_dict(self) -> dict[str, Any]:
        """The reader as JSON holds it, with its kind; ``reader_from_dict`` gives it back."""
        return {"kind": self.kind, **dataclasses.asdict(self)}  # pyright: ignore[reportArgumentType]
