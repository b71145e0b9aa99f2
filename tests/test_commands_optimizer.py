"""The commands train-optimizer and evaluate-optimizer: what they print, write and refuse."""

import json
import signal

import pytest
from typer.testing import CliRunner

from quickstudy import commands_optimizer, rule_runs
from quickstudy.cli import app
from quickstudy.commands_optimizer import open_rules
from quickstudy.optimizers import LSTMRule, MLPRule
from quickstudy.optimizers.rule_file import save_rule
from quickstudy.rule_setup import rule_settings
from quickstudy.runs import RunFolder

SMALL = ["--problems", "quadratics", "--hidden", "2", "--n", "2", "--unroll", "2", "--horizon", "4", "--threads", "1"]
FEW = ["--problems", "quadratics", "--steps", "2,4", "--baselines", "SGD,Adam", "--problems-count", "8"]


def call(*arguments: object):
    """The command within this process; an error is kept, as the entry point would catch it."""
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=True)


def refused(*arguments: object) -> str:
    """What is said of arguments that cannot be used."""
    done = call(*arguments)
    assert isinstance(done.exception, ValueError), done.output
    return str(done.exception)


@pytest.fixture(scope="module")
def rules(tmp_path_factory):
    """A trained run, and two rule files."""
    root = tmp_path_factory.mktemp("rules")
    done = call("train-optimizer", "--out", root / "run", "--steps", 2, *SMALL)
    assert done.exit_code == 0, done.output
    save_rule(LSTMRule(2), root / "one.safetensors")
    save_rule(MLPRule(2), root / "Adam")
    return root


def test_training_says_what_to_do_next(rules, tmp_path):
    folder = tmp_path / "a run"
    done = call("train-optimizer", "--out", folder, "--steps", 2, "--rule", "mlp", *SMALL)
    assert done.exit_code == 0
    text = " ".join(done.stderr.split())
    assert f"rule: {RunFolder(folder).rule}" in text
    assert f"quickstudy.LearnedOptimizer(model.parameters(), rule='{folder}')" in text
    assert f"quickstudy evaluate-optimizer '{folder}' --problems quadratics" in text
    assert "diverged 0 skipped 0" in text
    settings = rule_settings(RunFolder(folder))
    assert (settings.rule, settings.hidden, settings.problems) == ("mlp", 2, "quadratics")


def test_a_run_is_stopped_and_gone_on_with(tmp_path, monkeypatch):
    whole = rule_runs.train_in_folder

    def stopped(settings, path, *, on_step, **options):
        def interrupting(at):
            on_step(at)
            if at.step == 2:
                signal.raise_signal(signal.SIGINT)

        return whole(settings, path, on_step=interrupting, **options)

    monkeypatch.setattr(commands_optimizer, "train_in_folder", stopped)
    done = call("train-optimizer", "--out", tmp_path / "run", "--steps", 4, *SMALL)
    assert done.exit_code == 130
    assert "--resume" in done.stderr
    done = call("evaluate-optimizer", tmp_path / "run", *FEW, "--out", tmp_path / "out", "--threads", 1)
    assert "stopped at outer step 2 of 4; its rule is the one of then" in " ".join(done.stderr.split())
    monkeypatch.setattr(commands_optimizer, "train_in_folder", whole)
    assert call("train-optimizer", "--out", tmp_path / "run", "--resume", "--threads", 1).exit_code == 0
    assert [r["step"] for r in RunFolder(tmp_path / "run").records()] == [1, 2, 3, 4]
    assert "lr=0.001 there, 0.1 now" in refused("train-optimizer", "--out", tmp_path / "run", "--resume", "--lr", 0.1)
    assert "already holds a run" in refused("train-optimizer", "--out", tmp_path / "run", *SMALL)
    assert call("train-optimizer", "--out", tmp_path / "run", "--steps", 1, "--overwrite", *SMALL).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--problems", "cubics"], "there are no problems 'cubics'; choose among quadratics"),
        (["--sigma", "0.1"], "--sigma and --estimator backprop were given"),
        (["--pairs", "3", "--sigma", "0.1"], "--pairs and --sigma and --estimator backprop"),
        (["--estimator", "pes", "--mode", "reverse"], "--mode and --estimator pes were given"),
        (["--rule", "sgd", "--hidden", "3"], "has no hidden units"),
        (["--horizon", "50", "--unroll", "20"], "a multiple of unroll"),
        (["--resume"], "holds no run"),
    ],
)
def test_training_refuses(arguments, words, tmp_path):
    assert words in refused("train-optimizer", "--out", tmp_path / "run", "--threads", 1, *arguments)
    assert not (tmp_path / "run").exists()


