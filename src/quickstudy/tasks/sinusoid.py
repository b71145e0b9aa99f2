"""Sinusoid regression (Finn et al. 2017, arXiv:1703.03400, section 5.1): y = A sin(x − φ)."""

import math
from dataclasses import dataclass

import torch

from quickstudy.episode import Episode, Labelled
from quickstudy.tasks.points import Points, check_points, draw_points


@dataclass(frozen=True)
class Sinusoid:
    """A task is one sine wave; amplitude, phase and inputs are uniform in their ranges.

    Args:
        shot: support points, or an inclusive range (lowest, highest) from which each call of ``sample`` draws once.
        queries: query points.
        amplitude: range of A.
        phase: range of φ in radians.
        x: range of the inputs.

    Raises:
        ValueError: no points, a range that is not two finite numbers in order.
    """

    shot: Points = 10
    queries: int = 10
    amplitude: tuple[float, float] = (0.1, 5.0)
    phase: tuple[float, float] = (0.0, math.pi)
    x: tuple[float, float] = (-5.0, 5.0)

    def __post_init__(self) -> None:
        check_points(self.shot, self.queries)
        for name, (lowest, highest) in (("amplitude", self.amplitude), ("phase", self.phase), ("x", self.x)):
            if not -math.inf < lowest <= highest < math.inf:
                raise ValueError(
                    f"{name}={(lowest, highest)}; required are two finite numbers, the lower one first: correct the "
                    "range"
                )

    def sample(self, n: int, *, generator: torch.Generator) -> Episode:
        """Draw ``n`` sine waves: support x and y (n, shot, 1), queries (n, queries, 1)."""

        def uniform(bounds: tuple[float, float], *shape: int) -> torch.Tensor:
            return bounds[0] + (bounds[1] - bounds[0]) * torch.rand(*shape, generator=generator)

        shot = draw_points(self.shot, generator)
        amplitude, phase = uniform(self.amplitude, n, 1, 1), uniform(self.phase, n, 1, 1)
        x = uniform(self.x, n, shot + self.queries, 1)
        y = amplitude * torch.sin(x - phase)
        return Episode(Labelled(x[:, :shot], y[:, :shot]), Labelled(x[:, shot:], y[:, shot:]))
