"""The LSTM meta-learner against sums over one element at a time, with Python's own numbers."""

import math

import pytest
import torch
from torch.func import functional_call

import quickstudy as q
from quickstudy.inner import Truncated
from quickstudy.learners import MAML, MetaLSTM
from quickstudy.optimizers.meta_lstm_rule import ONE, MetaLSTMRule
from tests.contract import CASES, episodes, one, smooth


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_default_dtype(torch.float32)


def built(**arguments) -> MetaLSTM:
    """A learner whose gates depend on all that they see: its weights are large."""
    learner = MetaLSTM(smooth(), **{"hidden": 3, "inner_lr": 0.3, "inner_steps": 3, **arguments})
    rule, generator = learner.update_rule, torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in rule.parameters():
            p.add_(0.5 * torch.randn(p.shape, generator=generator))
    return learner


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def read(v: float) -> list[float]:
    """Appendix A of Andrychowicz et al. with p = 10."""
    return [math.log(abs(v)) / 10, math.copysign(1, v)] if abs(v) >= math.exp(-10) else [-1.0, math.exp(10) * v]


class Element:
    """One element of θ with its own states."""

    def __init__(self, rule: MetaLSTMRule, theta: float):
        self.theta, self.i, self.f = theta, 0.0, 1.0
        self.h, self.c = [0.0] * rule.hidden, [0.0] * rule.hidden
        self.w, self.b = rule.lstm_weight.tolist(), rule.lstm_bias.tolist()
        self.gates, self.bias = rule.weight.tolist(), rule.bias.tolist()

    def step(self, g: float, loss: float) -> None:
        seen, n = [*read(g), *read(loss), *self.h], len(self.h)
        rows = [b + sum(w * x for w, x in zip(row, seen, strict=True)) for row, b in zip(self.w, self.b, strict=True)]
        for k in range(n):
            i, f, o, candidate = rows[k], rows[n + k], rows[2 * n + k], rows[3 * n + k]
            self.c[k] = sigmoid(f) * self.c[k] + sigmoid(i) * math.tanh(candidate)
            self.h[k] = sigmoid(o) * math.tanh(self.c[k])
        both = [*self.h, self.theta]
        w_i, w_f = self.gates
        self.i = sigmoid(self.bias[0] + sum(w * x for w, x in zip(w_i, [*both, self.i], strict=True)))
        self.f = sigmoid(self.bias[1] + sum(w * x for w, x in zip(w_f, [*both, self.f], strict=True)))
        self.theta = self.f * self.theta - self.i * g


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_every_element_goes_its_own_way_by_the_equations_of_the_paper(steps):
    learner, episode = built(head=None, inner_steps=steps), one(CASES["maml, own output"])
    network = learner.network
    theta = {name: p.detach().clone() for name, p in network.named_parameters()}
    elements = {name: [Element(learner.update_rule, v) for v in p.flatten().tolist()] for name, p in theta.items()}
    for _ in range(steps):
        fast = {name: p.requires_grad_() for name, p in theta.items()}
        loss = learner.loss(functional_call(network, fast, (episode.support.x,)), episode.support.y)
        grads = torch.autograd.grad(loss, list(fast.values()))
        for (name, own), g in zip(elements.items(), grads, strict=True):
            for element, number in zip(own, g.flatten().tolist(), strict=True):
                element.step(number, float(loss.detach()))
            theta[name] = torch.tensor([element.theta for element in own]).view(g.shape)
    adapted = learner.adapt(episode.support)
    assert set(adapted) == {f"network.{name}" for name in theta}
    for name, expected in theta.items():
        torch.testing.assert_close(adapted[f"network.{name}"], expected, rtol=1e-11, atol=1e-13)


def test_small_gradients_and_losses_are_read_linearly():
    """One weight, whose gradient and loss are below e⁻¹⁰."""
    rule = built().update_rule
    element = Element(rule, 0.7)
    params, state = {"w": torch.tensor([0.7]), ONE: torch.ones(())}, None
    for g, loss in ((1e-7, 2e-6), (-3e-5, 0.0), (0.0, 4.0)):
        state = rule.init(params) if state is None else state
        params, state = rule.step(params, {"w": torch.tensor([g]), ONE: torch.tensor(loss)}, state)
        element.step(g, loss)
        assert float(params["w"].detach()) == pytest.approx(element.theta, rel=1e-12)
    assert float(params[ONE]) == 1


@pytest.mark.parametrize("head", ["shared", "prototypes", None])
def test_the_meta_gradient_is_that_of_differences(head):
    episode = one(CASES["maml, own output"])
    assert float(q.check_meta_gradient(built(head=head), episode)) <= 1e-6
    assert float(q.check_meta_gradient(built(head=head, mode="first_order"), episode)) > 1e-3


def meta_gradient(learner: MetaLSTM, strategy="loop") -> torch.Tensor:
    loss = q.unrolled(learner, episodes(CASES["maml, own output"], 3), strategy=strategy)
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(learner.parameters()))])


@pytest.mark.parametrize("head", ["shared", "prototypes", None])
@pytest.mark.parametrize("mode", ["recompute", Truncated(last=3)], ids=str)
def test_exact_modes_agree(mode, head):
    torch.manual_seed(0)
    expected = meta_gradient(built(head=head))
    torch.manual_seed(0)
    torch.testing.assert_close(meta_gradient(built(head=head, mode=mode)), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("strategy", "mode"),
    [*((s, m) for s in ("vmap", "threads") for m in ("reverse", "recompute", "first_order")), ("trace", "reverse")],
)
def test_strategies_agree(strategy, mode):
    learner = built(mode=mode)
    torch.testing.assert_close(meta_gradient(learner, strategy), meta_gradient(learner), rtol=1e-9, atol=1e-12)


