"""Evolution strategies: unbiased where they should be, and biased where they must be."""

import copy
import math

import pytest
import torch
from torch import nn

from quickstudy.inner import with_tensors
from quickstudy.optimizers import LSTMRule, MLPRule, Problems, Quadratics
from quickstudy.outer import Backpropagated, EvolutionStrategies
from tests.outer.known_problems import Drift, HalfSquares, flat_gradient, known_gradient
from tests.outer.test_backpropagated import Exploding

STEPS = 12


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def estimates(*, horizons: int, **settings) -> torch.Tensor:
    """The estimate of each of many horizons: the mean over its windows."""
    rule, g = Drift(), generator(11)
    estimate = EvolutionStrategies(HalfSquares(), n=1, horizon=STEPS, groups=1, objective="loss", **settings)
    windows = STEPS // estimate.runs.unroll
    found = []
    for _ in range(horizons):
        found.append(sum(float(flat_gradient(estimate(rule, g), rule)) for _ in range(windows)) / windows)
    return torch.tensor(found, dtype=torch.float64)


def off_by(found: torch.Tensor) -> float:
    """How many standard errors the mean is from the known meta-gradient."""
    error = float(found.std()) / math.sqrt(len(found))
    return abs(float(found.mean()) - known_gradient(0.05, STEPS)) / error


def test_evolution_strategies_over_the_whole_horizon_are_unbiased():
    assert off_by(estimates(horizons=300, pairs=2, sigma=0.05)) < 3


def test_persistent_evolution_strategies_are_unbiased_though_windows_are_short():
    assert off_by(estimates(horizons=400, pairs=4, sigma=0.05, unroll=3, persistent=True)) < 3


def test_short_windows_without_persistence_are_biased():
    assert off_by(estimates(horizons=300, pairs=4, sigma=0.05, unroll=3)) > 10


@pytest.mark.parametrize("rule", [LSTMRule(3, lr=0.1).double(), MLPRule(4, lr=0.1).double()], ids=["lstm", "mlp"])
def test_one_estimate_equals_a_loop_over_particles(rule):
    estimate = EvolutionStrategies(Quadratics(3), pairs=2, sigma=0.1, n=3, horizon=4)
    loss = estimate(rule, generator())
    found = flat_gradient(loss, rule)
    weights = dict(rule.named_parameters())
    again = generator()
    seed = int(torch.randint(2**62, (), generator=again))
    noise = {name: 0.1 * torch.randn(2, *p.shape, generator=again, dtype=p.dtype) for name, p in weights.items()}

    expected, values = torch.zeros_like(found), []
    for i in range(2):
        for sign in (1, -1):
            moved = {name: p.detach() + sign * noise[name][i] for name, p in weights.items()}
            plain = Backpropagated(Quadratics(3), n=3, unroll=4, horizon=4, groups=1)
            first = generator()
            assert int(torch.randint(2**62, (), generator=first)) == seed  # the same problems
            copied = copy.deepcopy(rule)
            copied.load_state_dict(moved)
            value = float(plain(copied, generator()).detach())
            values.append(value)
            flat = torch.cat([sign * noise[name][i].flatten() for name in weights])
            expected += flat * value / (4 * 0.1**2)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)
    assert float(loss.detach()) == pytest.approx(sum(values) / 4, rel=1e-10)


def test_perturbations_come_in_pairs_and_add_up():
    estimate = EvolutionStrategies(
        HalfSquares(), pairs=3, sigma=0.1, n=1, unroll=3, horizon=STEPS, groups=1, persistent=True, objective="loss"
    )
    rule, g = Drift(), generator()
    estimate(rule, g)
    estimate(rule, g)
    one = estimate.summed[0]["a"].clone()
    estimate(rule, g)
    two = estimate.summed[0]["a"]
    assert torch.equal(one[:3], -one[3:])
    assert torch.equal(two[:3], -two[3:])
    assert not torch.equal(one, two)


