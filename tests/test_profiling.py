"""What is measured of a meta-step, and how the numbers are put together. No time is asserted."""

import json
import sys

import pytest
import torch
from typer.testing import CliRunner

from quickstudy import commands_profile, metering, profiling
from quickstudy.cli import app
from quickstudy.episode import check_episode
from quickstudy.inner import Implicit
from quickstudy.learners import IMAML, MAML, MetaSGD
from quickstudy.profiling import NETWORKS, Measured, Profile, Setup, build, measure_apart, random_tasks, run

MB = 1_000_000
CPU = torch.device("cpu")


def row(mode: str, steps: int, peak: int, seconds: float) -> Measured:
    return Measured(mode, steps, peak * MB, 10 * seconds, seconds, MB, "a test")


@pytest.fixture
def profile() -> Profile:
    rows = (
        *(row("reverse", 1, 100, 1.0), row("reverse", 5, 180, 2.0)),
        *(row("recompute", 1, 90, 1.5), row("recompute", 5, 94, 3.0)),
        Measured("implicit", 1, failure="took longer than 600 s: raise --timeout"),
    )
    return Profile(Setup(steps=(1, 5), threads=1), rows)


def test_a_fresh_process_measures_one_combination():
    setup = Setup(network="mlp", way=2, queries=1, repeats=1, threads=1)
    found = measure_apart(setup, "recompute", 2)
    assert found.failure is None
    assert (found.mode, found.steps) == ("recompute", 2)
    assert found.parameter_bytes == 4 * (784 * 64 + 64 + 2 * (64 * 64 + 64))
    assert found.peak_bytes is not None
    assert 0 < found.peak_bytes < 100 * MB
    assert found.wall_seconds is not None
    assert found.wall_seconds > 0


def test_a_process_that_takes_too_long_is_ended_and_the_row_says_so(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/sleep")
    monkeypatch.setattr(profiling.subprocess, "run", _with(["/bin/sleep", "60"], profiling.subprocess.run))
    found = measure_apart(Setup(timeout=1), "reverse", 3)
    assert found == Measured("reverse", 3, failure="took longer than 1 s: raise --timeout")


def test_a_process_that_fails_leaves_a_row_with_its_last_words(monkeypatch):
    words = ["/bin/sh", "-c", "echo first >&2; echo last words >&2; exit 3"]
    monkeypatch.setattr(profiling.subprocess, "run", _with(words, profiling.subprocess.run))
    found = measure_apart(Setup(), "reverse", 3)
    assert found.failure == "the process ended with status 3: last words"
    assert found.peak_bytes is None


def test_what_a_learner_refuses_is_an_error(monkeypatch):
    answer = ["/bin/sh", "-c", """echo '{"refused": "needs a pull"}'"""]
    monkeypatch.setattr(profiling.subprocess, "run", _with(answer, profiling.subprocess.run))
    with pytest.raises(ValueError, match="meta_sgd with mode 'implicit' on conv4: needs a pull"):
        measure_apart(Setup(learner="meta_sgd"), "implicit", 3)


def _with(command, run):
    return lambda _, **options: run(command, **options)


def test_every_combination_is_measured_once_and_announced(monkeypatch):
    monkeypatch.setattr(profiling, "measure_apart", lambda setup, mode, steps: Measured(mode, steps))
    started = []
    rows = list(run(Setup(modes=("recompute", "reverse"), steps=(5, 1, 5)), lambda *at: started.append(at)))
    assert started == [("recompute", 1), ("recompute", 5), ("reverse", 1), ("reverse", 5)]
    assert [(r.mode, r.steps) for r in rows] == started


def test_ratios_and_growth_are_those_of_the_rows(profile):
    reverse, more, recompute, long, failed = profile.rows
    assert profile.ratios(reverse) == (1, 1)
    assert profile.ratios(recompute) == (0.9, 1.5)
    assert profile.ratios(long) == (94 / 180, 1.5)
    assert profile.growth(reverse) is None
    assert profile.growth(more) == 20
    assert profile.growth(long) == 1
    assert profile.ratios(failed) == (None, None)
    assert profile.growth(failed) is None


def test_processor_time_counts_with_one_thread_on_a_cpu_only(profile):
    assert (profile.clock, profile.seconds(profile.rows[0])) == ("processor", 1.0)
    for other in (Setup(threads=2), Setup(threads=0), Setup(threads=1, device="cuda")):
        several = Profile(other, profile.rows)
        assert (several.clock, several.seconds(profile.rows[0])) == ("wall-clock", 10.0)


def test_a_profile_is_stored_and_read(profile):
    stored = json.loads(json.dumps(profile.as_dict()))
    assert Profile.from_dict(stored) == profile
    assert stored["rows"][3]["peak_to_reverse"] == 94 / 180
    assert {"quickstudy", "torch", "python"} == set(stored["versions"])
    assert stored["command"].startswith("quickstudy profile --learner maml --network conv4 --mode reverse,recompute,")
    assert any("iMAML" in note for note in stored["notes"])
    assert any("implicit, 1 steps: took longer" in note for note in stored["notes"])


def test_the_command_of_a_setup_gives_that_setup(monkeypatch, tmp_path, profile):
    setups = []
    monkeypatch.setattr(commands_profile, "run", lambda setup, _: setups.append(setup) or profile.rows)
    setup = Setup("meta_sgd", "mlp", ("recompute",), (2, 3), 4, 2, 7, 3, 6, 2, "cpu", 9)
    words = setup.command().split()[1:]
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert setups == [setup]


def test_the_command_writes_a_table_plots_and_all_numbers(monkeypatch, tmp_path, profile):
    monkeypatch.setattr(commands_profile, "run", lambda setup, _: profile.rows)
    arguments = ["profile", "--steps", "1,5", "--threads", "1", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    for word in ("recompute", "94.0", "0.52", "1.50", "20.0", "measured as iMAML", "random numbers", "raise --timeout"):
        assert word in done.stdout, word
    assert max(len(line) for line in done.stdout.splitlines() if "─" in line) <= 80
    assert {path.name for path in tmp_path.iterdir()} == {"profile.json", "memory.png", "time.png"}
    stored = json.loads((tmp_path / "profile.json").read_text())
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.stdout.count("\n") == 1
    assert json.loads(done.stdout) == stored


def test_the_implicit_mode_of_maml_is_imaml():
    network = NETWORKS["mlp"][0]()
    assert type(build(Setup(), network, "recompute", 3)) is MAML
    for name in ("maml", "imaml"):
        learner = build(Setup(learner=name), network, "implicit", 3)
        assert isinstance(learner, IMAML)
        assert learner.inner_steps == 3
    other = build(Setup(learner="meta_sgd"), network, "implicit", 3)
    assert isinstance(other, MetaSGD)
    assert isinstance(other.mode, Implicit)
    with pytest.raises(ValueError, match="imaml has no mode 'reverse'; required is 'implicit'"):
        build(Setup(learner="imaml"), network, "reverse", 3)


@pytest.mark.parametrize("network", NETWORKS)
def test_the_tasks_suit_the_network_and_are_always_the_same(network):
    setup = Setup(network=network, way=3, shot=2, queries=1, tasks=2)
    batch, again = random_tasks(setup, CPU), random_tasks(setup, CPU)
    check_episode(batch)
    assert batch.support.x.shape == (2, 6, *NETWORKS[network][1])
    assert batch.query.y.shape == (2, 3, 3)
    assert torch.equal(batch.query.x, again.query.x)
    z = NETWORKS[network][0]()(batch.support.x[0])
    assert z.shape == (6, 64)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"learner": "protonet"}, r"learner 'protonet' cannot be profiled; choose among maml, .*imaml"),
        ({"network": "resnet"}, "network 'resnet' cannot be profiled; choose among conv4, mlp, lstm, transformer"),
        ({"modes": ("reverse", "forward")}, "mode 'forward' cannot be profiled; choose among reverse, recompute"),
        ({"way": 0}, "way=0.*required is at least 1 of each"),
        ({"timeout": 0}, "timeout=0; required is at least 1 of each"),
        ({"steps": (0, 5)}, "required are steps of at least 1"),
        ({"modes": ()}, "and a mode"),
    ],
)
def test_a_setup_that_cannot_be_measured_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        Setup(**arguments)


