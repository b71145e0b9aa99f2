"""Compare a meta-gradient with finite differences, for the library's tests and for anyone's own learner."""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from quickstudy.episode import Episode, Labelled, check_episode
from quickstudy.learner import Learner
from quickstudy.outer.map_tasks import Strategy, map_tasks


@dataclass(frozen=True)
class GradientCheck:
    """The result of ``check_meta_gradient``.

    Attributes:
        relative_error: largest |computed − measured| over the directions, divided by the norm of the measured values.
        computed: ⟨∇ meta-loss, v⟩ for each direction v.
        measured: the central differences.
    """

    relative_error: float
    computed: tuple[float, ...]
    measured: tuple[float, ...]

    def __float__(self) -> float:
        return self.relative_error


def check_meta_gradient(
    learner: Learner,
    episode: Episode,
    *,
    directions: int = 4,
    epsilons: Sequence[float] = (1e-4, 1e-5, 1e-6, 1e-7),
    strategy: Strategy = "loop",
    generator: torch.Generator | None = None,
) -> GradientCheck:
    """Check that the meta-gradient is the derivative of the meta-loss, in float64 along random directions.

    The computed value is ⟨∇_θ L, v⟩ by backpropagation; the measured one is a fourth-order central difference,
    (8[L(θ+εv) − L(θ−εv)] − [L(θ+2εv) − L(θ−2εv)]) / 12ε. Where a kink (ReLU, max-pool) lies between the points, a
    large ε measures wrongly; where there is none, a small ε measures coarsely. So several are tried, and the value
    closest to the computed one counts: a wrong gradient is close at none of them. A first-order method fails this
    check, as it should.

    Args:
        learner: any learner; a float64 copy of it is checked, in the same mode (training or evaluation).
        episode: one task, without a task axis.
        directions: how many unit vectors v are drawn.
        epsilons: steps of the difference, in units of θ.
        strategy: how the checked gradient is computed, see ``map_tasks``; differences are always taken of the loop.
        generator: draws the directions; by default one with seed 0.
    """
    check_episode(episode, regression=learner.regression)
    generator = generator or torch.Generator().manual_seed(0)
    learner = copy.deepcopy(learner).double()
    (sx, sy), (qx, qy) = episode
    episode = Episode(Labelled(_double(sx), sy.double()), Labelled(_double(qx), qy.double()))
    parameters = [p for p in learner.parameters() if p.requires_grad]
    if not parameters:
        return GradientCheck(0.0, (), ())
    batch = Episode(*(Labelled(x.unsqueeze(0), y.unsqueeze(0)) for x, y in episode))
    with _same_draws():
        loss = map_tasks(learner.meta_loss, batch, strategy=strategy).squeeze(0)
    grads = (
        torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        if loss.requires_grad
        else [torch.zeros_like(p) for p in parameters]
    )
    start = [p.detach().clone() for p in parameters]
    computed, measured = [], []
    for _ in range(directions):
        v = [torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.device) for p in parameters]
        norm = torch.stack([x.square().sum() for x in v]).sum().sqrt()
        v = [x / norm for x in v]
        computed.append(float(sum((g * x).sum() for g, x in zip(grads, v, strict=True))))

        def shifted(amount: float, v: list[Tensor] = v) -> float:
            with torch.no_grad(), _same_draws():
                for p, p0, x in zip(parameters, start, v, strict=True):
                    p.copy_(p0 + amount * x)
                return float(learner.meta_loss(episode))

        def difference(e: float, shifted: Callable[[float], float] = shifted) -> float:
            return (8 * (shifted(e) - shifted(-e)) - (shifted(2 * e) - shifted(-2 * e))) / (12 * e)

        measured.append(min((difference(e) for e in epsilons), key=lambda d: abs(d - computed[-1])))
    error = max(abs(c - m) for c, m in zip(computed, measured, strict=True))
    return GradientCheck(error / max(math.hypot(*measured), 1e-12), tuple(computed), tuple(measured))


@contextmanager
def _same_draws() -> Iterator[None]:
    """Dropout draws the same masks at every point of a difference."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def _double(x: Tensor) -> Tensor:
    return x.double() if x.is_floating_point() else x
