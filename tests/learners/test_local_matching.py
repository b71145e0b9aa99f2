"""Local matching against its equations in slow loops, where a place is looked for, and degenerate tasks."""

import math

import pytest
import torch
from torch import nn

import quickstudy as q
from quickstudy.backbones import LocalDescriptors, SmallResNet
from quickstudy.learners import LocalMatching
from quickstudy.learners.supervised_contrastive import contrastive_loss

H, W, DIM, D = 3, 4, 2, 5


def rows(n: int, generator: torch.Generator) -> torch.Tensor:
    """Random rows of the form that ``LocalDescriptors`` gives, in float64."""

    def unit(*shape: int) -> torch.Tensor:
        z = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return z / z.norm(dim=-1, keepdim=True)

    w = torch.rand(n, H * W, generator=generator, dtype=torch.float64).softmax(1)
    return torch.cat([unit(n, D), unit(n, H * W, DIM).flatten(1), w], 1)


def matching(**changes: object) -> LocalMatching:
    return LocalMatching(nn.Identity(), **{"dim": DIM, "grid": (H, W), "window": 3, "scale": 4.0, **changes})  # pyright: ignore


def d(a: torch.Tensor, b: torch.Tensor, reach: int) -> float:
    """D(a → b) of two rows, place by place."""
    total = 0.0
    of_a, of_b = (row[D : D + H * W * DIM].view(H, W, DIM) for row in (a, b))
    for i in range(H):
        for j in range(W):
            near = [
                float(of_a[i, j] @ of_b[k, m])
                for k in range(max(0, i - reach), min(H, i + reach + 1))
                for m in range(max(0, j - reach), min(W, j + reach + 1))
            ]
            total += float(a[D + H * W * DIM + W * i + j]) * max(near)
    return total


def s(a: torch.Tensor, b: torch.Tensor, reach: int = 1, scale: float = 4.0) -> float:
    return scale * (float(a[:D] @ b[:D]) + d(a, b, reach) + d(b, a, reach))


