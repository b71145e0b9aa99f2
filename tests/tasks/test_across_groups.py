"""Tasks with the support set of one group and the queries of another."""

import pytest
import torch

import quickstudy as q
from quickstudy.tasks import AcrossGroups

GROUPS, LABELS, EACH = 3, 4, 6


def build(**settings):
    """An example is (group, label, number)."""
    rows = [(g, k, i) for g in range(GROUPS) for k in range(LABELS) for i in range(EACH)]
    names = [f"g{g}/{k}" for g, k, _ in rows]
    x = torch.tensor(rows, dtype=torch.float32)
    arguments = {"way": 3, "shot": 2, "queries": 3, **settings}
    return q.ClassTasks(x, names, groups=[name.split("/")[0] for name in names], **arguments)


def test_support_and_queries_are_of_two_groups_and_share_labels(generator):
    support, query = AcrossGroups(build()).sample(200, generator=generator)
    assert support.x.shape == (200, 6, 3)
    assert query.x.shape == (200, 9, 3)
    pairs = set()
    for t in range(200):
        (s,), (o,) = (set(part.x[t, :, 0].tolist()) for part in (support, query))
        assert s != o
        pairs.add((s, o))
        of_class = support.y[t].T @ support.x[t, :, 1] / 2  # (way,) the label of each class
        assert len(set(of_class.tolist())) == 3
        assert torch.equal(query.y[t] @ of_class, query.x[t, :, 1])
        for part, k in ((support, 2), (query, 3)):
            assert torch.equal(part.y[t].sum(0), torch.full((3,), float(k)))
            assert len({tuple(row) for row in part.x[t].tolist()}) == 3 * k  # no example twice
    assert len(pairs) == 6  # every order of two of the three groups


def test_the_same_generator_draws_the_same_tasks():
    one, two = (AcrossGroups(build()).sample(3, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(one.support.x, two.support.x)
    assert torch.equal(one.query.x, two.query.x)


def test_examples_are_changed_as_the_tasks_say(generator):
    tasks = build(augment=lambda x, generator: x + 100)
    assert float(AcrossGroups(tasks).sample(1, generator=generator).query.x.min()) >= 100


def test_labels_that_a_group_lacks_are_not_drawn(generator):
    tasks = build(way=2).only(classes=["g0/0", "g0/1", "g1/0", "g1/1", "g1/2"])
    found = AcrossGroups(tasks).sample(50, generator=generator)
    assert set(found.query.x[..., 1].flatten().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: build().only(groups=["g0"]), "have 1 groups; required are two"),
        (lambda: q.ClassTasks(torch.zeros(40, 1), [i // 8 for i in range(40)], queries=3), "have 0 groups"),
        (lambda: build(way=5), "3 groups share 4 labels, and way=5: lower the way"),
        (lambda: build(shot=(1, 2)), r"shot=\(1, 2\); required is one number for each"),
    ],
)
def test_tasks_that_cannot_be_drawn_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        AcrossGroups(make())