def test_steps_that_are_no_numbers_are_refused():
    done = CliRunner().invoke(app, ["profile", "--steps", "1;5"])
    assert isinstance(done.exception, ValueError)
    assert "required are whole numbers with commas between them" in str(done.exception)


def test_the_peak_is_what_was_held_for_a_moment():
    metering.return_freed_memory()

    def work():
        for _ in range(3):
            torch.ones(8 * MB)  # 32 MB

    peak, counted_by = metering.peak_above(work, CPU)
    assert "VmHWM" not in counted_by or 30 * MB < peak < 60 * MB
    assert peak >= 0


def test_without_a_resettable_mark_the_peak_of_the_process_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(metering, "_PROCESS", tmp_path / "none")
    marks = iter([100, 350])
    monkeypatch.setattr(metering, "_highest_resident_set", lambda: next(marks))
    assert metering.peak_above(lambda: None, CPU) == (250, "getrusage ru_maxrss")


def test_a_platform_that_tells_no_peak_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(metering, "_PROCESS", tmp_path / "none")
    monkeypatch.setitem(sys.modules, "resource", None)
    with pytest.raises(ValueError, match="does not tell the peak memory of a process; required is Linux, macOS or"):
        metering.peak_above(lambda: None, CPU)


def test_the_median_of_the_runs_counts_and_the_first_does_not():
    runs = []
    wall, processor = metering.median_seconds(lambda: runs.append(1), 3, CPU)
    assert len(runs) == 4
    assert processor >= 0
    assert wall >= 0


def test_runs_of_a_minute_are_not_repeated(monkeypatch):
    clock = iter([0.0, 61.0])
    monkeypatch.setattr(metering.time, "perf_counter", lambda: next(clock))
    assert metering.median_seconds(lambda: None, 3, CPU)[0] == 61
