"""torch.optim optimizers as rules, against their own stateful runs and against central differences."""

import inspect
import math
import threading

import pytest
import torch
from torch import nn

import quickstudy
from quickstudy.inner import ByName, Truncated, unroll
from quickstudy.inner.torch_optim import TorchOptim

CASES = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.2, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "maximize": True}),
    ("Adam", {"lr": 0.1}),
    ("Adam", {"lr": 0.1, "weight_decay": 0.1, "amsgrad": True, "maximize": True}),
    ("AdamW", {"lr": 0.1, "betas": (0.7, 0.9), "weight_decay": 0.2}),
    ("NAdam", {"lr": 0.1}),
    ("NAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True, "momentum_decay": 0.1}),
    ("RAdam", {"lr": 0.1}),
    ("RAdam", {"betas": (0.8, 0.95), "weight_decay": 0.1, "maximize": True}),
    ("Adamax", {"lr": 0.1, "weight_decay": 0.1}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.1}),
    ("Adadelta", {"lr": 1.0, "weight_decay": 0.1}),
    ("RMSprop", {"lr": 0.1}),
    ("RMSprop", {"lr": 0.1, "momentum": 0.9, "centered": True, "weight_decay": 0.1}),
    ("Rprop", {"lr": 0.1}),
    ("ASGD", {"lr": 0.1, "lambd": 0.1, "t0": 3.0, "weight_decay": 0.1}),
    ("Adafactor", {"lr": 0.3, "weight_decay": 0.1, "maximize": True}),
    ("Muon", {"lr": 0.1}),
]
SMOOTH = [case for case in CASES if case[0] != "Muon"]  # its derivative has 8 bits
LEARNED = [
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.2, "weight_decay": 0.1}, "lr momentum dampening weight_decay"),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}, "lr momentum"),
    ("Adam", {"lr": 0.1, "eps": 0.1, "weight_decay": 0.1}, "lr betas eps weight_decay"),
    ("Adam", {"lr": 0.1, "amsgrad": True, "betas": (0.7, 0.8)}, "lr betas"),
    ("AdamW", {"lr": 0.1, "weight_decay": 0.1}, "lr betas weight_decay"),
    ("NAdam", {"lr": 0.1, "weight_decay": 0.1}, "lr betas weight_decay momentum_decay"),
    ("RAdam", {"lr": 0.1, "weight_decay": 0.1, "betas": (0.8, 0.9)}, "lr betas weight_decay"),
    ("Adamax", {"lr": 0.1, "weight_decay": 0.1}, "lr betas weight_decay"),
    ("Adagrad", {"lr": 0.1, "weight_decay": 0.1, "lr_decay": 0.1, "eps": 0.1}, "lr weight_decay lr_decay eps"),
    ("Adadelta", {"weight_decay": 0.1}, "lr rho weight_decay eps"),
    ("RMSprop", {"lr": 0.1, "momentum": 0.9, "centered": True, "eps": 0.1}, "lr alpha momentum eps"),
    ("Rprop", {"lr": 0.1}, "lr etas"),
    ("ASGD", {"lr": 0.1, "lambd": 0.1, "alpha": 0.5, "weight_decay": 0.1}, "lr lambd alpha weight_decay"),
    ("Adafactor", {"lr": 0.3, "weight_decay": 0.1, "d": 1.5}, "lr weight_decay beta2_decay"),
]


