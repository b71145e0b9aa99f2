"""Spoken digits from one recording each: a ProtoNet on log-mel images against nearest means of these images.

    python recipes/fsdd.py --seed 0
    python recipes/fsdd.py --seed 0 --split digits

Trains on four speakers, judges on two others, 1,000 episodes of each protocol: support and queries by one speaker, or
by one and by another. With "digits" the test digits are other ones as well. A training task is of either protocol, with
equal odds. Two baselines that learn nothing see the same episodes: the nearest mean of the images, and of the images
stretched to one length, as if all spoke at the same speed. Appends a line for each learner and protocol to
benchmarks/results/fsdd.jsonl.
"""

import argparse
import dataclasses
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from result import RESULTS
from torch import Tensor, nn

import quickstudy as qs
from quickstudy.process import keep_freed_memory, use_threads
from quickstudy.tasks import AcrossGroups


@dataclass(frozen=True)
class Args:
    """Everything that the result depends on."""

    seed: int = 0
    threads: int = 1
    split: str = "speakers"
    train_part: str = "trainval"
    part: str = "test"
    queries: int = 5
    width: int = 48
    steps: int = 3000
    lr: float = 1e-3
    shift: int = 4
    mask: int = 8
    episodes: int = 1000


@dataclass(frozen=True)
class Either(qs.TaskDistribution):
    """Each draw is of one of several kinds of tasks."""

    kinds: tuple[qs.TaskDistribution, ...]

    def sample(self, n: int, *, generator: torch.Generator) -> qs.Episode:
        chosen = int(torch.randint(len(self.kinds), (), generator=generator))
        return self.kinds[chosen].sample(n, generator=generator)


@dataclass(frozen=True)
class Vary:
    """Move an image in time and pitch, and silence a range of frames and of bands (Park et al. 2019, arXiv:1904.08779).

    Args:
        shift: largest move in frames; in bands half of it.
        mask: longest range that is silenced.
    """

    shift: int
    mask: int

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """(n, 1, bands, frames) → the same shape."""
        for axis, most in ((2, self.shift // 2), (3, self.shift)):
            size, n = x.shape[axis], len(x)
            place = torch.arange(size).expand(n, size)
            source = place - torch.randint(-most, most + 1, (n, 1), generator=generator)
            start = torch.randint(size, (n, 1), generator=generator)
            end = start + torch.randint(self.mask + 1, (n, 1), generator=generator)
            heard = (source >= 0) & (source < size) & ~((place >= start) & (place < end))  # (n, size)
            shape = (n, 1, size, 1) if axis == 2 else (n, 1, 1, size)
            x = x.gather(axis, source.clamp(0, size - 1).view(shape).expand(x.shape)) * heard.view(shape)
        return x


class Stretched(nn.Module):
    """An image without the silence behind it, drawn out to its whole width, as a vector."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, 1, bands, frames) → (n, bands · frames)."""
        frames = x.shape[-1]
        last = ((x.amax((1, 2)) > 0) * torch.arange(1, frames + 1)).amax(
            1, keepdim=True
        )  # (n, 1) frames that are heard
        at = torch.linspace(0, 1, frames) * (last - 1).clamp(min=0)  # (n, frames)
        low, share = at.floor().long(), at - at.floor()
        left, right = (x.gather(3, i[:, None, None].expand(x.shape)) for i in (low, (low + 1).clamp(max=frames - 1)))
        share = share[:, None, None]
        return (left * (1 - share) + right * share).flatten(1)


def kinds_of(args: Args, part: str, **shape: int) -> dict[str, qs.ClassTasks | AcrossGroups]:
    """The tasks of both protocols."""
    within = qs.named_tasks("fsdd", part, split=args.split, **shape)
    assert isinstance(within, qs.ClassTasks)
    return {"one speaker": within, "another speaker": AcrossGroups(within)}


def train(args: Args) -> tuple[qs.Learner, dict[str, float]]:
    """The learner, and what its training cost."""
    way = 10 if args.split == "speakers" else 5
    within = kinds_of(args, args.train_part, way=way, shot=1, queries=args.queries)["one speaker"]
    assert isinstance(within, qs.ClassTasks)
    within = within.replace(augment=Vary(args.shift, args.mask))
    torch.default_generator.manual_seed(args.seed)  # initial weights are drawn by torch's own layers
    learner = qs.ProtoNet(qs.Conv4(1, args.width, image_size=40))
    optimizer = torch.optim.Adam(learner.parameters(), lr=args.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.steps)
    generator = torch.Generator().manual_seed(args.seed)
    tasks = Either((within, AcrossGroups(within)))
    began, cpu, losses = time.perf_counter(), time.process_time(), []
    for step in qs.meta_train(learner, tasks, optimizer, steps=args.steps, meta_batch=1, generator=generator):
        schedule.step()
        losses.append(step.loss)
        if step.step % max(1, args.steps // 10) == 0:
            sys.stderr.write(f"step {step.step}: meta-loss {sum(losses) / len(losses):.4f}\n")
            losses = []
    qs.settle_statistics(learner, within.replace(augment=None), generator=torch.Generator().manual_seed(args.seed))
    cost = {"seconds": round(time.perf_counter() - began, 1), "cpu_seconds": round(time.process_time() - cpu, 1)}
    return learner, {"way": way, "shot": 1, "steps": args.steps, "seed": args.seed, **cost, "threads": args.threads}


BASELINES = {"nearest mean of images": nn.Flatten(), "nearest mean of stretched images": Stretched()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in dataclasses.fields(Args):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    args = Args(**vars(parser.parse_args()))
    keep_freed_memory()
    use_threads(args.threads)
    learner, cost = train(args)
    folder = Path(f"runs/fsdd-{args.split}-{args.seed}")
    folder.mkdir(parents=True, exist_ok=True)
    qs.save(learner, folder / "learner.safetensors")
    for kind, tasks in kinds_of(args, args.part, way=5, shot=1, queries=15).items():
        comparison = qs.compare(
            {"protonet": learner, **{name: qs.ProtoNet(network) for name, network in BASELINES.items()}},
            tasks,
            episodes=args.episodes,
            generator=torch.Generator().manual_seed(0),
        )
        sys.stderr.write(f"{kind}\n{comparison}\n")
        for name, score in comparison.scores.items():
            line = {
                "learner": name,
                "tasks": "fsdd",
                "split": f"{args.split}, {kind}",
                **score.as_dict(),
                "parameters": sum(p.numel() for p in learner.parameters()) if name == "protonet" else 0,
                "training": cost if name == "protonet" else None,
                "versions": {"quickstudy": qs.__version__, "torch": torch.__version__},
                "settings": dataclasses.asdict(args),
                "command": " ".join(["python", f"recipes/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
            }
            if args.part == "test":
                RESULTS.mkdir(parents=True, exist_ok=True)
                with (RESULTS / "fsdd.jsonl").open("a") as file:
                    file.write(json.dumps(line) + "\n")
