"""What the recipes share that train on the features of a network which was trained before."""

import dataclasses
import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from result import RESULTS
from torch import Tensor, nn

import quickstudy as qs


@dataclass(frozen=True)
class OnFeatures:
    """Omniglot (Vinyals split) as a ProtoNet's backbone sees it.

    Attributes:
        backbone: of ``recipes/protonet_omniglot.py``.
        tasks: features of the train and validation characters, as they are and once more after a random affine change.
        test: features of the test characters.
        seconds: that it took.
    """

    backbone: nn.Module
    tasks: qs.ClassTasks
    test: qs.ClassTasks
    seconds: float


@torch.no_grad()
def features(backbone: nn.Module, tasks: qs.ClassTasks, change: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """The features (n, d) of every example of ``tasks``, in their order; ``change`` is made to the images first."""
    found = []
    for rows in torch.arange(len(tasks.x)).split(500):
        x = tasks.examples(rows)
        found.append(backbone(x if change is None else change(x)))
    return torch.cat(found)


def labels(tasks: qs.ClassTasks) -> Tensor:
    """The class (n,) of every example."""
    return torch.arange(len(tasks)).repeat_interleave(tasks.counts)


def omniglot_on_features(seed: int) -> OnFeatures:
    """Features of the ProtoNet of that seed, centred and scaled by mean and deviation over train and validation."""
    path = Path(f"runs/protonet-omniglot-{seed}/learner.safetensors")
    if not path.exists():
        raise ValueError(f"{path} is not there; run python recipes/protonet_omniglot.py --seed {seed} first")
    began = time.perf_counter()
    backbone = qs.load(path).get_submodule("backbone")
    parts = {name: qs.named_tasks("omniglot", name, split="vinyals") for name in ("trainval", "test")}
    train, test = (part for part in parts.values() if isinstance(part, qs.ClassTasks))
    change = partial(qs.RandomAffine(), generator=torch.Generator().manual_seed(seed))
    plain, changed = features(backbone, train), features(backbone, train, change)
    mean, deviation = plain.mean(0), (plain - plain.mean(0)).square().mean().sqrt()
    y = labels(train)
    return OnFeatures(
        backbone,
        qs.ClassTasks((torch.cat([plain, changed]) - mean) / deviation, torch.cat([y, y])),
        qs.ClassTasks((features(backbone, test) - mean) / deviation, labels(test)),
        round(time.perf_counter() - began, 1),
    )


def train_on_features(
    learner: qs.Learner,
    tasks: qs.TaskDistribution,
    *,
    steps: int,
    meta_batch: int,
    lr: float,
    seed: int,
    clip: float = 0.0,
    meta_loss: Callable[[qs.Learner, qs.Episode], Tensor] = qs.unrolled,
) -> dict[str, float]:
    """Train by Adam with cosine decay, the norm of the gradient bounded by ``clip`` (0: not); the seconds it took."""
    optimizer = torch.optim.Adam(learner.parameters(), lr=lr)

    def bound(*_: Any) -> None:
        nn.utils.clip_grad_norm_(learner.parameters(), clip)

    if clip:
        optimizer.register_step_pre_hook(bound)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    began, cpu, losses = time.perf_counter(), time.process_time(), []
    for step in qs.meta_train(
        learner, tasks, optimizer, steps=steps, meta_batch=meta_batch, generator=generator, meta_loss=meta_loss
    ):
        schedule.step()
        losses.append(step.loss)
        if step.step % max(1, steps // 20) == 0:
            sys.stderr.write(f"step {step.step}: meta-loss {sum(losses) / len(losses):.4f}\n")
            losses = []
    return {"seconds": round(time.perf_counter() - began, 1), "cpu_seconds": round(time.process_time() - cpu, 1)}


def record_on_features(
    name: str, learner: qs.Learner, data: OnFeatures, way: int, *, settings: Any, training: dict[str, Any]
) -> None:
    """Judge at 1 shot over 1,000 episodes, beside a ProtoNet on the same features; a line in results/omniglot.jsonl."""
    comparison = qs.compare(
        {name: learner, "protonet": qs.ProtoNet(nn.Identity())},
        data.test.replace(way=way, shot=1, queries=15),
        episodes=1000,
        generator=torch.Generator().manual_seed(0),
    )
    sys.stderr.write(f"{comparison}\n")
    versions = {"quickstudy": qs.__version__, "python": platform.python_version()}
    line = {
        "learner": name,
        "tasks": "omniglot",
        "split": "vinyals",
        **comparison.scores[name].as_dict(),
        "protonet_on_the_same_features": comparison.scores["protonet"].mean,
        "parameters": sum(p.numel() for p in [*learner.parameters(), *data.backbone.parameters()]),
        "training": {**training, "features_seconds": data.seconds},
        "versions": {**versions, "torch": torch.__version__, "numpy": np.__version__},
        "settings": dataclasses.asdict(settings),
        "command": " ".join(["python", f"recipes/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
    }
    with (RESULTS / "omniglot.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
