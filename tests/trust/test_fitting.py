"""Calibration on tasks of unseen classes, and on a support set alone."""

import json
import math

import pytest
import torch
from torch import nn

import quickstudy as q
from quickstudy.trust import (
    SCORES,
    Trust,
    ask,
    calibrate,
    calibrate_on_support,
    expected_calibration_error,
    fit_temperature,
    is_unknown,
    judge,
    left_out,
    prediction_sets,
    probabilities,
)
from quickstudy.trust.fitting import _best
from tests.trust.made import gaussian_tasks, made, nearest


def fitted(**settings) -> Trust:
    shape = {"ways": (2, 4), "shots": (1, 3), "episodes": 40}
    return calibrate(
        nearest(),
        gaussian_tasks(),
        **{**shape, **settings},
        generator=torch.Generator().manual_seed(1),
        source="clouds",
    )


def test_questions_are_of_the_task_and_of_none_of_its_classes(generator):
    """Every example says its class; the learner answers by it."""
    x = torch.arange(12.0).repeat_interleave(6).unsqueeze(1)
    asked = ask(nearest(), q.ClassTasks(x, x.flatten().tolist(), queries=2), way=3, shot=2, episodes=5,
                generator=generator)  # fmt: skip
    assert asked.logits.shape == asked.y.shape == asked.others.shape == (30, 3)
    assert bool((asked.logits[asked.y > 0].abs() < 1e-9).all())
    assert bool((asked.logits[asked.y == 0] < -0.9).all())
    assert bool((asked.others < -0.9).all())


