"""What the recipes share: train or go on, judge, and add a line to benchmarks/results."""

import json
import sys
from pathlib import Path

import torch

from quickstudy import evaluate, load
from quickstudy.console import err, train_with_bar
from quickstudy.process import keep_freed_memory, use_threads
from quickstudy.runs import RunFolder, Settings

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"


def train_or_resume(settings: Settings, path: str, *, threads: int) -> RunFolder:
    """The finished run of these settings, trained as far as it is not."""
    keep_freed_memory()
    use_threads(threads)
    return train_with_bar(settings, Path(path), resume=RunFolder(path).config.exists())


def record_scores(folder: RunFolder, name: str, *, ways: tuple[int, ...], episodes: int) -> None:
    """Judge the run's learner on meta-test at 1 shot, and append a line for each way to results/NAME.jsonl.

    Sinusoids have no ways: their line is for the shot and queries of the training.
    """
    settings, config = folder.settings(), folder.read_config()
    learner = load(folder.learner)
    for way in ways:
        shape = {"way": way, "shot": 1, "queries": 15} if way else {}
        score = evaluate(
            learner, settings.part("test", **shape), episodes=episodes, generator=torch.Generator().manual_seed(0)
        )
        shape_of_training = {"way": settings.way, "shot": settings.shot, "steps": settings.steps, "seed": settings.seed}
        line = {
            "learner": settings.learner,
            "tasks": settings.tasks,
            "split": settings.split,
            **score.as_dict(),
            "parameters": sum(p.numel() for p in learner.parameters()),
            "training": {**shape_of_training, **folder.cost()},
            "settings": config["settings"],
            "versions": config["versions"],
            "command": " ".join(
                ["python", Path(sys.argv[0]).parent.name + "/" + Path(sys.argv[0]).name, *sys.argv[1:]]
            ),
        }
        with (RESULTS / f"{name}.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        err.print(f"{settings.learner}: {score}", highlight=False)