def test_evaluation_writes_a_table_a_report_and_numbers(rules, tmp_path):
    both = f"{rules / 'run'}, {rules / 'one.safetensors'}"
    done = call("evaluate-optimizer", both, *FEW, "--out", tmp_path / "out", "--threads", 1)
    assert done.exit_code == 0, done.output
    assert "quadratics, 2 steps, 8 fresh problems, seed 0" in done.stdout
    assert done.stdout.count("run has") == 2
    assert done.stdout.count("one has") == 2
    assert str(tmp_path / "out" / "report.html") in done.stdout
    value = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert value["rules"] == ["run", "one"]
    (found,) = value["evaluations"]
    assert [(v["rule"], v["steps"]) for v in found["verdicts"]] == [("run", 2), ("one", 2), ("run", 4), ("one", 4)]
    assert len(found["optimizers"][0]["log_losses"]) == 8
    assert (tmp_path / "out" / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_with_json_there_is_one_object_and_nothing_else(rules, tmp_path):
    arguments = [rules / "run", *FEW, "--out", tmp_path, "--threads", 1, "--json"]
    first, second = call("evaluate-optimizer", *arguments), call("evaluate-optimizer", *arguments)
    assert first.stdout.count("\n") == 1
    assert json.loads(first.stdout)["evaluations"] == json.loads(second.stdout)["evaluations"]
    assert json.loads(first.stdout) == json.loads((tmp_path / "evaluation.json").read_text()) | {
        "command": json.loads(first.stdout)["command"]
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--problems", "quadratics,cubics"], "there are no problems 'cubics'"),
        (["--problems", "mlp,,relu"], "--problems 'mlp,,relu' has an empty name"),
        (["--problems", "mlp,mlp"], "--problems names 'mlp' twice"),
        (["--steps", "100,many"], "whole numbers with commas between them"),
        (["--steps", "0,100"], "different numbers of at least 1"),
        (["--steps", "100,100"], "different numbers of at least 1"),
        (["--baselines", "adam"], "--baselines adam; choose among SGD, momentum"),
        (["--problems-count", "30"], "a multiple of 4"),
        (["--seed", "-1"], "--seed -1; required is at least 0"),
    ],
)
def test_evaluation_refuses(arguments, words, rules, tmp_path):
    assert words in refused("evaluate-optimizer", rules / "run", *arguments, "--out", tmp_path / "out", "--threads", 1)
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file_is_refused_before_the_work(rules):
    file = rules / "one.safetensors"
    assert "is a file; required is a folder" in refused("evaluate-optimizer", rules / "run", *FEW, "--out", file)


def test_rules_have_short_names_where_these_are_clear(rules, tmp_path):
    other = tmp_path / "run"
    other.mkdir()
    (other / "rule.safetensors").write_bytes((rules / "run" / "rule.safetensors").read_bytes())
    assert list(open_rules(f"{rules / 'run'},{rules / 'one.safetensors'}")) == ["run", "one"]
    assert list(open_rules(f"{rules / 'run'},{other}")) == [str(rules / "run"), str(other)]
    assert list(open_rules(f"{rules / 'Adam'}")) == [str(rules / "Adam")]


def test_rules_that_cannot_be_opened_are_refused(rules, tmp_path, monkeypatch):
    for names, words in [
        ("", "has an empty name"),
        (f"{rules / 'run'},{rules / 'run'}", "twice"),
        (str(tmp_path / "nowhere"), "required is a name among lstm, mlp"),
        (str(tmp_path), "holds no rule.safetensors"),
    ]:
        with pytest.raises(ValueError, match=words):
            open_rules(names)
    monkeypatch.chdir(rules)
    with pytest.raises(ValueError, match=r"is called like a baseline: write \./Adam"):
        open_rules("Adam")
    assert list(open_rules("./Adam")) == ["./Adam"]