@pytest.fixture
def double():
    """Counters of optimizers take torch's default precision."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def steps(name):
    return 7 if name == "RAdam" else 4  # it rectifies from the sixth on


def start(only_matrices=False):
    a = torch.tensor([[0.5, -1.0, 2.0], [1.5, 0.3, -0.7]], dtype=torch.float64)
    return {"a": a} if only_matrices else {"a": a, "b": torch.tensor([1.0, -2.0], dtype=torch.float64)}


def inner_loss(params):
    curved = {
        name: p * torch.linspace(0.3, 1.7, p.numel(), dtype=p.dtype).reshape(p.shape) for name, p in params.items()
    }
    return sum((p.square() + 0.3 * torch.sin(2 * p + 0.1)).sum() for p in curved.values())


def outer_loss(phi):
    return sum((p * torch.cos(torch.arange(p.numel()).to(p)).reshape(p.shape)).sum() for p in phi.values())


def slope(f, x, along, h=1e-5):
    """The derivative of f at x along a direction, by central differences."""
    return (f(x + h * along) - f(x - h * along)) / (2 * h)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_every_step_equals_the_optimizer_itself(name, options):
    rule = TorchOptim(name, options)
    params = start(only_matrices=name == "Muon")
    own = {key: nn.Parameter(p.clone()) for key, p in params.items()}
    optimizer = getattr(torch.optim, name)(own.values(), **options)
    state = rule.init(params)
    for _ in range(8):
        optimizer.zero_grad()
        inner_loss(own).backward()
        optimizer.step()
        before = {key: p.clone() for key, p in params.items()}
        new, state = rule.step(params, torch.func.grad(inner_loss)(params), state)
        for key, p in params.items():
            assert torch.equal(p, before[key])
            torch.testing.assert_close(new[key], own[key].detach(), rtol=1e-12, atol=1e-12)
        params = new
    assert not list(rule.parameters())


@pytest.mark.parametrize(("name", "options"), SMOOTH)
def test_meta_gradient_equals_central_differences(double, name, options):
    rule = TorchOptim(name, options)

    def outer(a, mode="reverse"):
        return outer_loss(unroll(rule, inner_loss, {**start(), "a": a}, steps=steps(name), mode=mode))

    a = start()["a"].requires_grad_()
    (exact,) = torch.autograd.grad(outer(a), a)
    (rebuilt,) = torch.autograd.grad(outer(a, "recompute"), a)
    (all_steps,) = torch.autograd.grad(outer(a, Truncated(steps(name))), a)
    along = torch.sin(torch.arange(6.0)).reshape(2, 3)
    due = slope(outer, a.detach(), along)
    torch.testing.assert_close((exact * along).sum(), due.detach(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(rebuilt, exact, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(all_steps, exact, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "options", "learn"), LEARNED)
def test_derivatives_of_learned_hyperparameters_equal_central_differences(double, name, options, learn):
    rule = TorchOptim(name, options, learn=learn.split())
    params = start()

    def outer(mode="reverse"):
        return outer_loss(unroll(rule, inner_loss, params, steps=steps(name), mode=mode))

    rho = list(rule.learned.values())
    exact = torch.autograd.grad(outer(), rho)
    rebuilt = torch.autograd.grad(outer("recompute"), rho)
    for parameter, gradient, other in zip(rho, exact, rebuilt, strict=True):

        def at(value, parameter=parameter):
            before = parameter.detach().clone()
            with torch.no_grad():
                parameter.copy_(value)
                found = outer()
                parameter.copy_(before)
            return found

        along = torch.tensor([1.0, -0.7])[: parameter.numel()].reshape(parameter.shape)
        due = slope(at, parameter.detach(), along)
        torch.testing.assert_close((gradient * along).sum(), due.detach(), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(other, gradient, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "options", "learn"), [case for case in LEARNED if case[0] != "Adafactor"])
@pytest.mark.parametrize("mode", ["reverse", "recompute"])
def test_vmap_equals_a_loop(double, name, options, learn, mode):
    rule = TorchOptim(name, options, learn=learn.split())
    tasks = torch.linspace(-1.0, 1.2, 18, dtype=torch.float64).reshape(3, 2, 3)

    def outer(a):
        return outer_loss(unroll(rule, inner_loss, {"a": a}, steps=4, mode=mode))

    def gradients(values):
        return torch.autograd.grad(values.sum(), [a, *rule.parameters()])

    a = tasks.requires_grad_()
    for one, other in zip(
        gradients(torch.func.vmap(outer)(a)), gradients(torch.stack([outer(x) for x in a])), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_vmap_runs_over_states():
    rule = TorchOptim("Adam", lr=0.1, learn="betas")
    params = {"a": torch.linspace(-1.0, 1.0, 6).reshape(3, 2)}
    first, state = torch.func.vmap(lambda p: rule.step(p, p, None))(params)
    batched, _ = torch.func.vmap(rule.step)(first, params, state)
    for i in range(3):
        one = {"a": params["a"][i]}
        now, at = rule.step(one, one, None)
        now, _ = rule.step(now, one, at)
        torch.testing.assert_close(batched["a"][i], now["a"])


def test_vmap_is_refused_where_the_optimizer_decides_by_values():
    rule = TorchOptim("Adafactor", lr=0.1)
    with pytest.raises(RuntimeError, match="Adafactor decides by the value of a tensor, which vmap cannot"):
        torch.func.vmap(lambda a: rule.step({"a": a}, {"a": a}, None)[0]["a"])(torch.ones(2, 3, 3))


def test_first_order_and_truncated_meta_gradients(double):
    rule = TorchOptim("SGD", lr=0.1, momentum=0.9)
    a = start()["a"].requires_grad_()
    c = torch.cos(torch.arange(6.0)).reshape(2, 3)
    for mode in ("first_order", Truncated(0)):
        phi = unroll(rule, inner_loss, {"a": a}, steps=4, mode=mode)
        (gradient,) = torch.autograd.grad(outer_loss(phi), a)
        torch.testing.assert_close(gradient, c)
    with torch.no_grad():
        before = {"a": a.clone()}
        state = None
        for _ in range(3):
            before, state = rule.step(before, torch.func.grad(inner_loss)(before), state)
    last = before["a"].requires_grad_()
    after, _ = rule.step({"a": last}, torch.func.grad(inner_loss)({"a": last}), state)
    (due,) = torch.autograd.grad(outer_loss(after), last)
    (gradient,) = torch.autograd.grad(outer_loss(unroll(rule, inner_loss, {"a": a}, steps=4, mode=Truncated(1))), a)
    torch.testing.assert_close(gradient, due)


def test_parameter_groups_are_several_rules(double):
    rule = ByName({"a": TorchOptim("Adam", lr=0.1, learn="lr"), "*": TorchOptim("SGD", lr=0.2, momentum=0.5)})
    own = {key: nn.Parameter(p) for key, p in start().items()}
    optimizers = [torch.optim.Adam([own["a"]], lr=0.1), torch.optim.SGD([own["b"]], lr=0.2, momentum=0.5)]
    for _ in range(5):
        for optimizer in optimizers:
            optimizer.zero_grad()
        inner_loss(own).backward()
        for optimizer in optimizers:
            optimizer.step()
    (rho,) = rule.parameters()
    gradients = []
    for mode in ("reverse", "recompute", "truncated"):
        phi = unroll(rule, inner_loss, start(), steps=5, mode=mode)
        for key, p in own.items():  # a rate is stored as its logarithm
            torch.testing.assert_close(phi[key], p.detach(), rtol=1e-12, atol=1e-12)
        gradients += torch.autograd.grad(outer_loss(phi), rho)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-9, atol=1e-9)
    assert float(gradients[2]) != float(gradients[0])


@pytest.mark.parametrize(
    ("name", "options"),
    [(name, {}) for name in ("Adam", "NAdam", "RAdam", "Adamax", "Adagrad", "Adadelta", "RMSprop", "Adafactor")]
    + [("AdamW", {"weight_decay": 0.0}), ("Adam", {"amsgrad": True}), ("RMSprop", {"centered": True, "momentum": 0.9})],
)
@pytest.mark.parametrize("mode", ["reverse", "recompute"])
def test_gradients_that_are_zero_give_no_nan(name, options, mode):
    memory = {"RMSprop": ("alpha",), "Adadelta": ("rho",), "Adagrad": (), "Adafactor": ("beta2_decay",)}
    rule = TorchOptim(name, options, learn=("lr", *memory.get(name, ("betas",))))
    double = {"dtype": torch.float64, "requires_grad": True}
    params = {
        "rows": torch.tensor([[0.5, -1.0], [1.0, 2.0], [0.0, 0.3]], **double),
        "first": torch.tensor([[0.5, -1.0], [1.0, 0.7]], **double),
        "second": torch.tensor([[0.9, 1.0], [0.4, -0.2]], **double),
    }

    def loss(p):  # the second row is not looked up, and the second unit is never active
        hidden = torch.tanh(p["first"] @ p["rows"][[0, 2]].T)
        return torch.relu(p["second"] @ hidden + torch.tensor([[5.0], [-9.0]])).square().sum()

    phi = unroll(rule, loss, params, steps=steps(name), mode=mode)
    to_rows, *others = torch.autograd.grad(outer_loss(phi), [*params.values(), *rule.parameters()])
    assert all(g.isfinite().all() for g in (to_rows, *others))
    if name != "Adafactor":  # which scales a step by all entries
        torch.testing.assert_close(to_rows[1], torch.cos(torch.arange(2.0, 4.0)).double())
        torch.testing.assert_close(others[1][1], torch.cos(torch.arange(2.0, 4.0)).double())


def test_learned_values_start_as_given_and_keep_their_range():
    rule = TorchOptim("Rprop", lr=0.1, etas=[0.5, 1.2], learn=["lr", "etas"])
    assert rule.options == {"lr": 0.1, "etas": (0.5, 1.2)}
    assert rule.learn == ("lr", "etas")
    values = rule.hyperparameters()
    assert values["lr"].item() == pytest.approx(0.1)
    assert [v.item() for v in values["etas"]] == pytest.approx([0.5, 1.2])
    decay = TorchOptim("Adafactor", learn=("beta2_decay",))
    assert decay.hyperparameters()["beta2_decay"].item() == pytest.approx(-0.8)
    betas = TorchOptim("Adam", learn="betas")
    with torch.no_grad():
        for rho in (*rule.parameters(), *decay.parameters(), *betas.parameters()):
            rho.fill_(9.0)
    low, high = rule.hyperparameters()["etas"]
    assert 0 < low.item() < 1 < high.item()
    assert decay.hyperparameters()["beta2_decay"].item() < 0
    assert all(0 < beta.item() < 1 for beta in betas.hyperparameters()["betas"])


def test_a_learned_rate_falls_and_rises_with_its_parameter():
    rule = TorchOptim("SGD", lr=0.1, learn=("lr",))
    with torch.no_grad():
        rule.learned["lr"].add_(math.log(2))
    new, _ = rule.step({"a": torch.ones(1)}, {"a": torch.ones(1)}, None)
    torch.testing.assert_close(new["a"], torch.tensor([0.8]))


def test_constructor_arguments_rebuild_the_rule():
    rule = TorchOptim(torch.optim.Adam, {"lr": 0.1}, betas=(0.8, 0.9), learn=("lr",))
    assert rule.optimizer == "Adam"
    assert rule.optimizer_class is torch.optim.Adam
    names = [p.name for p in inspect.signature(TorchOptim).parameters.values() if p.kind is not p.VAR_KEYWORD]
    again = TorchOptim(**{name: getattr(rule, name) for name in names})
    again.load_state_dict(rule.state_dict())
    params = start()
    for one, other in zip(
        rule.step(params, params, None)[0].values(), again.step(params, params, None)[0].values(), strict=True
    ):
        assert torch.equal(one, other)


def test_a_learner_takes_it_as_its_rule(generator):
    rule = TorchOptim("AdamW", lr=0.05, learn=("lr", "betas"))
    learner = quickstudy.MAML(quickstudy.MLP(1, (8,), 1), head=None, rule=rule, inner_steps=3).double()
    waves = quickstudy.Sinusoid(shot=5, queries=5).sample(3, generator=generator)
    waves = torch.utils._pytree.tree_map(torch.Tensor.double, waves)
    gradients = []
    for strategy in ("loop", "vmap"):
        value = quickstudy.unrolled(learner, waves, strategy=strategy)
        gradients.append(torch.autograd.grad(value, list(learner.parameters())))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)
    assert all(g.abs().sum() > 0 for g in gradients[0])


def test_threads_do_not_meet():
    rule = TorchOptim("Adam", lr=0.1, learn=("lr",))
    results = {}

    def run(i, key):
        params = {"a": torch.full((3,), float(i), dtype=torch.float64, requires_grad=True)}
        phi = unroll(rule, inner_loss, params, steps=5)
        results[key] = torch.autograd.grad(outer_loss(phi), params["a"])[0]

    threads = [threading.Thread(target=run, args=(i, f"thread {i}")) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(4):
        run(i, i)
        assert torch.equal(results[i], results[f"thread {i}"])


def test_what_is_one_tensor_outside_is_several_inside():
    same = torch.ones(2)
    new, state = TorchOptim("Adam", lr=0.1, weight_decay=0.1).step({"a": same, "b": same}, {"a": same, "b": same}, None)
    torch.testing.assert_close(new["a"], new["b"])
    assert torch.equal(same, torch.ones(2))
    assert torch.equal(state["params"]["a"]["exp_avg"], state["params"]["b"]["exp_avg"])


def test_no_parameters_are_no_step():
    assert TorchOptim("Adam").step({}, {}, None) == ({}, {"params": {}, "group": {}})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_single_precision_and_scalars(dtype):
    rule = TorchOptim("Adam", lr=0.1, learn=("lr", "betas", "eps"))
    params = {"a": torch.ones(3, dtype=dtype), "scalar": torch.ones((), dtype=dtype)}
    phi = unroll(rule, lambda p: p["a"].square().sum() + p["scalar"].square(), params, steps=3)
    assert phi["a"].dtype == phi["scalar"].dtype == dtype
    torch.testing.assert_close(phi["a"][0], phi["scalar"])
    sum(p.sum() for p in phi.values()).backward()
    assert all(p.grad.isfinite().all() for p in rule.parameters())


# optimizers from elsewhere


class Sign(torch.optim.Optimizer):
    """Lion, written as such code is: .data, no_grad blocks, augmented assignment, a counter in the group."""

    def __init__(self, params, lr=0.1, beta=0.9, warmup=1.0):
        super().__init__(params, {"lr": lr, "beta": beta, "warmup": warmup})

    def step(self, closure=None):
        for group in self.param_groups:
            group["count"] = group.get("count", 0) + 1
            with torch.no_grad():
                for p in group["params"]:
                    if p.grad is None or not p.requires_grad:
                        continue
                    g = p.grad.data
                    state = self.state[p]
                    if len(state) == 0:
                        state["m"] = torch.zeros_like(p.data)
                        state["all"] = []
                    m = state["m"]
                    m *= group["beta"]
                    m += g.mul(1 - group["beta"])
                    state["all"].append(m.abs().max())
                    p.data = p.data - torch.tanh(m) / (group["count"] + group["warmup"])
                    p.data.add_(m, alpha=-group["lr"])
                    p.grad = None


class Lists(torch.optim.Optimizer):
    """Operators on lists."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        group = self.param_groups[0]
        grads = [p.grad for p in group["params"]]
        torch._foreach_mul_(grads, 2.0)
        torch._foreach_add_(group["params"], grads, alpha=-group["lr"])
        torch._foreach_addcmul_(group["params"], grads, torch._foreach_neg(grads), value=0.01)


