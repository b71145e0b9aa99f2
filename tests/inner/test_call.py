"""Calling a module with other tensors leaves it alone, from any number of threads."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.func import functional_call

from quickstudy.inner import SGD, Unfused, call, unroll, with_tensors


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 4)
        self.last.weight = self.first.weight
        self.again = self.first
        self.register_buffer("scale", torch.ones(4))

    def forward(self, x):
        return self.again(self.last(torch.tanh(self.first(x)))) * self.scale


NETWORKS = {
    "tied, shared, buffer": (Tied, (5, 4)),
    "batch norm": (lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False)), (5, 4)),
    "convolution": (lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()), (5, 1, 4, 4)),
    "weight norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), (5, 4)),
    "transformer": (lambda: nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True), (5, 3, 4)),
    "lstm": (lambda: nn.LSTM(4, 3, num_layers=2, bidirectional=True, batch_first=True), (5, 3, 4)),
    "gru": (lambda: nn.GRU(4, 3, batch_first=True), (5, 3, 4)),
}


def first(output):
    return output[0] if isinstance(output, tuple) else output


@pytest.fixture(params=NETWORKS)
def network(request):
    build, shape = NETWORKS[request.param]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = build().double()
    return module, torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_it_equals_functional_call_and_leaves_the_module_alone(network):
    module, x = network
    other = {name: 1.1 * p + 0.1 for name, p in [*module.named_parameters(), *module.named_buffers()]}
    before = {name: t.clone() for name, t in module.state_dict().items()}
    ours = first(call(module, other, x))
    assert all(torch.equal(t, before[name]) for name, t in module.state_dict().items())
    torch.testing.assert_close(first(call(module, {}, x)), first(module(x)), rtol=1e-12, atol=1e-12)
    expected = first(functional_call(module, other, (x,)))  # which unties a weight of a module that stands twice
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


def test_it_runs_from_several_threads_at_once(network):
    module, x = network
    params = dict(module.named_parameters())
    others = [{name: p * (1 + i / 10) for name, p in params.items()} for i in range(16)]
    expected = [first(call(module, other, x)) for other in others]
    with ThreadPoolExecutor(4) as pool:
        for ours, theirs in zip(pool.map(lambda other: first(call(module, other, x)), others), expected, strict=True):
            torch.testing.assert_close(ours, theirs)


def test_taken_apart_it_gives_the_same_and_can_be_mapped(network):
    module, x = network
    if isinstance(module, nn.TransformerEncoderLayer):
        module.train()
    expected = first(call(module, {}, x))
    with Unfused():
        torch.testing.assert_close(first(call(module, {}, x)), expected, rtol=1e-12, atol=1e-12)
        mapped = torch.func.vmap(lambda x: first(call(module, {}, x)))(torch.stack([x, 2 * x]))
    torch.testing.assert_close(mapped[1], first(call(module, {}, 2 * x)), rtol=1e-10, atol=1e-10)


def test_a_name_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"'last\.wait' is no parameter or buffer of Tied; choose among"):
        with_tensors(Tied(), {"last.wait": torch.ones(4)})


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: nn.LSTM(4, 3, proj_size=2, batch_first=True), "an LSTM with proj_size cannot be vectorised"),
    ],
)
def test_a_recurrent_layer_that_cannot_be_taken_apart_says_so(build, reason):
    with Unfused(), pytest.raises(ValueError, match=reason):
        build()(torch.ones(2, 3, 4))
    packed = nn.utils.rnn.pack_padded_sequence(torch.ones(2, 3, 4), torch.tensor([3, 2]), batch_first=True)
    with Unfused(), pytest.raises(ValueError, match="packed sequences cannot be vectorised"):
        nn.LSTM(4, 3, batch_first=True)(packed)


class InLists(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.layers, self.last = [self.a], self._last

    def _last(self, x):
        return self.b(x)

    def forward(self, x):
        return self.last(self.layers[0](x))


def test_parts_in_lists_and_bound_methods_are_replaced_too():
    module, x = InLists(), torch.randn(3, 4)
    other = {name: p + 1 for name, p in module.named_parameters()}
    torch.testing.assert_close(call(module, other, x), functional_call(module, other, (x,)))


def test_a_compiled_module_is_refused():
    module = torch.compile(nn.Linear(2, 2), backend="eager")
    other = {name: p + 1 for name, p in module.named_parameters()}
    with pytest.raises(ValueError, match="is compiled or scripted"):
        call(module, other, torch.randn(3, 2))


class Packs(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.LSTM(4, 3, batch_first=True)

    def forward(self, x):
        packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([3, 2]), batch_first=True)
        return self.cell(packed)[1][0][0]


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("mode", ["reverse", "first_order"])
def test_a_recurrent_layer_without_such_a_form_runs_as_it_is_outside_of_vmap(mode):
    x, network = torch.ones(2, 3, 4), nn.LSTM(4, 3, batch_first=True, proj_size=2)
    params = dict(network.named_parameters())
    phi = unroll(SGD(0.1), lambda p: call(network, p, x)[0].square().sum(), params, steps=2, mode=mode)
    assert all(torch.isfinite(p).all() for p in phi.values())


def test_packed_sequences_run_outside_of_inner_loops_and_say_so_inside():
    x, network = torch.ones(2, 3, 4), Packs()
    params = dict(network.named_parameters())
    torch.testing.assert_close(call(network, params, x), network(x))
    with pytest.raises(ValueError, match=r"packed sequences cannot run in an inner loop.*pad them"):
        unroll(SGD(0.1), lambda p: call(network, p, x).square().sum(), params, steps=1)
