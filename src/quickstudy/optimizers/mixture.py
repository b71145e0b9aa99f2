"""Several problem distributions as one."""

from collections.abc import Sequence

import torch

from quickstudy.optimizers.problem import ProblemDistribution, Problems


class Mixture:
    """Each call of ``sample`` draws from one of several distributions.

    Args:
        parts: the distributions.
        weights: how often each is drawn, in any unit; equally often by default.

    Raises:
        ValueError: no parts, or weights that are not one positive number for each.
    """

    def __init__(self, parts: Sequence[ProblemDistribution], weights: Sequence[float] | None = None):
        weights = [1.0] * len(parts) if weights is None else list(weights)
        if not parts or len(weights) != len(parts) or not all(0 < w < float("inf") for w in weights):
            raise ValueError(f"{len(parts)} parts with weights {weights}; required is a finite weight above 0 for each")
        self.parts, self.weights = tuple(parts), tuple(float(w) for w in weights)

    def sample(self, n: int, *, generator: torch.Generator) -> Problems:
        """Draw ``n`` problems of one of the parts."""
        at = int(torch.multinomial(torch.tensor(self.weights), 1, generator=generator))
        return self.parts[at].sample(n, generator=generator)
