"""Ridge against slow loops that leave each example out, against scikit-learn, and where little can be fitted."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeCV
from torch import Tensor, nn

import quickstudy as q
from quickstudy.learners import Ridge, shrunken_means
from quickstudy.learners.ridge import SCALE_EXAMPLES, STRENGTHS, _ridge, left_out_ridge, standards
from quickstudy.learners.shrunken_means import FAVOUR, SHRINKAGES, TRUSTS, _discriminants, _parts


def blobs(generator, n: int, d: int, way: int) -> tuple[Tensor, Tensor]:
    labels = torch.arange(n) % way
    centres = 2 * torch.randn(way, d, generator=generator, dtype=torch.float64)
    x = centres[labels] + torch.randn(n, d, generator=generator, dtype=torch.float64)
    return x, q.one_hot(labels, way).double()


def slow_discriminants(x: Tensor, y: Tensor, queries: Tensor, a: float, spare: int) -> Tensor:
    """One class after the other, with the divisor of the covariance given."""
    means = [x[y[:, j] > 0].mean(0) for j in range(y.shape[1])]
    scatter = torch.zeros(x.shape[1], x.shape[1], dtype=x.dtype)
    for row, label in zip(x, y.argmax(1).tolist(), strict=True):
        scatter += torch.outer(row - means[label], row - means[label])
    inverse = torch.linalg.inv((1 - a) * scatter / spare + a * torch.eye(x.shape[1], dtype=x.dtype))
    return torch.stack([queries @ inverse @ m - m @ inverse @ m / 2 for m in means], 1)


@pytest.mark.parametrize("d", [3, 20])  # the system of the features, and that of the examples
@pytest.mark.parametrize("a", [0.05, 0.7])
def test_left_out_discriminants_are_those_of_a_fit_without_the_example(generator, d, a):
    x, y = blobs(generator, 11, d, 3)
    weight, square, left_out = _discriminants(_parts(x, y), y, a)
    torch.testing.assert_close(x @ weight - square / 2, slow_discriminants(x, y, x, a, 8))
    for i in range(11):
        kept = [j for j in range(11) if j != i]
        torch.testing.assert_close(left_out[i], slow_discriminants(x[kept], y[kept], x[i : i + 1], a, 8)[0])


def test_every_shrinkage_and_trust_weighs_by_its_left_out_likelihood(generator):
    x, y = blobs(generator, 9, 4, 3)
    y[8] = 0  # padding, which leaves class 2 with two examples
    kept, labels = x[:8], y[:8]
    prior = (labels.sum(0) / 8).log()
    total, expected = 0.0, torch.zeros(4, 3, dtype=torch.float64)
    for a in SHRINKAGES:
        left_out = torch.stack(
            [
                slow_discriminants(kept[rest], labels[rest], kept[i : i + 1], a, 5)[0]
                for i in range(8)
                for rest in [[j for j in range(8) if j != i]]
            ]
        )
        weight = _discriminants(_parts(kept, labels), labels, a)[0]
        for t in TRUSTS:
            log_p = float((labels * (t * left_out + prior).log_softmax(-1)).sum())
            share = a**FAVOUR * math.exp(log_p - t * 2)
            total, expected = total + share, expected + share * t * weight
    torch.testing.assert_close(shrunken_means.shrunken_means(x, y)[0], expected / total)


@pytest.mark.parametrize("d", [3, 20])
@pytest.mark.parametrize("strength", [0.1, 30.0])
def test_left_out_errors_of_numbers_are_those_of_a_fit_without_the_example(generator, d, strength):
    x = torch.randn(9, d, generator=generator, dtype=torch.float64)
    y = torch.randn(9, 2, generator=generator, dtype=torch.float64)
    x, y = x - x.mean(0), y - y.mean(0)
    weight, errors = _ridge(x, y, x @ x.T if d > 9 else x.T @ x, strength)
    torch.testing.assert_close(weight, torch.linalg.solve(x.T @ x + strength * torch.eye(d).double(), x.T @ y))
    for i in range(9):
        rest = [j for j in range(9) if j != i]
        mean_x, mean_y = x[rest].mean(0), y[rest].mean(0)
        cx, cy = x[rest] - mean_x, y[rest] - mean_y
        w = torch.linalg.solve(cx.T @ cx + strength * torch.eye(d).double(), cx.T @ cy)
        torch.testing.assert_close(errors[i], y[i] - mean_y - (x[i] - mean_x) @ w)


def test_the_average_leans_to_the_strength_that_scikit_learn_chooses(generator):
    x = torch.randn(60, 8, generator=generator, dtype=torch.float64)
    y = x @ torch.randn(8, 1, generator=generator, dtype=torch.float64)
    y = y + 2 * torch.randn(60, 1, generator=generator, dtype=torch.float64)
    x, y = x - x.mean(0), (y - y.mean(0)) / y.std(0, correction=0)
    reference = RidgeCV(alphas=[8 * s for s in STRENGTHS]).fit(x.numpy(), y[:, 0].numpy())
    np.testing.assert_allclose(left_out_ridge(x, y)[:, 0].numpy(), np.asarray(reference.coef_), atol=0.03)


def test_scales_are_those_within_classes_and_constant_features_do_no_harm(generator):
    x, y = blobs(generator, 12, 3, 2)
    x[:, 1] = 0.1
    x[:, 2] *= 1e6
    centre, scale = standards(x, y)
    torch.testing.assert_close(centre, x.mean(0))
    for j in (0, 2):
        within = sum(float((x[y[:, k] > 0, j] - x[y[:, k] > 0, j].mean()).square().sum()) for k in range(2))
        total = float(x[:, j].var(correction=0))
        expected = math.sqrt((within + SCALE_EXAMPLES * total) / (10 + SCALE_EXAMPLES))
        assert float(scale[j]) == pytest.approx(expected)
    assert float(scale[1]) == 1
    learner, support = Ridge(), q.Labelled(x, y)
    moved = x[:, [0, 2]] * 1e-3 + 1e4
    torch.testing.assert_close(
        learner.answer(support, x).argmax(1), learner.answer(q.Labelled(moved, y), moved).argmax(1)
    )
    queries = x.clone()
    queries[:, 1] = 1e6  # a feature of which nothing was learnt
    torch.testing.assert_close(learner.answer(support, queries), learner.answer(support, x), rtol=1e-6, atol=1e-6)


def test_features_that_share_a_unit_are_divided_by_one_number(generator):
    x, y = blobs(generator, 12, 3, 2)
    adapted = Ridge(scale="together").adapt(q.Labelled(x, y))
    expected = (x - x.mean(0)).square().mean().sqrt()
    torch.testing.assert_close(adapted.scale, expected.expand(3))
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))[0]
    turned = Ridge(scale="together").answer(q.Labelled(x @ turn, y), x @ turn)
    torch.testing.assert_close(turned, Ridge(scale="together").answer(q.Labelled(x, y), x))


def test_it_tells_blobs_apart_and_is_as_sure_as_it_is_right(generator):
    x, y = blobs(generator, 330, 4, 3)
    prediction = Ridge().answer(q.Labelled(x[:30], y[:30]), x[30:])
    assert float((prediction.argmax(1) == y[30:].argmax(1)).double().mean()) > 0.9
    assert float(q.Learner.loss(Ridge(), prediction, y[30:])) < 0.35  # nats
    sure = prediction.softmax(-1).amax(-1).mean()
    assert abs(float(sure) - float((prediction.argmax(1) == y[30:].argmax(1)).double().mean())) < 0.1


def test_single_precision_far_from_zero(generator):
    x, y = blobs(generator, 40, 3, 2)
    far = (x + 1000).float()
    prediction = Ridge().answer(q.Labelled(far[:20], y[:20].float()), far[20:])
    assert prediction.dtype == torch.float32
    near = Ridge().answer(q.Labelled(x[:20], y[:20]), x[20:])
    torch.testing.assert_close(prediction.double(), near, rtol=1e-2, atol=1e-2)


def test_one_example_of_each_class_and_one_of_all(generator):
    x, y = blobs(generator, 3, 5, 3)
    prediction = Ridge().answer(q.Labelled(x, y), x)
    assert torch.equal(prediction.argmax(1), y.argmax(1))
    lonely = q.Labelled(x[:1], torch.tensor([[0.0, 1.0]]))
    probability = Ridge().answer(lonely, x).softmax(-1)
    torch.testing.assert_close(probability, torch.tensor([[0.0, 1.0]]).double().expand(3, 2))
    numbers = Ridge().answer(q.Labelled(x[:1], torch.tensor([[7.0]])), x)
    torch.testing.assert_close(numbers, torch.full((3, 1), 7.0).double())
    assert bool(torch.isfinite(Ridge().answer(q.Labelled(x[:2], torch.tensor([[1.0], [2.0]])), x)).all())


def test_identical_examples_and_a_single_feature(generator):
    x = torch.ones(6, 1)
    y = q.one_hot(torch.tensor([0, 0, 0, 0, 1, 1]), 2)
    probability = Ridge().answer(q.Labelled(x, y), x[:1]).softmax(-1)
    torch.testing.assert_close(probability, torch.tensor([[4 / 6, 2 / 6]]))  # only how frequent classes are
    line = torch.linspace(-1, 1, 9)[:, None]
    torch.testing.assert_close(Ridge().answer(q.Labelled(line, 3 * line + 2), line), 3 * line + 2, rtol=1e-2, atol=1e-2)


def test_several_columns_of_numbers_are_fitted_with_regression(generator):
    x = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    y = torch.cat([x[:, :1] * 100 + 5, x[:, 1:2] - x[:, 2:3]], 1)
    learner = Ridge(regression=True)
    assert learner.predicts_numbers(y)
    found = learner.answer(q.Labelled(x, y), x)
    assert float(((found - y).square().mean(0) / y.var(0)).max()) < 1e-2


def test_a_backbone_learns_through_it_where_examples_are_identical(generator):
    backbone = nn.Linear(3, 2)
    x = torch.ones(4, 3)
    learner = Ridge(backbone)
    y = q.one_hot(torch.tensor([0, 0, 1, 1]), 2)
    learner.loss(learner.answer(q.Labelled(x, y), x), y).backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in backbone.parameters() if p.grad is not None)


def test_a_saved_head_reads_examples_as_they_are(tmp_path, generator):
    x, y = blobs(generator, 8, 3, 2)
    q.save(Ridge(scale="together"), tmp_path / "head.safetensors")
    twin = q.load(tmp_path / "head.safetensors")
    assert torch.equal(twin.answer(q.Labelled(x, y), x), Ridge(scale="together").answer(q.Labelled(x, y), x))


def test_errors():
    with pytest.raises(ValueError, match=r"scale='rows'.*each, together"):
        Ridge(scale="rows")
