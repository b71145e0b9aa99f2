"""MetaOptNet, a support vector machine head: a convex solver.

Kwonjoon Lee, Subhransu Maji, Avinash Ravichandran, Stefano Soatto. Meta-Learning with Differentiable Convex
Optimization. CVPR 2019, arXiv:1904.03758. The machine: Koby Crammer, Yoram Singer, JMLR 2001.

Each task fits a linear multi-class support vector machine to the embeddings X (n, d) of its support set.

    min_w ½ Σ_k ‖w_k‖² + C Σ_i ξ_i,  w_{y_i}·x_i − w_k·x_i ≥ 1 − δ_{y_i,k} − ξ_i               (1)
    dual:  min_A ½ tr(Aᵀ (XXᵀ + εI) A) − ⟨Y, A⟩,  A ≤ C·Y,  A 1 = 0,  A (n, way)                (2)
    w_k = Σ_i A_ik x_i,  logits = γ · w_k · x, γ learned                                        (3)

``dual_solution`` finds by an interior-point method which bounds A ≤ C·Y hold with equality, and with these solves the
conditions of optimality, which are then linear, exactly. That last step alone is differentiated: its derivative is
that of the solution (the implicit function theorem on the conditions of Karush, Kuhn and Tucker).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from quickstudy.episode import Labelled
from quickstudy.functional import mask_absent, require_classes
from quickstudy.learner import Learner

_ITERATIONS = 20  # each divides the gap by ten or so: 1e-10 of where it starts is reached after 10 to 15
_GAP = 1e-10  # where the gap B∘Λ stays, beside the size of A


class Machine(NamedTuple):
    """Attributes: weight (way, d), and the support labels y (n, way)."""

    weight: Tensor
    y: Tensor


class MetaOptNet(Learner[Machine]):
    """Fit a multi-class support vector machine per task in a learned embedding.

    Args:
        backbone: (n, *input) → (n, d).
        c: C > 0, what a violated margin costs.
        epsilon: ε > 0, added to the diagonal of the Gram matrix; makes the dual solution unique.
        scale: where γ starts, above 0.

    Raises:
        ValueError: c, epsilon or scale that is not above 0.

    Differs from the paper: ε; the solver; γ is the exponential of what is learned, so it stays above 0. A class without
    support is left out of the machine. The paper's other head, ridge regression, is ``R2D2``.
    """

    def __init__(self, backbone: nn.Module, *, c: float = 0.1, epsilon: float = 1.0, scale: float = 1.0):
        super().__init__()
        if not min(c, epsilon, scale) > 0:
            raise ValueError(f"c={c}, epsilon={epsilon}, scale={scale}; required are numbers above 0")
        self.backbone, self.c, self.epsilon, self.scale = backbone, c, epsilon, scale
        self.log_gamma = nn.Parameter(torch.tensor(math.log(scale)))

    def adapt(self, support: Labelled, query_x: Tensor | None = None) -> Machine:
        """The weights of the machine."""
        require_classes(support.y)
        x = self.backbone(support.x).flatten(1)
        return Machine(dual_solution(x, support.y, c=self.c, epsilon=self.epsilon).T @ x, support.y)

    def predict(self, adapted: Machine, x: Tensor) -> Tensor:
        """γ · w_k · x, (m, way)."""
        return mask_absent(self.log_gamma.exp() * (self.backbone(x).flatten(1) @ adapted.weight.T), adapted.y)


def dual_solution(x: Tensor, y: Tensor, *, c: float, epsilon: float) -> Tensor:
    """The solution A (n, way) of the dual, solved in float64; differentiable in ``x`` any number of times.

    Args:
        x: (n, d).
        y: (n, way) one-hot. A row of zeros counts for nothing; a class without examples is left out.
        c: C.
        epsilon: ε.
    """
    kind, x, y = x.dtype, x.double(), y.double()
    live = (y.sum(-1, keepdim=True) > 0) & (y.sum(0) > 0)  # (n, way)
    start, free = _interior_point(x.detach(), y, live, c, epsilon)
    start = torch.where(free, start, torch.where(live, c * y, 0.0))
    start = start - torch.where(free, start.sum(-1, keepdim=True) / free.sum(-1, keepdim=True).clamp(min=1), 0.0)
    residual = y - _gram_product(x, start, epsilon)
    return (start + _equality_solver(x, free, torch.full_like(start, epsilon))(residual)).to(kind)


@torch.no_grad()
def _interior_point(x: Tensor, y: Tensor, live: Tensor, c: float, epsilon: float) -> tuple[Tensor, Tensor]:
    """A close to the solution, and which of its entries lie strictly under their bound, both (n, way).

    The primal-dual path of  A + B = C·Y, B ≥ 0, A 1 = 0, (XXᵀ + εI) A − Y + ν1ᵀ + Λ = 0, Λ ≥ 0, B∘Λ = μ  is followed
    to μ → 0 by predictor and corrector steps (Mehrotra 1992) from a strictly feasible point.
    """
    alive, real = live.to(x.dtype), live.any(-1, keepdim=True)
    count = alive.sum().clamp(min=1)
    b = torch.where(live, c / alive.sum(-1, keepdim=True).clamp(min=1), 1.0)  # B
    a = torch.where(live, c * y - b, 0.0)
    slope = y - _gram_product(x, a, epsilon)  # Λ + ν1ᵀ
    lowest = torch.where(live, slope, torch.finfo(x.dtype).max).amin(-1, keepdim=True)
    highest = torch.where(live, slope, torch.finfo(x.dtype).min).amax(-1, keepdim=True)
    spread = torch.where(real, highest - lowest, 0.0).amax()
    m = torch.where(live, slope - torch.where(real, lowest, 0.0) + 0.1 * spread + 1e-3, 1.0)  # Λ
    size = 1 / (1 / c + epsilon + x.square().sum(-1).mean())  # of a typical entry of A
    for _ in range(_ITERATIONS):
        mu = (alive * b * m).sum() / count
        solve = _equality_solver(x, live, epsilon + m / b)
        da, dm = _direction(solve, alive, b, m, -b * m)
        length = _longest(b, -da, m, dm)
        after = (alive * (b - length * da) * (m + length * dm)).sum() / count
        aim = torch.maximum((after / mu).clamp(min=0) ** 3 * mu, _GAP * size)
        da, dm = _direction(solve, alive, b, m, aim - b * m + da * dm)
        length = 0.99 * _longest(b, -da, m, dm)
        a, b, m = a + length * da, b - length * da, m + length * dm
    return a, live & (b > size * m)


def _direction(
    solve: Callable[[Tensor], Tensor], alive: Tensor, b: Tensor, m: Tensor, change: Tensor
) -> tuple[Tensor, Tensor]:
    """dA = −dB and dΛ that change B∘Λ by ``change``, to first order."""
    da = solve(-alive * change / b)
    return da, alive * (change + m * da) / b


def _longest(b: Tensor, db: Tensor, m: Tensor, dm: Tensor) -> Tensor:
    """The longest step, up to 1, that keeps B and Λ at least 0."""
    return 1 / torch.maximum((-db / b).amax(), (-dm / m).amax()).clamp(min=1)


def _gram_product(x: Tensor, a: Tensor, epsilon: float) -> Tensor:
    return x @ (x.T @ a) + epsilon * a


def _equality_solver(x: Tensor, free: Tensor, diagonal: Tensor) -> Callable[[Tensor], Tensor]:
    """A function of R (n, way) that solves, for D that is 0 outside ``free`` and whose rows sum to 0,

        (XXᵀ D)_ik + diagonal_ik D_ik + ν_i = R_ik  on ``free``.

    One column of D couples examples, ν couples columns. With M_k = (XXᵀ + diag(diagonal_k)) on ``free``:
    D_k = M_k⁻¹ (R_k − ν), and Σ_k D_k = 0 gives ν. M_k⁻¹ is taken in the smaller of its two forms (Woodbury).
    """
    (n, d), way = x.shape, free.shape[1]
    inside = free.T.to(x.dtype)  # (way, n)
    empty = 1 - free.any(-1).to(x.dtype)  # (n,): a row without anything free keeps ν = 0
    points = inside.unsqueeze(-1) * x  # (way, n, d)
    heights = torch.where(free, diagonal, 1.0).T  # (way, n)
    nu_of: Callable[[Tensor], Tensor]  # r → (Σ_k M_k⁻¹)⁻¹ r
    if n <= d:
        inverse = torch.linalg.inv(points @ points.mT + torch.diag_embed(heights))  # (way, n, n)
        inverse = inside.unsqueeze(-1) * inverse * inside.unsqueeze(-2)

        def times(right: Tensor) -> Tensor:  # M_k⁻¹ R_k, (way, n)
            return (inverse @ right.unsqueeze(-1)).squeeze(-1)

        nu_of = _inverse_times(inverse.sum(0) + torch.diag(empty))
    else:
        thin = points / heights.unsqueeze(-1)  # (way, n, d)
        core = torch.linalg.inv(points.mT @ thin + torch.eye(d, dtype=x.dtype, device=x.device))  # (way, d, d)

        def times(right: Tensor) -> Tensor:
            low = core @ (thin.mT @ right.unsqueeze(-1))  # (way, d, 1)
            return inside * right / heights - (thin @ low).squeeze(-1)

        total = (inside / heights).sum(0) + empty  # Σ_k M_k⁻¹ = diag(total) − left · rightᵀ
        left, right = (t.transpose(0, 1).flatten(1) for t in (thin @ core, thin))  # (n, way·d)
        if n <= way * d:
            nu_of = _inverse_times(torch.diag(total) - left @ right.T)
        else:
            scaled = right / total.unsqueeze(-1)
            inner = _inverse_times(torch.eye(way * d, dtype=x.dtype, device=x.device) - scaled.T @ left)
            nu_of = lambda r: (r + left @ inner(scaled.T @ r)) / total  # noqa: E731

    def solve(right: Tensor) -> Tensor:
        alone = times(right.T)
        return (alone - times(nu_of(alone.sum(0)).expand_as(alone))).T

    return solve


def _inverse_times(matrix: Tensor) -> Callable[[Tensor], Tensor]:
    """r → matrix⁻¹ r, factorised once."""
    factors, pivots = torch.linalg.lu_factor(matrix)
    return lambda r: torch.linalg.lu_solve(factors, pivots, r.unsqueeze(-1)).squeeze(-1)
