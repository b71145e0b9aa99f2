"""One training run in one folder: what ``quickstudy train`` and ``quickstudy demo`` do.

A run leaves config.json, metrics.jsonl, checkpoint.safetensors and learner.safetensors (the best on meta-validation).
"""

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from quickstudy.backbones import LocalDescriptors
from quickstudy.building import build
from quickstudy.checkpoint import load_checkpoint, save_checkpoint
from quickstudy.data.folder import folder_kind
from quickstudy.episode import TaskDistribution
from quickstudy.evaluation import Score, evaluate, mean_squared_error
from quickstudy.learner import Learner, fit_to
from quickstudy.outer import Strategy, fastest_strategy, unrolled
from quickstudy.process import deferred_interrupts
from quickstudy.run_facts import about_process
from quickstudy.runs import RunFolder, Settings
from quickstudy.saving import load, save
from quickstudy.tasks import ClassTasks, InTurn, RandomAffine, RandomElastic, examples_of
from quickstudy.training import meta_train, settle_statistics

_CHECKPOINT_SECONDS = 30.0


@dataclass(frozen=True)
class Progress:
    """Where a run stands: outer step of ``steps``, mean loss since the last record, best meta-validation so far."""

    step: int
    steps: int
    loss: float
    best: float | None


def train(
    settings: Settings,
    path: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    on_step: Callable[[Progress], None] | None = None,
    device: torch.device | None = None,
) -> RunFolder:
    """Meta-train one learner in one folder.

    Args:
        settings: all arguments; when resuming, those of the run must be handed in again.
        path: the run folder.
        resume: go on from the checkpoint in the folder, bit for bit.
        overwrite: replace a run that is there.
        on_step: called after each outer step.
        device: where to train, by default the CPU.

    Raises:
        ValueError: settings that do not go together, or a folder in the wrong state.
        KeyboardInterrupt: after Ctrl-C, once the checkpoint is written.
    """
    folder = RunFolder(path)
    for name in ("steps", "meta_batch", "validation_episodes"):
        if getattr(settings, name) < 1:
            raise ValueError(f"{name}={getattr(settings, name)}; required is at least 1")
    begun = dataclasses.replace(folder.settings(), kind=settings.kind) if resume else settings
    if begun != settings:
        theirs, ours = dataclasses.asdict(begun), dataclasses.asdict(settings)
        changed = [f"{k}={theirs[k]!r} there, {ours[k]!r} now" for k in ours if theirs[k] != ours[k]]
        raise ValueError(f"{folder.path} was started with other settings ({'; '.join(changed)}): resume with the same")
    tasks = settings.part(settings.train_part)
    if settings.tasks == "folder":
        settings = dataclasses.replace(settings, kind=folder_kind(str(settings.root)))
    validation = _validation(settings)
    trained, judged, plain = build(settings, tasks)
    distribution = _augmented(plain, settings)
    if settings.init is not None:
        _start_from(judged, Path(settings.init))
    trained.to(device or "cpu")
    optimizer, scheduler = _outer(settings, trained)
    generator = torch.Generator().manual_seed(settings.seed)
    notes: dict[str, Any] = {"best": None, "best_step": None, "losses": [], "seconds": 0.0, "cpu_seconds": 0.0}
    step = 0
    if resume:
        _same_data(folder, tasks)
        if folder.checkpoint.exists():
            checkpoint = load_checkpoint(
                folder.checkpoint, trained, optimizer, generator=generator, scheduler=scheduler
            )
            step, notes = checkpoint.step, checkpoint.notes
        folder.forget_after(step)
    else:
        folder.start(settings, overwrite=overwrite, facts=_facts(settings, tasks))
    if "strategy" not in notes:
        notes["strategy"] = _strategy(settings, trained, distribution)
    log_every = max(1, settings.steps // 200)
    began, written = time.perf_counter() - notes["seconds"], -math.inf  # the first step leaves a checkpoint
    cpu_began = time.process_time() - notes.get("cpu_seconds", math.nan)

    def checkpoint_now(at: int) -> None:
        nonlocal notes
        notes |= {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu_began}
        save_checkpoint(
            folder.checkpoint, trained, optimizer, step=at, generator=generator, scheduler=scheduler, notes=notes
        )

    with deferred_interrupts() as interrupted:
        for done in meta_train(
            trained,
            distribution,
            optimizer,
            steps=settings.steps,
            meta_batch=settings.meta_batch,
            generator=generator,
            meta_loss=partial(unrolled, strategy=cast(Strategy, notes["strategy"])),
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
            if last or (validation is not None and step % settings.validate_every == 0):
                settle_statistics(trained, plain, generator=torch.Generator().manual_seed(step))
            if validation is not None and (step % settings.validate_every == 0 or last):
                score = _validate(judged, validation, settings, seed=settings.seed + 1)
                folder.record(step=step, validation=score.mean, ci95=score.ci95, metric=score.metric)
                sign = -1 if score.metric == mean_squared_error.__name__ else 1
                if math.isfinite(score.mean) and (notes["best"] is None or sign * score.mean > sign * notes["best"]):
                    notes["best"], notes["best_step"] = score.mean, step
                    save(judged, folder.learner)
            elif validation is None and last:
                save(judged, folder.learner)
            if on_step is not None:
                on_step(Progress(step, settings.steps, mean_loss, notes["best"]))
            stop = interrupted()
            if last or stop or time.perf_counter() - written > _CHECKPOINT_SECONDS:
                checkpoint_now(step)
                written = time.perf_counter()
            if stop and not last:
                raise KeyboardInterrupt
    return folder


def _augmented(tasks: TaskDistribution, settings: Settings) -> TaskDistribution:
    """The same tasks, where asked for with random affine changes of their images, or bent ones as well."""
    strength = settings.augment_strength
    if not settings.augment and not settings.elastic:
        if strength != 1:
            raise ValueError(f"augment_strength={strength} was given without augment or elastic: give one of them")
        return tasks
    if not 0 < strength <= 2:
        raise ValueError(f"augment_strength={strength}; required is a number above 0 and at most 2: 1 is the usual one")
    examples = examples_of(tasks)
    if examples is None or examples.x.ndim != 4:
        raise ValueError("augment changes images, and these tasks have none: leave it out")
    affine, elastic = RandomAffine().times(strength), RandomElastic().times(strength)
    examples = examples.replace(augment=InTurn((affine, elastic)) if settings.elastic else affine)
    return examples if isinstance(tasks, ClassTasks) else dataclasses.replace(cast(Any, tasks), tasks=examples)


def _start_from(learner: Learner, path: Path) -> None:
    """Take over the parameters of a saved learner, or of its network alone where the learner is of another kind."""
    start = load(RunFolder(path).learner if path.is_dir() else path)
    ours, theirs = (learner, start) if type(learner) is type(start) else (_network_of(learner), _network_of(start))
    weights = dict(theirs.named_parameters())
    wanted = {name: p.shape for name, p in ours.named_parameters()}
    if wanted != {name: p.shape for name, p in weights.items()}:
        raise ValueError(f"{path} holds a learner of another shape: give the settings it was trained with")
    buffers = {name: b for name, b in theirs.named_buffers() if name in dict(ours.named_buffers())}
    ours.load_state_dict({**weights, **buffers}, strict=False)


def _network_of(learner: Learner) -> nn.Module:
    """The one network that a learner is built on."""
    parts = dict(learner.named_children())
    network = parts.get("network", parts.get("backbone", learner))
    return network.network if isinstance(network, LocalDescriptors) else network


def _outer(settings: Settings, learner: Learner) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": partial(torch.optim.SGD, momentum=0.9)}
    if settings.optimizer not in kinds or settings.schedule not in ("cosine", "constant"):
        raise ValueError(
            f"optimizer={settings.optimizer!r}, schedule={settings.schedule!r}; choose the optimizer among "
            f"{', '.join(kinds)} and the schedule among cosine, constant"
        )
    optimizer = kinds[settings.optimizer](learner.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    if settings.clip > 0:

        def clip(*_: Any) -> None:
            nn.utils.clip_grad_norm_(learner.parameters(), settings.clip)

        optimizer.register_step_pre_hook(clip)
    if settings.schedule == "cosine":
        return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(1, settings.steps))
    return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


def _strategy(settings: Settings, learner: Learner, tasks: TaskDistribution) -> str:
    """The strategy of the whole run: measured once, as a resumed run that chose otherwise would round otherwise."""
    if settings.strategy != "auto":
        return settings.strategy
    episodes = tasks.sample(settings.meta_batch, generator=torch.Generator().manual_seed(settings.seed))
    return fastest_strategy(learner.train(), fit_to(episodes, learner))


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
    )


def _same_data(folder: RunFolder, tasks: TaskDistribution) -> None:
    """Refuse to go on with other examples than the run began with."""
    began = folder.read_config().get("data_sha256")
    examples = examples_of(tasks)
    if examples is not None and began not in (None, examples.checksum()):
        raise ValueError(
            f"{folder.path} was trained on other data than those found now (their SHA-256 differ): point --root or "
            "QUICKSTUDY_DATA to the same ones, or start a new run"
        )


def _facts(settings: Settings, tasks: TaskDistribution) -> dict[str, Any]:
    examples = examples_of(tasks)
    process = about_process()
    data = {"data_sha256": None if examples is None else examples.checksum()}
    return {"versions": process.pop("versions"), **data, **process}
