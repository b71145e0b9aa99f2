"""SimpleShot on the backbone of a finished ProtoNet run, on Omniglot (Vinyals split): 5-way and 20-way 1-shot.

    python recipes/protonet_omniglot.py --seed 0
    python recipes/simple_shot_omniglot.py --seed 0

Nothing is trained. The features of an image are a mean over itself and its shifts by one pixel, and are centred by the
mean feature of every fourth train and validation image. Judged on the 423 test characters with their rotations, 1,000
episodes; the features of all test images are computed once. The setting "init" of each stored line names the run that
the backbone comes from. Appends one line for each protocol to benchmarks/results/omniglot.jsonl.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from result import RESULTS
from torch import Tensor, nn

import quickstudy as qs
from quickstudy.learners.simple_shot import Shifts, SimpleShot, embed_views, mean_embedding
from quickstudy.process import keep_freed_memory, use_threads
from quickstudy.runs import RunFolder

ONE_PIXEL = ((0, 1), (0, -1), (1, 0), (-1, 0))


@dataclass(frozen=True)
class Args:
    """Everything that the result depends on."""

    seed: int = 0
    threads: int = 1
    centred: int = 1
    shifts: int = 1
    run: str = ""


def batches(tasks: qs.TaskDistribution, every: int = 1) -> Iterator[Tensor]:
    """Every n-th example of the tasks, at most 500 at a time."""
    assert isinstance(tasks, qs.ClassTasks)
    for rows in torch.arange(0, len(tasks.x), every).split(500):
        yield tasks.examples(rows)


@torch.no_grad()
def as_features(backbone: nn.Module, tasks: qs.TaskDistribution, views: Shifts) -> qs.ClassTasks:
    """The same tasks over the features of their images."""
    assert isinstance(tasks, qs.ClassTasks)
    found = torch.cat([embed_views(backbone, x, views) for x in batches(tasks)])
    return qs.ClassTasks(found, torch.arange(len(tasks)).repeat_interleave(tasks.counts))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="0 takes every processor")
    parser.add_argument("--centred", type=int, default=1, help="0 leaves the centre out")
    parser.add_argument("--shifts", type=int, default=1, help="0 looks at each image once")
    parser.add_argument("--run", default="", help="a run folder; by default runs/protonet-omniglot-SEED")
    args = Args(**vars(parser.parse_args()))
    keep_freed_memory()
    use_threads(args.threads)
    folder = RunFolder(args.run or f"runs/protonet-omniglot-{args.seed}")
    backbone, settings = qs.load(folder.learner).get_submodule("backbone"), folder.settings()
    views = ONE_PIXEL if args.shifts else ()
    centre = None
    if args.centred:
        centre = mean_embedding(backbone, batches(settings.part(settings.train_part), every=4), views=views)
    learner, test = SimpleShot(nn.Identity(), centre=centre), as_features(backbone, settings.part("test"), views)
    options = {"views": views, "centred": bool(args.centred)}
    settings = dataclasses.replace(settings, learner="simple_shot", init=str(folder.path), options=options)
    for way in (5, 20):
        judged = test.replace(way=way, shot=1, queries=15)
        score = qs.evaluate(learner, judged, episodes=1000, generator=torch.Generator().manual_seed(0))
        sys.stderr.write(f"{score}\n")
        line = {
            "learner": "simple_shot",
            "tasks": settings.tasks,
            "split": settings.split,
            **score.as_dict(),
            "parameters": sum(p.numel() for p in backbone.parameters()),
            "training": None,
            "settings": dataclasses.asdict(settings),
            "command": " ".join(["python", f"recipes/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        }
        with (RESULTS / "omniglot.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
