"""What the recipes share: train or go on, judge, and add lines to benchmarks/results."""

import dataclasses
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from quickstudy import ClassTasks, Learner, TaskDistribution, evaluate, load
from quickstudy.console import err, train_with_bar
from quickstudy.learners import LocalMatching, SimpleShot
from quickstudy.learners.simple_shot import embed_views
from quickstudy.process import keep_freed_memory, use_threads
from quickstudy.runs import RunFolder, Settings
from quickstudy.tasks import examples_of

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"


def train_or_resume(settings: Settings, path: str, *, threads: int) -> RunFolder:
    """The finished run of these settings, trained as far as it is not."""
    keep_freed_memory()
    use_threads(threads)
    return train_with_bar(settings, Path(path), resume=RunFolder(path).config.exists())


def record_scores(
    folder: RunFolder,
    name: str,
    *,
    ways: tuple[int, ...],
    episodes: int,
    learner: Learner | None = None,
    called: str | None = None,
    tasks: str | None = None,
    after: RunFolder | None = None,
) -> None:
    """Judge the run's learner, or one made of it, on meta-test; a line per way in results/NAME.jsonl.

    Args:
        folder: a finished run.
        name: of the results file.
        ways: 0 for tasks without classes.
        episodes: of each way.
        learner: made of the run's, if it is another one.
        called: what the line calls it; by default as in the settings.
        tasks: judged on other tasks of the same split than the run trained on, by the protocol of those.
        after: the run whose weights this one started from, if its cost belongs to the result.
    """
    settings = folder.settings()
    runs = [folder] if after is None else [after, folder]
    steps = sum(run.settings().steps for run in runs)
    shape = {"way": settings.way, "shot": settings.shot, "steps": steps, "seed": settings.seed}
    costs = [run.cost() for run in runs]
    cost = costs[-1] | {key: _sum([one[key] for one in costs]) for key in ("seconds", "cpu_seconds")}
    record_fixed(
        learner or load(folder.learner),
        called or settings.learner,
        settings,
        name,
        ways=ways,
        episodes=episodes,
        training={**shape, **cost},
        facts={"versions": folder.read_config()["versions"]},
        judged=settings if tasks is None else dataclasses.replace(settings, tasks=tasks, rotations=None),
    )


def _sum(numbers: list[Any]) -> float | None:
    return None if None in numbers else round(sum(numbers), 1)


def record_fixed(
    learner: Learner,
    called: str,
    settings: Settings,
    name: str,
    *,
    ways: tuple[int, ...],
    episodes: int,
    training: dict[str, Any] | None = None,
    facts: dict[str, Any] | None = None,
    judged: Settings | None = None,
) -> None:
    """The same for a learner that is not trained, or not in a run folder, on the tasks of ``settings``.

    One line for each way, at 1 shot and 15 queries; sinusoids have way 0, and the shot of their training. The line
    holds ``training`` and ``facts`` beside the score; ``judged`` are the tasks, if they are others.
    """
    judged = judged or settings
    for way in ways:
        shape = {"way": way, "shot": 1, "queries": 1 if judged.tasks == "omniglot_trials" else 15} if way else {}
        generator = torch.Generator().manual_seed(0)
        answering, tasks = learner, judged.part("test", **shape)
        if isinstance(learner, SimpleShot | LocalMatching):
            answering, tasks = on_features(learner, tasks)
        score = evaluate(answering, tasks, episodes=episodes, generator=generator)
        line = {
            "learner": called,
            "tasks": judged.tasks,
            "split": judged.split,
            **score.as_dict(),
            "parameters": sum(p.numel() for p in learner.parameters()),
            "training": training,
            **(facts or {}),
            "settings": dataclasses.asdict(settings),
            "command": " ".join(["python", f"recipes/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        }
        RESULTS.mkdir(parents=True, exist_ok=True)
        with (RESULTS / f"{name}.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        err.print(f"{called}: {score}", highlight=False)


@torch.no_grad()
def on_features(learner: SimpleShot | LocalMatching, tasks: TaskDistribution) -> tuple[Learner, TaskDistribution]:
    """The same question over features: each image is embedded once, where episodes would embed it many times."""
    examples = examples_of(tasks)
    assert examples is not None
    rows = torch.arange(len(examples.x)).split(500)
    if isinstance(learner, LocalMatching):
        answering, embed = learner.of_rows(), learner.rows
    else:
        answering = SimpleShot(nn.Identity(), centre=learner.centre, scale=learner.scale)
        embed = partial(embed_views, learner.backbone, views=learner.views)
    features = torch.cat([embed(examples.examples(r)) for r in rows])
    counts = examples.counts.tolist()
    groups = examples.class_groups
    found = ClassTasks(
        features,
        [i for i, count in enumerate(counts) for _ in range(count)],
        groups=None if groups is None else [g for g, count in zip(groups, counts, strict=True) for _ in range(count)],
        way=examples.way,
        shot=examples.shot,
        queries=examples.queries,
        within_group=examples.within_group,
    )
    return answering, found if tasks is examples else dataclasses.replace(cast(Any, tasks), tasks=found)
