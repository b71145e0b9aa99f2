"""A run in a folder: its files, its resumption, and what is refused."""

import dataclasses
import json
import math
import signal

import numpy as np
import pytest
import torch

import quickstudy as q
from quickstudy import building, experiment, report
from quickstudy.backbones import LocalDescriptors
from quickstudy.building import build
from quickstudy.data import ClassData, omniglot
from quickstudy.evaluation import Score
from quickstudy.experiment import train
from quickstudy.runs import RunFolder, Settings
from quickstudy.tasks import InTurn, RandomElastic
from tests.small_runs import PROTONET, SINUSOID

pytestmark = pytest.mark.usefixtures("made_glyphs")


def tensors(folder: RunFolder) -> dict[str, torch.Tensor]:
    return q.load(folder.learner).state_dict()


def without_seconds(folder: RunFolder) -> list[dict]:
    return [{k: v for k, v in record.items() if k != "seconds"} for record in folder.records()]


def interrupted(settings: Settings, path, at: int) -> RunFolder:
    """A run that Ctrl-C stopped after outer step ``at``."""

    def on_step(progress) -> None:
        if progress.step == at:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(settings, path, on_step=on_step)
    return RunFolder(path)


def assert_equal_runs(a: RunFolder, b: RunFolder) -> None:
    assert a.learner.read_bytes() == b.learner.read_bytes()
    assert without_seconds(a) == without_seconds(b)


def test_a_run_leaves_its_files(tmp_path):
    steps = []
    folder = train(SINUSOID, tmp_path / "run", on_step=lambda p: steps.append((p.step, p.steps)))
    assert steps == [(i, 12) for i in range(1, 13)]
    names = {"config.json", "metrics.jsonl", "checkpoint.safetensors", "learner.safetensors"}
    assert {p.name for p in folder.path.iterdir()} == names
    assert isinstance(q.load(folder.learner), q.MAML)
    config = folder.read_config()
    assert config["settings"] == dataclasses.asdict(SINUSOID)
    assert set(config["versions"]) == {"quickstudy", "python", "torch", "numpy"}
    assert config["machine"]["threads"] == 1
    records = folder.records()
    assert [r["step"] for r in records if "loss" in r] == list(range(1, 13))
    assert [r["step"] for r in records if "validation" in r] == [4, 8, 12]
    assert all(r["metric"] == "mean_squared_error" for r in records if "validation" in r)
    json.dumps(records, allow_nan=False)


def test_a_run_on_classes_notes_the_checksum_of_its_data(tmp_path):
    folder = train(PROTONET, tmp_path / "run")
    tasks = PROTONET.part("train")
    assert isinstance(tasks, q.ClassTasks)
    assert folder.read_config()["data_sha256"] == tasks.checksum()


def test_the_same_settings_give_the_same_run_and_leave_the_global_random_state(tmp_path):
    before = torch.get_rng_state()
    a, b = (train(SINUSOID, tmp_path / name) for name in "ab")
    assert_equal_runs(a, b)
    assert torch.equal(before, torch.get_rng_state())
    c = train(dataclasses.replace(SINUSOID, seed=1), tmp_path / "c")
    assert a.learner.read_bytes() != c.learner.read_bytes()


@pytest.mark.parametrize("settings", [SINUSOID, PROTONET], ids=["sinusoid", "protonet"])
@pytest.mark.parametrize("at", [1, 5])
def test_a_run_that_was_interrupted_ends_as_if_it_had_not_been(settings, at, tmp_path):
    straight = train(settings, tmp_path / "straight")
    stopped = interrupted(settings, tmp_path / "stopped", at)
    assert stopped.records()[-1]["step"] <= at
    resumed = train(settings, stopped.path, resume=True)
    assert_equal_runs(straight, resumed)


def test_records_after_the_checkpoint_and_a_cut_line_are_written_again(tmp_path):
    straight = train(SINUSOID, tmp_path / "straight")
    stopped = interrupted(SINUSOID, tmp_path / "stopped", 5)
    with stopped.metrics.open("a") as file:  # as a power cut would leave it
        file.write('{"step": 6, "loss": 1.0, "lr": 0.1}\n{"step": 7, "lo')
    assert_equal_runs(straight, train(SINUSOID, stopped.path, resume=True))


