"""Training runs of update rules: their files, their resumption bit for bit, and what is refused."""

import dataclasses
import signal

import pytest
import torch

from quickstudy import rule_runs
from quickstudy.optimizers import RULES, Quadratics, TunedSGD, named
from quickstudy.optimizers.rule_file import load_rule
from quickstudy.rule_runs import train_in_folder
from quickstudy.rule_setup import RuleSettings, build_estimator, build_rule, rule_settings
from quickstudy.rule_training import RuleStep
from quickstudy.runs import RunFolder

SMALL = RuleSettings(
    rule="lstm", hidden=2, problems="quadratics", n=2, unroll=2, horizon=6, groups=2, pairs=2, steps=6, lr=0.01
)


def changed(**settings) -> RuleSettings:
    return dataclasses.replace(SMALL, **settings)


def interrupted(settings: RuleSettings, path, at: int) -> RunFolder:
    """A run that Ctrl-C stopped after outer step ``at``."""

    def on_step(progress) -> None:
        if progress.step == at:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train_in_folder(settings, path, on_step=on_step)
    return RunFolder(path)


def test_a_run_leaves_its_files(tmp_path):
    seen = []
    folder = train_in_folder(SMALL, tmp_path / "run", on_step=lambda p: seen.append((p.step, p.steps, p.skipped)))
    assert seen == [(i, 6, 0) for i in range(1, 7)]
    names = {"config.json", "metrics.jsonl", "checkpoint.safetensors", "rule.safetensors"}
    assert {p.name for p in folder.path.iterdir()} == names
    config = folder.read_config()
    assert config["settings"] == dataclasses.asdict(SMALL)
    assert set(config) == {"settings", "versions", "machine", "command"}
    assert rule_settings(folder) == SMALL
    assert [r["step"] for r in folder.records()] == [1, 2, 3, 4, 5, 6]
    assert set(folder.records()[0]) == {"step", "loss", "diverged", "skipped", "lr"}
    assert folder.records()[-1]["lr"] == 0
    rule = load_rule(folder.rule)
    assert type(rule) is RULES["lstm"]
    assert not torch.equal(rule.w1, build_rule(SMALL).w1)
    assert folder.cost()["threads"] == 1


@pytest.mark.parametrize("rule", ["lstm", "mlp", "sgd", "adam"])
def test_every_rule_learns(rule, tmp_path):
    settings = changed(rule=rule, hidden=0, steps=2)
    first = build_rule(settings).state_dict()
    last = load_rule(train_in_folder(settings, tmp_path / "run").rule).state_dict()
    assert any(not torch.equal(first[name], last[name]) for name in first)


@pytest.mark.parametrize("at", [1, 4])
@pytest.mark.parametrize(
    "settings",
    [
        SMALL,
        changed(mode="first_order", late=1.0, objective="loss"),
        changed(problems="quadratics+tables", rule="mlp"),
        changed(estimator="pes"),
        changed(estimator="es", unroll=0),
        changed(rule="adam", hidden=0),
    ],
    ids=["backprop", "first order", "mixture", "pes", "es", "adam"],
)
def test_a_run_that_was_interrupted_ends_as_if_it_had_not_been(settings, at, tmp_path):
    straight = train_in_folder(settings, tmp_path / "straight")
    stopped = interrupted(settings, tmp_path / "stopped", at)
    resumed = train_in_folder(settings, stopped.path, resume=True)
    assert straight.rule.read_bytes() == resumed.rule.read_bytes()
    assert straight.records() == resumed.records()


def test_a_run_without_a_checkpoint_is_resumed_from_its_start(tmp_path):
    straight = train_in_folder(SMALL, tmp_path / "straight")
    stopped = interrupted(SMALL, tmp_path / "stopped", 3)
    stopped.checkpoint.unlink()
    assert straight.records() == train_in_folder(SMALL, stopped.path, resume=True).records()


def test_the_global_random_state_is_left_alone_and_other_seeds_are_other_runs(tmp_path):
    before = torch.get_rng_state()
    a = train_in_folder(SMALL, tmp_path / "a")
    b = train_in_folder(changed(seed=1), tmp_path / "b")
    assert torch.equal(before, torch.get_rng_state())
    assert a.rule.read_bytes() != b.rule.read_bytes()


def test_problems_that_diverge_are_counted_and_the_rule_stays_finite(tmp_path, monkeypatch):
    monkeypatch.setattr(rule_runs, "build_rule", lambda settings: TunedSGD(lr=1e4))
    seen = []
    folder = train_in_folder(changed(unroll=6, horizon=6), tmp_path / "run", on_step=seen.append)
    assert seen[-1].diverged == folder.records()[-1]["diverged"] > 0
    assert all(bool(torch.isfinite(p).all()) for p in load_rule(folder.rule).parameters())


