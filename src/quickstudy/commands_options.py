"""What the commands that train and judge share: options that mean the same, the device, and words beside the output."""

from pathlib import Path
from typing import Annotated, Literal

import torch
import typer

from quickstudy.console import err

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


def device_of(name: str) -> torch.device:
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} cannot be used here ({str(error).splitlines()[0]}): choose cpu") from error


def say(line: str) -> None:
    err.print(line, highlight=False, markup=False, soft_wrap=True)


def was_said(context: typer.Context, name: str) -> bool:
    """Whether an option stands on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