def test_a_run_without_a_checkpoint_is_resumed_from_its_start(tmp_path):
    straight = train(SINUSOID, tmp_path / "straight")
    stopped = interrupted(SINUSOID, tmp_path / "stopped", 5)
    stopped.checkpoint.unlink()
    assert_equal_runs(straight, train(SINUSOID, stopped.path, resume=True))


def test_a_finished_run_that_is_resumed_stays_as_it_is(tmp_path):
    folder = train(SINUSOID, tmp_path / "run")
    before = {p.name: p.read_bytes() for p in folder.path.iterdir()}
    train(SINUSOID, folder.path, resume=True)
    assert {p.name: p.read_bytes() for p in folder.path.iterdir()} == before


def test_the_learner_that_is_kept_is_the_best_on_meta_validation(tmp_path, monkeypatch):
    means = {4: 3.0, 8: 1.0, 12: 2.0}  # a mean squared error: the smallest is the best
    at, seen = [0], {}

    def judge(learner, tasks, settings, *, seed):
        seen[at[0]] = {name: t.clone() for name, t in learner.state_dict().items()}
        return Score(means[at[0]], 0.1, torch.zeros(5), "mean_squared_error", 0, 5, 5, seed, False, 0.0)

    def batch(tasks, n, *, generator, draw=q.Sinusoid.sample):
        at[0] += 1
        return draw(tasks, n, generator=generator)

    monkeypatch.setattr(experiment, "_validate", judge)
    monkeypatch.setattr(building, "build_backbone", lambda settings, tasks: q.MLP(1, (8,)))
    monkeypatch.setattr(q.Sinusoid, "sample", batch)
    bests = []
    settings = dataclasses.replace(SINUSOID, strategy="loop")  # as measuring would draw a batch of its own
    folder = train(settings, tmp_path / "run", on_step=lambda p: bests.append(p.best))
    assert bests == [None] * 3 + [3.0] * 4 + [1.0] * 5
    kept = tensors(folder)
    assert all(torch.equal(kept[name], t) for name, t in seen[8].items())


def test_a_validation_that_is_not_finite_is_never_the_best(tmp_path, monkeypatch):
    scores = iter([float("nan"), 2.0, float("-inf")])

    def judge(learner, tasks, settings, *, seed):
        return Score(next(scores), float("nan"), torch.zeros(1), "mean_squared_error", 0, 5, 5, seed, False, 0.0)

    monkeypatch.setattr(experiment, "_validate", judge)
    bests = []
    settings = dataclasses.replace(SINUSOID, strategy="loop")  # as measuring would draw a batch of its own
    folder = train(settings, tmp_path / "run", on_step=lambda p: bests.append(p.best))
    assert bests[-1] == 2.0
    values = [r["validation"] for r in folder.records() if "validation" in r]
    assert values == pytest.approx([math.nan, 2.0, math.nan], nan_ok=True)


def test_without_validation_the_last_learner_is_kept(tmp_path):
    folder = train(dataclasses.replace(SINUSOID, validate_every=0), tmp_path / "run")
    assert not any("validation" in r for r in folder.records())
    assert tensors(folder)


def test_a_linear_probe_is_trained_by_plain_classification(tmp_path):
    settings = dataclasses.replace(PROTONET, learner="linear_probe", augment=False)
    folder = train(settings, tmp_path / "run")
    learner = q.load(folder.learner)
    assert isinstance(learner, q.LinearProbe)
    tasks = settings.part("train")
    trained, judged, distribution = build(settings, tasks)
    assert isinstance(trained, q.Classifier)
    assert trained.backbone is judged.backbone  # pyright: ignore
    assert distribution == q.AllClasses(tasks, batch=9)  # pyright: ignore
    stopped = interrupted(settings, tmp_path / "stopped", 2)
    assert_equal_runs(folder, train(settings, stopped.path, resume=True))


@pytest.mark.parametrize(
    "change",
    [{"optimizer": "sgd"}, {"optimizer": "adamw", "weight_decay": 0.1}, {"schedule": "constant"}, {"clip": 0.1}],
)
def test_every_outer_optimizer_and_schedule_trains_and_resumes(change, tmp_path):
    settings = dataclasses.replace(SINUSOID, steps=6, **change)
    straight = train(settings, tmp_path / "straight")
    rates = [r["lr"] for r in straight.records() if "lr" in r]
    assert (len(set(rates)) == 1) is (settings.schedule == "constant")
    stopped = interrupted(settings, tmp_path / "stopped", 3)
    assert_equal_runs(straight, train(settings, stopped.path, resume=True))


