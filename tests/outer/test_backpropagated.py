"""Truncated backpropagation of an update rule's weights."""

import copy

import pytest
import torch

from quickstudy.inner import Implicit, Truncated
from quickstudy.optimizers import LSTMRule, Mixture, MLPRule, NetworkProblems, Quadratics, TunedAdam, TunedSGD
from quickstudy.optimizers.problem import Problems
from quickstudy.outer import Backpropagated
from tests.outer.known_problems import Drift, HalfSquares, flat_gradient, known_gradient

RULES = {
    "lstm": lambda: LSTMRule(3, lr=0.1),
    "mlp": lambda: MLPRule(4, lr=0.1),
    "sgd": lambda: TunedSGD(["theta"], lr=0.01),
    "adam": lambda: TunedAdam(["theta"], lr=0.05),
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rule_of(name: str, *, moved: float = 0.1):
    """A rule in double precision whose weights are not at the special point where they start."""
    rule = RULES[name]().double()
    with torch.no_grad():
        for i, p in enumerate(rule.parameters()):
            p += moved * torch.randn(p.shape, generator=generator(i), dtype=p.dtype)
    return rule


def small_network() -> NetworkProblems:
    x = torch.randn(30, 3, generator=generator(), dtype=torch.float64)
    y = torch.randint(3, (30,), generator=generator(1))
    return NetworkProblems(x, y, depths=(1,), widths=(4, 4), batches=(8, 8))


def plain_loop(rule, distribution, *, n: int, steps: int, objective: str, second_order: bool) -> torch.Tensor:
    """The mean objective by one problem after the other, with autograd and nothing else."""
    seed = int(torch.randint(2**62, (), generator=generator()))
    stream = generator(seed)
    drawn = distribution.sample(n, generator=stream).to("cpu", torch.float64)
    batches = [drawn.draw(stream) for _ in range(steps + 1)]
    total = torch.zeros((), dtype=torch.float64)

    def part(tree, i):
        return torch.utils._pytree.tree_map(lambda t: t[i], tree)

    for i in range(n):
        params = {name: p[i].clone().requires_grad_() for name, p in drawn.params.items()}
        state = rule.init(params)
        for t in range(steps):
            loss = drawn.loss(params, part(drawn.given, i), part(batches[t], i))
            grads = torch.autograd.grad(loss, list(params.values()), create_graph=True)
            grads = {k: g if second_order else g.detach() for k, g in zip(params, grads, strict=True)}
            params, state = rule.step(params, grads, state)
            after = drawn.loss(params, part(drawn.given, i), part(batches[t + 1], i))
            total = total + (after.log() if objective == "log" else after) / (n * steps)
    return total


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("objective", ["log", "loss"])
def test_equals_a_plain_loop_over_problems(name, objective):
    rule = rule_of(name)
    estimate = Backpropagated(Quadratics(3), n=3, unroll=4, horizon=4, groups=1, objective=objective)
    loss = estimate(rule, generator())
    expected = plain_loop(rule, Quadratics(3), n=3, steps=4, objective=objective, second_order=True)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(flat_gradient(loss, rule), flat_gradient(expected, rule), rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("name", ["lstm", "mlp"])
def test_first_order_takes_gradients_as_constants(name):
    rule = rule_of(name)
    loss = Backpropagated(small_network(), n=2, unroll=4, horizon=4, groups=1, mode="first_order")(rule, generator())
    expected = plain_loop(rule, small_network(), n=2, steps=4, objective="log", second_order=False)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(flat_gradient(loss, rule), flat_gradient(expected, rule), rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("name", RULES)
def test_the_meta_gradient_agrees_with_differences(name):
    rule = rule_of(name)
    loss = Backpropagated(Quadratics(3), n=2, unroll=5, horizon=5, groups=1)(rule, generator())
    found = flat_gradient(loss, rule)
    direction = torch.randn(found.shape, generator=generator(7), dtype=torch.float64)

    def at(step: float) -> float:
        other, start = copy.deepcopy(rule), 0
        with torch.no_grad():
            for p in other.parameters():
                p += step * direction[start : start + p.numel()].view(p.shape)
                start += p.numel()
            return float(Backpropagated(Quadratics(3), n=2, unroll=5, horizon=5, groups=1)(other, generator()))

    difference = (at(1e-6) - at(-1e-6)) / 2e-6
    assert float(found @ direction) == pytest.approx(difference, rel=1e-6)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("distribution", [Quadratics(3), small_network()], ids=["quadratics", "network"])
def test_bounded_memory_gives_the_same_gradient(name, distribution):
    rule = rule_of(name)
    found = []
    for mode in ("reverse", "recompute", Truncated(4)):
        loss = Backpropagated(distribution, n=2, unroll=4, horizon=4, groups=1, mode=mode)(rule, generator())
        found.append(flat_gradient(loss, rule))
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found[2], found[0], rtol=1e-9, atol=1e-12)


def test_windows_of_a_horizon_add_up_to_it():
    rule = Drift()
    parts = Backpropagated(HalfSquares(), n=1, unroll=2, horizon=6, groups=1, objective="loss")
    whole = Backpropagated(HalfSquares(), n=1, unroll=6, horizon=6, groups=1, objective="loss")
    with torch.no_grad():
        found = [float(parts(rule, generator())) for _ in range(3)]
        assert sum(found) / 3 == pytest.approx(float(whole(rule, generator())), rel=1e-12)


def test_runs_end_at_different_times():
    runs = Backpropagated(HalfSquares(), n=1, unroll=2, horizon=8, groups=4).runs
    with torch.no_grad():
        lengths = []
        for _ in range(4):
            lengths.append(runs.next(Drift(), generator(), torch.zeros((), dtype=torch.float64))[0].left)
            runs.turn += 1
    assert lengths == [2, 4, 6, 8]


def test_the_whole_horizon_is_exact_and_a_part_of_it_is_not():
    rule, steps = Drift(), 20
    whole = Backpropagated(HalfSquares(), n=1, unroll=steps, horizon=steps, groups=1, objective="loss")
    assert float(flat_gradient(whole(rule, generator()), rule)) == pytest.approx(known_gradient(0.05, steps), rel=1e-12)
    parts = Backpropagated(HalfSquares(), n=1, unroll=5, horizon=steps, groups=1, objective="loss")
    found = [float(flat_gradient(parts(rule, generator()), rule)) for _ in range(4)]
    assert sum(found) / 4 > 0.5 * known_gradient(0.05, steps)  # the effect of earlier steps on later losses is missing


def test_late_steps_count_for_more():
    rule = Drift()
    found = Backpropagated(HalfSquares(), n=1, unroll=4, horizon=4, groups=1, objective="loss", late=1.0)
    value = float(found(rule, generator()).detach())
    expected = sum(2 * t / 5 * 0.5 * (3 - 0.05 * t) ** 2 for t in range(1, 5)) / 4
    assert value == pytest.approx(expected, rel=1e-12)


class Exploding:
    """Half of the problems are ½θ², the others −θ²·10^k: the rule's steps blow them up."""

    def sample(self, n: int, *, generator: torch.Generator) -> Problems:
        factor = torch.where(torch.arange(n) % 2 == 0, 1.0, 1e3)
        return Problems(
            {"theta": torch.ones(n, 1)},
            factor,
            lambda p, k, batch: torch.where(k > 1, torch.exp((k * p["theta"]).abs().sum()), p["theta"].square().sum()),
            lambda generator: (),
        )


def test_a_problem_that_diverges_is_given_up_and_counted():
    rule = LSTMRule(3, lr=0.1)
    estimate = Backpropagated(Exploding(), n=4, unroll=3, horizon=6, groups=1)
    loss = estimate(rule, generator())
    assert torch.isfinite(loss)
    assert torch.isfinite(flat_gradient(loss, rule)).all()
    assert float(estimate.runs.runs[0].alive.sum()) == 2


def test_runs_go_on_from_a_checkpoint_bit_for_bit():
    problems = Mixture([Quadratics(3), NetworkProblems(small_network().x.float(), small_network().y, widths=(3, 5))])

    def new():
        return Backpropagated(problems, n=2, unroll=2, horizon=6, groups=3)

    rule, first, g = MLPRule(4), new(), generator()
    with torch.no_grad():
        for _ in range(7):
            first(rule, g)
        saved, at = copy.deepcopy(first.state_dict()), g.get_state()
        expected = [float(first(rule, g)) for _ in range(8)]
        second, g = new(), generator()
        second.load_state_dict(saved, rule)
        g.set_state(at)
        assert [float(second(rule, g)) for _ in range(8)] == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": 0}, "n=0"),
        ({"unroll": 30, "horizon": 100}, "a multiple of unroll"),
        ({"groups": 0}, "groups=0"),
        ({"objective": "final"}, "choose 'log' or 'loss'"),
        ({"mode": Implicit()}, "required is 'reverse'"),
        ({"mode": "exact"}, "mode='exact'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Backpropagated(Quadratics(), **settings)


def test_a_rule_without_weights_is_refused():
    from quickstudy.inner import SGD

    with pytest.raises(ValueError, match="SGD has no parameters to learn"):
        Backpropagated(Quadratics())(SGD(0.1), generator())
