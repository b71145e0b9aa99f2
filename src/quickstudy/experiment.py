"""One training run in one folder: what ``quickstudy train`` and ``quickstudy demo`` do.

A run leaves config.json, metrics.jsonl, checkpoint.safetensors and learner.safetensors (the best on meta-validation).
"""

import dataclasses
import json
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import quickstudy
from quickstudy.backbones import MLP, Conv4
from quickstudy.episode import TaskDistribution
from quickstudy.evaluation import Score, default_metric, evaluate, mean_squared_error
from quickstudy.files import write_atomically
from quickstudy.learner import Learner
from quickstudy.learners import LEARNERS, MAML, Classifier, LinearProbe, ProtoNet
from quickstudy.outer import unrolled
from quickstudy.saving import save
from quickstudy.tasks import AllClasses, ClassTasks, RandomAffine, named_tasks
from quickstudy.training import load_checkpoint, meta_train, save_checkpoint

_CHECKPOINT_SECONDS = 30.0


@dataclass(frozen=True)
class Settings:
    """Every argument of a run, as config.json holds it.

    Args:
        learner: a name in ``LEARNERS``.
        tasks, split, root, rotations: the task distribution, see ``named_tasks``.
        train_part: the part that is meta-trained on; "trainval" or "background" leave nothing to validate on.
        way, shot, queries: of the meta-training episodes.
        within_group: classes of a task share a group.
        augment: random affine changes of meta-training images.
        backbone, width, norm, pool: the network; ``width`` is channels for conv4 and units per hidden layer for mlp.
        head, inner_lr, inner_steps, first_order: of MAML.
        strategy: how tasks of a meta-batch are run.
        steps, meta_batch: outer steps and tasks per step.
        optimizer, lr, weight_decay, schedule, clip: the outer optimizer; ``clip`` bounds the gradient's norm, 0 is off.
        validate_every: outer steps between meta-validations, 0 for none.
        validation_episodes, validation_way, validation_shot: their size; 0 takes the training value.
        seed: of the initial weights and of all tasks.
    """

    learner: str = "protonet"
    tasks: str = "glyphs"
    split: str | None = None
    root: str | None = None
    rotations: bool | None = None
    train_part: str = "train"
    way: int = 5
    shot: int = 1
    queries: int = 15
    within_group: bool = False
    augment: bool = False
    backbone: str = "conv4"
    width: int = 64
    norm: str = "population"
    pool: str = "max"
    head: str = "shared"
    inner_lr: float = 0.1
    inner_steps: int = 1
    first_order: bool = False
    strategy: str = "auto"
    steps: int = 2000
    meta_batch: int = 1
    optimizer: str = "adam"
    lr: float = 1e-3
    weight_decay: float = 0.0
    schedule: str = "cosine"
    clip: float = 0.0
    validate_every: int = 500
    validation_episodes: int = 200
    validation_way: int = 0
    validation_shot: int = 0
    seed: int = 0

    def part(self, part: str, **changes: Any) -> TaskDistribution:
        """The tasks of one part, in the training shape unless changed."""
        settings = {"way": self.way, "shot": self.shot, "queries": self.queries, "within_group": self.within_group}
        return named_tasks(
            self.tasks,
            part,
            split=self.split,
            root=None if self.root is None else Path(self.root),
            rotations=self.rotations,
            **{**settings, **changes},
        )


@dataclass(frozen=True)
class Progress:
    """Where a run stands: outer step of ``steps``, mean loss since the last record, best meta-validation so far."""

    step: int
    steps: int
    loss: float
    best: float | None


class RunFolder:
    """The files of one run.

    Args:
        path: the folder.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.metrics = self.path / "metrics.jsonl"
        self.checkpoint = self.path / "checkpoint.safetensors"
        self.learner = self.path / "learner.safetensors"
        self.report = self.path / "report.html"

    def start(self, settings: Settings, *, overwrite: bool, facts: dict[str, Any]) -> None:
        """Begin a run in an empty folder.

        Raises:
            ValueError: the folder already holds a run, and ``overwrite`` was not asked for.
        """
        if self.config.exists():
            if not overwrite:
                raise ValueError(
                    f"{self.path} already holds a run; go on with it (--resume), replace it (--overwrite), or choose "
                    "another folder"
                )
            for path in (self.config, self.metrics, self.checkpoint, self.learner, self.report):
                path.unlink(missing_ok=True)
        config = {"settings": dataclasses.asdict(settings), **facts}
        write_atomically(self.config, (json.dumps(config, indent=2) + "\n").encode())

    def read_config(self) -> dict[str, Any]:
        """config.json as it was written.

        Raises:
            ValueError: no run here, or a config.json that is no JSON.
        """
        try:
            return json.loads(self.config.read_text())
        except FileNotFoundError as error:
            raise ValueError(f"{self.path} holds no run (there is no config.json): check the path") from error
        except ValueError as error:
            raise ValueError(f"{self.config} is not readable as JSON ({error}): restore it, or start again") from error

    def settings(self) -> Settings:
        """The settings of the run."""
        return Settings(**self.read_config()["settings"])

    def records(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; a last line that was cut off is left out."""
        lines = self.metrics.read_text().splitlines() if self.metrics.exists() else []
        records = []
        for line in lines:
            try:
                records.append(json.loads(line))
            except ValueError:
                break
        return records

    def record(self, **values: Any) -> None:
        """Add one line to metrics.jsonl."""
        with self.metrics.open("a") as file:
            file.write(json.dumps(values) + "\n")

    def forget_after(self, step: int) -> None:
        """Drop the records that a resumed run will write again."""
        kept = [json.dumps(r) + "\n" for r in self.records() if r["step"] <= step]
        write_atomically(self.metrics, "".join(kept).encode())


