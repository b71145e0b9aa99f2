"""What a person sees at the terminal: progress on standard error, results on standard output."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from quickstudy import experiment
from quickstudy.evaluation import Comparison, Score
from quickstudy.runs import RunFolder, Settings

err = Console(stderr=True)
out = Console()


@contextmanager
def step_bar(name: str, steps: int) -> Iterator[Callable[[int, str], None]]:
    """A bar with rate and time left; what it gives is called after each step with its number and its state in words."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        TextColumn("{task.fields[state]}"),
    )
    with Progress(*columns, console=err, refresh_per_second=4) as bar:
        item = bar.add_task(name, total=steps, rate="", state="")
        first: list[int] = []

        def on_step(step: int, state: str) -> None:
            if not first:
                first.append(step - 1)
                bar.reset(item, completed=first[0])
            seconds = bar.tasks[item].elapsed or 0
            rate = f"{(step - first[0]) / seconds:.1f}/s" if seconds > 0 else ""
            bar.update(item, completed=step, rate=rate, state=state)

        yield on_step


def train_with_bar(settings: Settings, path: Path, **options: Any) -> RunFolder:
    """``experiment.train`` with a bar; ``options`` are its keyword arguments."""
    with step_bar(settings.learner, settings.steps) as show:

        def on_step(at: experiment.Progress) -> None:
            show(at.step, f"loss {at.loss:.3f}" + ("" if at.best is None else f" best {at.best:.3f}"))

        return experiment.train(settings, path, on_step=on_step, **options)


def print_scores(scores: dict[str, Score]) -> None:
    """One table, a row per learner; accuracies in per cent."""
    first = next(iter(scores.values()))
    seed = "" if first.seed is None else f", seed {first.seed}"
    metric = "accuracy in %" if first.metric == "accuracy" else first.metric.replace("_", " ")
    table = plain_table(f"{metric}: {first.protocol}, {first.episodes} episodes{seed}")
    table.add_column("learner", overflow="fold")
    for column in ("score ± ci95", "normalisation", "seconds"):
        table.add_column(column, no_wrap=True)
    for name, score in scores.items():
        mode = "transductive" if score.transductive else "inductive"
        table.add_row(name, score_in_words(score), mode, f"{score.seconds:.1f}")
    out.print(table)


def plain_table(title: str) -> Table:
    """A table that fits a terminal of 80 columns."""
    return Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)


def print_comparison(comparison: Comparison) -> None:
    """The table of scores, then the difference of each pair."""
    print_scores(comparison.scores)
    unit = 1 if any(s.metric != "accuracy" for s in comparison.scores.values()) else 100
    for (a, b), (mean, ci95) in comparison.differences.items():
        word = "points" if unit == 100 else ""
        out.print(f"{a} − {b}: {unit * mean:+.2f} ± {unit * ci95:.2f} {word}", highlight=False)


def score_in_words(score: Score) -> str:
    """ "98.60 ± 0.19", in per cent for an accuracy, in the metric's own units otherwise."""
    if score.metric == "accuracy":
        return f"{100 * score.mean:.2f} ± {100 * score.ci95:.2f}"
    return f"{score.mean:.4f} ± {score.ci95:.4f}"


def print_json(value: dict[str, Any]) -> None:
    """One object on standard output."""
    sys.stdout.write(json.dumps(value) + "\n")