def test_steps_that_are_skipped_are_counted(tmp_path, monkeypatch):
    def steps(rule, estimator, optimizer, **options):
        yield RuleStep(1, float("nan"), 3, True)  # before the optimizer has stepped at all
        rule.out.grad = torch.ones_like(rule.out)
        optimizer.step()
        yield RuleStep(2, 1.0, 2, False)

    monkeypatch.setattr(rule_runs, "train_rule", steps)
    seen = []
    folder = train_in_folder(changed(steps=2), tmp_path / "run", on_step=seen.append)
    assert [(p.diverged, p.skipped) for p in seen] == [(3, 1), (5, 1)]
    assert [(r["diverged"], r["skipped"]) for r in folder.records()] == [(3, 1), (5, 1)]
    assert folder.metrics.read_text().startswith('{"step": 1, "loss": null')


def test_a_folder_that_holds_a_run_is_kept_unless_it_is_to_be_replaced(tmp_path):
    path = tmp_path / "run"
    train_in_folder(changed(steps=1), path)
    with pytest.raises(ValueError, match="already holds a run"):
        train_in_folder(changed(steps=2), path)
    train_in_folder(changed(steps=2), path, overwrite=True)
    assert rule_settings(RunFolder(path)).steps == 2
    with pytest.raises(ValueError, match="leave one out"):
        train_in_folder(changed(steps=2), path, overwrite=True, resume=True)


def test_other_settings_are_no_resumption(tmp_path):
    folder = train_in_folder(changed(steps=1), tmp_path / "run")
    with pytest.raises(ValueError, match=r"other settings \(lr=0.01 there, 0.5 now\): resume with the same"):
        train_in_folder(changed(steps=1, lr=0.5), folder.path, resume=True)


def test_runs_of_learners_and_of_rules_are_told_apart(tmp_path):
    folder = RunFolder(tmp_path)
    with pytest.raises(ValueError, match="holds no run"):
        rule_settings(folder)
    for config, words in [
        ('{"settings": {"learner": "maml"}}', "run of a learner, and no update rule"),
        ('{"settings": {"rule": "lstm", "colour": 3}}', "does not hold the settings of a run"),
        ("{}", "does not hold the settings of a run"),
        ("[1]", "does not hold the settings of a run"),
    ]:
        folder.config.write_text(config)
        with pytest.raises(ValueError, match=words):
            rule_settings(folder)
    folder.config.write_text('{"settings": {"rule": "lstm"}}')
    with pytest.raises(
        ValueError, match="run of an update rule, and no learner: go on with it by quickstudy train-opt"
    ):
        folder.settings()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rule": "muon"}, "choose among lstm, mlp, sgd, adam"),
        ({"rule": "sgd", "hidden": 4}, "has no hidden units, and hidden=4"),
        ({"hidden": -1}, "at least 1 unit, or 0 for the rule's own number"),
        ({"problems": "cubics"}, "there are no problems 'cubics'"),
        ({"estimator": "reinforce"}, "choose among backprop, es, pes"),
        ({"mode": "implicit"}, "choose among reverse, recompute, first_order"),
        ({"objective": "rank"}, "choose among log, loss"),
        ({"steps": 0}, "at least 1 step"),
        ({"lr": 0.0}, "lr and clip above 0"),
        ({"clip": -1.0}, "lr and clip above 0"),
        ({"horizon": 7}, "a multiple of unroll"),
        ({"n": 0}, "required is at least 1 of each"),
        ({"estimator": "es", "sigma": 0.0}, "a standard deviation above 0"),
        ({"estimator": "pes", "pairs": 0}, "at least 1 antithetic pair"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_and_leave_no_folder(settings, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        train_in_folder(changed(**settings), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("estimator", "unroll", "window"), [("backprop", 0, 20), ("pes", 0, 20), ("es", 0, 40), ("es", 10, 10)]
)
def test_the_usual_window(estimator, unroll, window):
    settings = changed(estimator=estimator, unroll=unroll, horizon=40)
    assert build_estimator(settings).runs.unroll == window


def test_rules_are_trained_on_the_training_part(monkeypatch):
    parts = []
    monkeypatch.setitem(named.PROBLEMS, "quadratics", lambda part: parts.append(part) or Quadratics())
    build_estimator(SMALL)
    assert parts == ["train"]
