"""Running and tuning optimizers: each problem as if it were alone, and every rate tried alike."""

import math

import pytest
import torch

from quickstudy.optimizer_judging import RATES, Judged, Tuned, judge, tune
from quickstudy.optimizer_losses import BASELINES, is_lost, log_losses, losses_of_optimizer, losses_of_rule
from quickstudy.optimizers import LSTMRule, NetworkProblems, Quadratics, TunedSGD
from quickstudy.optimizers.problem import Problems

QUADRATICS = Quadratics(dim=3)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def networks() -> NetworkProblems:
    x = torch.randn(40, 4, generator=generator(1))
    return NetworkProblems(x, (x[:, 0] > 0).long(), depths=(1,), widths=(3, 3), batches=(8, 8))


def alone(name: str, rate: float, problems: Problems, at: list[int], batches: torch.Generator) -> torch.Tensor:
    """The slow way: an optimizer of torch for every problem, (len(at), n)."""
    params = [{key: p[i].clone().requires_grad_() for key, p in problems.params.items()} for i in range(len(problems))]
    optimizers = [BASELINES[name]([{"params": list(one.values()), "lr": rate}]) for one in params]

    def row(tree, i):
        return torch.utils._pytree.tree_map_only(torch.Tensor, lambda t: t[i], tree)

    found = []
    for t in range(at[-1] + 1):
        if t in at:
            ends = [
                problems.loss(one, row(problems.given, i), row(problems.judged_on, i)) for i, one in enumerate(params)
            ]
            found.append(torch.stack(ends).detach())
        batch = problems.draw(batches)
        for i, (one, optimizer) in enumerate(zip(params, optimizers, strict=True)):
            optimizer.zero_grad()
            problems.loss(one, row(problems.given, i), row(batch, i)).backward()
            optimizer.step()
    return torch.stack(found)


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("distribution", [QUADRATICS, networks()], ids=["quadratics", "networks"])
def test_many_problems_in_one_optimizer_go_as_each_with_an_optimizer_of_its_own(name, distribution):
    problems = distribution.sample(3, generator=generator()).to("cpu", torch.float64)
    rates, at = (0.003, 0.1), [0, 1, 7]
    found = losses_of_optimizer(name, rates, problems, at=at, generator=generator(5))
    for i, rate in enumerate(rates):
        wanted = alone(name, rate, problems, at, generator(5))
        torch.testing.assert_close(found[i], wanted, rtol=1e-10, atol=1e-12)


def test_problems_are_left_as_they_were():
    problems = QUADRATICS.sample(2, generator=generator())
    before = problems.params["theta"].clone()
    losses_of_optimizer("SGD", [0.01], problems, at=[3], generator=generator())
    losses_of_rule(LSTMRule(2), problems, at=[3], generator=generator())
    assert torch.equal(problems.params["theta"], before)


def test_a_rule_that_is_sgd_goes_as_sgd():
    problems = networks().sample(2, generator=generator())
    ours = losses_of_rule(TunedSGD(lr=0.1, momentum=0.9), problems, at=[2, 6], generator=generator(3))
    theirs = losses_of_optimizer("momentum", [0.1], problems, at=[2, 6], generator=generator(3))
    torch.testing.assert_close(ours, theirs[0])


def test_a_curve_is_the_loss_at_every_step():
    problems = QUADRATICS.sample(2, generator=generator())
    rule = LSTMRule(2)
    curve = losses_of_rule(rule, problems, at=[4], generator=generator(), curve=True)
    assert curve.shape == (5, 2)
    # a quadratic has no mini-batches: what it is judged on is what its stream shows
    assert torch.equal(curve, losses_of_rule(rule, problems, at=range(5), generator=generator()))
    many = losses_of_optimizer("SGD", [0.01, 0.1], problems, at=[4], generator=generator(), curve=True)
    assert many.shape == (2, 5, 2)


def test_a_problem_that_diverged_counts_with_its_first_loss():
    losses, first = torch.tensor([1.0, 0.0, math.inf, math.nan, 9.0]), torch.tensor([2.0, 2.0, 3.0, 4.0, 5.0])
    expected = [0.0, math.log(1e-12), math.log(3), math.log(4), math.log(5)]
    assert log_losses(losses, first).tolist() == pytest.approx(expected)
    assert is_lost(losses, first).tolist() == [False, False, True, True, True]


def test_the_rate_that_is_taken_is_the_best_of_the_grid():
    found = tune(QUADRATICS, at=[2, 8], seeds=(0, 1), draws=2, n=2)
    assert set(found) == {(name, steps) for name in BASELINES for steps in (2, 8)}
    for tuned in found.values():
        assert list(tuned.by_rate) == list(RATES)
        assert tuned.log_loss == min(tuned.by_rate.values()) == tuned.by_rate[tuned.lr]
        assert not tuned.at_edge


def test_tuning_measures_what_running_with_that_rate_measures():
    tuned = tune(QUADRATICS, at=[3], seeds=(4,), draws=1, n=5, names=["Adam"])["Adam", 3]
    drawing = generator(4)
    problems = QUADRATICS.sample(5, generator=drawing)
    losses = losses_of_optimizer("Adam", [tuned.lr], problems, at=[3], generator=drawing)
    again = log_losses(losses, problems.judge(problems.params))
    assert float(again.double().mean()) == pytest.approx(tuned.log_loss, abs=1e-5)


