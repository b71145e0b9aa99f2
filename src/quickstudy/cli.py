"""The command: train, evaluate, compare, demo, data, learners, report."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

import quickstudy
from quickstudy import experiment
from quickstudy.data.download import download_omniglot
from quickstudy.data.trials import load_trials
from quickstudy.evaluation import Score, compare, evaluate, evaluate_episodes
from quickstudy.experiment import RunFolder, Settings
from quickstudy.learner import Learner
from quickstudy.learners import LEARNERS, NearestNeighbour
from quickstudy.process import keep_freed_memory, use_threads
from quickstudy.saving import load
from quickstudy.tasks.named import named_tasks
from quickstudy.tasks.trials import as_episode

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
err = Console(stderr=True)
out = Console()

LearnerName = Literal["protonet", "maml", "linear_probe"]
TasksName = Literal["omniglot", "glyphs", "sinusoid"]
Out = Annotated[Path, typer.Option(help="The run folder.")]
Threads = Annotated[int, typer.Option(help="Threads for torch; 0 takes every processor.")]


@app.callback()
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False) -> None:
    """Learn to learn: train on many small tasks, then learn a new one from a handful of examples."""
    if version:
        out.print(quickstudy.__version__)
        raise typer.Exit


@app.command()
def train(
    context: typer.Context,
    out: Out,
    learner: LearnerName = "protonet",
    tasks: TasksName = "glyphs",
    split: Annotated[str | None, typer.Option(help="omniglot: vinyals or official; glyphs: scripts.")] = None,
    root: Annotated[Path | None, typer.Option(help="Folder with the omniglot archives.")] = None,
    rotations: Annotated[bool | None, typer.Option(help="Turned characters as classes of their own.")] = None,
    train_part: Annotated[str, typer.Option(help="trainval and background train without meta-validation.")] = "train",
    way: Annotated[int, typer.Option(help="Classes per task.")] = 5,
    shot: Annotated[int, typer.Option(help="Support examples per class.")] = 1,
    queries: Annotated[int, typer.Option(help="Query examples per class.")] = 15,
    within_group: Annotated[bool, typer.Option(help="Classes of a task share an alphabet or script.")] = False,
    augment: Annotated[bool, typer.Option(help="Random affine changes of meta-training images.")] = False,
    backbone: Literal["conv4", "mlp"] = "conv4",
    width: Annotated[int, typer.Option(help="Channels of conv4, units per hidden layer of mlp.")] = 64,
    norm: Literal["population", "batch", "group"] = "population",
    pool: Literal["max", "stride"] = "max",
    head: Annotated[Literal["shared", "prototypes", "none"], typer.Option(help="MAML's head.")] = "shared",
    inner_lr: Annotated[float, typer.Option(help="MAML's step size.")] = 0.1,
    inner_steps: Annotated[int, typer.Option(help="MAML's gradient steps.")] = 1,
    first_order: Annotated[bool, typer.Option(help="MAML without second derivatives.")] = False,
    strategy: Annotated[Literal["auto", "loop", "vmap"], typer.Option(help="How a meta-batch is run.")] = "auto",
    steps: Annotated[int, typer.Option(help="Outer steps.")] = 2000,
    meta_batch: Annotated[int, typer.Option(help="Tasks per outer step.")] = 1,
    optimizer: Literal["adam", "adamw", "sgd"] = "adam",
    lr: Annotated[float, typer.Option(help="Outer learning rate.")] = 1e-3,
    weight_decay: float = 0.0,
    schedule: Literal["cosine", "constant"] = "cosine",
    clip: Annotated[float, typer.Option(help="Largest norm of the meta-gradient; 0 is off.")] = 0.0,
    validate_every: Annotated[int, typer.Option(help="Outer steps between meta-validations; 0 for none.")] = 500,
    validation_episodes: int = 200,
    validation_way: Annotated[int, typer.Option(help="0 takes the training way.")] = 0,
    validation_shot: Annotated[int, typer.Option(help="0 takes the training shot.")] = 0,
    seed: int = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the folder's checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that is in the folder.")] = False,
    report: Annotated[bool, typer.Option(help="Write report.html at the end.")] = True,
    threads: Threads = 0,
) -> None:
    """Meta-train a learner into a run folder."""
    use_threads(threads)
    names = [field.name for field in dataclasses.fields(Settings)]
    given = {name: value for name, value in locals().items() if name in names}
    given["root"] = None if root is None else str(root)
    folder = RunFolder(out)
    if resume:
        explicit = {name: given[name] for name in names if _is_explicit(context, name)}
        settings = dataclasses.replace(folder.settings(), **explicit)
    else:
        settings = Settings(**given)
    train_with_bar(settings, out, resume=resume, overwrite=overwrite)
    if report:
        write_report(folder)
    err.print(f"run: {folder.path}   learner: {folder.learner}" + (f"   report: {folder.report}" if report else ""))


def train_with_bar(settings: Settings, path: Path, *, resume: bool = False, overwrite: bool = False) -> RunFolder:
    """``experiment.train`` with bar, rate and time left on standard error."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[state]}"),
    )
    with Progress(*columns, console=err, refresh_per_second=4) as bar:
        item = bar.add_task(f"{settings.learner} on {settings.tasks}", total=settings.steps, rate="", state="")
        first: list[int] = []

        def on_step(at: experiment.Progress) -> None:
            if not first:
                first.append(at.step - 1)
                bar.reset(item, completed=first[0])
            seconds = bar.tasks[item].elapsed or 0
            state = f"loss {at.loss:.3f}" + ("" if at.best is None else f"  best {at.best:.4f}")
            rate = f"{(at.step - first[0]) / seconds:.1f} steps/s" if seconds > 0 else ""
            bar.update(item, completed=at.step, rate=rate, state=state)

        return experiment.train(settings, path, resume=resume, overwrite=overwrite, on_step=on_step)


