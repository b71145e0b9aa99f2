"""An LSTM whose cell state is the weights that it trains: the update rule of ``quickstudy.learners.MetaLSTM``.

Sachin Ravi, Hugo Larochelle. Optimization as a Model for Few-Shot Learning. ICLR 2017, section 3.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from quickstudy.inner import Params
from quickstudy.optimizers.coordinatewise import flat
from quickstudy.optimizers.lstm_rule import lstm_cell, read_gradient

State = dict[str, Tensor]
ONE = "one"
"""The name of one more parameter, the number 1, by which inner losses are multiplied: its gradient is the loss."""


class MetaLSTMRule(nn.Module):
    """θ_t = f_t ⊙ θ_{t−1} − i_t ⊙ ∇L, with gates that two layers compute for each element of θ alike.

    With z_t = (∇L, L), each read as two numbers of moderate size (``read_gradient``):

        h_t = LSTM(z_t, h_{t−1})
        i_t = σ(W_I [h_t, θ_{t−1}, i_{t−1}] + b_I),    f_t = σ(W_F [h_t, θ_{t−1}, f_{t−1}] + b_F)

    The first layer starts with h_0 = 0; the second one as after a step that changed nothing, i_0 = 0 and f_0 = 1.

    Args:
        hidden: units of the first layer; each element takes 2 × ``hidden`` + 2 numbers of state.
        inner_lr: where input gates start, which are learning rates, between 0 and 1.
        forget: where forget gates start, how much of a weight a step keeps, between 0 and 1.
        p: where small gradients begin to be read linearly, above 0.
        seed: of the first weights; those of the gates are small.

    Raises:
        ValueError: arguments outside of these.
    """

    def __init__(
        self, hidden: int = 8, *, inner_lr: float = 0.1, forget: float = 0.999, p: float = 10.0, seed: int = 0
    ):
        super().__init__()
        if not 0 < inner_lr < 1 or not 0 < forget < 1:
            raise ValueError(
                f"inner_lr={inner_lr}, forget={forget}; required is between 0 and 1: both are first values of gates"
            )
        if hidden < 1 or p <= 0:
            raise ValueError(f"hidden={hidden}, p={p}; required is at least 1 unit, and p above 0")
        self.hidden, self.inner_lr, self.forget, self.p, self.seed = hidden, inner_lr, forget, p, seed
        generator = torch.Generator().manual_seed(seed)

        def weights(rows: int, columns: int, bound: float) -> nn.Parameter:
            return nn.Parameter(bound * (2 * torch.rand(rows, columns, generator=generator) - 1))

        self.lstm_weight = weights(4 * hidden, 4 + hidden, hidden**-0.5)
        self.lstm_bias = nn.Parameter(torch.zeros(4 * hidden).index_fill(0, torch.arange(hidden, 2 * hidden), 1.0))
        self.weight = weights(2, hidden + 2, 0.01)  # rows: input gate, forget gate; columns: h, θ, the gate before
        self.bias = nn.Parameter(torch.tensor([math.log(v / (1 - v)) for v in (inner_lr, forget)]))

    def init(self, params: Params) -> State:
        """The states of both layers, (numbers, N) for all N elements; cell states of the second one are parameters.

        Raises:
            ValueError: no parameter ``ONE``, so that losses would be unknown.
        """
        if ONE not in params:
            raise ValueError(
                f"parameters {list(params)[:4]} without {ONE!r}, whose gradient is the loss: pass losses through "
                "measured and parameters through with_one, or use quickstudy.learners.MetaLSTM"
            )
        zeros = torch.zeros_like(flat(p for name, p in params.items() if name != ONE))
        return {"lstm": zeros.expand(2 * self.hidden, -1), "gates": torch.stack([zeros, zeros + 1])}

    def step(self, params: Params, grads: Mapping[str, Tensor], state: State) -> tuple[Params, State]:
        """One step of all parameters but ``ONE``."""
        names = [name for name in params if name != ONE]
        theta, g = (flat(tensors[name] for name in names) for tensors in (params, grads))  # (N,) each
        loss = read_gradient(grads[ONE].view(1), self.p).expand(2, len(g))
        z = torch.cat([read_gradient(g, self.p), loss])  # (4, N)
        h, c = lstm_cell(self.lstm_weight, self.lstm_bias, z, *state["lstm"].chunk(2))
        seen = torch.cat([h, theta[None]])  # (hidden + 1, N)
        logits = torch.addmm(self.bias[:, None], self.weight[:, :-1], seen) + self.weight[:, -1:] * state["gates"]
        gates = torch.sigmoid(logits)  # (2, N)
        parts = (gates[1] * theta - gates[0] * g).split([params[name].numel() for name in names])
        stepped = {name: part.view(params[name].shape) for name, part in zip(names, parts, strict=True)}
        return {name: stepped.get(name, p) for name, p in params.items()}, {"lstm": torch.cat([h, c]), "gates": gates}


def with_one(params: Params) -> Params:
    """The same parameters, and ``ONE``."""
    return {**params, ONE: next(iter(params.values())).new_ones(())}


def measured(loss: Callable[[Params], Tensor]) -> Callable[[Params], Tensor]:
    """The same inner loss, whose gradient with respect to ``ONE`` is its value."""
    return lambda params: params[ONE] * loss(params)
