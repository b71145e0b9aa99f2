"""MAML against an explicit loop with ``torch.autograd.grad``, and its heads against what they should be."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call

import quickstudy as q
from quickstudy.backbones.norm import Standardize
from quickstudy.inner import SGD, Implicit, LearnedRates, unroll
from tests.contract import CASES, conv, episodes, one, smooth


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_default_dtype(torch.float32)


def explicit_meta_gradient(network, episode, *, lr, steps, first_order):
    """Section 2.2 written out: no torch.func, no library code."""
    names, start = zip(*network.named_parameters(), strict=True)
    fast = list(start)
    for _ in range(steps):
        logits = functional_call(network, dict(zip(names, fast, strict=True)), (episode.support.x,))
        loss = -(episode.support.y * logits.log_softmax(-1)).sum() / len(logits)
        grads = torch.autograd.grad(loss, fast, create_graph=not first_order)
        fast = [p - lr * g for p, g in zip(fast, grads, strict=True)]
    logits = functional_call(network, dict(zip(names, fast, strict=True)), (episode.query.x,))
    loss = -(episode.query.y * logits.log_softmax(-1)).sum() / len(logits)
    return loss, torch.autograd.grad(loss, start)


@pytest.mark.parametrize("first_order", [False, True])
def test_the_meta_gradient_is_that_of_the_explicit_loop(first_order):
    network, episode = smooth(), one(CASES["maml, own output"])
    learner = q.MAML(network, head=None, inner_lr=0.3, inner_steps=4, first_order=first_order)
    loss = q.unrolled(learner, q.Episode(*(q.Labelled(x[None], y[None]) for x, y in episode)))
    grads = torch.autograd.grad(loss, list(network.parameters()))
    expected, expected_grads = explicit_meta_gradient(network, episode, lr=0.3, steps=4, first_order=first_order)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    for ours, theirs in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)


def test_a_class_vector_that_all_classes_share_cancels():
    """Start the shared head from any common vector instead of 0: predictions and meta-gradient stay the same."""
    learner, episode = q.MAML(smooth(), inner_lr=0.3, inner_steps=3), one(CASES["maml, shared"])
    common = torch.randn(5, requires_grad=True)
    start = {f"network.{name}": p for name, p in learner.network.named_parameters()}
    start |= {"head.weight": common.expand(5, 5), "head.bias": torch.zeros(5)}

    def loss(params, part):
        return learner.loss(learner.forward_with(params, part.x), part.y)

    phi = unroll(SGD(0.3), lambda p: loss(p, episode.support), start, steps=3)
    parameters = [*learner.network.parameters()]
    grads = torch.autograd.grad(loss(phi, episode.query), [*parameters, common])
    own = learner.meta_loss(episode)
    for ours, theirs in zip(torch.autograd.grad(own, parameters), grads, strict=False):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    assert float(grads[-1].abs().max()) < 1e-12


def test_without_inner_steps_the_prototype_head_is_a_protonet():
    network, episode = smooth(), one(CASES["maml, prototypes"])
    maml, protonet = q.MAML(network, head="prototypes", inner_steps=0), q.ProtoNet(network)
    ours, theirs = (
        learner.predict(learner.adapt(episode.support), episode.query.x).log_softmax(-1) for learner in (maml, protonet)
    )
    torch.testing.assert_close(ours, theirs)


def test_without_inner_steps_the_shared_head_knows_nothing():
    learner, episode = q.MAML(smooth(), inner_steps=0), one(CASES["maml, shared"])
    probability = learner.predict(learner.adapt(episode.support), episode.query.x).softmax(-1)
    torch.testing.assert_close(probability, torch.full_like(probability, 0.2))


def test_more_steps_at_test_than_in_training():
    learner, episode = q.MAML(smooth(), inner_lr=0.1, inner_steps=1), one(CASES["maml, shared"])
    losses = []
    for steps in (0, 1, 5, 20):
        learner.inner_steps = steps
        prediction = learner.predict(learner.adapt(episode.support), episode.support.x)
        losses.append(float(learner.loss(prediction, episode.support.y).detach()))
    assert losses == sorted(losses, reverse=True)


def test_adaptation_is_the_same_with_and_without_gradients():
    learner, episode = q.MAML(smooth(), inner_steps=2), one(CASES["maml, shared"])
    with torch.no_grad():
        quiet = learner.adapt(episode.support)
    for name, value in learner.adapt(episode.support).items():
        assert torch.equal(value, quiet[name])


def test_the_network_itself_never_changes():
    learner = q.MAML(smooth(), inner_steps=3, inner_lr=1.0)
    before = copy.deepcopy(learner.state_dict())
    q.unrolled(learner, episodes(CASES["maml, shared"]))
    assert all(torch.equal(value, before[name]) for name, value in learner.state_dict().items())


def steps_of(network, loss, start, support, *, rates, first_order=False):
    """Parameters before and after each of some plain steps, one rate for each step and tensor."""
    names, fast = zip(*start, strict=True)
    path = [dict(start)]
    for rate in rates:
        grads = torch.autograd.grad(loss(network(path[-1], support.x), support.y), fast, create_graph=not first_order)
        fast = [p - r * g for p, r, g in zip(fast, rate, grads, strict=True)]
        path.append(dict(zip(names, fast, strict=True)))
    return path


def equal_gradients(ours, theirs, wanted, *, tolerance=1e-9):
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=0)
    ours, theirs = (torch.autograd.grad(loss, wanted) for loss in (ours, theirs))
    scale = max(float(g.abs().max()) for g in theirs)
    assert max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True)) <= tolerance * scale


class Counting(nn.Module):
    """A linear layer that says how often it ran."""

    def __init__(self):
        super().__init__()
        self.linear, self.out_features, self.calls = nn.Linear(6, 5), 5, []

    def forward(self, x):
        self.calls.append(len(x))
        return torch.tanh(self.linear(x))


def test_anil_adapts_the_head_on_an_embedding_that_is_computed_once():
    network, episode = Counting(), one(CASES["maml, shared"])
    learner = q.MAML(network, adapts="head.*", inner_lr=0.5, inner_steps=4)
    phi = learner.adapt(episode.support)
    assert network.calls == [10]
    assert set(phi) == {"head.weight", "head.bias", "support.y"}
    z = network(episode.support.x)
    w, b = torch.zeros(5, 5, requires_grad=True), torch.zeros(5, requires_grad=True)
    for _ in range(4):
        dw, db = torch.autograd.grad(learner.loss(z @ w.T + b, episode.support.y), (w, b), create_graph=True)
        w, b = w - 0.5 * dw, b - 0.5 * db
    torch.testing.assert_close(phi["head.weight"], w, rtol=1e-10, atol=1e-14)
    expected = learner.loss(network(episode.query.x) @ w.T + b, episode.query.y)
    equal_gradients(learner.meta_loss(episode), expected, list(network.parameters()))


def test_boil_adapts_the_body_under_prototypes_that_stand_still():
    network, episode = smooth(), one(CASES["maml, prototypes"])
    learner = q.MAML(network, head="prototypes", adapts="network.*", inner_lr=0.1, inner_steps=3)
    phi, z = learner.adapt(episode.support), network(episode.support.x)
    centres = torch.stack([z[episode.support.y[:, k] == 1].mean(0) for k in range(5)])
    torch.testing.assert_close(phi["head.weight"], 2 * centres, rtol=1e-12, atol=0)
    for name, p in network.named_parameters():
        assert not torch.equal(phi[f"network.{name}"], p), name


def test_patterns_choose_what_adapts():
    learner = q.MAML(smooth(), head=None, adapts=("2.*", "network.0.bias"))
    assert set(learner.adapt(one(CASES["maml, own output"]).support)) == {
        "network.0.bias",
        "network.2.weight",
        "network.2.bias",
    }


def test_each_tensor_and_step_has_its_own_learned_rate():
    network, episode = smooth(), one(CASES["maml, own output"])
    learner = q.MAML(network, head=None, inner_lr=0.3, inner_steps=3, per_step_rates=True)
    named = list(network.named_parameters())
    rates = [learner.update_rule.rates[f"network.{name}"] for name, _ in named]
    with torch.no_grad():
        for rate in rates:
            rate.add_(0.2 * torch.randn(3))
    for steps in (3, 5):  # the last rate serves further steps
        learner.inner_steps = steps
        path = steps_of(
            lambda params, x: functional_call(network, params, (x,)),
            learner.loss,
            named,
            episode.support,
            rates=[[rate[min(t, 2)] for rate in rates] for t in range(steps)],
        )
        expected = learner.loss(functional_call(network, path[-1], (episode.query.x,)), episode.query.y)
        equal_gradients(learner.meta_loss(episode), expected, [*network.parameters(), *rates])


@pytest.mark.parametrize(
    ("progress", "weights"),
    [(0.0, (1 / 3, 1 / 3, 1 / 3)), (0.25, (1 / 6, 1 / 6, 2 / 3)), (0.5, (0, 0, 1)), (0.9, (0, 0, 1))],
)
@pytest.mark.parametrize("first_order", [False, True])
def test_multi_step_weighs_the_query_losses_of_all_steps(progress, weights, first_order):
    """Over the first half of training, from all alike to the last one alone."""
    network, episode = smooth(), one(CASES["maml, own output"])
    learner = q.MAML(network, head=None, inner_lr=0.3, inner_steps=3, multi_step=0.5, first_order=first_order)
    learner.train().progress = progress

    def forward(params, x):
        return functional_call(network, params, (x,))

    path = steps_of(
        forward,
        learner.loss,
        list(network.named_parameters()),
        episode.support,
        rates=[[0.3] * 4] * 3,
        first_order=first_order,
    )
    losses = [learner.loss(forward(params, episode.query.x), episode.query.y) for params in path[1:]]
    expected = sum(w * loss for w, loss in zip(weights, losses, strict=True))
    equal_gradients(learner.meta_loss(episode), expected, list(network.parameters()))
    torch.testing.assert_close(learner.eval().meta_loss(episode), losses[-1], rtol=1e-12, atol=0)


def test_early_gradients_are_first_order_where_asked_for():
    network, episode = smooth(), one(CASES["maml, own output"])
    learner = q.MAML(network, head=None, inner_lr=0.3, inner_steps=3, first_order_until=0.4).train()
    for progress, training, first_order in (
        (0.0, True, True),
        (0.39, True, True),
        (0.4, True, False),
        (0, False, False),
    ):
        learner.train(training).progress = progress
        plain = q.MAML(network, head=None, inner_lr=0.3, inner_steps=3, first_order=first_order)
        equal_gradients(learner.meta_loss(episode), plain.meta_loss(episode), list(network.parameters()))


def per_step(**arguments):
    network = nn.Sequential(nn.Linear(6, 8), Standardize(8), nn.Tanh(), nn.Linear(8, 5))
    return q.MAML(network, inner_lr=0.3, inner_steps=2, per_step_statistics=True, **arguments)


def by_hand(params, x, mean, var):
    x = x @ params["0.weight"].T + params["0.bias"]
    return torch.tanh((x - mean) / (var + 1e-5).sqrt()) @ params["3.weight"].T + params["3.bias"]


def test_statistics_of_each_step_are_those_that_the_step_saw():
    """One refresh: rows 0 and 1 describe the support set under φ_0 and φ_1, row 2 the queries under φ_2."""
    learner, episode = per_step(head=None).train(), one(CASES["maml, own output"])
    rows = learner.statistics["1"]
    assert rows.mean.shape == (3, 8)
    q.refresh_statistics(learner, episode)
    path = steps_of(
        lambda params, x: by_hand(params, x, *_moments(params, x, correction=0)),
        learner.loss,
        list(learner.network.named_parameters()),
        episode.support,
        rates=[[0.3] * 4] * 2,
    )
    for t, x in enumerate((episode.support.x, episode.support.x, episode.query.x)):
        mean, var = _moments(path[t], x, correction=1)
        torch.testing.assert_close(rows.mean[t], mean.detach(), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(rows.var[t], var.detach(), rtol=1e-9, atol=1e-12)
    assert rows.updates.tolist() == [1, 1, 1]
    assert learner.network[1].updates == 0
    before = rows.mean.clone()
    q.refresh_statistics(learner, one(CASES["maml, own output"], seed=5))
    assert bool((rows.mean != before).all())


def _moments(params, x, *, correction):
    z = x @ params["0.weight"].T + params["0.bias"]
    return z.mean(0), z.var(0, correction=correction)


def test_evaluation_normalises_each_step_by_its_own_statistics():
    learner, episode = per_step(head=None), one(CASES["maml, own output"])
    rows = learner.statistics["1"]
    with torch.no_grad():
        rows.mean.normal_()
        rows.var.uniform_(0.5, 2)
    named = list(learner.network.named_parameters())
    fast, loss = dict(named), learner.loss
    for t in range(2):
        prediction = by_hand(fast, episode.support.x, rows.mean[t], rows.var[t])
        grads = torch.autograd.grad(loss(prediction, episode.support.y), list(fast.values()), create_graph=True)
        fast = {name: p - 0.3 * g for (name, p), g in zip(fast.items(), grads, strict=True)}
    expected = loss(by_hand(fast, episode.query.x, rows.mean[2], rows.var[2]), episode.query.y)
    equal_gradients(learner.eval().meta_loss(episode), expected, [p for _, p in named])
    learner.inner_steps = 6  # the last row serves further steps
    assert torch.isfinite(learner.meta_loss(episode))


def test_prototypes_are_taken_with_the_statistics_of_the_first_step():
    learner, episode = per_step(head="prototypes").eval(), one(CASES["maml, prototypes"])
    rows = learner.statistics["1"]
    with torch.no_grad():
        rows.mean.normal_()
    z = by_hand(dict(learner.network.named_parameters()), episode.support.x, rows.mean[0], rows.var[0])
    centres = episode.support.y.T @ z / 2
    torch.testing.assert_close(learner._path(episode.support)[0]["head.weight"], 2 * centres, rtol=1e-10, atol=1e-12)


def test_statistics_of_each_step_are_saved(tmp_path):
    learner = q.MAML(conv(), head="prototypes", inner_steps=2, per_step_statistics=True)
    episode = one(CASES["maml, conv4"])
    q.refresh_statistics(learner.train(), episode)
    q.save(learner.eval(), tmp_path / "learner.safetensors")
    twin = q.load(tmp_path / "learner.safetensors")
    answers = [x.answer(episode.support, episode.query.x) for x in (learner, twin)]
    assert torch.equal(*answers)


@pytest.mark.parametrize("mode", ["reverse", "recompute"])
@pytest.mark.parametrize("head", ["shared", "prototypes", None])
@pytest.mark.parametrize("size", [3, 4, 10])
def test_parts_that_are_accumulated_are_the_whole_set(mode, head, size):
    network, episode = smooth(), one(CASES["maml, own output"])
    arguments = {"head": head, "inner_lr": 0.3, "inner_steps": 3}
    parts = q.MAML(network, inner_batch=size, accumulate=True, mode=mode, **arguments)
    whole = q.MAML(network, **arguments)
    equal_gradients(parts.meta_loss(episode), whole.meta_loss(episode), list(network.parameters()), tolerance=1e-12)


def test_parts_of_a_regression_weigh_by_their_examples():
    case = CASES["maml, sinusoid"]
    network, episode = case.build().network, one(case)
    arguments = {"head": None, "inner_lr": 0.05, "inner_steps": 2}
    parts = q.MAML(network, inner_batch=4, accumulate=True, **arguments)
    equal_gradients(
        parts.meta_loss(episode),
        q.MAML(network, **arguments).meta_loss(episode),
        list(network.parameters()),
        tolerance=1e-12,
    )


def test_without_accumulation_each_step_takes_the_next_part():
    network, (support, _) = smooth(), one(CASES["maml, own output"])
    phi = q.MAML(network, head=None, inner_lr=0.3, inner_steps=3, inner_batch=5).adapt(support)
    copied = copy.deepcopy(network)
    optimizer = torch.optim.SGD(copied.parameters(), lr=0.3)
    for t in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(copied(support.x[t % 2 :: 2]), support.y[t % 2 :: 2]).backward()
        optimizer.step()
    for ours, theirs in zip(phi.values(), copied.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", ["maml, shared", "maml, prototypes", "maml, layer norm", "maml, attention"])
def test_recomputed_and_reverse_meta_gradients_are_equal(name):
    learner, episode = CASES[name].build(), one(CASES[name])
    network = learner.network
    again = q.MAML(
        network, head=learner.head, inner_lr=learner.inner_lr, inner_steps=learner.inner_steps, mode="recompute"
    )
    wanted = [p for p in network.parameters() if p.requires_grad]
    equal_gradients(again.meta_loss(episode), learner.meta_loss(episode), wanted)


def test_another_rule_takes_the_steps_and_its_parameters_are_learned():
    network, episode = smooth(), one(CASES["maml, own output"])
    phi = q.MAML(network, head=None, inner_steps=4, rule=SGD(0.2, momentum=0.8)).adapt(episode.support)
    copied = copy.deepcopy(network)
    optimizer = torch.optim.SGD(copied.parameters(), lr=0.2, momentum=0.8)
    for _ in range(4):
        optimizer.zero_grad()
        nn.functional.cross_entropy(copied(episode.support.x), episode.support.y).backward()
        optimizer.step()
    for ours, theirs in zip(phi.values(), copied.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)
    rates = LearnedRates({f"network.{name}": p for name, p in network.named_parameters()}, 0.2)
    learner = q.MAML(network, head=None, rule=rates)
    assert len(list(learner.parameters())) == 2 * len(list(network.parameters()))
    grads = torch.autograd.grad(learner.meta_loss(episode), list(rates.parameters()))
    assert all(float(g.abs().sum()) > 0 for g in grads)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="head='linear'"):
        q.MAML(smooth(), head="linear")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="head=None"):
        q.MAML(smooth(), regression=True)
    with pytest.raises(ValueError, match=r"'1' of the network keeps running statistics.*replace_all_batch_norm"):
        q.MAML(nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)))
    with pytest.raises(ValueError, match=r"head='shared' or 'prototypes'"):
        q.MAML(smooth(), head=None).adapt(one(CASES["maml, shared"], way=4).support)
    with pytest.raises(ValueError, match="at least 0"):
        q.MAML(smooth(), inner_lr=-0.1)
    with pytest.raises(ValueError, match="inner_batch=-1; required is at least 0"):
        q.MAML(smooth(), inner_batch=-1)
    with pytest.raises(ValueError, match="mode='forward'; choose"):
        q.MAML(smooth(), mode="forward")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"'0' of the network gives sparse gradients.*sparse=False"):
        q.MAML(nn.Sequential(nn.Embedding(3, 4, sparse=True)))


def test_arguments_that_do_not_go_together_are_refused():
    with pytest.raises(ValueError, match="first_order=True and mode='recompute'; leave one of them out"):
        q.MAML(smooth(), first_order=True, mode="recompute")
    for mode in ("implicit", Implicit()):
        with pytest.raises(ValueError, match=r"needs a pull to θ.*use IMAML"):
            q.MAML(smooth(), mode=mode)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="a rule and per_step_rates were given"):
        q.MAML(smooth(), rule=SGD(0.1), per_step_rates=True)
    for argument in ({"multi_step": 0.5}, {"per_step_statistics": True}):
        with pytest.raises(ValueError, match="mode='recompute' gives the last parameters alone"):
            q.MAML(smooth(), mode="recompute", **argument)
    with pytest.raises(ValueError, match="per_step_statistics with inner_batch"):
        per_step(inner_batch=3)
    with pytest.raises(ValueError, match=r"no layer with population statistics.*norm='population'"):
        q.MAML(smooth(), per_step_statistics=True)
    with pytest.raises(ValueError, match=r"per_step_statistics with adapts='head\.\*': the network stands still"):
        per_step(adapts="head.*")
    with pytest.raises(ValueError, match=r"adapts='tail\.\*' names no parameter that can move"):
        q.MAML(smooth(), adapts="tail.*")
    with pytest.raises(ValueError, match=r"head='shared' starts all classes alike.*BOIL.*head='prototypes'"):
        q.MAML(smooth(), adapts="network.*")
