"""The commands that make runs: train, report, demo."""

import dataclasses
import json as json_module
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from quickstudy.commands_options import (
    Channels,
    Device,
    ImageSize,
    Queries,
    Root,
    Rotations,
    Shot,
    Split,
    TasksName,
    Threads,
    Way,
    WithinGroup,
    device_of,
    say,
    was_said,
)
from quickstudy.console import err, train_with_bar
from quickstudy.console import out as stdout
from quickstudy.opening import open_learner
from quickstudy.outer import Strategy
from quickstudy.process import use_threads
from quickstudy.runs import RunFolder, Settings
from quickstudy.tasks.named import REGRESSION

ModeName = Literal["reverse", "recompute", "first_order", "truncated"]


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
    augment_strength: Annotated[float, typer.Option(help="Factor of these changes; 1 is the usual one.")] = 1.0,
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
    usual = "small_resnet" if learner == "local_matching" else "conv4"  # it reads maps in the middle of its network
    backbone = backbone or ("mlp" if tasks in REGRESSION else usual)
    names = [field.name for field in dataclasses.fields(Settings)]
    given = {name: value for name, value in locals().items() if name in names}
    given["root"] = None if root is None else str(root.resolve())
    given["init"] = None if init is None else str(init)
    given["options"] = _options(option or [])
    use_threads(threads)
    folder = RunFolder(out)
    if resume:
        said = {name: given[name] for name in names if was_said(context, "option" if name == "options" else name)}
        settings = dataclasses.replace(folder.settings(), **said)
    else:
        settings = Settings(**given)
    if settings.width < 1:
        raise ValueError(
            f"width={settings.width}; required is at least 1: the channels of conv4, the units per hidden layer of mlp"
        )
    try:
        train_with_bar(settings, out, resume=resume, overwrite=overwrite, device=device_of(device))
    except KeyboardInterrupt:
        say(f"stopped; go on with: quickstudy train --out {out} --resume")
        raise typer.Exit(130) from None
    if report:
        _write_report(folder)
    say(f"learner: {folder.learner}" + (f"   report: {folder.report}" if report else ""))


def report(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    rivals: Annotated[list[str] | None, typer.Option("--beside", help="Another learner; may be repeated.")] = None,
    threads: Threads = 0,
) -> None:
    """Write report.html for a run, beside other learners if asked."""
    use_threads(threads)
    folder = RunFolder(run)
    _write_report(folder, rivals={name: open_learner(name) for name in rivals or ()})
    stdout.print(f"report: {folder.report}", highlight=False, markup=False, soft_wrap=True)


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


def _write_report(folder: RunFolder, **options: Any) -> None:
    from quickstudy import report as reporting  # here, because plots take long to import

    with err.status("writing the report"):
        reporting.write(folder, **options)


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
