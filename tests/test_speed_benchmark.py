"""The speed benchmark at its smallest sizes: every candidate computes the same gradient. No times are judged."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
LIBRARIES = ["higher", "TorchOpt, MetaSGD", "TorchOpt, functional"]
PEERS = ["plain PyTorch loop", "torch.func vmap", "JAX jit(vmap)", *LIBRARIES]


@pytest.fixture(scope="module")
def speed():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        spec = importlib.util.spec_from_file_location("speed", ROOT / "benchmarks" / "speed.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


def errors(speed, name: str, candidate: str, tasks: int = 2) -> tuple[float, float]:
    """Of the meta-batch's gradient, and of the first task's, in float64."""
    job = next(j for j in speed.jobs(name, quick=True))
    found = next(c for c in job.candidates if c.name == candidate)
    if found.package and importlib.util.find_spec(found.package) is None:
        pytest.skip(speed.missing(found))
    batch = job.tasks().sample(tasks, generator=torch.Generator().manual_seed(0))
    batch = speed.cast(batch, torch.float64, "cpu")
    weights = job.problem.weights()
    judge = speed.Judge(job.problem, weights, batch, tasks=1)
    step = found.build(job.problem, torch.float64, torch.device("cpu"))
    step.load(weights)
    whole = judge.whole(speed.gradient_of(step, batch), found.variant)
    return whole, *judge.one_by_one(step, found, batch)


@pytest.mark.parametrize("candidate", [*PEERS, "quickstudy, loop", "quickstudy, vmap"])
def test_every_candidate_of_the_mlp_job_computes_the_same_gradient(speed, candidate):
    assert max(errors(speed, "mlp", candidate)) < 1e-12


@pytest.mark.parametrize("candidate", [*LIBRARIES, "quickstudy, loop", "quickstudy, vmap"])
def test_pooling_first_is_the_stock_block(speed, candidate):
    assert max(errors(speed, "conv4", candidate)) < 1e-11


def test_stock_batch_norm_under_vmap_is_wrong_which_the_errors_show(speed):
    assert min(errors(speed, "conv4", "torch.func vmap")) > 1e-4


@pytest.mark.parametrize("kind", ["MAML", "MAML, recompute", "MAML, first order", "ANIL"])
def test_modes_agree_with_the_same_mode_of_the_plain_loop(speed, kind):
    assert max(errors(speed, "modes", f"quickstudy, {kind}, loop")) < 1e-11


@pytest.mark.parametrize("mode", ["reverse", "recompute", "first_order", "truncated", "implicit"])
def test_modes_of_a_transformer_agree_with_the_plain_loop(speed, mode):
    assert max(errors(speed, "networks", f"quickstudy, {mode}, loop")) < 1e-11


def test_a_run_stores_a_line_for_each_candidate_also_for_one_that_refuses(speed, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(speed, "use_threads", lambda threads: None)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", torch.backends.cudnn.allow_tf32)
    job = speed.jobs("mlp", quick=True)[0]

    def refuses(*arguments):
        raise ValueError("not today\nnor tomorrow")

    candidates = [c for c in job.candidates if c.name in ("plain PyTorch loop", "quickstudy, loop")]
    candidates.append(type(candidates[0])("quickstudy, stubborn", refuses))
    job.candidates[:] = candidates
    monkeypatch.setattr(speed, "jobs", lambda name, quick: [job])
    out = tmp_path / "speed.jsonl"
    assert speed.main(["--job", "mlp", "--quick", "--repeats", "1", "--out", str(out)]) == 0
    plain, ours, stubborn = [json.loads(line) for line in out.read_text().splitlines()]
    assert plain["ratio_to_plain_loop"] == 1
    assert ours["repeats"] == 5  # short steps come in fives
    assert ours["error_f32"] < 1e-5
    assert ours["error_f64"] < 1e-12
    assert stubborn["refused"] == "ValueError: not today"
    assert "refused: ValueError: not today" in capsys.readouterr().out


def entry(candidate: str, run: str, **more) -> dict:
    """A stored line."""
    place = {"device": "cpu", "processor": "some", "cpu_count": 2, "threads": 2, "versions": {"torch": "2"}, "run": run}
    measured = {
        "median_s": 0.5,
        "ratio_to_plain_loop": 2.0,
        "setup_s": 0.0,
        "error_f32": 1e-6,
        "error_f32_task_median": 1e-6,
        "error_f32_task_worst": 2e-6,
        "error_f64": 1e-15,
    }
    found = {"job": "mlp", "title": "a job", "quick": False, "candidate": candidate, "command": "c", **place}
    return {**found, **({} if "refused" in more else measured), **more}


def test_the_table_takes_the_last_run_of_each_place(speed, tmp_path):
    from peers.table import tables, with_tables, write_table

    lines = [entry("old", "2026-01-01T00:00:00"), entry("new", "2026-01-02T00:00:00")]
    lines += [entry("stubborn", "2026-01-02T00:00:00", refused="a | b"), entry("one", "2025-01-01", threads=1)]
    text = tables("mlp", lines)
    assert "old" not in text
    assert "| new | 500 | 2.00 | 0.0 | 1e-06 (1e-06, 2e-06) | 1e-15 |" in text
    assert "refused: a \\| b" in text
    assert "| one |" in text
    assert tables("conv4", lines) == "No stored line yet."
    page = tmp_path / "speed.md"
    page.write_text("<!-- speed: mlp, written by benchmarks/speed.py -->\nstale\n<!-- /speed -->\nwords\n")
    results = tmp_path / "speed.jsonl"
    results.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert write_table(results, check=True, page=page) == 1
    assert write_table(results, page=page) == 0
    assert write_table(results, check=True, page=page) == 0
    assert page.read_text().endswith("<!-- /speed -->\nwords\n")
    assert with_tables(page.read_text(), lines) == page.read_text()


def test_the_page_says_what_the_stored_lines_say(speed):
    assert speed.main(["--table", "--check"]) == 0


def test_gradients_of_other_names_are_no_gradients(speed):
    with pytest.raises(ValueError, match="the same names"):
        speed.error({"a": torch.ones(1)}, {"b": torch.ones(1)})