@pytest.mark.parametrize(("cls", "learn"), [(Sign, ("lr", "beta", "warmup")), (Lists, ("lr",))])
def test_optimizers_from_elsewhere(double, cls, learn):
    rule = TorchOptim(cls, learn=learn)
    assert rule.optimizer is cls
    own = {key: nn.Parameter(p) for key, p in start().items()}
    optimizer = cls(own.values())
    for _ in range(4):
        optimizer.zero_grad()
        inner_loss(own).backward()
        optimizer.step()
    params = {key: p.requires_grad_() for key, p in start().items()}
    wanted = [*params.values(), *rule.parameters()]
    phi, rebuilt = (unroll(rule, inner_loss, params, steps=4, mode=mode) for mode in ("reverse", "recompute"))
    for key, p in own.items():
        torch.testing.assert_close(phi[key], p.detach(), rtol=1e-12, atol=1e-12)
    exact, other = (torch.autograd.grad(outer_loss(of), wanted) for of in (phi, rebuilt))
    torch.testing.assert_close(other, exact, rtol=1e-9, atol=1e-9)
    along = torch.sin(torch.arange(6.0)).reshape(2, 3)
    due = slope(lambda a: outer_loss(unroll(rule, inner_loss, {**params, "a": a}, steps=4)), start()["a"], along)
    torch.testing.assert_close((exact[0] * along).sum(), due.detach(), rtol=1e-6, atol=1e-6)


