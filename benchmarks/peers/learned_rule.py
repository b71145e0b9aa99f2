"""Learning to learn quadratics with nothing but PyTorch, as the paper's followers write it.

Marcin Andrychowicz et al. Learning to learn by gradient descent by gradient descent. NeurIPS 2016, arXiv:1606.04474:
two LSTM layers for each coordinate, log-magnitude preprocessing, gradients of the problem as constants, truncated
backpropagation. It does a little less at each step than ``LSTMRule``: two features of a gradient and not four, one
number out and not two, no running scales.
"""

import math

import torch
from torch import Tensor, nn

from quickstudy.optimizers import Quadratics


class CoordinatewiseLSTM(nn.Module):
    """The update rule.

    Args:
        hidden: units of each layer.
        p: where small gradients begin to be read linearly.
        lr: factor of the output.
    """

    def __init__(self, hidden: int, *, p: float = 10.0, lr: float = 0.01):
        super().__init__()
        self.hidden, self.p, self.lr = hidden, p, lr
        self.first, self.second = nn.LSTMCell(2, hidden), nn.LSTMCell(hidden, hidden)
        self.out = nn.Linear(hidden, 1)

    def forward(self, g: Tensor, state: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """(N,) gradients and the layers' states → what is added to the coordinates, (N,), and new states."""
        size = g.abs()
        large = size >= math.exp(-self.p)
        logs = torch.where(large, torch.log(size.clamp(min=1e-30)) / self.p, -torch.ones_like(g))
        signs = torch.where(large, g.sign(), math.exp(self.p) * g)
        one = self.first(torch.stack([logs, signs], -1), state[0])
        two = self.second(one[0], state[1])
        return self.lr * self.out(two[0]).squeeze(-1), [one, two]

    def begin(self, count: int) -> list[tuple[Tensor, Tensor]]:
        """The states of that many coordinates."""
        zeros = torch.zeros(count, self.hidden)
        return [(zeros, zeros), (zeros, zeros)]


class PlainTraining:
    """Meta-training by truncated backpropagation through a window at a time.

    Args:
        rule: trained by torch's Adam.
        n: problems of a meta-step.
        unroll: steps of a window.
        horizon: steps after which problems are new.
        together: how many problems share a pass: 1 is the usual loop, n is what one would write by hand for speed.
    """

    def __init__(self, rule: CoordinatewiseLSTM, *, n: int, unroll: int, horizon: int, together: int = 1):
        self.rule, self.n, self.unroll, self.horizon, self.together = rule, n, unroll, horizon, together
        self.optimizer = torch.optim.Adam(rule.parameters(), lr=1e-3)
        self.generator = torch.Generator().manual_seed(0)
        self.done = horizon

    def begin(self) -> None:
        """New problems and states."""
        drawn = Quadratics().sample(self.n, generator=self.generator)
        w, y = drawn.given
        parts = zip(*(t.split(self.together) for t in (w, y, drawn.params["theta"])), strict=True)
        self.problems = [(w, y, theta, self.rule.begin(theta.numel())) for w, y, theta in parts]
        self.done = 0

    def step(self) -> float:
        """One meta-step: a window of every problem, one backward for each pass, clipping, Adam."""
        if self.done >= self.horizon:
            self.begin()
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for i, (w, y, theta, state) in enumerate(self.problems):
            loss, theta, state = self.window(w, y, theta, state)
            loss.backward()
            total += loss.item()
            state = [(h.detach(), c.detach()) for h, c in state]
            self.problems[i] = (w, y, theta.detach(), state)
        nn.utils.clip_grad_norm_(self.rule.parameters(), 1.0)
        self.optimizer.step()
        self.done += self.unroll
        return total

    def window(self, w: Tensor, y: Tensor, theta: Tensor, state: list) -> tuple[Tensor, Tensor, list]:
        """The mean log-loss after each step, as this pass's share of the mean over all problems."""
        losses = []
        for _ in range(self.unroll):
            at = theta.detach().requires_grad_()
            (g,) = torch.autograd.grad(quadratic(w, y, at).sum(), at)
            delta, state = self.rule(g.flatten(), state)  # (together · dim,)
            theta = theta + delta.view(theta.shape)
            losses.append(quadratic(w, y, theta).clamp(min=1e-12).log())
        return torch.stack(losses).sum() / (self.unroll * self.n), theta, state


def quadratic(w: Tensor, y: Tensor, theta: Tensor) -> Tensor:
    """‖Wθ − y‖² of each problem, (together,)."""
    return ((w @ theta.unsqueeze(-1)).squeeze(-1) - y).square().sum(-1)
