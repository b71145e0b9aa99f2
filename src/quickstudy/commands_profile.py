"""The command ``quickstudy profile``: memory and time of meta-steps, as a table, plots and a file."""

import json as json_format
from pathlib import Path
from typing import Annotated

import typer

from quickstudy.console import err, out, plain_table, print_json
from quickstudy.files import write_atomically
from quickstudy.profiling import MODES, NETWORKS, Profile, Setup, run


def profile(
    learner: Annotated[str, typer.Option(help="A gradient-based learner.")] = "maml",
    network: Annotated[str, typer.Option(help=f"{', '.join(NETWORKS)}.")] = "conv4",
    steps: Annotated[str, typer.Option(help="Inner steps.")] = "1,5,20,50",
    mode: Annotated[str, typer.Option(help=f"{', '.join(MODES)}.")] = "reverse,recompute,implicit",
    way: Annotated[int, typer.Option(help="Classes per task.")] = 5,
    shot: Annotated[int, typer.Option(help="Support examples per class.")] = 1,
    queries: Annotated[int, typer.Option(help="Query examples per class.")] = 15,
    tasks: Annotated[int, typer.Option(help="Tasks of a meta-step, one after the other.")] = 1,
    repeats: Annotated[int, typer.Option(help="Meta-steps that are timed.")] = 5,
    threads: Annotated[int, typer.Option(help="Threads for torch; 0 takes every processor.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    timeout: Annotated[int, typer.Option(help="Seconds that each combination may take.")] = 600,
    folder: Annotated[Path, typer.Option("--out", help="Where profile.json and the plots go.")] = Path("runs/profile"),
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Measure the memory and the time of a meta-step for each way to differentiate the inner loop."""
    from quickstudy.report import profile as plots  # here, because plots take long to import

    setup = Setup(
        *(learner, network, tuple(mode.split(",")), _numbers(steps)),
        *(way, shot, queries, tasks, repeats, threads, device, timeout),
    )
    rows = []
    with err.status("measuring") as status:
        for measured in run(setup, lambda mode, steps: status.update(f"measuring {mode}, {steps} inner steps")):
            rows.append(measured)
    found = Profile(setup, tuple(rows))
    write_atomically(folder / "profile.json", (json_format.dumps(found.as_dict(), indent=1) + "\n").encode())
    written = [folder / "profile.json", *plots.write(found, folder)]
    if json:
        print_json(found.as_dict())
        return
    print_profile(found)
    out.print("wrote " + ", ".join(str(path) for path in written), highlight=False, markup=False, soft_wrap=True)


def print_profile(profile: Profile) -> None:
    """A row for each mode and number of inner steps, and what has to be known about the numbers."""
    setup = profile.setup
    table = plain_table(
        f"{setup.learner} on {setup.network}: {setup.way}-way {setup.shot}-shot, {setup.queries} queries per class, "
        f"{setup.tasks} task{'s' if setup.tasks > 1 else ''}"
    )
    table.add_column("mode", no_wrap=True)
    for column in ("steps", "peak MB", "ms", "memory\n÷ reverse", "time\n÷ reverse", "growth"):
        table.add_column(column, justify="right")
    mode = None
    for row in profile.rows:
        if mode not in (None, row.mode):
            table.add_section()
        mode = row.mode
        memory, seconds = profile.ratios(row)
        table.add_row(
            row.mode,
            str(row.steps),
            _shown(row.peak_bytes, 1e-6, 1),
            _shown(profile.seconds(row), 1e3, 0),
            _shown(memory, 1, 2),
            _shown(seconds, 1, 2),
            _shown(profile.growth(row), 1, 1),
        )
    out.print(table)
    for note in profile.notes():
        out.print(note, highlight=False, markup=False, soft_wrap=True)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError as error:
        raise ValueError(f"--steps {text!r}; required are whole numbers with commas between them: 1,5,20") from error


def _shown(value: float | None, factor: float, digits: int) -> str:
    return "–" if value is None else f"{round(value * factor, digits) + 0.0:,.{digits}f}"  # never −0.0
