"""A small perceptron as the update rule, fed with momenta.

In the manner of ``small_fc_lopt`` (Luke Metz, C. Daniel Freeman, James Harrison, Niru Maheswaranathan, Jascha
Sohl-Dickstein. Practical tradeoffs between memory, compute, and performance in learned optimizers. CoLLAs 2022,
arXiv:2203.11860): for each element by itself

    m_i ← β_i m_i + (1 − β_i) g,    v_j ← γ_j v_j + (1 − γ_j) g²
    Δ = −lr · e^{s} · d,            (d, s) = MLP(m̂ / √v̂, g / √v̂, logarithms of v̂, time)

with m̂ and v̂ corrected for their start at 0, as in Adam.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from quickstudy.optimizers.coordinatewise import TINY, CoordinatewiseRule, State, bounded, inverse_root, read_scales

_TIMES = (1.0, 3.0, 10.0, 30.0)
_SMALLEST = 1e-4


class MLPRule(CoordinatewiseRule):
    """Two hidden layers for each element of a parameter.

    Args:
        hidden: units of each layer.
        momenta: the decays β_i.
        moments: the decays γ_j of second moments, at least two; features are divided by the root of the last.
        lr: size of the first steps, above 0.
        seed: of the first weights.

    Raises:
        ValueError: no units, decays outside [0, 1), lr not above 0.

    Differs from the paper: fewer features; time as 1 − e^{−t/τ}; the MLP does not say the direction but mixes momenta
    and the gradient by its outputs, in units of the tensor's largest gradients, so that steps shrink with gradients. A
    rule without training descends along the first momentum.
    """

    def __init__(
        self,
        hidden: int = 12,
        *,
        momenta: Sequence[float] = (0.9, 0.5, 0.98),
        moments: Sequence[float] = (0.9, 0.99),
        lr: float = 0.01,
        seed: int = 0,
    ):
        super().__init__()
        if hidden < 1 or lr <= 0 or not momenta or len(moments) < 2:
            raise ValueError(
                f"hidden={hidden}, lr={lr}, momenta={momenta}, moments={moments}; required is at least 1 unit, lr "
                "above 0, a decay of momenta and two of second moments"
            )
        if not all(0 <= decay < 1 for decay in (*momenta, *moments)):
            raise ValueError(f"momenta={momenta}, moments={moments}; required are decays of at least 0 and below 1")
        self.hidden, self.momenta, self.moments, self.lr, self.seed = hidden, list(momenta), list(moments), lr, seed
        generator = torch.Generator().manual_seed(seed)

        def weights(rows: int, columns: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(rows, columns, generator=generator) * columns**-0.5)

        features = len(momenta) + len(moments) + 3
        self.w1, self.b1 = weights(hidden, features), nn.Parameter(torch.zeros(hidden))
        self.time = nn.Parameter(torch.zeros(hidden, len(_TIMES)))
        self.out = nn.Parameter(torch.zeros(len(momenta) + 2, hidden))
        self.scaling = nn.Parameter(torch.tensor([0.0, -1.6]))
        self.size = nn.Parameter(torch.zeros(len(_TIMES)))
        self.skip = nn.Parameter(torch.zeros(len(momenta) + 2).index_fill(0, torch.tensor(0), 1.0))

    @property
    def numbers(self) -> int:
        """Momenta and second moments."""
        return len(self.momenta) + len(self.moments)

    def update(self, g: Tensor, scales: Tensor, state: State) -> tuple[Tensor, State]:
        """One step; features are (momenta + moments + 3, N)."""
        t, k = state["t"] + 1, len(self.momenta)
        decays = g.new_tensor([*self.momenta, *self.moments])[:, None]
        sources = torch.stack([*[g] * k, *[g * g] * len(self.moments)])
        elements = torch.lerp(sources, state["elements"], decays)  # (numbers, N)
        directions = torch.cat([elements[:k], g[None]])  # (momenta + 1, N)
        roots = inverse_root(scales)  # (2, N) or (2, 1)
        recent = scales[1] + TINY
        own = torch.rsqrt(elements[k:] / (1 - decays[k:] ** t) + _SMALLEST * recent)  # (moments, N)
        ratios = torch.log(own) + 0.5 * torch.log(recent)
        seen = read_scales(roots)  # (2, N) or (2, 1)
        x = torch.cat([directions * own[0], ratios, seen.expand(2, len(g))])
        time = 1 - torch.exp(-t / g.new_tensor(_TIMES))
        hidden = torch.relu(torch.addmm((self.b1 + self.time @ time)[:, None], self.w1, x))
        out = torch.addmm(self.skip[:, None], self.out, hidden)  # (momenta + 2, N)
        d = (out[:-1] * directions).sum(0) * roots[0]
        size = self.size @ time + self.scaling @ seen
        return -self.lr * torch.exp(bounded(out[-1] + size)) * d, {"elements": elements, "t": t}