def test_a_transductive_learner_sees_known_and_unknown_queries_apart(generator):
    class Counting(q.Learner[torch.Tensor]):
        """Logits are 1 for the first class if it saw 6 queries, and that is all."""

        transductive = True

        def adapt(self, support: q.Labelled, query_x: torch.Tensor | None = None) -> torch.Tensor:
            assert query_x is not None
            return support.y.sum(0) * 0 + len(query_x)

        def predict(self, adapted: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            return adapted.expand(len(x), -1)

    asked = ask(Counting(), gaussian_tasks(queries=2), way=3, shot=1, episodes=2, generator=generator)
    assert set(asked.logits.flatten().tolist()) == set(asked.others.flatten().tolist()) == {6.0}


def test_a_calibration_is_what_the_parts_say_of_the_same_answers():
    trust = fitted(ways=(4,), shots=(3,))
    (found,) = trust.calibrations
    asked = ask(nearest(), gaussian_tasks(), way=4, shot=3, episodes=40, generator=torch.Generator().manual_seed(1))
    assert (found.way, found.shot, found.examples) == (4, 3, 40 * 4 * 4)
    assert found.temperature == fit_temperature(asked.logits, asked.y)
    assert found.ece_before == expected_calibration_error(probabilities(asked.logits, None), asked.y)
    assert found.ece_after == expected_calibration_error(probabilities(asked.logits, found), asked.y)
    assert found.ece_after < found.ece_before
    for name in found.known:
        alarms = is_unknown(asked.logits, found, name, 0.1).double().mean()
        assert 0.09 < float(alarms) <= 0.1
    sets = prediction_sets(asked.logits, found, "probability", 0.9)
    assert 0.9 <= float(sets[asked.y > 0].double().mean()) < 0.91
    assert (trust.score, trust.conformity) == ("maximum_logit", "logit")
    sets = prediction_sets(asked.logits, found, "logit", 0.9)
    assert 0.9 <= float(sets[asked.y > 0].double().mean()) < 0.91
    assert trust.score == max(found.auroc, key=lambda name: found.auroc[name])
    assert Trust.from_dict(json.loads(json.dumps(trust.as_dict()))) == trust


def test_the_same_seed_gives_the_same_trust():
    assert fitted() == fitted()


def test_coverage_and_false_alarms_hold_on_fresh_classes_also_between_the_fitted_shapes():
    trust = fitted(ways=(2, 4, 8), shots=(1, 4), episodes=120)
    fresh = gaussian_tasks(classes=400, seed=5)
    for way, shot in ((4, 4), (4, 1), (3, 2), (6, 3)):
        counted = judge(
            trust, nearest(), fresh, way=way, shot=shot, episodes=150, generator=torch.Generator().manual_seed(7)
        )
        assert 0.86 < counted.coverage < 0.94
        assert 0.02 < counted.false_alarms < 0.09
        assert counted.ece_after < min(0.03, counted.ece_before)
        assert counted.detected > 0.3
        assert counted.auroc[trust.score] > 0.85
        assert counted.coverage_ci95 < 0.03
        assert counted.empty_unknown > counted.empty_known
        assert counted.set_size < 1.2


def test_judging_counts_what_the_parts_say():
    trust, tasks = fitted(ways=(4,), shots=(3,)), gaussian_tasks(seed=3)
    counted = judge(trust, nearest(), tasks, way=4, shot=3, episodes=9, generator=torch.Generator().manual_seed(2))
    asked = ask(nearest(), tasks, way=4, shot=3, episodes=9, generator=torch.Generator().manual_seed(2))
    sets = prediction_sets(asked.logits, trust.calibrations[0], trust.conformity, 0.9)
    held = [bool(row[label]) for row, label in zip(sets, asked.y.argmax(1).tolist(), strict=True)]
    assert counted.coverage == pytest.approx(sum(held) / len(held))
    per_task = [sum(held[i : i + 16]) / 16 for i in range(0, len(held), 16)]
    mean = sum(per_task) / 9
    assert counted.coverage_ci95 == pytest.approx(1.96 * math.sqrt(sum((v - mean) ** 2 for v in per_task) / 8 / 9))
    assert counted.set_size == pytest.approx(sum(sum(row) for row in sets.tolist()) / len(sets))
    assert counted.empty_known == pytest.approx(sum(not any(row) for row in sets.tolist()) / len(sets))
    assert counted.accuracy == pytest.approx(float((asked.logits.argmax(1) == asked.y.argmax(1)).double().mean()))
    assert counted.detected == float(is_unknown(asked.others, trust.calibrations[0], trust.score, 0.05).double().mean())


def test_unknown_classes_are_as_many_as_there_are_left(generator):
    tasks = gaussian_tasks(classes=8)
    assert len(ask(nearest(), tasks, way=6, shot=1, episodes=3, generator=generator).others) == 3 * 2 * 4
    with pytest.raises(ValueError, match=r"way=8 of 8 classes; required are two classes at least, and one more"):
        ask(nearest(), tasks, way=8, shot=1, episodes=3, generator=generator)
    within = gaussian_tasks(classes=40, within_group=True)
    assert len(ask(nearest(), within, way=5, shot=1, episodes=3, generator=generator).others) == 3 * 3 * 4
    with pytest.raises(ValueError, match=r"way=9 of 8 classes in the largest group; required are two classes"):
        ask(nearest(), within, way=9, shot=1, episodes=3, generator=generator)
    with pytest.raises(ValueError, match=r"way=1 of 8 classes; required are two classes at least"):
        ask(nearest(), tasks, way=1, shot=1, episodes=3, generator=generator)


def test_what_cannot_be_fitted_is_refused(generator):
    with pytest.raises(ValueError, match=r"ways=\(\), shots=\(1, 3\); required is at least one of each"):
        fitted(ways=())
    with pytest.raises(ValueError, match="episodes=0; required is at least 1"):
        fitted(episodes=0)
    with pytest.raises(ValueError, match=r"required are shot \+ queries = 20 \+ 4 = 24"):
        fitted(shots=(20,))
    numbers = q.MAML(nn.Linear(6, 3), head=None)
    numbers.regression = True
    with pytest.raises(ValueError, match="MAML predicts numbers; required is a learner that tells classes apart"):
        ask(numbers, gaussian_tasks(), way=3, shot=1, episodes=1, generator=generator)
    broken = q.ProtoNet(nn.Linear(6, 2))
    nn.init.constant_(next(broken.parameters()), torch.nan)
    with pytest.raises(FloatingPointError, match="ProtoNet predicts NaN or infinite values; required are finite"):
        ask(broken, gaussian_tasks(), way=3, shot=1, episodes=1, generator=generator)


def few(generator: torch.Generator, classes: int, each: int) -> tuple[q.Labelled, q.Labelled, torch.Tensor]:
    """A support set, queries of its classes, and examples of other classes."""
    support, query = gaussian_tasks(way=classes + 4, shot=each, queries=8).sample(1, generator=generator)
    ours, known = support.y[0, :, :classes].sum(1) > 0, query.y[0, :, :classes].sum(1) > 0
    return (
        q.Labelled(support.x[0, ours], support.y[0, ours, :classes]),
        q.Labelled(query.x[0, known], query.y[0, known, :classes]),
        query.x[0, ~known],
    )


def test_left_out_examples_are_answered_without_them_and_without_their_class(generator):
    (x, y), _, _ = few(generator, 5, 3)
    order = torch.randperm(15, generator=generator)
    x, y = x[order], y[order]
    asked = left_out(nearest(), q.Labelled(x, y), folds=9)  # one at a time
    assert torch.equal(asked.y, y)
    rows, label = torch.arange(15), y.argmax(1)
    for i in range(15):
        others = (label != label[i]) | ((rows != i) & (label == label[i]))
        first = [j for j in range(15) if label[j] == label[i]].index(i)
        shown = torch.tensor([[k for k in range(15) if label[k] == c].index(j) != first
                              for j, c in enumerate(label.tolist())])  # fmt: skip
        assert not shown[i]
        assert bool(others[shown].all())
        expected = nearest().answer(q.Labelled(x[shown], y[shown]), x[i : i + 1])[0]
        torch.testing.assert_close(asked.logits[i], expected)
        strangers = label != label[i]
        kept = torch.arange(5) != label[i]
        expected = nearest().answer(q.Labelled(x[strangers], y[strangers][:, kept]), x[i : i + 1])[0]
        torch.testing.assert_close(asked.others[i, kept], expected)
        assert float(asked.others[i, ~kept]) == torch.finfo(torch.float32).min


def test_many_classes_are_left_out_several_at_a_time(generator):
    (x, y), _, _ = few(generator, 7, 2)
    asked = left_out(nearest(), q.Labelled(x, y), folds=3)
    lowest = asked.others == torch.finfo(torch.float32).min
    assert asked.others.shape == (14, 7)
    assert bool(lowest[y > 0].all())
    assert lowest.sum(1).tolist() == [k for k in (3, 2, 2, 3, 2, 2, 3) for _ in range(2)]  # classes 0, 3, 6; 1, 4; 2, 5


def test_a_learner_adapts_once_for_each_part_and_each_group_of_classes(generator, monkeypatch):
    support, _, _ = few(generator, 3, 8)
    seen = []
    adapt = q.ProtoNet.adapt
    monkeypatch.setattr(q.ProtoNet, "adapt", lambda self, given: (seen.append(given.y.shape), adapt(self, given))[1])
    asked = left_out(nearest(), support, folds=5)
    assert [way for _, way in seen] == [3] * 5 + [2] * 3
    assert sum(24 - n for n, way in seen if way == 3) == 24
    assert asked.others.shape == (24, 3)


def test_the_score_that_is_best_on_average_is_taken():
    once = made(auroc={**dict.fromkeys(SCORES, 0.5), "energy": 0.8, "margin": 0.75})
    again = made(shot=3, auroc={**dict.fromkeys(SCORES, 0.5), "energy": 0.6, "margin": 0.7})
    assert _best([once]) == "energy"
    assert _best([once, again]) == "margin"


def test_a_support_set_alone_serves_with_what_cross_validation_says(generator):
    support, _, _ = few(generator, 5, 6)
    trust = calibrate_on_support(*left_out(nearest(), support), way=5, shot=6)
    (found,) = trust.calibrations
    assert (found.way, found.shot, found.examples) == (5, 6, 30)
    assert "30 examples" in trust.source
    assert trust.at(9, 1) is found
    assert trust.conformity == "probability"
    assert found.auroc[trust.score] > 0.8


def test_over_many_support_sets_coverage_and_false_alarms_hold_nearly(generator):
    held = alarms = found = 0.0
    for _ in range(40):
        support, query, others = few(generator, 5, 6)
        trust = calibrate_on_support(*left_out(nearest(), support), way=5, shot=6)
        answers, strange = (nearest().answer(support, x) for x in (query.x, others))
        sets = prediction_sets(answers, trust.calibrations[0], trust.conformity, 0.9)
        held += float(sets[query.y > 0].double().mean()) / 40
        alarms += float(is_unknown(answers, trust.calibrations[0], trust.score, 0.1).double().mean()) / 40
        found += float(is_unknown(strange, trust.calibrations[0], trust.score, 0.1).double().mean()) / 40
    assert 0.87 < held < 0.95
    assert alarms < 0.12
    assert found > 0.7


def test_two_classes_say_nothing_of_unknown_ones(generator):
    support, _, _ = few(generator, 2, 6)
    asked = left_out(nearest(), support)
    assert asked.others.shape == (0, 2)
    trust = calibrate_on_support(*asked, way=2, shot=6)
    assert set(trust.calibrations[0].auroc.values()) == {0.5}
    assert trust.conformity == "probability"
    assert trust == calibrate_on_support(asked.logits, asked.y, way=2, shot=6)


def test_examples_that_cannot_be_left_out_are_refused(generator):
    support, _, _ = few(generator, 3, 3)
    with pytest.raises(ValueError, match=r"3 classes of \[3, 3, 3\] examples and folds=1; required are two classes"):
        left_out(nearest(), support, folds=1)
    with pytest.raises(ValueError, match=r"3 classes of \[3, 3, 1\] examples .*give more labelled examples, or go"):
        left_out(nearest(), q.Labelled(support.x[:7], support.y[:7]))


def test_a_support_set_that_is_too_small_says_how_much_is_needed():
    y = q.one_hot(torch.arange(8) % 2, 2)
    with pytest.raises(ValueError, match=r"8 examples, and 4 of the smallest class; required are at least 9, and two"):
        calibrate_on_support(y, y, way=2, shot=4)
    y = q.one_hot(torch.tensor([0, 1, 1, 1, 1, 1, 1, 1, 1, 1]), 2)
    with pytest.raises(ValueError, match=r"10 examples, and 1 of the smallest class; required are"):
        calibrate_on_support(y, y, way=2, shot=5)
    y = q.one_hot(torch.arange(12) % 2, 2)
    with pytest.raises(ValueError, match=r"way=3 and logits for 2 classes; required is the same"):
        calibrate_on_support(y, y, way=3, shot=6)
    with pytest.raises(ValueError, match=r"required is \(n, way\) for both"):
        calibrate_on_support(y[:, :1], y, way=2, shot=6)