def test_a_better_grid_never_makes_a_baseline_worse():
    few = tune(QUADRATICS, at=[5], seeds=(0,), draws=2, rates=RATES[8:11], names=["SGD"])["SGD", 5]
    all_of_them = tune(QUADRATICS, at=[5], seeds=(0,), draws=2, names=["SGD"])["SGD", 5]
    assert all_of_them.log_loss <= few.log_loss + 1e-6


def test_a_best_rate_at_the_end_of_the_grid_says_so_and_one_that_diverges_gains_nothing():
    tuned = tune(QUADRATICS, at=[60], seeds=(0,), draws=1, rates=(1e-6, 1e-5, 1e6), names=["SGD"])["SGD", 60]
    assert tuned.lr == 1e-5
    assert tuned.by_rate[1e6] > tuned.by_rate[1e-5]  # as good as no step at all
    assert not tuned.at_edge
    assert tune(QUADRATICS, at=[5], seeds=(0,), draws=1, rates=(1e-6, 1e-5), names=["SGD"])["SGD", 5].at_edge


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"at": []}, "increasing numbers"),
        ({"at": [5, 2]}, "increasing numbers"),
        ({"at": [-1]}, "increasing numbers"),
        ({"names": ["Lion"]}, "no baseline 'Lion'; choose among SGD"),
        ({"rates": ()}, "at least one learning rate"),
        ({"rates": (0.1, -1)}, "at least one learning rate"),
        ({"seeds": ()}, "at least one of each"),
        ({"draws": 0}, "at least one of each"),
    ],
)
def test_what_cannot_be_tuned_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        tune(QUADRATICS, **{"at": [1], "seeds": (0,), "draws": 1, "names": ["SGD"], **arguments})


def test_all_are_judged_on_the_same_problems_and_batches():
    rule = TunedSGD(lr=0.1, momentum=0.9)
    tuned = [Tuned("momentum", 3, 0.1, 0.0), Tuned("momentum", 6, 0.01, 0.0)]
    found = judge({"rule": rule}, tuned, networks(), at=[3, 6], seed=0, draws=3, n=2, curves=True)
    by = {(one.name, one.steps): one for one in found}
    assert set(by) == {("rule", 3), ("rule", 6), ("momentum", 3), ("momentum", 6)}
    torch.testing.assert_close(by["rule", 3].log_losses, by["momentum", 3].log_losses)
    torch.testing.assert_close(by["rule", 3].curve, by["momentum", 3].curve)
    assert not torch.allclose(by["rule", 6].log_losses, by["momentum", 6].log_losses)
    assert (by["momentum", 6].lr, by["rule", 6].lr) == (0.01, None)
    assert [tuple(one.curve.shape) for one in found if one.curve is not None] == [(4, 6), (7, 6), (4, 6), (7, 6)]


def test_other_seeds_are_other_problems_and_without_curves_none_are_kept():
    def losses(seed):
        (found,) = judge({"rule": LSTMRule(2)}, [], QUADRATICS, at=[1], seed=seed, draws=2, n=2)
        assert found.curve is None
        return found.log_losses

    assert torch.equal(losses(0), losses(0))
    assert not torch.equal(losses(0), losses(1))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"seed": -1}, "required is at least 0, 2 and 1"),
        ({"draws": 1}, "required is at least 0, 2 and 1"),
        ({"n": 0}, "required is at least 0, 2 and 1"),
        ({"rules": {"SGD": LSTMRule(2)}}, "called 'SGD', and so is a baseline"),
    ],
)
def test_what_cannot_be_judged_is_refused(arguments, words):
    usual = {"rules": {"rule": LSTMRule(2)}, "tuned": [Tuned("SGD", 1, 0.1, 0.0)], "seed": 0, "draws": 2, "n": 1}
    with pytest.raises(ValueError, match=words):
        judge(problems=QUADRATICS, at=[1], **{**usual, **arguments})


def judged(*logs: float, together: int = 1) -> Judged:
    return Judged("a", 1, torch.tensor(logs), together=together)


def test_the_ratio_is_a_geometric_mean_with_its_ci95():
    ratio, low, high = judged(0.0, 1.0, 2.0, 3.0).ratio_to(judged(1.0, 1.0, 1.0, 1.0))
    half = 1.96 * math.sqrt(5 / 3) / 2
    assert (ratio, low, high) == pytest.approx((math.exp(0.5), math.exp(0.5 - half), math.exp(0.5 + half)))


def test_problems_of_one_shape_count_once_in_the_ci95():
    zeros = judged(*[0.0] * 8, together=4)
    ratio, low, high = judged(*[1.0] * 4, *[3.0] * 4, together=4).ratio_to(zeros)
    half = 1.96 * math.sqrt(2) / math.sqrt(2)
    assert (ratio, low, high) == pytest.approx((math.exp(2), math.exp(2 - half), math.exp(2 + half)))


def test_problems_that_diverged_are_counted():
    class Steep:
        def sample(self, n, *, generator):
            k = torch.tensor([1.0, 1.0, 1.0, 1e6])[:n]
            return Problems(
                {"at": torch.ones(n, 1)}, k, lambda p, k, batch: k * p["at"].square().sum(), lambda generator: ()
            )

    tuned = [Tuned("SGD", 5, 0.1, 0.0)]
    (found,) = judge({}, tuned, Steep(), at=[5], seed=0, draws=2, n=4)
    assert found.diverged == 2
    assert float(found.log_losses[3]) == pytest.approx(math.log(1e6))


def test_a_single_shape_has_no_ci95():
    assert math.isnan(judged(0.0, 1.0, together=2).ratio_to(judged(0.0, 0.0, together=2))[1])