def train(
    settings: Settings,
    path: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    on_step: Callable[[Progress], None] | None = None,
) -> RunFolder:
    """Meta-train one learner in one folder.

    Args:
        settings: all arguments; when resuming, those of the run must be handed in again.
        path: the run folder.
        resume: go on from the checkpoint in the folder, bit for bit.
        overwrite: replace a run that is there.
        on_step: called after each outer step.

    Raises:
        ValueError: settings that do not go together, or a folder in the wrong state.
        KeyboardInterrupt: after Ctrl-C, once the checkpoint is written.
    """
    folder = RunFolder(path)
    if resume and folder.settings() != settings:
        theirs, ours = dataclasses.asdict(folder.settings()), dataclasses.asdict(settings)
        changed = [f"{k}={theirs[k]!r} there, {ours[k]!r} now" for k in ours if theirs[k] != ours[k]]
        raise ValueError(f"{folder.path} was started with other settings ({'; '.join(changed)}): resume with the same")
    tasks = settings.part(settings.train_part)
    if settings.augment:
        if not isinstance(tasks, ClassTasks) or tasks.x.ndim != 4:
            raise ValueError("augment changes images, and these tasks have none: leave it out")
        tasks = tasks.replace(augment=RandomAffine())
    validation = _validation(settings)
    trained, judged, distribution = build(settings, tasks)
    optimizer, scheduler = _outer(settings, trained)
    generator = torch.Generator().manual_seed(settings.seed)
    notes: dict[str, Any] = {"best": None, "best_step": None, "losses": [], "seconds": 0.0}
    step = 0
    if resume:
        if folder.checkpoint.exists():
            checkpoint = load_checkpoint(
                folder.checkpoint, trained, optimizer, generator=generator, scheduler=scheduler
            )
            step, notes = checkpoint.step, checkpoint.notes
        folder.forget_after(step)
    else:
        folder.start(settings, overwrite=overwrite, facts=_facts(settings, tasks))
    log_every = max(1, settings.steps // 200)
    began, written = time.perf_counter() - notes["seconds"], time.perf_counter()

    def checkpoint_now(at: int) -> None:
        notes["seconds"] = time.perf_counter() - began
        save_checkpoint(
            folder.checkpoint, trained, optimizer, step=at, generator=generator, scheduler=scheduler, notes=notes
        )

    with _interrupts() as interrupted:
        for done in meta_train(
            trained,
            distribution,
            optimizer,
            steps=settings.steps,
            meta_batch=settings.meta_batch,
            generator=generator,
            meta_loss=partial(unrolled, strategy=settings.strategy),  # pyright: ignore[reportArgumentType]
            start=step,
        ):
            scheduler.step()
            step = done.step
            notes["losses"].append(done.loss)
            mean_loss = sum(notes["losses"]) / len(notes["losses"])
            if step % log_every == 0 or step == settings.steps:
                folder.record(step=step, loss=mean_loss, lr=scheduler.get_last_lr()[0])
                notes["losses"] = []
            last = step == settings.steps
            if validation is not None and (step % settings.validate_every == 0 or last):
                score = _validate(judged, validation, settings, seed=settings.seed + 1)
                folder.record(step=step, validation=score.mean, ci95=score.ci95, metric=score.metric)
                sign = -1 if score.metric == mean_squared_error.__name__ else 1
                if notes["best"] is None or sign * score.mean > sign * notes["best"]:
                    notes["best"], notes["best_step"] = score.mean, step
                    save(judged, folder.learner)
            elif validation is None and last:
                save(judged, folder.learner)
            if on_step is not None:
                on_step(Progress(step, settings.steps, mean_loss, notes["best"]))
            if last or interrupted() or time.perf_counter() - written > _CHECKPOINT_SECONDS:
                checkpoint_now(step)
                written = time.perf_counter()
            if interrupted() and not last:
                raise KeyboardInterrupt
    return folder


def build(settings: Settings, tasks: TaskDistribution) -> tuple[Learner, Learner, TaskDistribution]:
    """The learner that is trained, the learner that is judged and saved, and what the first is trained on.

    They differ for a linear probe alone: its backbone is trained by plain classification.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(settings.seed)  # initial weights are drawn by torch's own layers
        if settings.learner == "linear_probe":
            if not isinstance(tasks, ClassTasks):
                raise ValueError(f"linear_probe classifies, and {settings.tasks} are no classes: use maml")
            backbone = build_backbone(settings, tasks)
            classifier = Classifier(backbone, len(tasks))
            return classifier, LinearProbe(backbone), AllClasses(tasks, batch=settings.way * settings.queries)
        learner = _learner(settings, tasks)
        return learner, learner, tasks


def build_backbone(settings: Settings, tasks: TaskDistribution) -> nn.Module:
    """The network that ``settings`` describe, sized for the examples of ``tasks``."""
    shape = tuple(tasks.sample(1, generator=torch.Generator().manual_seed(0)).support.x.shape[2:])
    if settings.backbone == "mlp":
        hidden = (settings.width, settings.width)
        return MLP(int(np.prod(shape)), hidden, 1 if settings.tasks == "sinusoid" else settings.width)
    if settings.backbone != "conv4":
        raise ValueError(f"backbone={settings.backbone!r}; choose 'conv4' or 'mlp'")
    if len(shape) != 3:
        raise ValueError(f"conv4 reads images, and examples of {settings.tasks} have shape {shape}: use backbone 'mlp'")
    return Conv4(shape[0], settings.width, norm=settings.norm, pool=settings.pool, image_size=shape[1])  # pyright: ignore[reportArgumentType]


def _learner(settings: Settings, tasks: TaskDistribution) -> Learner:
    if settings.learner == "protonet":
        if settings.tasks == "sinusoid":
            raise ValueError("protonet classifies, and sinusoids are numbers to predict: use maml")
        return ProtoNet(build_backbone(settings, tasks))
    if settings.learner == "maml":
        head = None if settings.tasks == "sinusoid" or settings.head == "none" else settings.head
        return MAML(
            build_backbone(settings, tasks),
            head=head,  # pyright: ignore[reportArgumentType]
            inner_lr=settings.inner_lr,
            inner_steps=settings.inner_steps,
            first_order=settings.first_order,
        )
    if settings.learner == "nearest_neighbour":
        raise ValueError("nearest_neighbour has nothing to train: evaluate it by its name")
    raise ValueError(f"learner {settings.learner!r} is not known; choose among {', '.join(LEARNERS)}")


def _outer(
    settings: Settings, learner: Learner
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": partial(torch.optim.SGD, momentum=0.9)}
    if settings.optimizer not in kinds or settings.schedule not in ("cosine", "constant"):
        raise ValueError(
            f"optimizer={settings.optimizer!r}, schedule={settings.schedule!r}; optimizer is one of {', '.join(kinds)}, "
            "schedule is cosine or constant"
        )
    optimizer = kinds[settings.optimizer](
        learner.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
    )
    if settings.clip > 0:
        optimizer.register_step_pre_hook(
            lambda *_: nn.utils.clip_grad_norm_(learner.parameters(), settings.clip) and None
        )
    if settings.schedule == "cosine":
        return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(1, settings.steps))
    return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


def _validation(settings: Settings) -> TaskDistribution | None:
    if settings.validate_every <= 0 or settings.train_part != "train":
        return None
    way, shot = settings.validation_way or settings.way, settings.validation_shot or settings.shot
    return settings.part("validation", way=way, shot=shot)


def _validate(learner: Learner, tasks: TaskDistribution, settings: Settings, *, seed: int) -> Score:
    return evaluate(
        learner,
        tasks,
        episodes=settings.validation_episodes,
        generator=torch.Generator().manual_seed(seed),
        metric=default_metric(learner, tasks),
    )


def _facts(settings: Settings, tasks: TaskDistribution) -> dict[str, Any]:
    versions = {
        "quickstudy": quickstudy.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    data = tasks.checksum() if isinstance(tasks, ClassTasks) else None
    return {
        "versions": versions,
        "data_sha256": data,
        "machine": {"threads": torch.get_num_threads(), "processor": platform.machine()},
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C (or SIGTERM) into a flag that is read between steps; the second one acts at once."""
    flag: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, frame: Any) -> None:
        if flag:
            raise KeyboardInterrupt
        flag.append(number)

    try:
        for number in before:
            signal.signal(number, handle)
    except ValueError:  # not in the main thread, where signals do not arrive
        yield lambda: False
        return
    try:
        yield lambda: bool(flag)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
