"""The outer loop of learned optimizers."""

import math

import pytest
import torch

from quickstudy.inner import SGD
from quickstudy.optimizers import LSTMRule, MLPRule, Quadratics, TunedSGD
from quickstudy.outer import Backpropagated, EvolutionStrategies
from quickstudy.rule_training import train_rule
from tests.outer.test_backpropagated import Exploding


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def train(rule, estimate, *, steps: int, lr: float = 1e-2, **settings):
    optimizer = torch.optim.Adam(rule.parameters(), lr=lr)
    return list(train_rule(rule, estimate, optimizer, steps=steps, generator=generator(), **settings))


@pytest.mark.parametrize(
    ("rule", "lr"),
    [(LSTMRule(4, lr=0.05), 0.02), (MLPRule(4, lr=0.05), 0.02), (TunedSGD(lr=0.0003), 0.1)],
    ids=["lstm", "mlp", "sgd"],
)
def test_training_lowers_the_meta_loss(rule, lr):
    problems = Quadratics(5, scale=(1.0, 1.0))
    found = train(rule, Backpropagated(problems, n=16, unroll=10, horizon=10, groups=1), steps=60, lr=lr)
    losses = [step.loss for step in found]
    assert [step.step for step in found] == list(range(1, 61))
    assert sum(losses[-10:]) / 10 < sum(losses[:10]) / 10 - 0.2


def test_evolution_strategies_train_as_well():
    estimate = EvolutionStrategies(
        Quadratics(5, scale=(1.0, 1.0)), pairs=8, sigma=0.1, n=8, unroll=5, horizon=10, persistent=True
    )
    losses = [step.loss for step in train(TunedSGD(lr=0.001), estimate, steps=60, lr=0.05)]
    assert sum(losses[-10:]) / 10 < sum(losses[:10]) / 10 - 0.2


def test_the_same_seed_gives_the_same_run():
    def run():
        rule = MLPRule(4)
        train(rule, Backpropagated(Quadratics(3), n=2, unroll=4, horizon=8), steps=5)
        return torch.cat([p.flatten() for p in rule.parameters()])

    assert torch.equal(run(), run())


def test_problems_that_diverge_are_reported_and_the_weights_stay_finite():
    rule = LSTMRule(3, lr=10.0)
    found = train(rule, Backpropagated(Exploding(), n=4, unroll=3, horizon=6, groups=1), steps=8)
    assert all(math.isfinite(step.loss) for step in found)
    assert all(torch.isfinite(p).all() for p in rule.parameters())


def test_a_gradient_that_is_not_finite_changes_nothing():
    rule = TunedSGD()
    before = [p.clone() for p in rule.parameters()]

    def loss(rule, generator):
        p = next(iter(rule.parameters()))
        return (p - p.detach()).sqrt()  # its derivative at 0 is infinite

    steps = train_rule(rule, loss, torch.optim.SGD(rule.parameters(), lr=1.0), steps=9, generator=generator())
    assert all(step.skipped for step in steps)
    assert all(torch.equal(p, q) for p, q in zip(rule.parameters(), before, strict=True))


def test_ten_in_a_row_that_are_not_finite_are_an_error():
    rule = TunedSGD()
    steps = train_rule(
        rule,
        lambda rule, generator: next(iter(rule.parameters())) * math.nan,
        torch.optim.SGD(rule.parameters(), lr=1.0),
        steps=20,
        generator=generator(),
    )
    with pytest.raises(FloatingPointError, match="until outer step 10, were not finite"):
        list(steps)


def test_the_meta_gradient_is_clipped():
    rule = TunedSGD()
    before = torch.stack([p.detach().clone() for p in rule.parameters()])
    optimizer = torch.optim.SGD(rule.parameters(), lr=1.0)

    def steep(rule, generator):
        return sum(1e6 * k * p for k, p in enumerate(rule.parameters(), 1))

    list(train_rule(rule, steep, optimizer, steps=1, generator=generator(), clip=0.5))
    moved = torch.stack([p.detach() for p in rule.parameters()]) - before
    assert float(moved.norm()) == pytest.approx(0.5, rel=1e-4)


def test_a_resumed_training_counts_on():
    rule = TunedSGD()
    estimate = Backpropagated(Quadratics(3), n=2, unroll=2, horizon=2)
    assert [step.step for step in train(rule, estimate, steps=5, start=3)] == [4, 5]


@pytest.mark.parametrize(
    ("settings", "message"), [({"steps": -1}, "steps=-1"), ({"steps": 1, "clip": 0.0}, "clip=0.0")]
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        train(TunedSGD(), lambda rule, generator: torch.zeros(()), **settings)


def test_a_rule_without_weights_is_refused():
    rule = SGD(0.1)
    steps = train_rule(
        rule,
        lambda rule, generator: torch.zeros(()),
        torch.optim.SGD([torch.zeros(1)], lr=1.0),
        steps=1,
        generator=generator(),
    )
    with pytest.raises(ValueError, match="SGD has no weights"):
        next(steps)