def test_clip_bounds_the_meta_gradient():
    settings = dataclasses.replace(SINUSOID, optimizer="sgd", clip=0.5, lr=1.0)
    learner = build(settings, settings.part("train"))[0]
    optimizer, _ = experiment._outer(settings, learner)
    before = torch.cat([p.detach().flatten().clone() for p in learner.parameters()])
    for p in learner.parameters():
        p.grad = torch.full_like(p, 10.0)
    optimizer.step()
    after = torch.cat([p.detach().flatten() for p in learner.parameters()])
    assert float((after - before).norm()) == pytest.approx(0.5, rel=1e-4)


def test_a_run_is_not_overwritten_unasked(tmp_path):
    folder = train(SINUSOID, tmp_path / "run")
    before = folder.learner.read_bytes()
    with pytest.raises(ValueError, match=r"already holds a run.*--resume.*--overwrite"):
        train(dataclasses.replace(SINUSOID, seed=1), folder.path)
    assert folder.learner.read_bytes() == before
    train(dataclasses.replace(SINUSOID, seed=1), folder.path, overwrite=True)
    assert folder.learner.read_bytes() != before


def test_other_settings_cannot_be_resumed_and_the_difference_is_named(tmp_path):
    folder = interrupted(SINUSOID, tmp_path / "run", 2)
    with pytest.raises(ValueError, match=r"other settings \(width=8 there, 9 now; lr=0.001 there, 0.1 now\): resume"):
        train(dataclasses.replace(SINUSOID, width=9, lr=0.1), folder.path, resume=True)


def test_a_spoilt_checkpoint_is_named_and_the_folder_stays_usable(tmp_path):
    folder = interrupted(SINUSOID, tmp_path / "run", 5)
    records = folder.metrics.read_bytes()
    whole = folder.checkpoint.read_bytes()
    for content in (whole[:-5], b"", b"nonsense"):
        folder.checkpoint.write_bytes(content)
        with pytest.raises(ValueError, match=r"checkpoint\.safetensors is cut"):
            train(SINUSOID, folder.path, resume=True)
    assert folder.metrics.read_bytes() == records
    folder.checkpoint.write_bytes(whole)
    assert_equal_runs(train(SINUSOID, folder.path, resume=True), train(SINUSOID, tmp_path / "straight"))
    train(SINUSOID, folder.path, overwrite=True)


def test_a_spoilt_config_and_a_missing_run_are_named(tmp_path):
    folder = train(SINUSOID, tmp_path / "run")
    folder.config.write_text(folder.config.read_text()[:40])
    with pytest.raises(ValueError, match=r"config\.json is not readable as JSON"):
        train(SINUSOID, folder.path, resume=True)
    with pytest.raises(ValueError, match="holds no run"):
        train(SINUSOID, tmp_path / "nowhere", resume=True)


