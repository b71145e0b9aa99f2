"""Plain classification: mini-batches over all classes."""

import torch

import quickstudy as q


def tasks(**settings) -> q.ClassTasks:
    """Classes of 3, 4, 5, 6 examples; an example is (its class, its number)."""
    x = torch.tensor([(k, i) for k in range(4) for i in range(3 + k)], dtype=torch.float32)
    return q.ClassTasks(x, x[:, 0].int(), way=2, shot=1, queries=2, **settings)


def test_a_draw_is_a_mini_batch_over_all_classes_with_an_empty_support_set(generator):
    (sx, sy), (qx, qy) = q.AllClasses(tasks(), batch=5).sample(3, generator=generator)
    assert sx.shape == (3, 0, 2)
    assert sy.shape == (3, 0, 4)
    assert qx.shape == (3, 5, 2)
    assert qy.shape == (3, 5, 4)


def test_every_example_carries_its_class_and_all_are_drawn_alike(generator):
    x, y = q.AllClasses(tasks(), batch=6000).sample(1, generator=generator).query
    assert torch.equal(y.argmax(-1), x[..., 0].long())
    assert torch.equal(y.sum(-1), torch.ones(1, 6000))
    counts = torch.bincount((x[0, :, 0] * 10 + x[0, :, 1]).long())
    counts = counts[counts > 0].double()
    assert len(counts) == 18
    assert float(((counts - 6000 / 18) ** 2 / (6000 / 18)).sum()) < 40.8  # 99.9 % point, 17 degrees of freedom


def test_the_seed_decides_and_augment_is_applied(generator):
    calls = []

    def augment(x, g):
        calls.append((x.shape, g))
        return x + 10

    draws = [q.AllClasses(tasks(), 8).sample(2, generator=torch.Generator().manual_seed(4)) for _ in range(2)]
    assert torch.equal(draws[0].query.x, draws[1].query.x)
    changed = q.AllClasses(tasks(augment=augment), 8).sample(2, generator=generator)
    assert calls == [(torch.Size([16, 2]), generator)]
    assert float(changed.query.x.min()) >= 10


def test_a_classifier_learns_from_it(generator):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        learner = q.Classifier(q.MLP(2, (16,), 8), classes=4)
    optimizer = torch.optim.Adam(learner.parameters(), lr=0.05)
    steps = q.meta_train(learner, q.AllClasses(tasks(), 32), optimizer, steps=60, meta_batch=1, generator=generator)
    losses = [step.loss for step in steps]
    assert losses[-1] < 0.3 * losses[0]