class Hidden(Lists):
    """State on the instance."""

    def step(self, closure=None):
        self.count = getattr(self, "count", 0) + 1
        for p in self.param_groups[0]["params"]:
            p.data.sub_(p.grad * self.count)


class Noisy(Lists):
    """Random steps."""

    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            p.data.add_(torch.randn(p.shape))


class Drawn(Lists):
    """Random numbers in place."""

    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            p.data.normal_()


class ToNumber(Lists):
    """A norm as a Python number."""

    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            p.data.sub_(p.grad / float(p.norm()))


class Rooted(Lists):
    """A hyper-parameter that is copied before the step."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, lr)
        self.lr = lr

    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            p.data.sub_(p.grad * self.lr)


class Closure(Lists):
    """Insists on a closure."""

    def step(self, closure=None):
        closure()


class Required(Lists):
    """No default for lr."""

    def __init__(self, params, lr):
        super().__init__(params, lr)


@pytest.mark.parametrize(
    ("optimizer", "options", "learn", "message"),
    [
        ("Adamm", {}, (), "'Adamm' is no optimizer; required is a subclass of torch.optim.Optimizer, or one of A"),
        (nn.Linear, {}, (), "is no optimizer; required is a subclass"),
        (torch.optim.Optimizer, {}, (), "is no optimizer; required is a subclass"),
        ("lr_scheduler", {}, (), "is no optimizer"),
        ("LBFGS", {}, (), "LBFGS evaluates the loss several times a step"),
        ("SparseAdam", {}, (), "SparseAdam steps on sparse gradients"),
        (Closure, {}, (), "Closure cannot step on given gradients alone"),
        ("Adam", {"momentum": 0.9}, (), "unexpected keyword argument 'momentum'; its options are lr, betas, eps"),
        (Required, {}, (), "missing a required argument: 'lr'; its options are lr"),
        ("Adam", {"lr": -1.0}, (), "Invalid learning rate"),
        ("Adam", {"foreach": True}, (), "foreach=True is how Adam would compute, which the rule decides: leave it out"),
        ("Adam", {"lr": torch.tensor(0.1)}, (), r"lr is a tensor; required is a number: pass it as such, with learn="),
        ("SGD", {}, ("momentum",), "SGD starts with momentum=0; to be learned it must start at a number other than 0"),
        ("SGD", {}, ("nesterov",), r"starts with nesterov=False; .* or learn others \(lr\)"),
        ("Adafactor", {}, ("eps",), r"Adafactor starts with eps=\(None, 0.001\)"),
        ("Adam", {}, ("rho",), "'rho' is no hyper-parameter of Adam; choose among lr, betas, eps"),
        ("Adagrad", {"initial_accumulator_value": 0.1}, ("initial_accumulator_value",), "no right derivative to it"),
        ("Muon", {}, ("momentum",), "learn='momentum': the code of Muon passes no right derivative"),
        (Rooted, {}, ("lr",), "learn='lr': the code of Rooted passes no right derivative"),
        (Hidden, {}, (), "Hidden draws random numbers, or keeps something outside of its state"),
        (Noisy, {}, (), "Noisy draws random numbers"),
        (Drawn, {}, (), "Drawn uses normal_, which has no derivative"),
        (ToNumber, {}, (), r"ToNumber turns a tensor that is no constant into a number \(__float__\)"),
    ],
)
def test_what_cannot_be_a_rule_is_refused(optimizer, options, learn, message):
    with pytest.raises(ValueError, match=message):
        TorchOptim(optimizer, options, learn=learn)


def test_sparse_gradients_are_refused():
    sparse = torch.sparse_coo_tensor(torch.tensor([[0]]), torch.ones(1, 2), (3, 2), check_invariants=False)
    with pytest.raises(ValueError, match="the gradient of 'rows' is sparse"):
        TorchOptim("SGD", lr=0.1).step({"rows": torch.ones(3, 2)}, {"rows": sparse}, None)
