"""Draws of a Gaussian process: regression tasks whose exact answer is known.

Carl Edward Rasmussen, Christopher K. I. Williams. Gaussian Processes for Machine Learning. MIT Press 2006.

    y ~ N(0, K + σ² I),  K_ij = k(x_i, x_j)                                             (2.20)
    k = a² exp(−r²/2)                                                  rbf              (4.9)
    k = a² exp(−r)                                                     matern12         (4.14), ν = 1/2
    k = a² (1 + √3 r) exp(−√3 r)                                       matern32         (4.17)
    k = a² (1 + √5 r + 5 r²/3) exp(−√5 r)                              matern52         (4.17)
    mean = k(x, X) (K + σ² I)⁻¹ y,  variance = k(x, x) − k(x, X) (K + σ² I)⁻¹ k(X, x)    (2.25), (2.26)

with r = ‖x − x'‖ / length scale, a the amplitude and σ the noise.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from quickstudy.episode import Episode, Labelled
from quickstudy.tasks.inputs import as_whole
from quickstudy.tasks.points import Points, check_points, draw_points

KernelName = Literal["rbf", "matern12", "matern32", "matern52"]


class Kernel(NamedTuple):
    """Attributes: the length scale and amplitude of each task, (n,) float64; () for one task."""

    length_scale: Tensor
    amplitude: Tensor


@dataclass(frozen=True)
class GaussianProcess:
    """A task is one function drawn from a Gaussian process around 0, seen with noise.

    Length scale and amplitude are uniform in their ranges, anew for each task, and so are the inputs.

    Args:
        shot: support points, or an inclusive range (lowest, highest) from which each call of ``sample`` draws once.
        queries: query points.
        kernel: "rbf", "matern12", "matern32" or "matern52".
        length_scale: range, in units of x.
        amplitude: range of the standard deviation of the function, in units of y.
        noise: standard deviation σ of what is added to support and query targets alike, in units of y.
        x: range of each input.
        in_features: numbers per input.
        jitter: added to the diagonal of K, in units of amplitude²; it counts as noise.

    Raises:
        ValueError: no points or inputs, an unknown kernel, a range that is not two finite numbers in order, a length
            scale or amplitude that is not above 0, noise below 0 or jitter that is not above 0.
    """

    shot: Points = 10
    queries: int = 10
    kernel: KernelName = "rbf"
    length_scale: tuple[float, float] = (0.2, 1.0)
    amplitude: tuple[float, float] = (0.5, 1.5)
    noise: float = 0.05
    x: tuple[float, float] = (-2.0, 2.0)
    in_features: int = 1
    jitter: float = 1e-8

    def __post_init__(self) -> None:
        check_points(self.shot, self.queries)
        if as_whole("in_features", self.in_features) < 1:
            raise ValueError(f"in_features={self.in_features}; required is at least 1")
        if self.kernel not in get_args(KernelName):
            raise ValueError(f"kernel={self.kernel!r}; choose among {', '.join(get_args(KernelName))}")
        ranges = {"length_scale": self.length_scale, "amplitude": self.amplitude, "x": self.x}
        for name, bounds in ranges.items():
            if not isinstance(bounds, tuple | list) or len(bounds) != 2:
                raise ValueError(
                    f"{name}={bounds!r}; required are two numbers (lowest, highest): give both, also if equal"
                )
            lowest, highest = bounds
            least = -math.inf if name == "x" else 0.0
            if not least < lowest <= highest < math.inf:
                above = "" if name == "x" else " above 0"
                raise ValueError(
                    f"{name}={(lowest, highest)}; required are two finite numbers{above}, the lower one first: correct "
                    "the range"
                )
        if not 0 <= self.noise < math.inf or not 0 < self.jitter < math.inf:
            raise ValueError(
                f"noise={self.noise}, jitter={self.jitter}; required are finite numbers, noise at least 0 and jitter "
                "above 0, without which K has no Cholesky factor: leave jitter at its default"
            )

    def sample(self, n: int, *, generator: torch.Generator) -> Episode:
        """Draw ``n`` functions: support x (n, shot, in_features) and y (n, shot, 1), queries alike."""
        return self.draw(n, generator=generator)[0]

    def draw(self, n: int, *, generator: torch.Generator) -> tuple[Episode, Kernel]:
        """What ``sample`` draws from the same generator, and the kernels that made it, for ``posterior``."""

        def uniform(bounds: tuple[float, float], *shape: int) -> Tensor:
            return bounds[0] + (bounds[1] - bounds[0]) * torch.rand(*shape, generator=generator, dtype=torch.float64)

        shot = draw_points(self.shot, generator)
        kernel = Kernel(uniform(self.length_scale, n), uniform(self.amplitude, n))
        x = uniform(self.x, n, shot + self.queries, self.in_features)
        factor = torch.linalg.cholesky(self._noisy(x, kernel))  # (n, points, points)
        y = factor @ torch.randn(*x.shape[:2], 1, generator=generator, dtype=torch.float64)  # (n, points, 1)
        x, y = x.to(torch.get_default_dtype()), y.to(torch.get_default_dtype())
        return Episode(Labelled(x[:, :shot], y[:, :shot]), Labelled(x[:, shot:], y[:, shot:])), kernel

    def posterior(self, support: Labelled, x: Tensor, kernel: Kernel) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of a new target at x, noise included: no learner can know more.

        Args:
            support: x (..., shot, in_features), y (..., shot, 1), of one task or a meta-batch.
            x: (..., m, in_features).
            kernel: of these tasks, as ``draw`` returns it.

        Returns:
            (..., m, 1) each, in float64.
        """
        seen, x = support.x.double(), x.double()
        across = self.covariance(x, seen, kernel)  # (..., m, shot)
        factor = torch.linalg.cholesky(self._noisy(seen, kernel))
        mean = across @ torch.cholesky_solve(support.y.double(), factor)
        explained = torch.linalg.solve_triangular(factor, across.mT, upper=False).square().sum(-2)  # (..., m)
        variance = kernel.amplitude.square().unsqueeze(-1) - explained
        return mean, (variance.clamp(min=0) + self._diagonal(kernel).unsqueeze(-1)).sqrt().unsqueeze(-1)

    def covariance(self, a: Tensor, b: Tensor, kernel: Kernel) -> Tensor:
        """k(a, b) without noise for a (..., n, in_features) and b (..., m, in_features): (..., n, m)."""
        squared = (a.unsqueeze(-2) - b.unsqueeze(-3)).square().sum(-1)  # (..., n, m)
        length, amplitude = (value.unsqueeze(-1).unsqueeze(-1) for value in kernel)
        return amplitude.square() * correlation(self.kernel, squared.sqrt() / length)

    def _noisy(self, x: Tensor, kernel: Kernel) -> Tensor:
        """K + σ² I, (..., n, n)."""
        diagonal = self._diagonal(kernel).unsqueeze(-1).expand(x.shape[:-1])
        return self.covariance(x, x, kernel) + torch.diag_embed(diagonal)

    def _diagonal(self, kernel: Kernel) -> Tensor:
        return self.noise**2 + self.jitter * kernel.amplitude.square()


def correlation(kernel: KernelName, r: Tensor) -> Tensor:
    """k / a² at distances r in units of the length scale."""
    if kernel == "rbf":
        return torch.exp(-r.square() / 2)
    if kernel == "matern12":
        return torch.exp(-r)
    if kernel == "matern32":
        return (1 + math.sqrt(3) * r) * torch.exp(-math.sqrt(3) * r)
    return (1 + math.sqrt(5) * r + 5 * r.square() / 3) * torch.exp(-math.sqrt(5) * r)
