"""The commands that judge learners on tasks they have not seen: evaluate, compare."""

from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from quickstudy import evaluation
from quickstudy.commands_options import (
    Device,
    Episodes,
    Json,
    Judged,
    JudgedChannels,
    JudgedImageSize,
    JudgedQueries,
    JudgedShot,
    JudgedWay,
    Part,
    Root,
    Rotations,
    SeveralJudged,
    Split,
    Tasks,
    Threads,
    WithinGroup,
    device_of,
)
from quickstudy.console import print_comparison, print_json, print_scores
from quickstudy.data.trials import load_trials
from quickstudy.episode import TaskDistribution
from quickstudy.opening import open_learner
from quickstudy.process import use_threads
from quickstudy.runs import RunFolder
from quickstudy.tasks.named import REGRESSION, named_tasks
from quickstudy.tasks.trials import as_episode, image_size_for


def evaluate(
    learner: Judged,
    tasks: Tasks = None,
    split: Split = None,
    part: Part = "test",
    root: Root = None,
    rotations: Rotations = None,
    image_size: JudgedImageSize = None,
    channels: JudgedChannels = None,
    way: JudgedWay = None,
    shot: JudgedShot = None,
    queries: JudgedQueries = None,
    within_group: WithinGroup = False,
    episodes: Episodes = None,
    seed: int = 0,
    trials: Annotated[Path | None, typer.Option(help="Fixed trials: DIR/TRIAL/{support,query}/CLASS/*.png.")] = None,
    json: Json = False,
    threads: Threads = 0,
    device: Device = "cpu",
) -> None:
    """Judge a learner on tasks it has not seen."""
    use_threads(threads)
    shape = {"way": way, "shot": shot, "queries": queries, "image_size": image_size, "channels": channels}
    drawn = {**shape, "episodes": episodes, "tasks": tasks, "split": split, "root": root, "rotations": rotations}
    asked = [
        f"--{name.replace('_', '-')}"
        for name, value in {**drawn, "within-group": within_group or None}.items()
        if value is not None
    ]
    if trials is not None and asked:
        raise ValueError(f"{', '.join(asked)} and --trials were given; fixed trials have their own: leave one out")
    judged = open_learner(learner).to(device_of(device))
    if trials is None:
        asked_for = {**shape, "within_group": within_group}
        distribution = tasks_for([learner], tasks, split, root, rotations, part, asked_for)
        generator = torch.Generator().manual_seed(seed)
        score = evaluation.evaluate(
            judged, distribution, episodes=1000 if episodes is None else episodes, generator=generator
        )
    else:
        fixed = load_trials(trials, size=image_size_for(judged))
        score = evaluation.evaluate_episodes(judged, [as_episode(trial) for trial in fixed], seed=seed)
    if json:
        print_json({"learner": learner, **score.as_dict()})
    else:
        print_scores({learner: score})


def compare(
    learners: SeveralJudged,
    tasks: Tasks = None,
    split: Split = None,
    part: Part = "test",
    root: Root = None,
    rotations: Rotations = None,
    image_size: JudgedImageSize = None,
    channels: JudgedChannels = None,
    way: JudgedWay = None,
    shot: JudgedShot = None,
    queries: JudgedQueries = None,
    within_group: WithinGroup = False,
    episodes: Episodes = None,
    seed: int = 0,
    json: Json = False,
    threads: Threads = 0,
    device: Device = "cpu",
) -> None:
    """Judge several learners on the very same tasks, with paired differences."""
    twice = sorted({name for name in learners if learners.count(name) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)} was given more than once; required are different learners: name it once")
    use_threads(threads)
    shape = {"way": way, "shot": shot, "queries": queries, "image_size": image_size, "channels": channels}
    comparison = evaluation.compare(
        {name: open_learner(name).to(device_of(device)) for name in learners},
        tasks_for(learners, tasks, split, root, rotations, part, {**shape, "within_group": within_group}),
        episodes=1000 if episodes is None else episodes,
        generator=torch.Generator().manual_seed(seed),
    )
    if json:
        print_json(comparison.as_dict())
    else:
        print_comparison(comparison)


def tasks_for(
    learners: list[str],
    tasks: str | None,
    split: str | None,
    root: Path | None,
    rotations: bool | None,
    part: str,
    shape: dict[str, Any],
) -> TaskDistribution:
    """The tasks that were asked for; what was left open is taken from the first run folder among the learners.

    Of ``shape``, None is left open: class tasks are 5-way 1-shot with 15 queries, trials 20-way, sinusoids as in their
    run.
    """
    run = next((RunFolder(name).settings() for name in learners if RunFolder(name).config.exists()), None)
    if tasks is None and run is None:
        raise ValueError("no tasks were given, and no run folder to take them from: add --tasks omniglot, for example")
    if run is not None and tasks in (None, run.tasks):
        tasks, split, root = run.tasks, split or run.split, root or (Path(run.root) if run.root else None)
        rotations = run.rotations if rotations is None and split == run.split else rotations
    assert tasks is not None
    usual = {"way": 20} if tasks == "omniglot_trials" else {"way": 5, "shot": 1, "queries": 15}
    if tasks in REGRESSION:
        usual = {} if run is None or run.tasks != tasks else {"shot": run.shot, "queries": run.queries}
    if tasks == "folder" and run is not None:
        usual |= {"image_size": run.image_size, "channels": run.channels}
    chosen = {**usual, **{name: value for name, value in shape.items() if value is not None}}
    return named_tasks(tasks, part, split=split, root=root, rotations=rotations, **chosen)
