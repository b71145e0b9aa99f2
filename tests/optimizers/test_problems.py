"""What learned optimizers are trained on: problems against numpy and torch's own modules, and what is drawn."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_iris
from torch import nn

from quickstudy.optimizers import Mixture, NetworkProblems, Problems, Quadratics
from quickstudy.optimizers.named import PROBLEMS, named_problems
from quickstudy.optimizers.networks import JUDGED
from quickstudy.optimizers.problem import between, choose, require_range

ACTIVATIONS = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def vectors(n: int = 40, d: int = 5, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(n, d, generator=seeded(7)), torch.arange(n) % classes


def images(n: int = 40, size: tuple[int, int] = (9, 8)) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(n, 2, *size, generator=seeded(7)), torch.arange(n) % 3


def small(**arguments) -> NetworkProblems:
    return NetworkProblems(*vectors(), **{"widths": (4, 6), "batches": (3, 8), **arguments})


# quadratics


def test_quadratics_are_those_of_numpy():
    problems = Quadratics(dim=4).sample(3, generator=seeded())
    w, y = problems.given
    theta = problems.params["theta"]
    assert (w.shape, y.shape, theta.shape, len(problems)) == ((3, 4, 4), (3, 4), (3, 4), 3)
    expected = [
        float(np.sum((np.dot(a, t) - b) ** 2)) for a, b, t in zip(w.numpy(), y.numpy(), theta.numpy(), strict=True)
    ]
    np.testing.assert_allclose(problems.losses(problems.params, problems.draw(seeded())), expected, rtol=1e-5)
    assert problems.kind == "quadratic, 4 dimensions"


def test_quadratics_are_of_normal_numbers_and_start_within_the_range_of_scales():
    drawn = [Quadratics(dim=10, scale=(0.1, 10.0)).sample(200, generator=seeded(seed)) for seed in range(20)]
    for problems in drawn:
        assert all(abs(float(part.mean())) < 0.1 and abs(float(part.std()) - 1) < 0.1 for part in problems.given)
    scales = [float(problems.params["theta"].std()) for problems in drawn]
    assert 0.09 < min(scales) < 0.5 < 2 < max(scales) < 11


# networks


def reference(problems: Problems, activation: str, i: int, images: bool) -> nn.Module:
    """Problem ``i`` as modules of torch."""
    layers, last = [], len(problems.params) // 2 - 1
    for at in range(last + 1):
        weight, bias = (problems.params[f"layers.{at}.{name}"][i] for name in ("weight", "bias"))
        if weight.ndim == 4:
            layer = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
            layers += [layer, ACTIVATIONS[activation](), nn.AvgPool2d(2)]
        else:
            layer = nn.Linear(weight.shape[1], weight.shape[0])
            layers += [*([nn.Flatten()] if images else []), layer, *([ACTIVATIONS[activation]()] if at < last else [])]
        with torch.no_grad():
            layer.weight.copy_(weight)
            assert layer.bias is not None
            layer.bias.copy_(bias)
    return nn.Sequential(*layers)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("depth", "convolutional"), [(0, False), (1, False), (3, False), (1, True), (3, True)])
def test_networks_are_those_of_torch(activation, depth, convolutional):
    x, y = images() if convolutional else vectors()
    with torch.random.fork_rng(devices=[]):
        family = NetworkProblems(
            x, y, depths=(depth,), widths=(4, 6), activations=(activation,), convolutional=convolutional
        )
        problems = family.sample(2, generator=seeded())
        moved = {name: p + 0.1 * torch.randn(p.shape, generator=seeded(1)) for name, p in problems.params.items()}
        problems = Problems(moved, problems.given, problems.loss, problems.draw, problems.judged_on, problems.kind)
        batch_x, batch_y = problems.draw(seeded())
        networks = [reference(problems, activation, i, convolutional) for i in range(2)]
        expected = [
            float(nn.functional.cross_entropy(net(batch_x[i]), batch_y[i]).detach()) for i, net in enumerate(networks)
        ]
        on_all = [float(nn.functional.cross_entropy(net(x), y).detach()) for net in networks]
    assert len(problems.params) == 2 * (depth + 1)
    np.testing.assert_allclose(problems.losses(problems.params, (batch_x, batch_y)), expected, rtol=1e-5)
    np.testing.assert_allclose(problems.judge(problems.params), on_all, rtol=1e-5)


def test_a_final_loss_is_measured_without_a_graph_on_examples_that_stay():
    x, y = vectors(n=JUDGED + 50)
    problems = NetworkProblems(x, y).sample(2, generator=seeded())
    judged_x, judged_y = problems.judged_on
    assert judged_x.shape == (2, JUDGED, 5)
    assert judged_y.shape == (2, JUDGED)
    assert torch.equal(judged_x[0], judged_x[1])
    assert len(torch.unique(judged_x[0], dim=0)) == JUDGED
    params = {name: p.requires_grad_() for name, p in problems.params.items()}
    assert not problems.judge(params).requires_grad
    assert torch.equal(problems.judge(params), problems.judge(params))


def test_what_is_drawn_lies_in_the_ranges_and_reaches_their_ends():
    family = small(depths=(1, 2), widths=(4, 6), batches=(3, 8), scale=(0.5, 2.0), activations=("tanh", "relu"))
    seen = {"depth": set(), "width": set(), "batch": set(), "activation": set()}
    for seed in range(60):
        problems = family.sample(4, generator=seeded(seed))
        weights = [p for name, p in problems.params.items() if name.endswith("weight")]
        seen["depth"].add(len(weights) - 1)
        seen["width"].add(weights[0].shape[1])
        seen["batch"].add(problems.draw(seeded())[0].shape[1])
        seen["activation"].add(problems.kind.split()[0])
        bounds = [float(w.abs().max()) * math.sqrt(w.shape[2]) for w in weights]
        assert 0.4 < max(bounds) <= 2.0 + 1e-5
        assert all(not p.any() for name, p in problems.params.items() if name.endswith("bias"))
    assert seen == {
        "depth": {1, 2},
        "width": {4, 5, 6},
        "batch": {3, 4, 5, 6, 7, 8},
        "activation": {"tanh", "relu"},
    }


def test_a_batch_is_no_larger_than_the_examples_and_every_problem_has_its_own():
    x, y = vectors(n=10)
    problems = NetworkProblems(x, y, batches=(100, 200)).sample(3, generator=seeded())
    batch_x, batch_y = problems.draw(seeded())
    assert batch_x.shape == (3, 10, 5)
    assert not torch.equal(batch_x[0], batch_x[1])
    for example, label in zip(batch_x.flatten(0, 1), batch_y.flatten(), strict=True):
        (at,) = torch.where((x == example).all(1))
        assert y[at[0]] == label


def test_the_kind_says_what_was_drawn():
    assert small(depths=(0,), batches=(4, 4), name="rows").sample(1, generator=seeded()).kind == (
        "logistic regression on rows, batches of 4"
    )
    assert small(depths=(2,), widths=(5, 5), batches=(4, 4), activations=("relu",)).sample(
        1, generator=seeded()
    ).kind == ("relu MLP, 2 × 5 on data, batches of 4")
    cnn = NetworkProblems(*images(), depths=(1,), widths=(3, 3), batches=(4, 4), convolutional=True)
    assert cnn.sample(1, generator=seeded(1)).kind.endswith("CNN, 1 × 3 on data, batches of 4")


def test_weights_have_the_precision_of_the_examples():
    x, y = vectors()
    problems = NetworkProblems(x.double(), y).sample(2, generator=seeded())
    assert {p.dtype for p in problems.params.values()} == {torch.float64}
    assert problems.losses(problems.params, problems.draw(seeded())).dtype == torch.float64


# all of them

FAMILIES = {
    "quadratics": Quadratics(dim=3),
    "networks": small(),
    "mixture": Mixture([Quadratics(dim=3), small()]),
}


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_the_same_seed_draws_the_same_problems_and_batches(family):
    def drawn(seed):
        generator = seeded(seed)
        problems = family.sample(2, generator=generator)
        return problems, [problems.draw(generator) for _ in range(3)]

    (first, batches), (again, same), (other, _) = drawn(4), drawn(4), drawn(5)
    assert first.kind == again.kind
    assert all(torch.equal(p, again.params[name]) for name, p in first.params.items())
    assert not all(torch.equal(p, q) for p, q in zip(first.params.values(), other.params.values(), strict=False))
    for batch, twin in zip(batches, same, strict=True):
        assert torch.equal(first.losses(first.params, batch), again.losses(again.params, twin))
        assert all(torch.equal(a, b) for a, b in zip(batch, twin, strict=True))
    before = torch.get_rng_state()
    drawn(6)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_problems_move_to_another_precision(family):
    problems = family.sample(2, generator=seeded())
    moved = problems.to("cpu", torch.float64)
    assert {p.dtype for p in moved.params.values()} == {torch.float64}
    losses = [each.losses(each.params, each.draw(seeded(1))) for each in (problems, moved)]
    assert losses[1].dtype == torch.float64
    torch.testing.assert_close(losses[1].float(), losses[0])
    torch.testing.assert_close(moved.judge(moved.params).float(), problems.judge(problems.params))
    assert moved.kind == problems.kind
    unchanged = problems.to("cpu")
    assert all(torch.equal(p, unchanged.params[name]) for name, p in problems.params.items())


def test_a_mixture_draws_its_parts_as_often_as_their_weights_say():
    mixture, generator = Mixture([Quadratics(dim=2), Quadratics(dim=3)], [1, 3]), seeded()
    dims = [mixture.sample(1, generator=generator).params["theta"].shape[1] for _ in range(400)]
    assert abs(dims.count(3) / 400 - 0.75) < 0.07
    equal = Mixture([Quadratics(dim=2), Quadratics(dim=3)])
    assert equal.weights == (1.0, 1.0)


# by name


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_every_name_gives_problems_that_gradient_descent_makes_progress_on(name, part):
    problems = named_problems(name, part).sample(2, generator=seeded())
    generator, params = seeded(1), problems.params
    for _ in range(10):
        batch = problems.draw(generator)
        grads = torch.func.grad(lambda p, batch=batch: problems.losses(p, batch).sum())(params)
        params = {key: p - 0.01 * grads[key] for key, p in params.items()}
    assert bool((problems.judge(params) < problems.judge(problems.params)).all())


def rows_of(family) -> np.ndarray:
    return np.round(family.x.flatten(1).numpy(), 5)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_parts_of_the_digits_share_no_row(name):
    """Together they are all 1,797 rows, each as often as it is there."""
    train, test = (named_problems(name, part) for part in ("train", "test"))
    assert isinstance(train, NetworkProblems)
    assert isinstance(test, NetworkProblems)
    assert (len(train.x), len(test.x)) == (1078, 719)
    x, y = load_digits(return_X_y=True)
    all_rows = np.concatenate([np.round(x / 16, 5).astype(np.float32), y[:, None]], 1)
    ours = np.concatenate([np.concatenate([rows_of(part), part.y.numpy()[:, None]], 1) for part in (train, test)])
    np.testing.assert_allclose(ours[np.lexsort(ours.T)], all_rows[np.lexsort(all_rows.T)], atol=1e-5)
    assert not {tuple(row) for row in rows_of(train)} & {tuple(row) for row in rows_of(test)}


def test_parts_of_tables_and_characters_share_no_row():
    for names in ("tables", "glyphs"):
        train, test = (named_problems(names, part) for part in ("train", "test"))
        pairs = zip(train.parts, test.parts, strict=True) if isinstance(train, Mixture) else [(train, test)]  # pyright: ignore
        for one, other in pairs:
            shared = {tuple(row) for row in rows_of(one)} & {tuple(row) for row in rows_of(other)}
            assert len(shared) <= 1  # two irises are measured alike
    assert len(load_iris().data) - len(np.unique(load_iris().data, axis=0)) == 1


def test_the_names_differ_from_mlp_in_what_they_say():
    families = {name: named_problems(name) for name in ("mlp", "relu", "wide", "deep", "glyphs")}
    usual = families["mlp"]
    differs = {
        name: {
            field
            for field in ("depths", "widths", "activations", "batches", "scale", "convolutional", "name")
            if getattr(family, field) != getattr(usual, field)
        }
        for name, family in families.items()
    }
    assert differs == {
        "mlp": set(),
        "relu": {"activations"},
        "wide": {"widths"},
        "deep": {"depths"},
        "glyphs": {"name"},
    }


def test_names_with_a_plus_are_a_mixture():
    both = named_problems("quadratics + mlp", "test")
    assert isinstance(both, Mixture)
    assert [type(part) for part in both.parts] == [Quadratics, NetworkProblems]


# bad input


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Quadratics(dim=0), r"dim=0; required is at least 1: the paper takes 10"),
        (lambda: Quadratics(scale=(2.0, 1.0)), r"scale=\(2\.0, 1\.0\); required are two finite numbers above 0"),
        (lambda: Quadratics(scale=(0.0, 1.0)), r"scale=\(0\.0, 1\.0\); required"),
        (lambda: small(widths=(4, math.inf)), r"widths=\(4, inf\); required .* the lower one first: correct the range"),
        (lambda: small(batches=(1, 2, 3)), r"batches=\(1, 2, 3\); required are two finite numbers"),
        (lambda: small(scale=(math.nan, 1.0)), r"scale=\(nan, 1\.0\); required"),
        (lambda: NetworkProblems(vectors()[0], torch.zeros(3)), r"x \(40, 5\) and y \(3,\); required are at least two"),
        (lambda: NetworkProblems(torch.ones(1, 2), torch.zeros(1)), r"x \(1, 2\) and y \(1,\); required"),
        (lambda: NetworkProblems(torch.ones(4, 2), torch.zeros(4, 1)), r"y \(4, 1\); required .* one class each"),
        (lambda: NetworkProblems(*images()), r"x has shape \(40, 2, 9, 8\); required is \(n, d\): reshape it"),
        (lambda: small(convolutional=True), r"x has shape \(40, 5\); required is \(n, channels, height, width\)"),
        (lambda: NetworkProblems(torch.ones(4, 2).int(), torch.arange(4)), r"x of type torch\.int32.*: convert them"),
        (lambda: NetworkProblems(torch.ones(4, 2), torch.zeros(4)), r"y of type torch\.float32 from 0; required are"),
        (lambda: NetworkProblems(torch.ones(4, 2), torch.arange(4) - 1), r"y of type torch\.int64 from -1; required"),
        (lambda: small(activations=("tanh", "gelu")), r"activations=\('tanh', 'gelu'\); choose some of sigmoid, tanh"),
        (lambda: small(activations=()), r"activations=\(\); choose some of"),
        (lambda: small(depths=()), r"depths=\(\); required are numbers of hidden layers, at least 0"),
        (lambda: small(depths=(1, -1)), r"depths=\(1, -1\); required"),
        (lambda: NetworkProblems(*images(), depths=(0,), convolutional=True), r"depths=\(0,\); .* \(1 for a CNN\)"),
        (lambda: NetworkProblems(*images(), depths=(1, 4), convolutional=True), r"depths=\(1, 4\) for images of 9 × 8"),
        (lambda: Mixture([]), r"0 parts with weights \[\]; required is a finite weight above 0 for each"),
        (lambda: Mixture([Quadratics()], [1, 2]), r"1 parts with weights \[1, 2\]; required"),
        (lambda: Mixture([Quadratics()], [0]), r"1 parts with weights \[0\]; required"),
        (lambda: Mixture([Quadratics()], [math.nan]), r"1 parts with weights \[nan\]; required"),
        (lambda: named_problems("mlp", "validation"), r"part='validation'; choose 'train' or 'test'"),
        (lambda: named_problems("mlp+resnet"), r"there are no problems 'resnet'; choose among quadratics, tables, mlp"),
        (lambda: named_problems("mlp+"), r"there are no problems ''; choose among .*, or some with \+"),
    ],
)
def test_bad_input_is_refused_with_what_to_do(build, message):
    with pytest.raises(ValueError, match=message):
        build()


# what draws


def test_between_is_uniform_in_the_logarithm_and_within_bounds():
    generator = seeded()
    drawn = [between((1e-3, 10.0), generator) for _ in range(2000)]
    assert 1e-3 <= min(drawn) < 1.2e-3
    assert 8.5 < max(drawn) <= 10.0
    quarters = np.histogram(np.log10(drawn), bins=4, range=(-3, 1))[0]
    assert all(abs(count / 2000 - 0.25) < 0.04 for count in quarters)
    assert between((2.0, 2.0), generator) == pytest.approx(2.0, rel=1e-12)


def test_choose_takes_each_as_often():
    generator = seeded()
    drawn = [choose("abc", generator) for _ in range(900)]
    assert all(abs(drawn.count(letter) / 900 - 1 / 3) < 0.05 for letter in "abc")


def test_a_range_may_be_a_single_number():
    require_range("widths", (3, 3))


def test_a_penalty_is_added_to_the_loss():
    x, y = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 2
    found = [
        NetworkProblems(x, y, depths=(0,), penalty=penalty).sample(2, generator=torch.Generator().manual_seed(1))
        for penalty in (0.0, 0.5)
    ]
    plain, penalised = (problems.judge(problems.params) for problems in found)
    weights = found[0].params["layers.0.weight"]
    torch.testing.assert_close(penalised, plain + 0.25 * weights.square().flatten(1).sum(1))
    with pytest.raises(ValueError, match="penalty=-1"):
        NetworkProblems(x, y, penalty=-1.0)
