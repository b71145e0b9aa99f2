"""The rule as a torch optimizer: it steps as the rule says, and behaves as optimizers do."""

import copy
import io
import math
import pickle
import re
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import quickstudy as q
from quickstudy import inner
from quickstudy.optimizers import (
    RULES,
    CoordinatewiseRule,
    LearnedOptimizer,
    LSTMRule,
    MLPRule,
    TunedAdam,
    TunedSGD,
    coordinatewise,
    rule_file,
    save_rule,
)

PAGE = Path(__file__).parents[2] / "docs" / "learned_optimizer.md"
COORDINATEWISE = {name: cls for name, cls in RULES.items() if issubclass(cls, CoordinatewiseRule)}
BUILD = {
    "lstm": lambda: stirred(LSTMRule(3)),
    "mlp": lambda: stirred(MLPRule(4)),
    "sgd": lambda: stirred(TunedSGD(["b"])),
    "adam": lambda: stirred(TunedAdam(["b"])),
}
SHAPES = {"a": (3, 4), "b": (5,), "c": (), "d": (2, 3, 2)}


def stirred(rule: nn.Module) -> nn.Module:
    """Weights that do something."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in rule.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=generator))
    return rule


def tensors(seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in SHAPES.items()}


def parameters(seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, nn.Parameter]:
    return {name: nn.Parameter(p) for name, p in tensors(seed, dtype).items()}


def set_gradients(params: dict[str, nn.Parameter], seed: int) -> None:
    for (name, g), size in zip(tensors(seed).items(), (1.0, 1e-3, 10.0, 1e-6), strict=True):
        params[name].grad = (size * g).to(params[name].dtype)


def walk(optimizer: torch.optim.Optimizer, params: dict[str, nn.Parameter], seeds: range) -> None:
    for seed in seeds:
        set_gradients(params, seed)
        optimizer.step()


def equal(one: dict[str, nn.Parameter], two: dict[str, nn.Parameter]) -> bool:
    return all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture(params=[1 << 14, 48, 8], ids=["together", "some alone", "in parts"])
def chunk(request, monkeypatch):
    """All tensors in one call; the large ones alone; most of them alone and in parts."""
    monkeypatch.setattr(coordinatewise, "_CHUNK", request.param)


# --- what a step does


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", BUILD)
def test_it_steps_as_the_rule_does_on_a_dict(name, dtype, chunk):
    rule = BUILD[name]()
    params, expected = parameters(dtype=dtype), dict(tensors(dtype=dtype))
    optimizer = LearnedOptimizer(params.items(), rule)
    exact = copy.deepcopy(rule).to(dtype)
    state = exact.init(expected)
    for seed in range(1, 8):
        set_gradients(params, seed)
        optimizer.step()
        with torch.no_grad():
            expected, state = exact.step(expected, {key: p.grad for key, p in params.items()}, state)
        for key, p in params.items():
            torch.testing.assert_close(
                p.detach(), expected[key], rtol=1e-12 if dtype == torch.float64 else 2e-5, atol=1e-12
            )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", COORDINATEWISE)
def test_a_step_in_place_equals_update_whatever_the_chunks(name, dtype, monkeypatch, generator):
    monkeypatch.setattr(coordinatewise, "_CHUNK", 32)
    rule, n = BUILD[name]().to(dtype).requires_grad_(False), 77
    p = torch.randn(n, generator=generator, dtype=dtype)
    expected, state = p.clone(), rule.start(p)
    scales, now = p.new_zeros(2, 1), rule.start(p)["elements"]
    rtol, atol = (1e-12, 1e-14) if dtype == torch.float64 else (1e-5, 1e-7)
    for t in range(5):
        g = 10.0**-t * torch.randn(n, generator=generator, dtype=dtype)
        g[3] = 0
        scales = coordinatewise.next_scales(scales, g.square().mean()[None])
        delta, state = rule.update(g, scales, state)
        expected = expected + 0.5 * delta
        rule.update_in_place(p, g, scales, now, t, 0.5)
        torch.testing.assert_close(p, expected, rtol=rtol, atol=atol)
        torch.testing.assert_close(now, state["elements"], rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", COORDINATEWISE)
def test_elements_of_the_default_chunks_agree_with_the_whole(name):
    rule, n = BUILD[name]().requires_grad_(False), coordinatewise._CHUNK + 5
    g = torch.linspace(-1, 1, n)
    p, state, scales = torch.zeros(n), rule.start(g), torch.tensor([[0.5], [0.3]])
    delta, _ = rule.update(g, scales, state)
    rule.update_in_place(p, g, scales, state["elements"], 0, 1.0)
    torch.testing.assert_close(p, delta, rtol=1e-5, atol=1e-8)


def test_tuned_adam_is_adam_and_tuned_sgd_is_momentum():
    for rule, theirs in [
        (TunedAdam(lr=0.03, betas=(0.8, 0.95)), lambda p: torch.optim.Adam(p, lr=0.03, betas=(0.8, 0.95))),
        (TunedSGD(lr=0.03, momentum=0.8), lambda p: torch.optim.SGD(p, lr=0.03, momentum=0.8)),
    ]:
        params, twin = parameters(dtype=torch.float64), parameters(dtype=torch.float64)
        walk(LearnedOptimizer(params.values(), rule.double()), params, range(1, 9))
        walk(theirs(twin.values()), twin, range(1, 9))
        for name in ("a", "b", "c"):  # ε is inside the root here, which tiny gradients notice
            torch.testing.assert_close(params[name], twin[name], rtol=1e-5, atol=1e-6)


def test_numbers_of_each_tensor_are_found_by_its_name():
    rule = TunedSGD(["b"], lr=0.1)
    with torch.no_grad():
        rule.log_lr.own["/b"].fill_(math.log(3.0))
    named, nameless, start = parameters(), parameters(), tensors()
    walk(LearnedOptimizer(named.items(), rule), named, range(1, 2))
    walk(LearnedOptimizer(nameless.values(), rule), nameless, range(1, 2))
    assert torch.equal(named["a"], nameless["a"])
    torch.testing.assert_close(named["b"] - start["b"], 3 * (nameless["b"] - start["b"]), rtol=1e-3, atol=1e-6)


def test_lr_of_a_group_is_a_factor_of_the_step():
    for name in BUILD:
        params, twin, start = parameters(), parameters(), tensors()
        groups = [{"params": [params["a"]], "lr": 0.25}, {"params": [params["b"], params["c"], params["d"]]}]
        walk(LearnedOptimizer(groups, BUILD[name]()), params, range(1, 2))
        walk(LearnedOptimizer(twin.values(), BUILD[name]()), twin, range(1, 2))
        torch.testing.assert_close(params["a"] - start["a"], 0.25 * (twin["a"] - start["a"]), rtol=1e-3, atol=1e-6)
        assert torch.equal(params["b"], twin["b"])


def test_with_lr_0_nothing_moves_and_the_state_goes_on():
    params = parameters()
    optimizer = LearnedOptimizer(params.values(), MLPRule(4), lr=0.0)
    walk(optimizer, params, range(1, 4))
    assert equal(params, parameters())
    assert {float(state["t"]) for state in optimizer.state.values()} == {3.0}


@pytest.mark.parametrize("name", BUILD)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_single_precision(name, dtype, chunk):
    params = parameters(dtype=dtype)
    twin = {key: nn.Parameter(p.detach().float()) for key, p in params.items()}
    optimizer, single = (LearnedOptimizer(each.items(), BUILD[name]()) for each in (params, twin))
    for seed in range(1, 6):
        set_gradients(params, seed)
        for key, p in params.items():
            assert p.grad is not None
            twin[key].grad = p.grad.float()
        optimizer.step()
        single.step()
        for key, p in params.items():
            assert p.dtype == dtype
            assert torch.equal(p, twin[key].to(dtype)), key
            twin[key].data.copy_(p.detach())
    assert {t.dtype for state in optimizer.state.values() for t in leaves(state)} == {torch.float32}


def leaves(state) -> list[torch.Tensor]:
    return [t for t in torch.utils._pytree.tree_leaves(state) if isinstance(t, torch.Tensor)]


def test_parameters_of_any_layout_step_alike(generator, chunk):
    start, g = torch.randn(4, 6, generator=generator), torch.randn(4, 6, generator=generator)
    results = []
    for params, gradient in [
        (start.clone(), g),
        (start.t().contiguous().t(), g),
        (start.clone(), g.t().contiguous().t()),
        (torch.cat([start, start])[::2].copy_(start), g),
    ]:
        p = nn.Parameter(params)
        optimizer = LearnedOptimizer([p], BUILD["lstm"]())
        for _ in range(3):
            p.grad = gradient
            optimizer.step()
        assert p.stride() == params.stride()
        results.append(p.detach())
    assert all(torch.equal(results[0], other) for other in results[1:])


def test_empty_parameters_and_those_without_a_gradient_are_left_out():
    empty, idle, p = nn.Parameter(torch.zeros(0, 3)), nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    for rule in (MLPRule(4), TunedAdam()):
        optimizer = LearnedOptimizer([empty, idle, p], rule)
        optimizer.step()
        assert not optimizer.state
        (p.sum() + empty.sum()).backward()
        optimizer.step()
        assert torch.equal(idle, torch.ones(2))
        assert set(optimizer.state) == {p}
        optimizer.zero_grad()
        assert p.grad is None


@pytest.mark.parametrize("name", BUILD)
def test_tensors_that_joined_at_different_times_step_as_if_alone(name, chunk):
    rule, params, alone = BUILD[name](), parameters(), parameters()
    optimizer = LearnedOptimizer(params.items(), rule)
    of_each = {key: LearnedOptimizer([(key, p)], rule) for key, p in alone.items()}
    for seed, missing in enumerate(["abc", "bd", "", "a", "cd", ""]):
        set_gradients(params, seed)
        set_gradients(alone, seed)
        for key in missing:
            params[key].grad = alone[key].grad = None
        optimizer.step()
        for each in of_each.values():
            each.step()
    for key in params:
        torch.testing.assert_close(params[key], alone[key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "rule",
    [
        inner.SGD(0.1),
        inner.SGD(0.1, momentum=0.9, nesterov=True),
        inner.Proximal(inner.SGD(0.1), 0.5),
        inner.TorchOptim("Adam", lr=0.1),
        inner.ByName({"*": inner.SGD(0.1)}),
    ],
    ids=["SGD", "Nesterov", "Proximal", "TorchOptim", "ByName"],
)
def test_rules_of_the_inner_loop_work_too(rule):
    params, expected = parameters(), dict(tensors())
    optimizer, state = LearnedOptimizer(params.items(), rule), rule.init(expected)
    for seed in range(1, 5):
        set_gradients(params, seed)
        optimizer.step()
        with torch.no_grad():
            expected, state = rule.step(expected, {key: p.grad for key, p in params.items()}, state)
        for key, p in params.items():
            torch.testing.assert_close(p.detach(), expected[key])
    twin = LearnedOptimizer(params.items(), rule)
    twin.load_state_dict(optimizer.state_dict())
    walk(twin, params, range(5, 6))


def test_no_graph_is_built_and_the_rule_is_not_touched():
    rule = BUILD["mlp"]()
    before = copy.deepcopy(rule.state_dict())
    params = parameters()
    optimizer = LearnedOptimizer(params.values(), rule)
    walk(optimizer, params, range(1, 3))
    assert all(p.requires_grad and p.grad_fn is None for p in params.values())
    assert not any(t.requires_grad for state in optimizer.state.values() for t in leaves(state))
    assert all(p.requires_grad and p.grad is None for p in rule.parameters())
    assert not any(p.requires_grad for p in optimizer.rule.parameters())
    assert all(torch.equal(value, before[key]) for key, value in rule.state_dict().items())


def test_a_backward_pass_over_what_was_changed_is_noticed():
    p = nn.Parameter(torch.ones(3))
    loss = (p * p).sum()
    p.grad = torch.ones(3)
    LearnedOptimizer([p], MLPRule(4)).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


# --- what users do with optimizers


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", BUILD)
def test_it_goes_on_from_a_state_dict_to_the_bit(name, dtype, chunk):
    params = parameters(dtype=dtype)
    optimizer = LearnedOptimizer(params.items(), BUILD[name](), lr=0.7)
    walk(optimizer, params, range(1, 4))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    twin = {key: nn.Parameter(p.detach().clone()) for key, p in params.items()}
    again = LearnedOptimizer(twin.items(), BUILD[name]())
    again.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    assert again.param_groups[0]["lr"] == 0.7
    walk(optimizer, params, range(4, 7))
    walk(again, twin, range(4, 7))
    assert equal(params, twin)


def test_a_loaded_state_is_a_copy_and_hooks_around_it_see_the_right_precision():
    params = parameters(dtype=torch.float16)
    optimizer = LearnedOptimizer(params.values(), MLPRule(4))
    walk(optimizer, params, range(1, 3))
    saved = optimizer.state_dict()
    kept = copy.deepcopy(saved["state"])
    seen = []
    again = LearnedOptimizer(params.values(), MLPRule(4))
    again.register_load_state_dict_pre_hook(lambda _, d: {**d, "param_groups": [{**d["param_groups"][0], "lr": 0.5}]})
    again.register_load_state_dict_post_hook(lambda o: seen.append(o.state[params["a"]]["elements"].dtype))
    again.load_state_dict(saved)
    assert again.param_groups[0]["lr"] == 0.5
    assert seen == [torch.float32]
    walk(again, params, range(3, 5))
    for number, state in saved["state"].items():
        assert all(torch.equal(one, two) for one, two in zip(leaves(state), leaves(kept[number]), strict=True))
    again.load_state_dict(saved)
    assert len(seen) == 2


def test_the_state_of_parameters_that_got_names_fits_them():
    params, twin = parameters(), parameters()
    optimizer = LearnedOptimizer(params.values(), TunedAdam())
    walk(optimizer, params, range(1, 3))
    walk(LearnedOptimizer(twin.values(), TunedAdam()), twin, range(1, 3))
    named = LearnedOptimizer(twin.items(), TunedAdam())
    named.load_state_dict(optimizer.state_dict())
    walk(optimizer, params, range(3, 5))
    walk(named, twin, range(3, 5))
    assert equal(params, twin)


def test_the_state_of_another_rule_or_model_is_refused():
    params = parameters()
    optimizer = LearnedOptimizer(params.items(), MLPRule(4))
    for other in (
        LearnedOptimizer(params.items(), LSTMRule(3)),
        LearnedOptimizer(params.items(), TunedAdam()),
        torch.optim.Adam(params.items()),
    ):
        walk(other, params, range(1, 2))
        with pytest.raises(ValueError, match=r"the state of parameter 'a' of shape \(3, 4\) is of another .*required"):
            optimizer.load_state_dict(other.state_dict())
    assert not optimizer.state
    wider = LearnedOptimizer([(name, nn.Parameter(torch.ones(7))) for name in params], MLPRule(4))
    for p in wider.param_groups[0]["params"]:
        p.grad = torch.ones(7)
    wider.step()
    with pytest.raises(ValueError, match=r"given .*'elements': \(3, 7\).*, required .*'elements': \(3, 12\)"):
        optimizer.load_state_dict(wider.state_dict())
    fewer = LearnedOptimizer(list(params.items())[:2], MLPRule(4))
    with pytest.raises(ValueError, match="match the size of optimizer's group"):
        optimizer.load_state_dict(fewer.state_dict())
    walk(optimizer, params, range(1, 2))


@pytest.mark.parametrize("name", BUILD)
def test_copies_and_pickles_keep_the_rule_and_go_on_alike(name):
    params = parameters()
    optimizer = LearnedOptimizer(params.items(), BUILD[name](), nonfinite="raise")
    walk(optimizer, params, range(1, 3))
    for copied in (copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))):
        twin, again = copied((params, optimizer))
        assert again.nonfinite == "raise"
        assert type(again.rule) is type(optimizer.rule)
        walk(again, twin, range(3, 5))
        assert not equal(params, twin)
        expected, original = copy.deepcopy((params, optimizer))
        walk(original, expected, range(3, 5))
        assert equal(expected, twin)


def test_schedulers_set_the_factor():
    p = nn.Parameter(torch.ones(2))
    optimizer = LearnedOptimizer([p], MLPRule(4), lr=2.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 0.5**t)
    rates = []
    for _ in range(3):
        p.grad = torch.ones(2)
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == [1.0, 0.5, 0.25]
    optimizer = LearnedOptimizer([p], MLPRule(4))
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=2)
    for rate in (0.5, 0.0):
        optimizer.step()
        scheduler.step()
        assert optimizer.param_groups[0]["lr"] == pytest.approx(rate, abs=1e-12)
    before = p.detach().clone()
    p.grad = torch.ones(2)
    optimizer.step()
    torch.testing.assert_close(p.detach(), before, rtol=0, atol=1e-7)


def test_clipped_gradients_are_what_it_sees():
    params, twin = parameters(), parameters()
    optimizer, other = (LearnedOptimizer(each.values(), TunedSGD(lr=0.1)) for each in (params, twin))
    set_gradients(params, 1)
    set_gradients(twin, 1)
    norm = torch.nn.utils.clip_grad_norm_(params.values(), 0.1)
    optimizer.step()
    other.step()
    start = tensors()
    for name in ("a", "c"):
        expected = (twin[name].detach() - start[name]) * 0.1 / norm
        torch.testing.assert_close(params[name].detach() - start[name], expected, rtol=1e-3, atol=1e-6)


def test_a_closure_is_called_with_gradients_and_its_loss_returned():
    p = nn.Parameter(torch.tensor([2.0, -1.0]))
    optimizer = LearnedOptimizer([p], MLPRule(4))

    def closure():
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    with torch.no_grad():
        losses = [float(optimizer.step(closure)) for _ in range(20)]
    assert losses[0] == 5
    assert losses[-1] < losses[0]
    assert optimizer.step() is None


def test_groups_can_be_added_and_hooks_are_called():
    params = parameters()
    optimizer = LearnedOptimizer([params["a"]], MLPRule(4))
    calls = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    optimizer.add_param_group({"params": params["b"], "lr": 0.5})
    walk(optimizer, params, range(1, 2))
    assert calls == ["before", "after"]
    assert torch.equal(params["c"], tensors()["c"])
    assert not torch.equal(params["b"], tensors()["b"])
    assert [group["lr"] for group in optimizer.param_groups] == [1.0, 0.5]


def test_scaled_gradients_of_mixed_precision():
    params, twin = parameters(), parameters()
    optimizer = LearnedOptimizer(params.values(), MLPRule(4))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    loss = sum((p * p).sum() for p in params.values())
    scaler.scale(loss).backward()  # pyright: ignore[reportAttributeAccessIssue]
    scaler.step(optimizer)
    scaler.update()
    sum((p * p).sum() for p in twin.values()).backward()  # pyright: ignore[reportAttributeAccessIssue]
    LearnedOptimizer(twin.values(), MLPRule(4)).step()
    assert equal(params, twin)


def test_parameters_may_change_their_precision_between_steps():
    model = nn.Linear(3, 2)
    optimizer = LearnedOptimizer(model.parameters(), MLPRule(4))
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        model.to(dtype)
        optimizer.zero_grad()
        model(torch.ones(1, 3, dtype=dtype)).sum().backward()
        optimizer.step()
    assert optimizer.state[model.weight]["t"] == 3


@pytest.mark.parametrize("name", RULES)
def test_memory_is_stated_and_does_not_grow(name):
    p = nn.Parameter(torch.ones(100, 10))
    optimizer = LearnedOptimizer([p], RULES[name]())
    assert optimizer.state_bytes() == 0
    for _ in range(4):
        p.grad = torch.ones_like(p)
        optimizer.step()
        assert 0 <= optimizer.state_bytes() - 1000 * optimizer.bytes_per_parameter <= 8
    (row,) = re.findall(rf"\| `{type(optimizer.rule).__name__}` \|.*\| (\d+) \|", PAGE.read_text())
    assert optimizer.bytes_per_parameter == int(row)


def test_it_comes_from_the_package_and_opens_rules_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(rule_file, "_FOLDER", tmp_path)
    save_rule(MLPRule(4), tmp_path / "optimizer_mlp.safetensors")
    save_rule(LSTMRule(3), tmp_path / "rule.safetensors")
    params = parameters()
    assert q.LearnedOptimizer is LearnedOptimizer
    assert isinstance(q.LearnedOptimizer(params.values()).rule, MLPRule)
    assert isinstance(q.LearnedOptimizer(params.values(), rule=tmp_path).rule, LSTMRule)
    with pytest.raises(ValueError, match="a name among lstm, mlp"):
        q.LearnedOptimizer(params.values(), rule="gru")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("name", BUILD)
def test_the_state_lies_where_the_parameters_do(name):
    params = {key: nn.Parameter(p.detach().cuda()) for key, p in parameters().items()}
    twin = parameters()
    optimizer = LearnedOptimizer(params.items(), BUILD[name]())
    walk(optimizer, params, range(1, 4))
    walk(LearnedOptimizer(twin.items(), BUILD[name]()), twin, range(1, 4))
    assert {t.device.type for state in optimizer.state.values() for t in leaves(state)} == {"cuda"}
    for key, p in params.items():
        torch.testing.assert_close(p.detach().cpu(), twin[key].detach(), rtol=1e-3, atol=1e-5)


# --- bad input


def test_sparse_gradients_are_refused_with_advice():
    layer, other = nn.Embedding(5, 2, sparse=True), nn.Parameter(torch.ones(1))
    optimizer = LearnedOptimizer([("other", other), ("layer.weight", layer.weight)], MLPRule(4))
    (layer(torch.tensor([1])).sum() * other).backward()
    with pytest.raises(ValueError, match=r"parameter 'layer\.weight' of shape \(5, 2\) is sparse.*sparse=False"):
        optimizer.step()
    assert torch.equal(other, torch.ones(1))


@pytest.mark.parametrize(
    ("dtype", "words"),
    [(torch.complex64, "optimise torch.view_as_real of it"), (torch.int64, "leave it out, or bring it to")],
)
def test_parameters_that_are_no_floating_point_numbers_are_refused(dtype, words):
    bad = torch.zeros(2, dtype=dtype)
    with pytest.raises(ValueError, match=rf"parameter 1 of shape \(2,\) is of type {dtype}; .*float32.*: {words}"):
        LearnedOptimizer([nn.Parameter(torch.ones(1)), bad], MLPRule(4))
    optimizer = LearnedOptimizer([nn.Parameter(torch.ones(1))], MLPRule(4))
    with pytest.raises(ValueError, match="parameter 1 "):
        optimizer.add_param_group({"params": [bad]})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30])
@pytest.mark.parametrize("name", BUILD)
def test_a_step_with_a_gradient_that_is_not_finite_is_skipped_with_one_warning(name, value):
    params, twin = parameters(), parameters()
    optimizer, clean = (LearnedOptimizer(each.values(), BUILD[name]()) for each in (params, twin))
    walk(optimizer, params, range(1, 3))
    set_gradients(params, 3)
    assert params["b"].grad is not None
    params["b"].grad[2] = value
    with pytest.warns(RuntimeWarning, match="a gradient is NaN or infinite: the whole step is left out") as caught:
        optimizer.step()
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step()
    assert optimizer.skipped_steps == 2
    walk(optimizer, params, range(3, 5))
    walk(clean, twin, range(1, 5))
    assert equal(params, twin)
    assert clean.skipped_steps == 0


@pytest.mark.parametrize("named", [False, True])
def test_it_can_be_an_error_that_names_the_parameter(named):
    params = parameters()
    optimizer = LearnedOptimizer(params.items() if named else params.values(), MLPRule(4), nonfinite="raise")
    set_gradients(params, 1)
    params["b"].grad = torch.full((5,), math.nan)
    params["d"].grad = torch.full((2, 3, 2), math.inf)
    name = "'b'" if named else "1"
    with pytest.raises(FloatingPointError, match=rf"parameter {name} of shape \(5,\) is NaN .* \(2 parameters"):
        optimizer.step()
    assert equal(params, parameters())
    assert not optimizer.state


def test_other_arguments_are_checked():
    p = nn.Parameter(torch.ones(1))
    with pytest.raises(ValueError, match="nonfinite='ignore'; choose 'skip'"):
        LearnedOptimizer([p], MLPRule(4), nonfinite="ignore")  # pyright: ignore[reportArgumentType]
    for lr in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match=rf"lr={lr}; required is a finite factor .* of at least 0"):
            LearnedOptimizer([p], MLPRule(4), lr=lr)
    with pytest.raises(ValueError, match=r"lr=-1\.0; required"):
        LearnedOptimizer([{"params": [p], "lr": -1.0}], MLPRule(4))
    with pytest.raises(ValueError, match="empty parameter list"):
        LearnedOptimizer([], MLPRule(4))
    with pytest.raises(ValueError, match="Linear was given as the rule"):
        LearnedOptimizer([p], nn.Linear(1, 1))