def test_small_perturbations_agree_with_backpropagation():
    rule = LSTMRule(2, lr=0.1).double()
    pairs = 4000
    estimate = EvolutionStrategies(Quadratics(2), pairs=pairs, sigma=1e-4, n=2, horizon=3)
    found = flat_gradient(estimate(rule, generator()), rule)
    exact = flat_gradient(Backpropagated(Quadratics(2), n=2, unroll=3, horizon=3, groups=1)(rule, generator()), rule)
    cosine = torch.nn.functional.cosine_similarity(found, exact, dim=0)
    assert float(cosine) > 0.98


def test_diverging_particles_leave_a_finite_estimate():
    rule = LSTMRule(3, lr=0.1)
    estimate = EvolutionStrategies(Exploding(), pairs=2, sigma=0.01, n=4, unroll=3, horizon=6, persistent=True)
    for _ in range(4):
        loss = estimate(rule, generator())
        assert torch.isfinite(flat_gradient(loss, rule)).all()


def test_runs_go_on_from_a_checkpoint_bit_for_bit():
    def new():
        return EvolutionStrategies(Quadratics(3), pairs=2, n=2, unroll=2, horizon=6, groups=2, persistent=True)

    rule, first, g = MLPRule(4), new(), generator()
    for _ in range(5):
        first(rule, g)
    saved, at = copy.deepcopy(first.state_dict()), g.get_state()
    expected = [flat_gradient(first(rule, g), rule) for _ in range(6)]
    second, g = new(), generator()
    second.load_state_dict(saved, rule)
    g.set_state(at)
    for one in expected:
        assert torch.equal(flat_gradient(second(rule, g), rule), one)


class Leap(nn.Module):
    """Moves by a at the first step, and not again."""

    def __init__(self, a: float):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a, dtype=torch.float64))

    def init(self, params):
        return {"t": torch.zeros(len(params["theta"]), 1, dtype=torch.float64)}

    def step(self, params, grads, state):
        moved = {name: p + torch.where(state["t"] == 0, self.a, 0.0 * self.a) for name, p in params.items()}
        return moved, {"t": state["t"] + 1}


class Cliff:
    """A loss of 1, and of 10³⁰ beyond 1."""

    def sample(self, n: int, *, generator: torch.Generator) -> Problems:
        def loss(params, given, batch):
            return torch.where(params["theta"].sum() > 1.0, 1e30, 1.0) + 0.0 * params["theta"].sum()

        return Problems({"theta": torch.zeros(n, 1, dtype=torch.float64)}, (), loss, lambda generator: ())


@pytest.mark.parametrize("limit", [100.0, 1e10])
def test_what_kills_a_problem_counts_until_its_horizon_ends(limit):
    def mean(**settings):
        rule, g = Leap(0.95), generator(3)
        estimate = EvolutionStrategies(Cliff(), pairs=400, sigma=0.05, n=1, horizon=8, limit=limit, **settings)
        windows = 8 // estimate.runs.unroll
        found = [float(flat_gradient(estimate(rule, g), rule)) for _ in range(20 * windows)]
        return torch.tensor(found).view(20, windows).mean(1)

    whole, parts = mean(), mean(unroll=2, persistent=True)
    error = float((whole.var() / 20 + parts.var() / 20).sqrt())
    assert float(whole.mean()) > 10 * error  # a larger leap falls more often
    assert abs(float(whole.mean() - parts.mean())) < 3 * error


def test_with_tensors_serves_a_rule():
    rule = Drift()
    moved = with_tensors(rule, {"a": torch.tensor(1.0, dtype=torch.float64)})
    stepped, _ = moved.step({"theta": torch.zeros(1, dtype=torch.float64)}, {}, {})
    assert float(stepped["theta"]) == -1.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pairs": 0}, "pairs=0"),
        ({"sigma": 0.0}, "above 0"),
        ({"objective": "x"}, "choose 'log' or 'loss'"),
        ({"limit": 1.0}, "a factor above 1"),
        ({"late": -1.0}, "a power of at least 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        EvolutionStrategies(Quadratics(), **settings)
