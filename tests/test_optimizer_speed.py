"""The speed benchmark of learned optimizers at its smallest sizes. No times are judged."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from quickstudy.optimizers import Quadratics

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def speed():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        spec = importlib.util.spec_from_file_location("optimizer_speed", ROOT / "benchmarks" / "optimizer_speed.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


def test_the_plain_loop_and_the_one_batched_by_hand_learn_the_same(speed):
    trained = []
    for together in (1, 3):
        training = speed.PlainTraining(speed.peer(4), n=3, unroll=3, horizon=6, together=together)
        trained.append([training.step() for _ in range(4)])
        trained.append(torch.nn.utils.parameters_to_vector(training.rule.parameters()))
    assert trained[0] == pytest.approx(trained[2], rel=1e-5)
    torch.testing.assert_close(trained[1], trained[3], rtol=1e-4, atol=1e-5)


def test_the_plain_loop_has_the_same_problems(speed):
    from peers.learned_rule import quadratic

    drawn = Quadratics().sample(4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(quadratic(*drawn.given, drawn.params["theta"]), drawn.losses(drawn.params, ()))


@pytest.mark.parametrize("job", ["use", "training"])
def test_a_run_stores_a_line_for_each_job_and_number_of_threads(speed, job, tmp_path, monkeypatch):
    if job == "use":
        pytest.importorskip("quickstudy.optimizers.learned_optimizer")
    monkeypatch.setattr(speed, "keep_freed_memory", lambda: None)
    out = tmp_path / "new" / "lines.jsonl"
    given = ["--quick", "--untrained", "--job", job, "--threads", "1", "1", "--out", str(out)]
    assert speed.main(given) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == 2
    for line in lines:
        assert line["threads"] == 1
        assert line["command"].endswith(" ".join(given))
        names = {"use": {"torch.optim.Adam", "mlp", "lstm"}, "training": {"quickstudy", "plain PyTorch loop"}}[job]
        assert names <= set(line["candidates"])
    base, ratio = {
        "use": ("torch.optim.Adam", "ratio_to_adam"),
        "training": ("plain PyTorch loop", "times_as_fast_as_loop"),
    }[job]
    assert lines[0]["candidates"][base][ratio] == 1
