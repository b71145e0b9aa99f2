"""One training run of an update rule in one folder: what ``quickstudy train-optimizer`` does.

A run leaves config.json, metrics.jsonl, checkpoint.safetensors, and rule.safetensors, which ``LearnedOptimizer`` takes;
the last two are written anew as training goes on.
"""

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from quickstudy.checkpoint import load_checkpoint, save_checkpoint
from quickstudy.optimizers.rule_file import save_rule
from quickstudy.process import deferred_interrupts
from quickstudy.rule_setup import RuleSettings, build_estimator, build_rule, rule_settings
from quickstudy.rule_training import train_rule
from quickstudy.run_facts import about_process
from quickstudy.runs import RunFolder

_CHECKPOINT_SECONDS = 30.0


@dataclass(frozen=True)
class RuleProgress:
    """Where a run stands.

    Attributes:
        step: outer step, of ``steps``.
        loss: mean meta-loss since the last record, over the outer steps that had a finite one.
        diverged: inner problems given up since the beginning.
        skipped: outer steps, since the beginning, from which nothing was learned.
    """

    step: int
    steps: int
    loss: float
    diverged: int
    skipped: int


def train_in_folder(
    settings: RuleSettings,
    path: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    on_step: Callable[[RuleProgress], None] | None = None,
) -> RunFolder:
    """Train one update rule in one folder.

    Args:
        settings: all arguments; when resuming, those of the run must be handed in again.
        path: the run folder.
        resume: go on from the checkpoint in the folder, bit for bit.
        overwrite: replace a run that is there.
        on_step: called after each outer step.

    Raises:
        ValueError: settings that do not go together, or a folder in the wrong state.
        FloatingPointError: see ``train_rule``; the last checkpoint is unharmed.
        KeyboardInterrupt: after Ctrl-C, once the checkpoint is written.
    """
    folder = RunFolder(path)
    if resume and overwrite:
        raise ValueError("resume and overwrite were given; a run is gone on with or replaced: leave one out")
    if resume:
        _require_same(rule_settings(folder), settings, folder.path)
    rule, estimator = build_rule(settings), build_estimator(settings)
    optimizer = torch.optim.Adam(rule.parameters(), lr=settings.lr)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(1, settings.steps))
    generator = torch.Generator().manual_seed(settings.seed)
    notes: dict[str, Any] = {"losses": [], "diverged": 0, "skipped": 0, "seconds": 0.0, "cpu_seconds": 0.0}
    step = 0
    if resume:
        if folder.checkpoint.exists():
            saved = load_checkpoint(folder.checkpoint, rule, optimizer, generator=generator, scheduler=scheduler)
            step, notes = saved.step, saved.notes
            estimator.load_state_dict(saved.more, rule)  # pyright: ignore[reportArgumentType]
        folder.forget_after(step)
    else:
        folder.start(settings, overwrite=overwrite, facts=about_process())
    log_every = max(1, settings.steps // 200)
    began, written = time.perf_counter() - notes["seconds"], -math.inf  # the first step leaves a checkpoint
    cpu_began = time.process_time() - notes["cpu_seconds"]

    def checkpoint_now() -> None:
        nonlocal notes
        notes |= {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu_began}
        save_rule(rule, folder.rule, facts={"settings": dataclasses.asdict(settings), "step": step})
        save_checkpoint(
            folder.checkpoint,
            rule,
            optimizer,
            step=step,
            generator=generator,
            scheduler=scheduler,
            notes=notes,
            more=estimator.state_dict(),
        )

    with deferred_interrupts() as interrupted:
        for done in train_rule(
            rule,
            estimator,  # pyright: ignore[reportArgumentType]
            optimizer,
            steps=settings.steps,
            generator=generator,
            clip=settings.clip,
            start=step,
        ):
            if not done.skipped or optimizer.state:  # a schedule does not begin before the first step of its optimizer
                scheduler.step()
            step, last = done.step, done.step == settings.steps
            notes["losses"] += [done.loss] if math.isfinite(done.loss) else []
            notes["diverged"] += done.diverged
            notes["skipped"] += done.skipped
            mean_loss = sum(notes["losses"]) / len(notes["losses"]) if notes["losses"] else math.nan
            if step % log_every == 0 or last:
                counts = {"diverged": notes["diverged"], "skipped": notes["skipped"]}
                folder.record(step=step, loss=mean_loss, **counts, lr=scheduler.get_last_lr()[0])
                notes["losses"] = []
            if on_step is not None:
                on_step(RuleProgress(step, settings.steps, mean_loss, notes["diverged"], notes["skipped"]))
            stop = interrupted()
            if last or stop or time.perf_counter() - written > _CHECKPOINT_SECONDS:
                checkpoint_now()
                written = time.perf_counter()
            if stop and not last:
                raise KeyboardInterrupt
    return folder


def _require_same(there: RuleSettings, now: RuleSettings, path: Path) -> None:
    theirs, ours = dataclasses.asdict(there), dataclasses.asdict(now)
    changed = [f"{k}={theirs[k]!r} there, {ours[k]!r} now" for k in ours if theirs[k] != ours[k]]
    if changed:
        raise ValueError(f"{path} was started with other settings ({'; '.join(changed)}): resume with the same")
