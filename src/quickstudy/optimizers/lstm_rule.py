"""An LSTM as the update rule.

Marcin Andrychowicz et al. Learning to learn by gradient descent by gradient descent. NeurIPS 2016, arXiv:1606.04474.

    θ_{t+1} = θ_t + g_t,   (g_t, h_{t+1}) = m(∇_t, h_t, φ)                         (equation 3 and below it)

for each element of θ by itself, with shared weights φ and states h of their own (section 2.1). Gradients of any size
are read as (appendix A)

    ∇ → (log|∇| / p, sgn ∇)    where |∇| ≥ e^{−p},
        (−1, e^p ∇)            elsewhere.
"""

import math

import torch
from torch import Tensor, nn

from quickstudy.optimizers.coordinatewise import (
    BOUND,
    SCALES,
    SCALING,
    CoordinatewiseRule,
    State,
    at_a_time,
    bounded,
    bounded_,
    fading,
    inverse_root,
    read_scales,
)


class LSTMRule(CoordinatewiseRule):
    """Two LSTM layers for each element of a parameter.

    Args:
        hidden: units of each layer; each element keeps 4 × ``hidden`` numbers.
        p: where small gradients begin to be read linearly, above 0.
        lr: size of the first steps, above 0.
        seed: of the first weights.

    Raises:
        ValueError: no units, or p or lr not above 0.

    Differs from the paper: 20 units there. The LSTM does not say the step itself but how far to go along an average v
    of gradients, and how much of the past is in it: v ← σ(f)·v + (1 − σ(f))·g, Δ = −lr·eˢ·v, with g in units of the
    tensor's largest gradients; it reads gradients in units of recent ones, and both scales. What it says fades beyond
    its horizon (``fading``), and without it a rule descends along the average.
    """

    def __init__(self, hidden: int = 2, *, p: float = 10.0, lr: float = 0.3, seed: int = 0):
        super().__init__()
        if hidden < 1 or p <= 0 or lr <= 0:
            raise ValueError(f"hidden={hidden}, p={p}, lr={lr}; required is at least 1 unit, and p and lr above 0")
        self.hidden, self.p, self.lr, self.seed = hidden, p, lr, seed
        generator = torch.Generator().manual_seed(seed)
        bound = hidden**-0.5

        def weights(inputs: int) -> nn.Parameter:
            return nn.Parameter(bound * (2 * torch.rand(4 * hidden, inputs + hidden, generator=generator) - 1))

        # rows of gates: input, forget, output, candidate; a forget gate starts open
        open_forget = torch.zeros(4 * hidden).index_fill(0, torch.arange(hidden, 2 * hidden), 1.0)
        self.w1, self.b1 = weights(2 + SCALES), nn.Parameter(open_forget.clone())
        self.w2, self.b2 = weights(hidden), nn.Parameter(open_forget)
        self.out = nn.Parameter(torch.zeros(2, hidden))
        self.scaling = nn.Parameter(torch.tensor(SCALING))
        self.bias = nn.Parameter(torch.tensor([0.0, 2.2]))

    @property
    def numbers(self) -> int:
        """h and c of both layers, and an average of gradients."""
        return 4 * self.hidden + 1

    def update(self, g: Tensor, scales: Tensor, state: State) -> tuple[Tensor, State]:
        """One step; the gates of a layer are (4 hidden, N)."""
        elements, n = state["elements"], self.hidden
        h1, c1, h2, c2 = elements[: 4 * n].chunk(4)  # (hidden, N) each
        roots = inverse_root(scales)  # (2, N)
        seen = read_scales(roots)  # (3, N) or (3, 1)
        z = torch.cat([read_gradient(g * roots[1], self.p), seen.expand(SCALES, len(g))])
        h1, c1 = lstm_cell(self.w1, self.b1, z, h1, c1)
        h2, c2 = lstm_cell(self.w2, self.b2, h1, h2, c2)
        s, f = torch.addmm(self.bias[:, None], fading(state["t"]) * self.out, h2)  # (N,) each
        v = torch.lerp(g * roots[0], elements[4 * n], torch.sigmoid(f))
        new = {"elements": torch.cat([h1, c1, h2, c2, v[None]]), "t": state["t"] + 1}
        return -self.lr * torch.exp(bounded(s + self.scaling @ seen)) * v, new

    def update_in_place(self, p: Tensor, g: Tensor, scales: Tensor, elements: Tensor, t: int, lr: float) -> None:
        """``update`` with as few passes over memory as possible: what is the same for all elements of the tensor goes
        into biases, and these into a row of ones."""
        n, roots = self.hidden, inverse_root(scales)[:, 0]
        seen = read_scales(roots[:, None])[:, 0]
        root, recent = roots.tolist()
        w1 = torch.cat(
            [self.w1[:, :2], self.w1[:, 2 + SCALES :], (self.b1 + self.w1[:, 2 : 2 + SCALES] @ seen)[:, None]], 1
        )
        w2 = torch.cat([self.w2, self.b2[:, None]], 1)
        bias = self.bias.clone()
        bias[0] += self.scaling @ seen
        w3 = torch.cat([fading(t) * self.out, bias[:, None]], 1)
        w3[0] /= BOUND
        work, size = _Work(), at_a_time(p.device)
        for i in range(0, len(p), size):
            here, slope, e = (whole[..., i : i + size] for whole in (p, g, elements))
            h1, c1, h2, c2 = e[:-1].chunk(4)
            w = work.of(e, n)
            w.g.copy_(slope)
            _read_gradient(torch.mul(w.g, recent, out=w.one), self.p, w.read)
            w.h1_before.copy_(h1)
            _cell_in_place(w1, w.first, w.gates, h1, c1)
            w.h1.copy_(h1)
            w.h2_before.copy_(h2)
            _cell_in_place(w2, w.second, w.gates, h2, c2)
            w.h2.copy_(h2)
            torch.mm(w3, w.third, out=w.out)
            torch.lerp(w.g.mul_(root), e[-1], w.f.sigmoid_(), out=e[-1])
            bounded_(w.s).exp_()
            if p.dtype == w.s.dtype:
                here.addcmul_(e[-1], w.s, value=-self.lr * lr)
            else:
                here.add_(w.s.mul_(e[-1]), alpha=-self.lr * lr)


