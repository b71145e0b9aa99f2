"""Network × update rule × differentiation mode × strategy, in float64.

Against central differences 1e-6, between exact modes 1e-9, between strategies 1e-10.
"""

import pytest
import torch
from torch import Tensor, nn

import quickstudy as q
from quickstudy.inner import SGD, ByName, Curvature, Implicit, LearnedRates, Proximal, StepRates, TorchOptim, Truncated
from tests.contract import Attention, Tied, normed, smooth

EXACT = ("reverse", "recompute", Truncated(last=2))
STRATEGIES = ("threads", "vmap", "trace")


class Recurrent(nn.Module):
    """Six numbers as three time steps of two."""

    def __init__(self, cell: type[nn.RNNBase]):
        super().__init__()
        self.cell, self.read = cell(2, 4, batch_first=True), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.cell(x.view(len(x), 3, 2))[0][:, -1])


class Attends(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.read = Attention(), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.attention(x))


def convolutional(norm: nn.Module) -> nn.Module:
    """Six numbers as a 2×3 image."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 3, padding=1), norm, nn.Tanh(), nn.Flatten(), nn.Linear(24, 5)
    )


class Ends(nn.Module):
    """A tied and frozen network with five outputs."""

    def __init__(self):
        super().__init__()
        self.body, self.read = Tied(), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.body(x))


NETWORKS = {
    "mlp": smooth,
    "convolution, batch norm adapted": lambda: convolutional(nn.BatchNorm2d(4, track_running_stats=False)),
    "convolution, instance norm adapted": lambda: convolutional(nn.InstanceNorm2d(4, affine=True)),
    "convolution, group norm adapted": lambda: convolutional(nn.GroupNorm(2, 4)),
    "layer norm adapted": lambda: normed(nn.LayerNorm(8)),
    "batch norm adapted": lambda: normed(nn.BatchNorm1d(8, track_running_stats=False)),
    "lstm": lambda: Recurrent(nn.LSTM),
    "gru": lambda: Recurrent(nn.GRU),
    "attention": Attends,
    "tied, frozen, buffer": Ends,
}
RULES = {
    "sgd": lambda like: SGD(0.3),
    "momentum": lambda like: SGD(0.2, momentum=0.9, nesterov=True, weight_decay=0.01),
    "learned rates": lambda like: LearnedRates(like, 0.2),
    "rates of each step": lambda like: StepRates(list(like), 2, 0.2),
    "curvature": lambda like: Curvature(like, 0.2),
    "proximal": lambda like: Proximal(SGD(0.2), 0.5),
    "by name": lambda like: ByName({next(iter(like)): SGD(0.5), "*": SGD(0.1, momentum=0.5)}),
    "torch.optim.Adam": lambda like: TorchOptim("Adam", learn=("lr",), lr=0.02, eps=1e-2),
    "torch.optim.RMSprop": lambda like: TorchOptim("RMSprop", lr=0.02, eps=1e-2, momentum=0.5),
}


@pytest.fixture(autouse=True)
def _double():
    threads = torch.get_num_threads()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_num_threads(threads)
    torch.set_default_dtype(torch.float32)


def learner(network: str, rule: str, mode="reverse") -> q.MAML:
    torch.manual_seed(0)
    body = NETWORKS[network]()
    like = {f"network.{name}": p.detach() for name, p in body.named_parameters() if p.requires_grad}
    return q.MAML(body, head=None, inner_steps=2, rule=RULES[rule](like), mode=mode)


def tasks(n: int = 3) -> q.Episode:
    x = torch.randn(60, 6, generator=torch.Generator().manual_seed(1))
    return q.ClassTasks(x, [i // 6 for i in range(60)], way=5, shot=2, queries=2).sample(
        n, generator=torch.Generator().manual_seed(0)
    )


def gradient(of: q.MAML, strategy: str = "loop") -> Tensor:
    torch.set_num_threads(2 if strategy == "threads" else 1)
    loss = q.unrolled(of, tasks(), strategy=strategy)  # pyright: ignore
    parameters = [p for p in of.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    return torch.cat([g.flatten() for g in found])


def differs(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("network", NETWORKS)
def test_exact_modes_agree_with_differences_and_with_each_other(network, rule):
    check = q.check_meta_gradient(learner(network, rule), q.task(tasks(1), 0), directions=2)
    assert float(check) <= 1e-6
    expected = gradient(learner(network, rule))
    for mode in EXACT[1:]:
        assert differs(gradient(learner(network, rule, mode)), expected) <= 1e-9


@pytest.mark.parametrize("mode", ["reverse", "recompute", "first_order", Truncated(last=1)], ids=str)
@pytest.mark.parametrize("rule", ["sgd", "rates of each step", "torch.optim.Adam"])
@pytest.mark.parametrize("network", NETWORKS)
def test_strategies_agree_in_every_mode(network, rule, mode):
    expected = gradient(learner(network, rule, mode))
    for strategy in ("threads", "vmap"):
        assert differs(gradient(learner(network, rule, mode), strategy), expected) <= 1e-10


@pytest.mark.parametrize("mode", ["reverse", "first_order", Truncated(last=1)], ids=str)
@pytest.mark.parametrize("network", ["mlp", "lstm", "attention", "batch norm adapted", "layer norm adapted"])
def test_a_record_gives_the_gradient_of_the_loop_also_after_the_parameters_moved(network, mode):
    ours, theirs = learner(network, "sgd", mode), learner(network, "sgd", mode)
    for _ in range(2):
        assert differs(gradient(ours, "trace"), gradient(theirs)) <= 1e-10
        for one in (ours, theirs):
            with torch.no_grad():
                for p in one.parameters():
                    p.add_(0.1 * torch.cos(torch.arange(p.numel())).view(p.shape))


def test_a_compiled_record_gives_the_gradient_of_the_loop():
    assert differs(gradient(learner("mlp", "sgd"), "compile"), gradient(learner("mlp", "sgd"))) <= 1e-10


def test_truncated_lies_between_first_order_and_exact():
    """The last step's exact derivative is closer to the truth than none."""
    exact, last, none = (gradient(learner("mlp", "sgd", m)) for m in ("reverse", "truncated", "first_order"))
    assert differs(last, exact) < differs(none, exact)


@pytest.mark.parametrize("mode", ["reverse", "recompute"])
def test_dropout_draws_the_same_masks_on_the_way_back(mode):
    def build(mode):
        torch.manual_seed(0)
        return q.MAML(nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Dropout(), nn.Linear(16, 5)), head=None, mode=mode)

    torch.manual_seed(3)
    expected = gradient(build("reverse").train())
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert differs(gradient(build(mode).train()), expected) <= 1e-12
    assert not torch.equal(before, torch.get_rng_state())
    assert float(q.check_meta_gradient(build(mode).train(), q.task(tasks(1), 0), directions=2)) <= 1e-6


def test_implicit_works_by_loop_and_threads_and_refuses_vmap_with_a_reason():
    of = learner("mlp", "proximal", Implicit(iterations=5, strict=False))
    assert differs(gradient(of, "threads"), gradient(of, "loop")) <= 1e-10
    for strategy in ("vmap", "trace"):
        with pytest.raises(RuntimeError, match="tolerance of its own, which vmap cannot"):
            gradient(of, strategy)


@pytest.mark.parametrize("rule", ["learned rates", "torch.optim.Adam", "curvature"])
def test_implicit_refuses_rules_that_do_not_say_where_they_stand_still(rule):
    with pytest.raises(ValueError, match="does not say where it stands still"):
        gradient(learner("mlp", rule, "implicit"))
