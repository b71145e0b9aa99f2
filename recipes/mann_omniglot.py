"""MANN on Omniglot (Vinyals split): accuracy at the k-th presentation of a class, and 5-way 1-shot.

    python recipes/mann_omniglot.py --seed 0

Two stages on the 1,200 train and validation characters with their rotations (nothing is selected: the last step of each
counts). First a Conv4-64 is trained as a ProtoNet; its features of all these characters are centred and scaled. Then
MANN trains on sequences of 50 such features, 5 classes ten times each, in an order that its task distribution draws.
Judged on the 423 test characters with their rotations, over 1,000 sequences like these and 1,000 episodes. Inductive.
An interrupted first stage goes on where it stopped; the second is begun again.
Appends a line to benchmarks/results/mann.jsonl and one to benchmarks/results/omniglot.jsonl, whose cost is that of both
stages and of the features between them. Judged on another part than the test part, it only says what it found.
"""

import argparse
import dataclasses
import json
import platform
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from on_features import features, labels, train_on_features
from result import RESULTS, train_or_resume
from torch import nn

import quickstudy as qs
from quickstudy.learners import MANN
from quickstudy.presentations import presentation_accuracy
from quickstudy.runs import Settings


@dataclass(frozen=True)
class Args:
    """Everything that the result depends on."""

    seed: int = 0
    threads: int = 1
    part: str = "trainval"
    judged: str = "test"
    backbone_steps: int = 1200
    steps: int = 1500
    meta_batch: int = 16
    lr: float = 2e-3
    clip: float = 10.0
    heads: int = 4
    slots: int = 128

    def backbone(self) -> Settings:
        """The first stage: a ProtoNet, as in recipes/protonet_omniglot.py but shorter."""
        return Settings(
            learner="protonet",
            tasks="omniglot",
            split="vinyals",
            train_part=self.part,
            way=60,
            shot=1,
            queries=5,
            augment=True,
            steps=self.backbone_steps,
            lr=2e-3,
            validate_every=0,
            seed=self.seed,
        )


@dataclass(frozen=True)
class Mixed(qs.TaskDistribution):
    """Tasks whose examples, support and queries together, come in random order.

    A support set of it may lack classes: it is for ``walk`` and the meta-loss of sequences alone.
    """

    tasks: qs.ClassTasks

    def sample(self, n: int, *, generator: torch.Generator) -> qs.Episode:
        """Draw ``n`` tasks; the first examples of each order are its support set."""
        (sx, sy), (qx, qy) = self.tasks.sample(n, generator=generator)
        x, y = torch.cat([sx, qx], 1), torch.cat([sy, qy], 1)
        order = torch.rand(y.shape[:2], generator=generator).argsort(1)
        rows, first = torch.arange(n).unsqueeze(1), sx.shape[1]
        x, y = x[rows, order], y[rows, order]
        return qs.Episode(qs.Labelled(x[:, :first], y[:, :first]), qs.Labelled(x[:, first:], y[:, first:]))


def train(args: Args, tasks: qs.ClassTasks, d: int) -> MANN:
    """The learner on features."""
    torch.default_generator.manual_seed(args.seed)  # initial weights are drawn by torch's own layers
    learner = MANN(nn.Identity(), features=d, heads=args.heads, slots=args.slots, shuffle=False)
    train_on_features(
        learner,
        Mixed(tasks),
        steps=args.steps,
        meta_batch=args.meta_batch,
        lr=args.lr,
        seed=args.seed,
        clip=args.clip,
        meta_loss=partial(qs.unrolled, strategy="trace"),
    )
    return learner


def clock() -> dict[str, float]:
    """Wall-clock and processor seconds from some moment on."""
    return {"seconds": time.perf_counter(), "cpu_seconds": time.process_time()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in dataclasses.fields(Args):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    args = Args(**vars(parser.parse_args()))
    first = train_or_resume(args.backbone(), f"runs/mann-backbone-omniglot-{args.seed}", threads=args.threads)
    backbone = qs.load(first.learner).get_submodule("backbone")
    parts = {name: qs.named_tasks("omniglot", name, split="vinyals") for name in (args.part, args.judged)}
    train_images, test_images = (part for part in parts.values() if isinstance(part, qs.ClassTasks))
    shape: dict[str, Any] = {"way": 5, "shot": 1, "queries": 9}
    began = clock()
    plain = features(backbone, train_images)
    mean, deviation = plain.mean(0), plain.std()
    tasks = qs.ClassTasks((plain - mean) / deviation, labels(train_images), **shape)
    learner = train(args, tasks, plain.shape[1])
    second = {key: now - began[key] for key, now in clock().items()}
    earlier = first.cost()
    test = qs.ClassTasks((features(backbone, test_images) - mean) / deviation, labels(test_images), **shape)
    folder = Path(f"runs/mann-omniglot-{args.seed}")
    folder.mkdir(parents=True, exist_ok=True)
    qs.save(learner, folder / "learner.safetensors")
    generator = torch.Generator().manual_seed(0)
    found = presentation_accuracy(learner, test, sequences=1000, generator=generator)
    sys.stderr.write(f"{found}\n")
    generator = torch.Generator().manual_seed(0)
    score = qs.evaluate(learner, test.replace(queries=15), episodes=1000, generator=generator)
    sys.stderr.write(f"{score}\n")
    if args.judged != "test":
        sys.exit(0)
    cost = {key: None if (more := earlier[key]) is None else round(own + more, 1) for key, own in second.items()}
    about = {"threads": args.threads, "backbone": earlier}
    versions = {"quickstudy": qs.__version__, "python": platform.python_version()}
    common = {
        "parameters": sum(p.numel() for p in [*learner.parameters(), *backbone.parameters()]),
        "training": {"way": 5, "steps": args.steps, "seed": args.seed, **cost, **about},
        "versions": {**versions, "torch": torch.__version__, "numpy": np.__version__},
        "settings": dataclasses.asdict(args),
        "command": " ".join(["python", f"recipes/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
    }
    head = {"learner": "mann", "tasks": "omniglot", "split": "vinyals"}
    sequences = {"transductive": False, "episodes": found.sequences, **found.as_dict()}
    for name, result in (("mann", sequences), ("omniglot", score.as_dict())):
        with (RESULTS / f"{name}.jsonl").open("a") as file:
            file.write(json.dumps({**head, **result, **common}) + "\n")