def test_a_diverging_run_keeps_its_last_good_checkpoint(tmp_path):
    settings = dataclasses.replace(SINUSOID, optimizer="sgd", lr=1e12, schedule="constant", validate_every=0)
    with pytest.raises(FloatingPointError, match=r"outer step [2-9]"):
        train(settings, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    learner, _, _ = build(settings, settings.part("train"))
    optimizer, scheduler = experiment._outer(settings, learner)
    at = q.load_checkpoint(folder.checkpoint, learner, optimizer, generator=torch.Generator(), scheduler=scheduler)
    assert at.step >= 1
    assert all(bool(torch.isfinite(p).all()) for p in learner.parameters())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"learner": "protonet"}, "sinusoid has numbers to predict: use maml"),
        ({"learner": "linear_probe"}, "sinusoid are no classes: use maml"),
        ({"learner": "nearest_neighbour"}, "nothing to train"),
        ({"learner": "mammal"}, "'mammal' is not known; choose among protonet, .*maml"),
        ({"backbone": "conv4"}, "conv4 reads images.*use backbone 'mlp'"),
        ({"backbone": "resnet"}, "backbone='resnet'; choose among conv4, mlp, resnet12, resnet18, small_resnet"),
        ({"precision": "bfloat16"}, "precision='bfloat16' does not survive an inner loop: leave it out"),
        ({"elastic": True}, "augment changes images"),
        ({"augment": True}, "augment changes images"),
        ({"augment_strength": 0.5}, "augment_strength=0.5 was given without augment or elastic: give one of them"),
        ({"augment": True, "augment_strength": 0}, "augment_strength=0; required is a number above 0 and at most 2"),
        ({"optimizer": "lion"}, "optimizer='lion'.*choose the optimizer among adam, adamw, sgd"),
        ({"schedule": "triangle"}, "schedule='triangle'"),
        ({"tasks": "glyph"}, "tasks 'glyph' are not known; choose among omniglot, .*glyphs, sinusoid"),
        ({"tasks": "glyphs", "train_part": "tests"}, "'tests'"),
        ({"inner_steps": -1}, "inner_steps=-1; required is at least 0"),
        ({"steps": 0}, "steps=0; required is at least 1"),
        ({"meta_batch": 0}, "meta_batch=0; required is at least 1"),
        ({"validation_episodes": 0}, "validation_episodes=0; required is at least 1"),
        ({"tasks": "glyphs", "queries": 3, "shot": 1, "validation_way": 50}, "8 classes for way=50"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_before_anything_is_written(change, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        train(dataclasses.replace(SINUSOID, **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_augmentation_has_the_strength_that_was_asked_for(tmp_path):
    settings = dataclasses.replace(PROTONET, augment=True, elastic=True, augment_strength=0.5)
    changed = experiment._augmented(settings.part("train"), settings)
    assert isinstance(changed, q.ClassTasks)
    assert changed.augment == InTurn((q.RandomAffine(5.0, 0.075, 0.075, 0.04), RandomElastic(0.025)))
    plain = dataclasses.replace(settings, augment_strength=1.0, elastic=False)
    assert experiment._augmented(settings.part("train"), plain).augment == q.RandomAffine()  # pyright: ignore


def test_local_matching_starts_from_the_network_of_another_learner(tmp_path):
    settings = dataclasses.replace(
        PROTONET, learner="supervised_contrastive", backbone="small_resnet", width=8, steps=1, shot=2, queries=2
    )
    first = q.load(train(settings, tmp_path / "first").learner)
    second = dataclasses.replace(settings, learner="local_matching", lr=0.0, init=str(tmp_path / "first"))
    then = q.load(train(second, tmp_path / "second").learner)
    assert isinstance(then.backbone, LocalDescriptors)
    for name, weight in first.backbone.named_parameters():  # pyright: ignore
        assert torch.equal(dict(then.backbone.network.named_parameters())[name], weight)
    back = dataclasses.replace(settings, lr=0.0, init=str(tmp_path / "second"))
    again = q.load(train(back, tmp_path / "third").learner)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), first.parameters(), strict=True))


def test_maml_with_a_layer_of_its_own_resumes_too(tmp_path):
    settings = dataclasses.replace(PROTONET, learner="maml", head="none", norm="group", width=8)
    straight = train(settings, tmp_path / "straight")
    assert isinstance(q.load(straight.learner), q.MAML)
    stopped = interrupted(settings, tmp_path / "stopped", 2)
    assert_equal_runs(straight, train(settings, stopped.path, resume=True))


def drawn_omniglot(root=None, *, rotations: bool = False) -> ClassData:
    """Three made characters of every alphabet by three drawers."""
    names = [f"{a}/character{i:02d}" for a in (*omniglot.BACKGROUND, *omniglot.EVALUATION) for i in (1, 2, 3)]
    x = np.random.default_rng(0).integers(0, 256, (3 * len(names), 1, 28, 28), dtype=np.uint8)
    return ClassData(x, np.arange(len(names)).repeat(3), tuple(names), tuple(n.split("/")[0] for n in names))


def test_tasks_drawn_in_a_way_of_their_own_train_with_augmentation_resume_and_report(tmp_path, monkeypatch):
    monkeypatch.setattr(omniglot, "load", drawn_omniglot)
    settings = dataclasses.replace(PROTONET, tasks="omniglot_trials", split="official", queries=15, elastic=True)
    settings = dataclasses.replace(settings, way=2, validation_way=2)
    folder = train(settings, tmp_path / "run")
    assert folder.read_config()["data_sha256"]
    train(dataclasses.replace(settings), tmp_path / "run", resume=True)
    page = report.write(folder, episodes=3).read_text()
    assert "Mean squared error ±" not in page
    assert "2-way 1-shot" in page