@pytest.mark.parametrize("window", [1, 3, 5])
def test_at_one_shot_a_logit_is_s(window, generator):
    support, x = rows(3, generator), rows(4, generator)
    learner = matching(window=window)
    logits = learner.predict(learner.adapt(q.Labelled(support, torch.eye(3, dtype=torch.float64))), x)
    for m in range(4):
        for k in range(3):
            assert float(logits[m, k]) == pytest.approx(s(x[m], support[k], window // 2), rel=1e-12)


def test_several_shots_take_the_direction_of_the_mean_and_the_mean_of_the_searches(generator):
    support, x = rows(40, generator), rows(3, generator)  # more than are compared at once
    label = [i % 3 for i in range(39)] + [-1]  # the last row is padding
    y = torch.tensor([[float(k == c) for c in range(3)] for k in label], dtype=torch.float64)
    learner = matching()
    logits = learner.predict(learner.adapt(q.Labelled(support, y)), x)
    for m in range(3):
        for k in range(3):
            members = [support[i] for i in range(40) if label[i] == k]
            centre = sum(row[:D] for row in members)
            local = sum(d(x[m], row, 1) + d(row, x[m], 1) for row in members) / len(members)
            expected = 4.0 * (float(x[m, :D] @ centre / centre.norm()) + local)
            assert float(logits[m, k]) == pytest.approx(expected, rel=1e-12)


def test_the_loss_is_the_contrastive_one_and_that_of_the_pairs(generator):
    x = rows(9, generator)
    label = [0, 1, 2, 0, 0, 1, 1, -1, 0]  # four of support: class 2 has no companion; row 7 is padding
    y = torch.tensor([[float(k == c) for c in range(3)] for k in label], dtype=torch.float64)
    learner = matching(companions=2, rivals=2)
    each = []
    for i in range(4):
        others = sorted((j for j in range(9) if j != i and label[j] >= 0), key=lambda j: float(x[i, :D] @ x[j, :D]))
        own = [j for j in others if label[j] == label[i]][:2]
        rivals = [j for j in others if label[j] != label[i]][-2:]
        for p in own:
            above = math.exp(s(x[i], x[p]))
            each.append(-math.log(above / (above + sum(math.exp(s(x[i], x[r])) for r in rivals))))
    assert len(each) == 6  # two of each but of the third example, which has no companion
    pairs = sum(each) / len(each)
    loss = learner.meta_loss(q.Episode(q.Labelled(x[:4], y[:4]), q.Labelled(x[4:], y[4:])))
    assert float(loss) == pytest.approx(float(contrastive_loss(x[:, :D], y, 4.0)) + pairs, rel=1e-12)


def test_a_part_that_moved_within_the_window_is_found_again(generator):
    here, there = torch.zeros(2, H, W, DIM, dtype=torch.float64)
    part = torch.tensor([0.6, 0.8], dtype=torch.float64)
    here[0, 0], there[1, 1] = part, part
    w = torch.zeros(1, H, W, dtype=torch.float64)
    w[0, 0, 0] = 1
    moved = torch.zeros(1, H, W, dtype=torch.float64)
    moved[0, 1, 1] = 1
    z = torch.zeros(1, D, dtype=torch.float64)
    a = torch.cat([z, here.flatten()[None], w.flatten(1)], 1)
    b = torch.cat([z, there.flatten()[None], moved.flatten(1)], 1)
    y = torch.eye(2, dtype=torch.float64)
    for window, found in ((1, 0.0), (3, 8.0)):
        learner = matching(window=window)
        logits = learner.predict(learner.adapt(q.Labelled(torch.cat([b, torch.zeros_like(b)]), y)), a)
        assert float(logits[0, 0]) == pytest.approx(found)  # both directions, times the scale of 4
        assert float(logits[0, 1]) == 0


def test_a_learner_of_rows_answers_as_the_learner_of_images(generator):
    learner = LocalMatching(LocalDescriptors(SmallResNet(1, 8, (8, 8)), dim=3, image_size=8)).eval()
    x, y = torch.rand(10, 1, 8, 8, generator=generator), q.one_hot(torch.arange(4), 4)
    of_rows = learner.of_rows()
    direct = learner.predict(learner.adapt(q.Labelled(x[:4], y)), x[4:])
    rows = learner.rows(x)
    torch.testing.assert_close(of_rows.predict(of_rows.adapt(q.Labelled(rows[:4], y)), rows[4:]), direct)
    torch.testing.assert_close(of_rows.embed(rows), learner.embed(x))
    assert learner.embed(x).shape == (10, 8)


def test_population_statistics_are_those_of_support_and_queries_together(generator):
    learner = LocalMatching(LocalDescriptors(SmallResNet(1, 8, (8, 8)), dim=3, image_size=8))
    x = torch.rand(8, 1, 8, 8, generator=generator)
    y = q.one_hot(torch.arange(4) % 2, 2)
    seen = []
    learner.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    for forward in learner.passes(q.Episode(q.Labelled(x[:4], y), q.Labelled(x[4:], y))):
        forward()
    assert seen == [8]


def test_1_000_examples_and_identical_or_empty_images_stay_finite(generator):
    backbone = LocalDescriptors(SmallResNet(1, 8, (8, 8)), dim=3, image_size=8)
    learner = LocalMatching(backbone)
    many = q.Labelled(torch.rand(1000, 1, 8, 8, generator=generator), q.one_hot(torch.arange(1000) % 20, 20))
    with torch.no_grad():
        assert torch.isfinite(learner.predict(learner.adapt(many), many.x[:5])).all()
    y = q.one_hot(torch.arange(4) % 2, 2)
    for x in (torch.ones(4, 1, 8, 8), torch.zeros(4, 1, 8, 8)):
        learner.zero_grad()
        loss = learner.meta_loss(q.Episode(q.Labelled(x, y), q.Labelled(x, y)))
        loss.backward()
        assert torch.isfinite(loss)
        assert all(bool(torch.isfinite(p.grad).all()) for p in learner.parameters() if p.grad is not None)


def test_a_task_without_companions_or_rivals_has_no_loss_of_pairs(generator):
    x = rows(4, generator)
    parts = matching().describe(x)
    assert float(matching().pairs_loss(parts, torch.eye(4, dtype=torch.float64), 4)) == 0  # no companion
    alone = torch.zeros(4, 2, dtype=torch.float64)
    alone[:, 0] = 1
    assert float(matching().pairs_loss(parts, alone, 4)) == 0  # a companion is certain without rivals


def test_bad_arguments_and_tasks_are_refused(generator):
    for arguments, words in (
        ({"grid": None}, "does not say its grid and dim"),
        ({"dim": None}, "does not say its grid and dim"),
        ({"grid": (0, 4)}, r"grid=\(0, 4\), dim=2; required are two numbers of places and one, each at least 1"),
        ({"grid": (4,)}, "required are two numbers of places"),
        ({"window": 4}, "window=4, .* required are an odd window"),
        ({"rivals": 0}, "rivals=0"),
        ({"scale": 0.0}, "a scale above 0"),
    ):
        with pytest.raises(ValueError, match=words):
            matching(**arguments)
    with pytest.raises(ValueError, match="dim=4, and the backbone has 3: leave dim out"):
        LocalMatching(LocalDescriptors(SmallResNet(), dim=3), dim=4)
    with pytest.raises(ValueError, match=r"grid=\(2, 2\), and the backbone has \(7, 7\): leave grid out"):
        LocalMatching(LocalDescriptors(SmallResNet()), grid=(2, 2))
    with pytest.raises(ValueError, match="the backbone gives 36 numbers; required are more than 12 places"):
        matching().adapt(q.Labelled(torch.rand(2, 36), torch.eye(2)))
    with pytest.raises(ValueError, match="one-hot rows over two classes or more"):
        matching().adapt(q.Labelled(rows(2, generator), torch.ones(2, 1)))
    learner = matching()
    y = torch.eye(3, dtype=torch.float64)[:2]
    probability = learner.predict(learner.adapt(q.Labelled(rows(2, generator), y)), rows(1, generator)).softmax(-1)
    assert float(probability[0, 2]) == 0  # a class without support
