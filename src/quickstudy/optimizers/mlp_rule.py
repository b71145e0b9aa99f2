"""A small perceptron as the update rule, fed with momenta.

In the manner of ``small_fc_lopt`` (Luke Metz, C. Daniel Freeman, James Harrison, Niru Maheswaranathan, Jascha
Sohl-Dickstein. Practical tradeoffs between memory, compute, and performance in learned optimizers. CoLLAs 2022,
arXiv:2203.11860): for each element by itself

    m_i ← β_i m_i + (1 − β_i) g,    v_j ← γ_j v_j + (1 − γ_j) g²
    (c, s) = MLP(m_i / √v̂_1, g / √v̂_1, logarithms of v̂_j, time)

with v̂ corrected for its start at 0, as in Adam.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from quickstudy.optimizers.coordinatewise import (
    BOUND,
    SCALES,
    SCALING,
    TINY,
    CoordinatewiseRule,
    State,
    at_a_time,
    bounded,
    bounded_,
    fading,
    inverse_root,
    read_scales,
)

_TIMES = (1.0, 3.0, 10.0, 30.0)
_SMALLEST = 1e-4


class MLPRule(CoordinatewiseRule):
    """A small perceptron for each element of a parameter.

    Args:
        hidden: units of its one hidden layer.
        momenta: the decays β_i.
        moments: the decays γ_j of second moments; directions are read in units of the root of the first.
        lr: size of the first steps, above 0.
        seed: of the first weights.

    Raises:
        ValueError: no units, decays outside [0, 1), lr not above 0.

    Differs from the paper: one hidden layer and fewer features; time as 1 − e^{−t/τ}. The MLP does not say the
    direction: its outputs c mix momenta and the gradient, in units of the tensor's largest gradients, and a last one is
    the logarithm s of the step,

        Δ = −lr · e^s · (m_1 + Σ_i c_i m_i + c_g g),

    so that steps shrink with gradients. What the MLP says fades beyond its horizon (``fading``), and without it a rule
    descends along the first momentum.
    """

    def __init__(
        self,
        hidden: int = 6,
        *,
        momenta: Sequence[float] = (0.9, 0.98),
        moments: Sequence[float] = (0.9,),
        lr: float = 0.4,
        seed: int = 0,
    ):
        super().__init__()
        if hidden < 1 or lr <= 0 or not momenta or not moments:
            raise ValueError(
                f"hidden={hidden}, lr={lr}, momenta={momenta}, moments={moments}; required is at least 1 unit, lr "
                "above 0, a decay of momenta and one of second moments"
            )
        if not all(0 <= decay < 1 for decay in (*momenta, *moments)):
            raise ValueError(f"momenta={momenta}, moments={moments}; required are decays of at least 0 and below 1")
        self.hidden, self.momenta, self.moments, self.lr, self.seed = hidden, list(momenta), list(moments), lr, seed
        generator = torch.Generator().manual_seed(seed)

        def weights(rows: int, columns: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(rows, columns, generator=generator) * columns**-0.5)

        features = len(momenta) + 1 + len(moments) + SCALES
        self.w1, self.b1 = weights(hidden, features), nn.Parameter(torch.zeros(hidden))
        self.time = nn.Parameter(torch.zeros(hidden, len(_TIMES)))
        self.w2, self.b2 = (
            nn.Parameter(torch.zeros(len(momenta) + 2, hidden)),
            nn.Parameter(torch.zeros(len(momenta) + 2)),
        )
        self.size = nn.Parameter(torch.zeros(len(momenta) + 2, len(_TIMES)))

    @property
    def numbers(self) -> int:
        """Momenta and second moments."""
        return len(self.momenta) + len(self.moments)

    def update(self, g: Tensor, scales: Tensor, state: State) -> tuple[Tensor, State]:
        """One step; features are (momenta + 1 + moments + 3, N)."""
        t, k = state["t"] + 1, len(self.momenta)
        decays = g.new_tensor([*self.momenta, *self.moments])[:, None]
        sources = torch.stack([*[g] * k, *[g * g] * len(self.moments)])
        elements = torch.lerp(sources, state["elements"], decays)  # (numbers, N)
        directions = torch.cat([elements[:k], g[None]])  # (momenta + 1, N)
        roots = inverse_root(scales)  # (2, N) or (2, 1)
        recent = scales[1] + TINY
        own = torch.rsqrt(elements[k:] / (1 - decays[k:] ** t) + _SMALLEST * recent)  # (moments, N)
        ratios = torch.log(own) + 0.5 * torch.log(recent)
        seen = read_scales(roots)  # (3, N) or (3, 1)
        x = torch.cat([directions * own[0], ratios, seen.expand(SCALES, len(g))])
        time = 1 - torch.exp(-t / g.new_tensor(_TIMES))
        hidden = torch.relu(torch.addmm((self.b1 + self.time @ time)[:, None], self.w1, x))
        out = fading(state["t"]) * torch.addmm((self.b2 + self.size @ time)[:, None], self.w2, hidden)
        d = (out[:-1] * directions).sum(0) + directions[0]  # out is (momenta + 2, N)
        s = bounded(out[-1] + torch.tensordot(g.new_tensor(SCALING), seen, dims=1))
        return -self.lr * roots[0] * torch.exp(s) * d, {"elements": elements, "t": t}

    def update_in_place(self, p: Tensor, g: Tensor, scales: Tensor, elements: Tensor, t: int, lr: float) -> None:
        """``update`` with as few passes over memory as possible: what is the same for all elements of the tensor goes
        into small matrices, and biases into a row of ones."""
        k, moments = len(self.momenta), len(self.moments)
        roots = inverse_root(scales)
        seen, smallest = read_scales(roots)[:, 0], _SMALLEST * (scales[1, 0] + TINY)
        time = 1 - torch.exp(-(t + 1) / elements.new_tensor(_TIMES))
        # rows of x: own directions (k + 1), logarithms of second moments, ones
        of_logs = self.w1[:, k + 1 : k + 1 + moments]
        half_recent = 0.5 * torch.log(scales[1] + TINY)
        bias = self.b1 + self.time @ time + self.w1[:, k + 1 + moments :] @ seen + of_logs.sum(1) * half_recent
        w1 = torch.cat([self.w1[:, : k + 1], -0.5 * of_logs, bias[:, None]], 1)
        w2 = fading(t) * torch.cat([self.w2, (self.b2 + self.size @ time)[:, None]], 1)
        w2[0, -1] += 1
        w2[-1, -1] += elements.new_tensor(SCALING) @ seen
        w2[-1] /= BOUND
        fresh = [1 - decay for decay in self.momenta], [1 - decay for decay in self.moments]
        corrections = [1 / (1 - decay ** (t + 1)) for decay in self.moments]
        work, factor, size = _Work(), -self.lr * lr * float(roots[0]), at_a_time(p.device)
        for i in range(0, len(p), size):
            here, slope, e = (whole[..., i : i + size] for whole in (p, g, elements))
            slope = slope.to(e.dtype)
            w = work.of(e, k, moments, self.hidden)
            m, v = e[:k], e[k:]
            torch.mul(slope, slope, out=w.d)
            for row, new in zip(m, fresh[0], strict=True):
                row.lerp_(slope, new)
            for row, new, correction, out in zip(v, fresh[1], corrections, w.own, strict=True):
                row.lerp_(w.d, new)
                torch.add(smallest, row, alpha=correction, out=out)
            torch.log(w.own, out=w.logs)
            w.root.rsqrt_()
            torch.mul(m, w.root, out=w.momenta)
            torch.mul(slope, w.root, out=w.gradient)
            torch.mm(w1, w.x, out=w.units).relu_()
            torch.mm(w2, w.hidden, out=w.out)
            torch.mul(slope, w.mixing[-1], out=w.d)
            for row, much in zip(m, w.mixing, strict=False):
                w.d.addcmul_(row, much)
            bounded_(w.s).exp_()
            if p.dtype == w.s.dtype:
                here.addcmul_(w.d, w.s, value=factor)
            else:
                here.add_(w.d.mul_(w.s), alpha=factor)


class _Work:
    """Tensors that a chunk is worked on in, and views of them: made once, as making them takes time as well."""

    def of(self, e: Tensor, k: int, moments: int, hidden: int) -> "_Work":
        """For a chunk of this size."""
        size = e.shape[-1]
        if vars(self) and self.d.shape[-1] == size:
            return self
        self.d, self.own, self.out = e.new_empty(size), e.new_empty(moments, size), e.new_empty(k + 2, size)
        self.x, self.hidden = e.new_ones(k + 2 + moments, size), e.new_ones(hidden + 1, size)
        self.root, self.momenta, self.gradient, self.logs = self.own[0], self.x[:k], self.x[k], self.x[k + 1 : -1]
        self.units, self.mixing, self.s = self.hidden[:-1], self.out[:-1], self.out[-1]
        return self