def test_first_order_takes_gradients_and_losses_as_constants():
    """Section 3.3.1, written out: derivatives flow through cell states, gates and hidden states alone."""
    learner, episode = built(head=None, inner_steps=2, mode="first_order"), one(CASES["maml, own output"])
    names, start = zip(*learner.network.named_parameters(), strict=True)
    rule = learner.update_rule
    params = {**dict(zip(names, start, strict=True)), ONE: torch.ones(())}
    state = rule.init(params)
    for _ in range(2):
        fast = [params[name].detach().requires_grad_() for name in names]
        output = functional_call(learner.network, dict(zip(names, fast, strict=True)), (episode.support.x,))
        loss = learner.loss(output, episode.support.y)
        grads = dict(zip(names, torch.autograd.grad(loss, fast), strict=True))
        params, state = rule.step(params, {**grads, ONE: loss.detach()}, state)
    output = functional_call(learner.network, {name: params[name] for name in names}, (episode.query.x,))
    wanted = [*start, *rule.parameters()]
    expected = torch.autograd.grad(learner.loss(output, episode.query.y), wanted)
    ours = torch.autograd.grad(learner.meta_loss(episode), wanted)
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("head", ["shared", "prototypes", None])
def test_it_starts_close_to_gradient_descent(head):
    """Gates see little at first, and a forget gate next to 1 keeps all."""
    network, episode = smooth(), one(CASES["maml, own output"])
    ours = MetaLSTM(network, head=head, inner_lr=0.2, inner_steps=3, forget=1 - 1e-6).adapt(episode.support)
    theirs = MAML(network, head=head, inner_lr=0.2, inner_steps=3).adapt(episode.support)
    start = MAML(network, head=head, inner_steps=0).adapt(episode.support)
    for name in set(start) - {"support.y"}:
        moved = float((theirs[name] - start[name]).norm().detach())
        assert float((ours[name] - theirs[name]).norm().detach()) < 0.05 * moved


def test_no_steps_answer_with_the_start():
    learner, episode = built(inner_steps=0), one(CASES["maml, shared"])
    start = MAML(learner.network, head="prototypes", inner_steps=0)
    answers = [each.answer(episode.support, episode.query.x) for each in (learner, start)]
    assert torch.equal(*answers)


def test_its_weights_are_the_same_for_all_elements_so_it_serves_any_way_and_network():
    learner = built(head="shared")
    for way in (2, 7):
        episode = one(CASES["maml, shared"], way=way)
        assert learner.answer(episode.support, episode.query.x).shape == (3 * way, way)
    sizes = [
        sum(p.numel() for p in MetaLSTM(q.MLP(6, (width,), 5), hidden=4).update_rule.parameters()) for width in (3, 300)
    ]
    assert sizes[0] == sizes[1] == 4 * 4 * (4 + 4) + 4 * 4 + 2 * (4 + 2) + 2


@pytest.mark.parametrize("inner_batch", [2, 5])
def test_parts_of_the_support_set_give_its_whole_loss(inner_batch):
    torch.manual_seed(0)
    expected = meta_gradient(built())
    torch.manual_seed(0)
    learner = built(inner_batch=inner_batch, accumulate=True)
    torch.testing.assert_close(meta_gradient(learner), expected, rtol=1e-9, atol=1e-12)


def test_only_what_adapts_moves():
    learner = built(head="shared", adapts="head.*")
    assert set(learner.adapt(one(CASES["maml, shared"]).support)) == {"head.weight", "head.bias", "support.y"}


def test_a_saved_learner_answers_alike(tmp_path):
    episode = one(CASES["maml, own output"])
    learner = MetaLSTM(q.MLP(6, (8,), 5), hidden=3, inner_steps=2, forget=0.9, seed=4)
    with torch.no_grad():
        learner.update_rule.bias.add_(0.1)
    q.save(learner, tmp_path / "learner.safetensors")
    twin = q.load(tmp_path / "learner.safetensors")
    assert torch.equal(
        twin.answer(episode.support, episode.query.x), learner.eval().answer(episode.support, episode.query.x)
    )


def test_bad_arguments_are_refused():
    for wrong in ({"inner_lr": 0.0}, {"inner_lr": 1.0}, {"forget": 1.0}, {"forget": -0.1}):
        with pytest.raises(ValueError, match=r"required is between 0 and 1: both are first values of gates"):
            MetaLSTM(smooth(), **wrong)
    with pytest.raises(ValueError, match=r"hidden=0, p=10\.0; required is at least 1 unit, and p above 0"):
        MetaLSTM(smooth(), hidden=0)
    with pytest.raises(ValueError, match=r"hidden=8, p=0; required"):
        MetaLSTMRule(p=0)


def test_the_rule_alone_wants_to_know_losses():
    learner = MAML(smooth(), rule=MetaLSTMRule(), inner_steps=2)
    with pytest.raises(ValueError, match=r"\['network\.0\.weight'.*without 'one', whose gradient is the loss: pass"):
        learner.adapt(one(CASES["maml, shared"]).support)


def test_the_implicit_mode_is_refused_with_a_reason():
    with pytest.raises(ValueError, match="does not say where it stands still"):
        built(mode="implicit").adapt(one(CASES["maml, shared"]).support)
