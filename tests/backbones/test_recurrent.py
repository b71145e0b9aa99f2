"""The LSTM encoder against the equations of an LSTM."""

import pytest
import torch

from quickstudy.backbones import BACKBONES, LSTMEncoder
from quickstudy.inner import Unfused, call


@pytest.fixture
def network() -> LSTMEncoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LSTMEncoder(3, 4).double()


def test_it_is_the_last_output_of_an_lstm(network, generator):
    x = torch.randn(5, 6, 3, generator=generator, dtype=torch.float64)
    w = dict(network.lstm.named_parameters())
    h = c = torch.zeros(5, 4, dtype=torch.float64)
    for t in range(6):
        gates = x[:, t] @ w["weight_ih_l0"].T + w["bias_ih_l0"] + h @ w["weight_hh_l0"].T + w["bias_hh_l0"]
        i, f, g, o = gates.split(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
    torch.testing.assert_close(network(x), h)
    assert h.shape == (5, network.out_features)


def test_it_is_vectorised_over_tasks(network, generator):
    tensors = {name: p.detach() for name, p in network.named_parameters()}
    x = torch.randn(2, 5, 6, 3, generator=generator, dtype=torch.float64)
    with Unfused():
        together = torch.func.vmap(lambda x: call(network, tensors, x))(x)
    torch.testing.assert_close(together, torch.stack([network(x[0]), network(x[1])]))


@pytest.mark.parametrize("shape", [(5, 3), (5, 0, 3), (5, 6, 2)])
def test_other_shapes_are_refused(network, shape):
    with pytest.raises(ValueError, match=r"built for \(time, 3\)"):
        network(torch.zeros(shape, dtype=torch.float64))


def test_sizes_are_checked():
    with pytest.raises(ValueError, match="width=0; required is at least 1"):
        LSTMEncoder(3, 0)


def test_it_has_a_name():
    assert BACKBONES["lstm"] is LSTMEncoder
