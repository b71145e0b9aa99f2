"""Scores by hand, and what must be known to compare them."""

import json
import math

import pytest
import torch
from torch import nn

import quickstudy as q
from quickstudy.episode import Episode, Labelled, task
from quickstudy.evaluation import evaluate_episodes, is_transductive, mean_ci95


def tasks(**settings) -> q.ClassTasks:
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(1)) + torch.arange(60).div(10).floor()[:, None] / 2
    return q.ClassTasks(x, [i // 10 for i in range(60)], **{"way": 3, "shot": 2, "queries": 4, **settings})


def images(**settings) -> q.ClassTasks:
    x = torch.rand(40, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    return q.ClassTasks(x, [i // 8 for i in range(40)], **{"way": 3, "shot": 1, "queries": 3, **settings})


def seed(n: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(n)


class MeanOfQueries(q.Learner[Labelled]):
    """Looks at the queries, and says so."""

    transductive = True

    def adapt(self, support, query_x=None):
        assert query_x is not None
        return Labelled(support.x - query_x.mean(0), support.y)

    def predict(self, adapted, x):
        return -torch.cdist(x - x.mean(0), adapted.y.T @ adapted.x)


class Constant(q.Learner[int]):
    """Predicts the two columns of a plane."""

    regression = True

    def __init__(self):
        super().__init__()
        self.value = nn.Parameter(torch.zeros(2))

    def adapt(self, support, query_x=None):
        return 0

    def predict(self, adapted, x):
        return self.value.expand(len(x), 2)


def test_mean_and_ci95_are_those_of_the_episodes_by_hand():
    learner, n = q.NearestNeighbour(), 30
    score = q.evaluate(learner, tasks(), episodes=n, generator=seed())
    generator, right = seed(), []
    for _ in range(n):
        episode = task(tasks().sample(1, generator=generator), 0)
        hits = 0
        for x, y in zip(*episode.query, strict=True):
            nearest = min(range(len(episode.support.x)), key=lambda i: float((episode.support.x[i] - x).square().sum()))
            hits += int(episode.support.y[nearest].argmax()) == int(y.argmax())
        right.append(hits / len(episode.query.x))
    mean = sum(right) / n
    sd = math.sqrt(sum((r - mean) ** 2 for r in right) / (n - 1))
    assert score.per_episode.tolist() == pytest.approx(right)
    assert score.mean == pytest.approx(mean)
    assert score.ci95 == pytest.approx(1.96 * sd / math.sqrt(n))
    assert 0 < score.ci95 < mean < 1


def test_accuracy_does_not_count_padding():
    y = q.one_hot(torch.tensor([0, 1, 1, -1, -1]), 2)
    prediction = torch.tensor([[1.0, 0], [1, 0], [0, 1], [1, 0], [0, 1]])
    assert float(q.accuracy(prediction, y)) == pytest.approx(2 / 3)
    assert float(q.accuracy(prediction[3:], y[3:])) == 0  # nothing to judge


def test_padded_queries_do_not_change_a_score():
    episode = task(tasks().sample(1, generator=seed()), 0)
    (sx, sy), (qx, qy) = episode
    padded = Episode(
        Labelled(torch.cat([sx, sx[:2] * 9]), torch.cat([sy, 0 * sy[:2]])),
        Labelled(torch.cat([qx, qx[:2] * 9]), torch.cat([qy, 0 * qy[:2]])),
    )
    plain, filled = (evaluate_episodes(q.NearestNeighbour(), [e]) for e in (episode, padded))
    assert plain.mean == filled.mean
    assert (filled.way, filled.shot, filled.queries) == (3, 2, 4)


def test_mean_squared_error_is_the_metric_where_targets_are_numbers():
    learner = q.MAML(nn.Linear(1, 1), head=None, inner_steps=0)
    score = q.evaluate(learner, q.Sinusoid(shot=7, queries=3), episodes=5, generator=seed())
    generator, errors = seed(), []
    for _ in range(5):
        x, y = task(q.Sinusoid(shot=7, queries=3).sample(1, generator=generator), 0).query
        weight, bias = (float(p.detach()) for p in learner.parameters())
        errors.append(sum((weight * float(a) + bias - float(b)) ** 2 for a, b in zip(x, y, strict=True)) / 3)
    assert score.per_episode.tolist() == pytest.approx(errors, rel=1e-5)
    assert score.metric == "mean_squared_error"
    assert (score.way, score.shot, score.queries) == (0, 7, 3)
    assert score.protocol == "7-shot 3-query"


def test_targets_of_several_columns_are_judged_and_counted_as_points():
    class Plane:
        def sample(self, n, *, generator):
            x = torch.randn(n, 9, 3, generator=generator)
            y = x[..., :2] * 2
            return Episode(Labelled(x[:, :5], y[:, :5]), Labelled(x[:, 5:], y[:, 5:]))

    score = q.evaluate(Constant(), Plane(), episodes=3, generator=seed())
    assert score.metric == "mean_squared_error"
    assert (score.way, score.shot, score.queries) == (0, 5, 4)


def test_a_metric_of_ones_own_goes_by_its_name():
    def wrong(prediction, y):
        return 1 - q.accuracy(prediction, y)

    score = q.evaluate(q.NearestNeighbour(), tasks(), episodes=4, generator=seed(), metric=wrong)
    usual = q.evaluate(q.NearestNeighbour(), tasks(), episodes=4, generator=seed())
    assert score.mean == pytest.approx(1 - usual.mean)
    assert score.as_dict()["wrong"] == score.mean
    assert "accuracy" not in score.as_dict()


def test_the_same_seed_gives_the_same_score_whatever_was_asked_before():
    learner = q.ProtoNet(q.MLP(4, (8,), 4))
    first = q.evaluate(learner, tasks(), episodes=8, generator=seed(3))
    torch.rand(5)
    q.evaluate(learner, tasks(way=2), episodes=3, generator=seed(9))
    assert torch.equal(first.per_episode, q.evaluate(learner, tasks(), episodes=8, generator=seed(3)).per_episode)
    assert torch.equal(first.per_episode[:3], q.evaluate(learner, tasks(), episodes=3, generator=seed(3)).per_episode)
    assert not torch.equal(first.per_episode, q.evaluate(learner, tasks(), episodes=8, generator=seed(4)).per_episode)


def test_the_global_random_state_is_neither_read_nor_moved():
    before = torch.get_rng_state()
    q.evaluate(q.NearestNeighbour(), tasks(), episodes=2, generator=seed())
    assert torch.equal(before, torch.get_rng_state())


def test_a_score_says_on_what_it_was_measured():
    score = q.evaluate(q.NearestNeighbour(), tasks(), episodes=6, generator=seed(42))
    assert (score.way, score.shot, score.queries, score.seed, score.episodes) == (3, 2, 4, 42, 6)
    assert score.transductive is False
    assert score.metric == "accuracy"
    assert score.seconds >= 0
    assert str(score) == (
        f"accuracy {score.mean:.4f} ± {score.ci95:.4f} (3-way 2-shot 4-query, 6 episodes, seed 42, inductive)"
    )


def test_ranges_are_reported_as_pairs():
    varied = tasks(way=(2, 4), shot=(1, 3))
    score = q.evaluate(q.NearestNeighbour(), varied, episodes=40, generator=seed())
    assert (score.way, score.shot, score.queries) == ((2, 4), (1, 3), 4)
    assert score.protocol == "2–4-way 1–3-shot 4-query"
    uneven = tasks(shot=(1, 3), balanced=False)
    assert q.evaluate(q.NearestNeighbour(), uneven, episodes=10, generator=seed()).shot == (1, 3)
    assert json.loads(json.dumps(score.as_dict()))["way"] == [2, 4]


@pytest.mark.parametrize(("norm", "expected"), [("batch", True), ("population", False), ("group", False)])
def test_batch_statistics_over_queries_are_transduction(norm, expected):
    learner = q.ProtoNet(q.Conv4(width=8, image_size=16, norm=norm))
    score = q.evaluate(learner, images(), episodes=1, generator=seed())
    assert score.transductive is is_transductive(learner) is expected


def test_a_learner_that_looks_at_the_queries_gets_them_and_is_marked():
    score = q.evaluate(MeanOfQueries(), tasks(), episodes=2, generator=seed())
    assert score.transductive
    assert "transductive" in str(score)
    assert score.as_dict()["transductive"] is True


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_learner_is_restored_also_after_an_error(training):
    modes = []

    class Spy(q.NearestNeighbour):
        def predict(self, adapted, x):
            modes.append((self.training, torch.is_grad_enabled()))
            return super().predict(adapted, x)

    learner = Spy().train(training)
    q.evaluate(learner, tasks(), episodes=1, generator=seed())
    assert modes == [(False, False)]
    assert learner.training is training
    with pytest.raises(ZeroDivisionError):
        q.evaluate(learner, tasks(), episodes=1, generator=seed(), metric=lambda prediction, y: 1 / 0)
    assert learner.training is training


def test_a_score_as_json():
    score = q.evaluate(q.NearestNeighbour(), tasks(), episodes=3, generator=seed(5))
    found = json.loads(json.dumps(score.as_dict(), allow_nan=False))
    assert found["accuracy"] == score.mean
    assert found["ci95"] == score.ci95
    assert {k: found[k] for k in ("episodes", "way", "shot", "queries", "transductive", "seed")} == {
        "episodes": 3,
        "way": 3,
        "shot": 2,
        "queries": 4,
        "transductive": False,
        "seed": 5,
    }


def test_one_episode_has_no_interval_and_is_still_json():
    score = q.evaluate(q.NearestNeighbour(), tasks(), episodes=1, generator=seed())
    assert math.isnan(score.ci95)
    assert json.loads(json.dumps(score.as_dict(), allow_nan=False))["ci95"] is None
    both = q.compare({"a": q.NearestNeighbour(), "b": q.NearestNeighbour()}, tasks(), episodes=1, generator=seed())
    assert json.loads(json.dumps(both.as_dict(), allow_nan=False))["differences"][0]["ci95"] is None


def test_mean_ci95_of_known_numbers():
    assert mean_ci95(torch.tensor([1.0, 2.0, 3.0, 4.0])) == pytest.approx((2.5, 1.96 * math.sqrt(5 / 3) / 2))


def test_compare_judges_on_the_same_episodes_in_pairs():
    learners = {"nearest": q.NearestNeighbour(), "proto": q.ProtoNet(q.MLP(4, (8,), 4)), "twin": q.NearestNeighbour()}
    found = q.compare(learners, tasks(), episodes=12, generator=seed(2))
    assert list(found.scores) == ["nearest", "proto", "twin"]
    assert found.differences[("nearest", "twin")] == (0.0, 0.0)
    a, b = found.scores["nearest"].per_episode, found.scores["proto"].per_episode
    d = (a - b).double().tolist()
    mean = sum(d) / 12
    sd = math.sqrt(sum((x - mean) ** 2 for x in d) / 11)
    assert found.differences[("nearest", "proto")] == pytest.approx((mean, 1.96 * sd / math.sqrt(12)))
    assert set(found.differences) == {("nearest", "proto"), ("nearest", "twin"), ("proto", "twin")}
    alone = q.evaluate(learners["proto"], tasks(), episodes=12, generator=seed(2))
    assert torch.equal(alone.per_episode, b)
    assert "nearest − twin: +0.0000 ± 0.0000" in str(found)
    as_json = json.loads(json.dumps(found.as_dict()))
    assert as_json["scores"]["proto"]["accuracy"] == found.scores["proto"].mean
    assert as_json["differences"][1] == {"a": "nearest", "b": "twin", "mean": 0.0, "ci95": 0.0}


def test_compare_starts_where_its_generator_stands():
    generator = seed(2)
    generator_twin = seed(2)
    for g in (generator, generator_twin):
        torch.rand(3, generator=g)
    found = q.compare({"a": q.NearestNeighbour()}, tasks(), episodes=3, generator=generator)
    alone = q.evaluate(q.NearestNeighbour(), tasks(), episodes=3, generator=generator_twin)
    assert torch.equal(found.scores["a"].per_episode, alone.per_episode)


def test_fixed_episodes_may_differ_in_way_and_shot():
    shapes = [(2, 1), (4, 3)]
    episodes = [task(tasks(way=way, shot=shot).sample(1, generator=seed(way)), 0) for way, shot in shapes]
    score = evaluate_episodes(q.NearestNeighbour(), episodes, seed=11)
    assert (score.way, score.shot, score.queries, score.episodes, score.seed) == ((2, 4), (1, 3), 4, 2, 11)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: q.evaluate(q.NearestNeighbour(), tasks(), episodes=0, generator=seed()), "episodes=0; required is at"),
        (lambda: q.compare({}, tasks(), episodes=1, generator=seed()), "no learner; required is at least one"),
        (lambda: evaluate_episodes(q.NearestNeighbour(), []), "no episodes"),
    ],
)
def test_nothing_to_judge_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_an_episode_that_cannot_be_judged_is_refused():
    (sx, sy), query = task(tasks().sample(1, generator=seed()), 0)
    with pytest.raises(ValueError, match=r"support\.x holds NaN"):
        evaluate_episodes(q.NearestNeighbour(), [Episode(Labelled(sx * torch.nan, sy), query)])
    with pytest.raises(ValueError, match=r"support\.y is not one-hot"):
        evaluate_episodes(q.NearestNeighbour(), [Episode(Labelled(sx, sy + 1), query)])


def test_a_stream_of_tasks_is_shown_to_all_learners_alike():
    class Stream:
        """A distribution with a state of its own."""

        def __init__(self):
            self.drawn = 0

        def sample(self, n, *, generator):
            self.drawn += 1
            return q.Sinusoid(shot=2 + self.drawn % 3).sample(n, generator=generator)

    learner = q.MAML(q.MLP(1), head=None, inner_lr=0.01)
    comparison = q.compare(
        {"a": learner, "b": learner}, Stream(), episodes=5, generator=torch.Generator().manual_seed(0)
    )
    assert comparison.differences["a", "b"] == (0.0, 0.0)


def test_predictions_of_a_wrong_shape_or_without_numbers_are_refused():
    tasks = q.ClassTasks(torch.randn(40, 6), [i // 8 for i in range(40)], way=3, queries=3)

    def judge(learner):
        return q.evaluate(learner, tasks, episodes=2, generator=torch.Generator().manual_seed(0))

    with pytest.raises(ValueError, match=r"prediction has shape \(9, 7\) and the targets \(9, 3\)"):
        judge(q.Classifier(q.MLP(6, (4,), 4), classes=7))
    broken = q.ProtoNet(q.MLP(6))
    with torch.no_grad():
        broken.backbone.layers[0].weight.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="ProtoNet predicts NaN"):
        judge(broken)


def test_a_generator_that_was_used_before_has_no_seed_to_state():
    generator = torch.Generator().manual_seed(7)
    learner = q.MAML(q.MLP(1), head=None)
    assert q.evaluate(learner, q.Sinusoid(), episodes=2, generator=generator).seed == 7
    again = q.evaluate(learner, q.Sinusoid(), episodes=2, generator=generator)
    assert again.seed is None
    assert "seed" not in str(again)


def test_labels_and_inputs_are_brought_to_the_precision_of_the_learner():
    x = torch.randn(1, 6, 4, dtype=torch.float64)
    y = torch.nn.functional.one_hot(torch.tensor([[0, 1, 2, 0, 1, 2]]), 3)

    class Own:
        def sample(self, n, *, generator):
            return q.Episode(q.Labelled(x, y), q.Labelled(x, y))

    assert q.evaluate(q.ProtoNet(q.MLP(4)), Own(), episodes=1, generator=torch.Generator()).mean > 0
