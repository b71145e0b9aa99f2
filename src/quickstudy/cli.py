"""The command: train, evaluate, compare, report, demo, data, learners; those of model files are in commands_*.py."""

import dataclasses
import json as json_module
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

import quickstudy
from quickstudy.commands_model import adapt, add, forget
from quickstudy.commands_pack import pack
from quickstudy.commands_predict import export, predict
from quickstudy.commands_profile import profile
from quickstudy.commands_serve import serve
from quickstudy.console import err, out, print_comparison, print_json, print_scores, train_with_bar
from quickstudy.data.download import BASE_URL, LISTS_URL, download_omniglot
from quickstudy.data.root import MissingData
from quickstudy.data.trials import load_trials
from quickstudy.episode import TaskDistribution
from quickstudy.evaluation import compare, evaluate, evaluate_episodes
from quickstudy.inner import DidNotConverge
from quickstudy.learners import LEARNERS
from quickstudy.opening import open_learner
from quickstudy.outer import Refused, Strategy
from quickstudy.process import keep_freed_memory, use_threads
from quickstudy.runs import RunFolder, Settings
from quickstudy.tasks.named import REGRESSION, named_data, named_tasks
from quickstudy.tasks.trials import as_episode, image_size_for

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

ModeName = Literal["reverse", "recompute", "first_order", "truncated"]
TasksName = Literal["omniglot", "omniglot_trials", "glyphs", "sinusoid", "gaussian_process", "fsdd", "folder"]
Split = Annotated[
    str | None,
    typer.Option(
        help="omniglot: vinyals or official; glyphs: scripts; fsdd: speakers, across or digits; folder: classes or "
        "groups."
    ),
]
Root = Annotated[
    Path | None, typer.Option(help="The folder of --tasks folder, or that with the archives of omniglot or fsdd.")
]
Rotations = Annotated[bool | None, typer.Option(help="Turned omniglot characters as classes of their own.")]
ImageSize = Annotated[int, typer.Option(help="Side in pixels of the images of --tasks folder.")]
Channels = Annotated[int, typer.Option(help="Of the images of --tasks folder: 1 (grey) or 3 (colour).")]
JudgedImageSize = Annotated[int | None, typer.Option(help="Of --tasks folder; by default as in the run, or 28.")]
JudgedChannels = Annotated[int | None, typer.Option(help="Of --tasks folder; by default as in the run, or 1.")]
Way = Annotated[int, typer.Option(help="Classes per task.")]
Shot = Annotated[int, typer.Option(help="Support examples per class.")]
Queries = Annotated[int, typer.Option(help="Query examples per class.")]
JudgedWay = Annotated[int | None, typer.Option(help="Classes per task; by default 5.")]
JudgedShot = Annotated[
    int | None, typer.Option(help="Support examples per class; by default 1, for sinusoids as in the run.")
]
JudgedQueries = Annotated[
    int | None, typer.Option(help="Query examples per class; by default 15, for sinusoids as in the run.")
]
Episodes = Annotated[int | None, typer.Option(help="How many tasks; by default 1000.")]
WithinGroup = Annotated[bool, typer.Option("--within-group", help="Classes of a task share an alphabet or script.")]
Threads = Annotated[int, typer.Option(help="Threads for torch; 0 takes every processor.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")]
Part = Annotated[str, typer.Option(help="train, validation or test; of a folder also all.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Judged = Annotated[str, typer.Argument(metavar="LEARNER", help="A run folder, a learner file, or a name.")]
SeveralJudged = Annotated[list[str], typer.Argument(metavar="LEARNER...", help="Run folders, learner files or names.")]
Tasks = Annotated[TasksName | None, typer.Option(help="By default the tasks of the (first) run.")]


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Learn to learn: train on many small tasks, then learn a new one from a handful of examples."""
    if version:
        out.print(quickstudy.__version__, highlight=False)
        raise typer.Exit


@app.command()
def train(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="The run folder.")],
    learner: Annotated[str, typer.Option(help="One of `quickstudy learners`.")] = "protonet",
    tasks: TasksName = "glyphs",
    split: Split = None,
    root: Root = None,
    rotations: Rotations = None,
    image_size: ImageSize = 28,
    channels: Channels = 1,
    train_part: Annotated[str, typer.Option(help="trainval and background train without meta-validation.")] = "train",
    way: Way = 5,
    shot: Shot = 1,
    queries: Queries = 15,
    within_group: WithinGroup = False,
    augment: Annotated[bool, typer.Option("--augment", help="Random affine changes of meta-training images.")] = False,
    elastic: Annotated[bool, typer.Option("--elastic", help="The same, and bent at random.")] = False,
    backbone: Literal["conv4", "mlp", "resnet12", "resnet18", "small_resnet"] | None = None,
    width: Annotated[int, typer.Option(help="Channels of conv4 (resnets: of the first), units per mlp layer.")] = 64,
    norm: Literal["population", "batch", "group"] = "population",
    pool: Literal["max", "stride"] = "max",
    precision: Annotated[
        Literal["float32", "bfloat16"], typer.Option(help="Of convolutional networks in training.")
    ] = "float32",
    head: Annotated[
        Literal["shared", "prototypes", "none"], typer.Option(help="Head of gradient-based learners.")
    ] = "shared",
    inner_lr: Annotated[float, typer.Option(help="Inner step size.")] = 0.1,
    inner_steps: Annotated[int, typer.Option(help="Inner gradient steps.")] = 1,
    first_order: Annotated[bool, typer.Option("--first-order", help="Without second derivatives.")] = False,
    adapts: Annotated[str, typer.Option(help="What adapts: names with * and commas; head.* is ANIL.")] = "*",
    mode: Annotated[ModeName, typer.Option(help="How the inner loop is differentiated.")] = "reverse",
    option: Annotated[list[str] | None, typer.Option(help="NAME=VALUE of the learner, such as strength=2.")] = None,
    strategy: Annotated[Strategy, typer.Option(help="How a meta-batch is run.")] = "auto",
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
    init: Annotated[Path | None, typer.Option(help="A run or learner file whose weights to start from.")] = None,
    seed: int = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the folder's checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that is in the folder.")] = False,
    report: Annotated[bool, typer.Option(help="Write report.html at the end.")] = True,
    threads: Threads = 0,
    device: Device = "cpu",
) -> None:
    """Meta-train a learner into a run folder."""
    backbone = backbone or ("mlp" if tasks in REGRESSION else "conv4")
    names = [field.name for field in dataclasses.fields(Settings)]
    given = {name: value for name, value in locals().items() if name in names}
    given["root"] = None if root is None else str(root.resolve())
    given["init"] = None if init is None else str(init)
    given["options"] = _options(option or [])
    use_threads(threads)
    folder = RunFolder(out)
    if resume:
        said = {name: given[name] for name in names if _was_said(context, "option" if name == "options" else name)}
        settings = dataclasses.replace(folder.settings(), **said)
    else:
        settings = Settings(**given)
    if settings.width < 1:
        raise ValueError(
            f"width={settings.width}; required is at least 1: the channels of conv4, the units per hidden layer of mlp"
        )
    try:
        train_with_bar(settings, out, resume=resume, overwrite=overwrite, device=_device(device))
    except KeyboardInterrupt:
        _say(f"stopped; go on with: quickstudy train --out {out} --resume")
        raise typer.Exit(130) from None
    if report:
        _write_report(folder)
    _say(f"learner: {folder.learner}" + (f"   report: {folder.report}" if report else ""))


@app.command(name="evaluate")
def evaluate_command(
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
    judged = open_learner(learner).to(_device(device))
    if trials is None:
        asked_for = {**shape, "within_group": within_group}
        distribution = tasks_for([learner], tasks, split, root, rotations, part, asked_for)
        generator = torch.Generator().manual_seed(seed)
        score = evaluate(judged, distribution, episodes=1000 if episodes is None else episodes, generator=generator)
    else:
        fixed = load_trials(trials, size=image_size_for(judged))
        score = evaluate_episodes(judged, [as_episode(trial) for trial in fixed], seed=seed)
    if json:
        print_json({"learner": learner, **score.as_dict()})
    else:
        print_scores({learner: score})


@app.command(name="compare")
def compare_command(
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
    comparison = compare(
        {name: open_learner(name).to(_device(device)) for name in learners},
        tasks_for(learners, tasks, split, root, rotations, part, {**shape, "within_group": within_group}),
        episodes=1000 if episodes is None else episodes,
        generator=torch.Generator().manual_seed(seed),
    )
    if json:
        print_json(comparison.as_dict())
    else:
        print_comparison(comparison)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    rivals: Annotated[list[str] | None, typer.Option("--beside", help="Another learner; may be repeated.")] = None,
    threads: Threads = 0,
) -> None:
    """Write report.html for a run, beside other learners if asked."""
    use_threads(threads)
    folder = RunFolder(run)
    _write_report(folder, rivals={name: open_learner(name) for name in rivals or ()})
    out.print(f"report: {folder.report}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("--out", help="Where the runs and the report go.")] = Path("runs/demo"),
    episodes: Annotated[int, typer.Option(help="Test episodes per protocol.")] = 100,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier demo.")] = False,
    threads: Threads = 0,
) -> None:
    """Train on the built-in glyphs and judge on scripts never seen: about two minutes."""
    from quickstudy import demo as demonstration  # here, because plots take long to import

    use_threads(threads)
    demonstration.run(folder, episodes=episodes, overwrite=overwrite)


@app.command()
def data(
    name: Literal["omniglot", "glyphs", "fsdd"],
    download: Annotated[bool, typer.Option("--download", help="Fetch and verify the omniglot archives.")] = False,
    url: Annotated[str | None, typer.Option(help="Where to fetch the two archives; by default their authors'.")] = None,
    lists_url: Annotated[str | None, typer.Option(help="Where to fetch the four Vinyals lists.")] = None,
    root: Root = None,
    json: Json = False,
) -> None:
    """Show what a data set holds; fetch omniglot with --download."""
    if download:
        root = _download(name, root, url or BASE_URL, lists_url or LISTS_URL)
    elif url or lists_url:
        raise ValueError("--url and --lists-url say where to download from: add --download")
    rows: list[dict[str, Any]] = []
    missing: list[MissingData] = []
    for split in {"omniglot": ("vinyals", "official"), "glyphs": ("scripts",), "fsdd": ("speakers", "digits")}[name]:
        for part in ("train", "validation", "test"):
            try:
                found = named_data(name, part, split=split, root=root)
            except MissingData as error:
                missing.append(error)
                continue
            counts = {"classes": len(found.classes), "groups": len(set(found.groups)), "examples": len(found.y)}
            rows.append({"split": split, "part": part, **counts})
    if not rows:
        raise missing[0]
    for error in missing:
        _say(f"left out: {error}")
    if json:
        print_json({"data": name, "parts": rows})
        return
    table = Table(*rows[0], title=name)
    for row in rows:
        table.add_row(*(f"{value:,}" if isinstance(value, int) else value for value in row.values()))
    out.print(table)


@app.command(name="learners")
def learners_command(json: Json = False) -> None:
    """List the learners."""
    rows = {name: (sys.modules[cls.__module__].__doc__ or "").splitlines()[0] for name, cls in LEARNERS.items()}
    if json:
        print_json(rows)
        return
    table = Table("name", "what it is")
    for name, line in rows.items():
        table.add_row(name, line)
    out.print(table)


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


def _write_report(folder: RunFolder, **options: Any) -> None:
    from quickstudy import report as reporting  # here, because plots take long to import

    with err.status("writing the report"):
        reporting.write(folder, **options)


def _download(name: str, root: Path | None, url: str, lists_url: str) -> Path:
    if name == "fsdd":
        raise ValueError(
            "fsdd is not fetched by this command: put the folder recordings of "
            "github.com/Jakobovski/free-spoken-digit-dataset, or recordings.zip of it, into the folder fsdd of the "
            "data folder, and leave --download out"
        )
    if name != "omniglot":
        raise ValueError(f"{name} are rendered on this machine and need no download: leave --download out")
    with Progress(console=err) as bar:
        items: dict[str, Any] = {}

        def on_bytes(file: str, done: int, total: int) -> None:
            if file not in items:
                items[file] = bar.add_task(file, total=total or None)
            bar.update(items[file], completed=done)

        return download_omniglot(root, base_url=url, lists_url=lists_url, progress=on_bytes)


def _device(name: str) -> torch.device:
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} cannot be used here ({str(error).splitlines()[0]}): choose cpu") from error


def _say(line: str) -> None:
    err.print(line, highlight=False, markup=False, soft_wrap=True)


def _options(given: list[str]) -> dict[str, Any]:
    """NAME=VALUE, where a value is a number, true or false, or a text."""
    options = {}
    for item in given:
        name, sign, value = item.partition("=")
        if not sign or not name:
            raise ValueError(f"--option {item!r}; required is NAME=VALUE, such as --option strength=2")
        try:
            options[name] = json_module.loads(value)
        except ValueError:
            options[name] = value
    return options


def _was_said(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


for _command in (profile, adapt, add, forget, predict, export, pack, serve):
    app.command()(_command)


def main() -> None:
    """Entry point: an error that a person can act on is one line and exit status 1; Ctrl-C is 130."""
    keep_freed_memory()
    try:
        app()
    except (ValueError, FloatingPointError, OSError, Refused, DidNotConverge) as error:
        line = " ".join(str(error).split())
        err.print(Text.assemble(("error: ", "bold red"), line), soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
