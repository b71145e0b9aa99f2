"""Who wins, and how it is said."""

import dataclasses
import json
import math

import pytest
import torch

from quickstudy import optimizer_evaluation
from quickstudy.optimizer_evaluation import evaluate_rules, in_words
from quickstudy.optimizers import LSTMRule, Quadratics, named
from tests.small_evaluation import small_evaluation

FEW = {"at": [2], "count": 8, "baselines": ["SGD", "Adam"]}


def spoilt(name: str, problems: int):
    """The small evaluation, where one optimizer diverged on some problems."""
    found = small_evaluation()
    judged = []
    for one in found.judged:
        logs = one.log_losses.clone()
        if one.name == name:
            logs[:problems] = 20.0  # the loss before the first step
        lost = problems if one.name == name else 0
        judged.append(dataclasses.replace(one, log_losses=logs, diverged=lost))
    return dataclasses.replace(found, judged=tuple(judged))


def test_a_rule_with_lower_losses_wins_against_the_best_baseline():
    verdict = small_evaluation(gain=0.5).verdict("lstm", 10)
    assert (verdict.best, verdict.wins, verdict.certain) == ("Adam", True, True)
    assert verdict.to_best == verdict.to_adam
    assert verdict.to_best[0] == pytest.approx(math.exp(-0.5 * 1.035), rel=0.01)
    assert verdict.in_words().startswith("lstm wins: lstm has 0.60 (")
    assert verdict.in_words().endswith("× the loss of Adam, the best baseline")


def test_where_a_baseline_wins_it_is_said():
    verdict = small_evaluation(gain=-0.5).verdict("lstm", 10)
    assert not verdict.wins
    assert verdict.in_words().startswith("Adam wins over lstm: lstm has 1.6")


def test_what_cannot_be_told_apart_is_not_decided():
    found = small_evaluation(gain=0.0)
    verdict = found.verdict("lstm", 30)
    assert not verdict.certain
    assert "cannot be told apart" in verdict.in_words()


def test_the_best_come_first_rules_before_baselines():
    assert [one.name for one in small_evaluation().after(10)] == ["lstm", "Adam", "SGD"]
    assert [one.name for one in spoilt("Adam", 1).baselines(10)] == ["SGD", "Adam"]


def test_problems_on_which_an_optimizer_diverged_are_noted_and_count_with_their_start():
    found = spoilt("lstm", 8)
    verdict = found.verdict("lstm", 10)
    assert (verdict.wins, verdict.certain) == (False, True)
    assert verdict.in_words().startswith("Adam wins over lstm")
    note = (
        "lstm diverged on 8 of 8 problems within 10 steps; such a problem counts with its loss before the first step."
    )
    assert note in found.notes()
    assert not any("diverged" in note for note in small_evaluation().notes())
    json.dumps(found.as_dict(), allow_nan=False)


def test_a_rate_at_the_edge_of_the_grid_is_noted():
    found = small_evaluation()
    assert any("best learning rate of SGD for 10 steps, 0.1, is the last one" in note for note in found.notes())
    assert not any("Adam" in note for note in found.notes())


def test_without_adam_there_is_no_ratio_to_it():
    found = small_evaluation()
    without = dataclasses.replace(found, judged=tuple(one for one in found.judged if one.name != "Adam"))
    assert without.verdict("lstm", 10).to_adam is None
    assert without.as_dict()["verdicts"][0]["ratio_to_adam"] is None


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        ((0.5, 0.45, 0.555), "0.50 (0.45–0.56)"),
        ((1234.5, 600.0, 2539.0), "1,234 (600–2,539)"),
        ((0.0123, 0.01, 0.015), "0.0123 (0.01–0.015)"),
        ((0.5, math.nan, math.nan), "0.50"),
    ],
)
def test_ratios_in_words(ratio, words):
    assert in_words(ratio) == words


def test_baselines_are_tuned_on_the_training_part_and_all_are_judged_on_the_test_part(monkeypatch):
    drawn = []

    class Noted(Quadratics):
        def sample(self, n, *, generator):
            drawn.append(str(self.dim))
            return super().sample(n, generator=generator)

    monkeypatch.setitem(named.PROBLEMS, "quadratics", lambda part: Noted(dim=2 if part == "train" else 3))
    said = []
    found = evaluate_rules({"rule": LSTMRule(2)}, "quadratics", **FEW, on_work=said.append)
    assert "".join(drawn) == "2" * 40 + "3" * 2  # 5 seeds × 4 shapes × 2 baselines, then 8 problems by fours
    assert said == ["tuning SGD on quadratics", "tuning Adam on quadratics", "judging on quadratics"]
    assert (found.count, found.rules, found.at) == (8, ("rule",), (2,))
    assert all(torch.isfinite(one.log_losses).all() and one.curve is not None for one in found.judged)
    assert len(found.as_dict()["tuning"][0]["mean_log_loss_by_rate"]) == 17


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"count": 10}, "a multiple of 4, at least 8"),
        ({"count": 4}, "a multiple of 4, at least 8"),
        ({"at": [0, 5]}, "numbers of at least 1"),
        ({"at": []}, "numbers of at least 1"),
        ({"baselines": []}, "at least one of each"),
        ({"baselines": ["Lion"]}, "no baseline 'Lion'"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        evaluate_rules({"rule": LSTMRule(2)}, "quadratics", **{**FEW, **arguments})


def test_four_problems_at_a_time_share_a_shape():
    assert optimizer_evaluation.TOGETHER == 4