class _Work:
    """Tensors that a chunk is worked on in, and views of them: made once, as making them takes time as well."""

    def of(self, e: Tensor, n: int) -> "_Work":
        """For a chunk of this size."""
        size = e.shape[-1]
        if vars(self) and self.g.shape[-1] == size:
            return self
        self.g, self.one = e.new_empty(2, size)
        self.gates, self.out = e.new_empty(4 * n, size), e.new_empty(2, size)
        # what is read, h of the first layer, ones; h of both layers, ones; h of the second layer, ones
        self.first, self.second, self.third = (e.new_ones(rows, size) for rows in (n + 3, 2 * n + 1, n + 1))
        self.read, self.h1_before = self.first[:2], self.first[2:-1]
        self.h1, self.h2_before, self.h2 = self.second[:n], self.second[n:-1], self.third[:-1]
        self.s, self.f = self.out
        return self


def read_gradient(g: Tensor, p: float) -> Tensor:
    """Numbers of any size (N,) as two of moderate size, (2, N); see above."""
    size = g.abs()
    large = size >= math.exp(-p)
    logs = torch.log(torch.where(large, size, 1.0)) / p
    return torch.stack([torch.where(large, logs, -1.0), torch.where(large, g.sign(), math.exp(p) * g)])


def lstm_cell(w: Tensor, b: Tensor, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """One LSTM cell of N elements: x (inputs, N), h and c (hidden, N)."""
    gates = torch.addmm(b[:, None], w, torch.cat([x, h]))  # (4 hidden, N)
    n = len(h)
    i, f, o = torch.sigmoid(gates[: 3 * n]).chunk(3)
    c = f * c + i * torch.tanh(gates[3 * n :])
    return o * torch.tanh(c), c


def _read_gradient(g: Tensor, p: float, out: Tensor) -> None:
    """``read_gradient`` into ``out``, (2, N). As log|g|/p is −1 at |g| = e^{−p}, both cases of each row are clamps."""
    torch.mul(g, math.exp(p), out=out[1]).clamp_(-1, 1)
    torch.abs(g, out=out[0]).clamp_(min=math.exp(-p)).log_().mul_(1 / p)


def _cell_in_place(w: Tensor, x: Tensor, gates: Tensor, h: Tensor, c: Tensor) -> None:
    """``lstm_cell``: x (inputs + hidden + 1, N) ends with ones, w with the bias."""
    n = len(h)
    torch.mm(w, x, out=gates)
    gates[: 3 * n].sigmoid_()
    gates[3 * n :].tanh_()
    c.mul_(gates[n : 2 * n]).addcmul_(gates[:n], gates[3 * n :])
    torch.tanh(c, out=h).mul_(gates[2 * n : 3 * n])