Learners = Annotated[list[str], typer.Argument(help="Run folders, learner files, or names.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


@app.command(name="evaluate")
def evaluate_command(
    learner: Annotated[str, typer.Argument(help="A run folder, a learner file, or a name.")],
    tasks: Annotated[TasksName | None, typer.Option(help="By default the tasks of the run.")] = None,
    split: str | None = None,
    part: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    root: Path | None = None,
    rotations: bool | None = None,
    way: int = 5,
    shot: int = 1,
    queries: int = 15,
    within_group: bool = False,
    episodes: int = 1000,
    seed: int = 0,
    trials: Annotated[Path | None, typer.Option(help="Fixed trials: DIR/TRIAL/{support,query}/CLASS/*.png.")] = None,
    json_: Json = False,
    threads: Threads = 0,
) -> None:
    """Judge a learner on tasks it has not seen."""
    use_threads(threads)
    judged = open_learner(learner)
    if trials is not None:
        score = evaluate_episodes(judged, [as_episode(trial) for trial in load_trials(trials)], seed=seed)
    else:
        distribution = _tasks_for([learner], tasks, split, root, rotations, part, way, shot, queries, within_group)
        generator = torch.Generator().manual_seed(seed)
        score = evaluate(judged, distribution, episodes=episodes, generator=generator)
    if json_:
        print_json({"learner": learner, **score.as_dict()})
    else:
        print_scores({learner: score})


@app.command(name="compare")
def compare_command(
    learners: Learners,
    tasks: Annotated[TasksName | None, typer.Option(help="By default the tasks of the first run.")] = None,
    split: str | None = None,
    part: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    root: Path | None = None,
    rotations: bool | None = None,
    way: int = 5,
    shot: int = 1,
    queries: int = 15,
    within_group: bool = False,
    episodes: int = 1000,
    seed: int = 0,
    json_: Json = False,
    threads: Threads = 0,
) -> None:
    """Judge several learners on the very same tasks, with paired differences."""
    use_threads(threads)
    distribution = _tasks_for(learners, tasks, split, root, rotations, part, way, shot, queries, within_group)
    comparison = compare(
        {name: open_learner(name) for name in learners},
        distribution,
        episodes=episodes,
        generator=torch.Generator().manual_seed(seed),
    )
    if json_:
        print_json(
            {
                "scores": {name: score.as_dict() for name, score in comparison.scores.items()},
                "differences": [
                    {"a": a, "b": b, "mean": mean, "ci95": ci95} for (a, b), (mean, ci95) in comparison.differences.items()
                ],
            }
        )
        return
    print_scores(comparison.scores)
    for (a, b), (mean, ci95) in comparison.differences.items():
        out.print(f"{a} − {b}: {100 * mean:+.2f} ± {100 * ci95:.2f} points", highlight=False)


@app.command()
def data(
    name: Annotated[Literal["omniglot", "glyphs"], typer.Argument()],
    download: Annotated[bool, typer.Option("--download", help="Fetch and verify the omniglot archives.")] = False,
    root: Path | None = None,
    json_: Json = False,
) -> None:
    """Show what a data set holds; fetch it with --download."""
    if download:
        if name != "omniglot":
            raise ValueError("glyphs are rendered on this machine and need no download: leave --download out")
        with Progress(console=err) as bar:
            items: dict[str, Any] = {}

            def on_bytes(file: str, done: int, total: int) -> None:
                if file not in items:
                    items[file] = bar.add_task(file, total=total or None)
                bar.update(items[file], completed=done)

            root = download_omniglot(root, progress=on_bytes)
        err.print(f"omniglot is in {root}")
    splits = {"omniglot": ("vinyals", "official"), "glyphs": ("scripts",)}[name]
    rows = []
    for split in splits:
        for part in ("train", "validation", "test"):
            found = quickstudy.tasks.named.named_data(name, part, split=split, root=root)
            row = {"split": split, "part": part, "classes": len(found.classes), "groups": len(set(found.groups))}
            rows.append({**row, "examples": len(found.y)})
    if json_:
        print_json({"data": name, "parts": rows})
        return
    table = Table(title=name)
    for column in rows[0]:
        table.add_column(column, justify="left" if column in ("split", "part") else "right")
    for row in rows:
        table.add_row(*(f"{v:,}" if isinstance(v, int) else v for v in row.values()))
    out.print(table)


@app.command(name="learners")
def learners_command(json_: Json = False) -> None:
    """List the learners."""
    rows = {name: (sys.modules[cls.__module__].__doc__ or "").splitlines()[0] for name, cls in LEARNERS.items()}
    if json_:
        print_json(rows)
        return
    table = Table("name", "what it is")
    for row in rows.items():
        table.add_row(*row)
    out.print(table)


def open_learner(name: str) -> Learner:
    """A run folder, a learner file, or the name of a learner that needs no training."""
    if name == "nearest_neighbour":
        return NearestNeighbour()
    path = Path(name)
    if path.is_dir():
        path = RunFolder(path).learner
    if not path.exists():
        trainable = [known for known in LEARNERS if known != "nearest_neighbour"]
        hint = f": train it first (quickstudy train --learner {name} --out runs/{name})" if name in trainable else ""
        raise ValueError(
            f"{path} does not exist; required is a run folder with a learner, a learner file, or 'nearest_neighbour'{hint}"
        )
    return load(path)


def _tasks_for(
    learners: list[str],
    tasks: str | None,
    split: str | None,
    root: Path | None,
    rotations: bool | None,
    part: str,
    way: int,
    shot: int,
    queries: int,
    within_group: bool,
) -> Any:
    """The tasks asked for; what was not said comes from the first run folder among the learners."""
    run = next((RunFolder(name).settings() for name in learners if RunFolder(name).config.exists()), None)
    if tasks is None and run is None:
        raise ValueError("no tasks were given, and there is no run folder to take them from: pass --tasks")
    same = run is not None and tasks in (None, run.tasks)
    if run is not None and same:
        tasks, split = run.tasks, split or run.split
        root = root or (Path(run.root) if run.root else None)
        rotations = run.rotations if rotations is None and split == run.split else rotations
    return named_tasks(
        tasks or "",
        part,
        split=split,
        root=root,
        rotations=rotations,
        way=way,
        shot=shot,
        queries=queries,
        within_group=within_group,
    )


def print_scores(scores: dict[str, Score], seconds: bool = True) -> None:
    """One table, a row per learner; accuracies in per cent."""
    table = Table()
    for column, side in (("learner", "left"), ("score ± ci95", "right"), ("tasks", "left"), ("", "left"), ("s", "right")):
        table.add_column(column, justify=side)  # pyright: ignore[reportArgumentType]
    for name, score in scores.items():
        value = f"{score.mean:.4f} ± {score.ci95:.4f} {score.metric}"
        if score.metric == "accuracy":
            value = f"{100 * score.mean:.2f} ± {100 * score.ci95:.2f} %"
        mode = "transductive" if score.transductive else "inductive"
        table.add_row(name, value, score.protocol, f"{score.episodes} episodes, {mode}", f"{score.seconds:.1f}")
    out.print(table)


def print_json(value: dict[str, Any]) -> None:
    """One object on standard output."""
    sys.stdout.write(json.dumps(value) + "\n")


def write_report(folder: RunFolder) -> None:
    """report.html, with a word on standard error while it is made."""
    from quickstudy.report import write

    with err.status("writing the report"):
        write(folder)


def _is_explicit(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def main() -> None:
    """Entry point: errors that a person can act on are printed without a traceback, exit status 1; Ctrl-C is 130."""
    keep_freed_memory()
    try:
        app(standalone_mode=True)
    except (ValueError, FloatingPointError, OSError) as error:
        err.print(f"[bold red]error:[/] {error}", highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        err.print("stopped; the checkpoint is written: go on with --resume")
        sys.exit(130)
