"""What the report measures."""

import pytest
import torch

import quickstudy as q
from quickstudy.report import measure
from quickstudy.runs import Settings


def tasks(classes: int = 8, examples: int = 6, **settings) -> q.ClassTasks:
    """One-dimensional classes, far from each other; group "even" is the largest."""
    y = torch.arange(classes).repeat_interleave(examples)
    x = y.unsqueeze(1) * 10.0 + torch.rand(len(y), 3, generator=torch.Generator().manual_seed(0))
    groups = ["even" if k % 2 == 0 or k == 1 else "odd" for k in y.tolist()]
    return q.ClassTasks(x, y.tolist(), groups=groups, way=2, queries=1, **settings)


def learner() -> q.ProtoNet:
    return q.ProtoNet(torch.nn.Identity())


def test_ways_and_shots_are_those_the_data_hold():
    assert measure.permitted_ways([learner()], tasks(), Settings()) == [2, 5]
    assert measure.permitted_ways([learner()], tasks(within_group=True), Settings()) == [2, 5]
    assert measure.permitted_ways([learner()], tasks(4), Settings()) == [2, 4]
    assert measure.permitted_shots(tasks()) == [1, 2, 3, 5]
    fixed = q.MAML(q.MLP(3, (4,), 4), head=None)
    assert measure.permitted_ways([learner(), fixed], tasks(), Settings(way=4)) == [4]
    assert measure.permitted_ways([fixed], tasks(), Settings(way=9)) == []


def test_curves_judge_all_learners_on_the_same_episodes():
    found = measure.over_shots({"a": learner(), "b": learner()}, tasks(), way=5, episodes=3, seed=1)
    assert list(found) == [1, 2, 3, 5]
    for shot, comparison in found.items():
        score = comparison.scores["a"]
        assert (score.way, score.shot, score.queries, score.episodes) == (5, shot, min(5, 6 - shot), 3)
        assert comparison.differences["a", "b"] == (0, 0)


def test_large_episodes_are_fewer():
    found = measure.over_ways({"a": learner()}, tasks(60, 2), ways=[2, 50], episodes=100, seed=0)
    assert found[2].scores["a"].episodes == 100
    assert found[50].scores["a"].episodes == 15  # 1500 images, 100 in an episode
    steps = q.MAML(q.MLP(3, (4,), 4), inner_steps=5)
    many = measure.over_ways({"a": learner(), "b": steps, "c": learner()}, tasks(60, 2), ways=[5], episodes=100, seed=0)
    assert many[5].scores["a"].episodes == 1000 // (5 * 17)


def test_examples_name_their_classes(generator):
    given = tasks()
    for example in measure.examples(learner(), given, n=3, way=4, queries=2, generator=generator):
        assert example.predicted == example.true == [0, 0, 1, 1, 2, 2, 3, 3]
        assert (example.support[:, 0] / 10).floor().tolist() == example.classes
        assert (example.query[::2, 0] / 10).floor().tolist() == example.classes


def test_examples_within_a_group(generator):
    given = tasks(within_group=True)
    for example in measure.examples(learner(), given, n=5, way=3, queries=1, generator=generator):
        assert len({given.class_groups[given.classes.index(name)] for name in example.classes}) == 1


def test_embedding_of_the_largest_group(generator):
    found = measure.embedding(learner(), tasks(), classes=3, per_class=4, generator=generator)
    assert found is not None
    assert found.group == "even"
    assert len(found.classes) == 3
    assert set(found.classes) <= {0, 1, 2, 4, 6}
    assert found.label == [0] * 4 + [1] * 4 + [2] * 4
    assert found.position.shape == (12, 2)
    assert found.explained[0] > 0.99  # the classes lie on a line


@pytest.mark.parametrize("network", [torch.nn.Linear(3, 1), torch.nn.Threshold(1e9, 0.0)])
def test_no_plane_in_a_line_or_a_point(network, generator):
    assert measure.embedding(q.ProtoNet(network), tasks(), classes=3, per_class=4, generator=generator) is None


def test_unadapted_shares_the_parameters_and_leaves_the_learner_alone():
    given = q.MAML(q.MLP(1, (4,), 1), head=None, inner_steps=3)
    start = measure.unadapted(given)
    assert start is not None
    assert (start.inner_steps, given.inner_steps) == (0, 3)
    assert all(a is b for a, b in zip(start.parameters(), given.parameters(), strict=True))
    assert measure.unadapted(learner()) is None


def test_waves_are_sorted_and_true(generator):
    given = q.MAML(q.MLP(1, (4,), 1), head=None, inner_steps=1)
    found = measure.waves(given, q.Sinusoid(shot=3), n=2, generator=generator)
    assert len(found) == 2
    for wave in found:
        assert torch.equal(wave.x, wave.x.sort().values)
        assert wave.support_x.shape == (3,)
        assert wave.before is not None
        assert wave.y.shape == wave.after.shape == wave.before.shape == wave.x.shape
        assert float(wave.y.abs().max()) <= 5
