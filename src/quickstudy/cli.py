"""The command: its parts are in commands_*.py, what stands here are the list of them and how it ends."""

import sys
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

import quickstudy
from quickstudy.commands_data import data
from quickstudy.commands_judge import compare, evaluate
from quickstudy.commands_model import adapt, add, forget
from quickstudy.commands_optimizer import evaluate_optimizer, train_optimizer
from quickstudy.commands_options import Json
from quickstudy.commands_pack import pack
from quickstudy.commands_predict import export, predict
from quickstudy.commands_profile import profile
from quickstudy.commands_serve import serve
from quickstudy.commands_train import demo, report, train
from quickstudy.console import err, out, print_json
from quickstudy.inner import DidNotConverge
from quickstudy.learners import LEARNERS
from quickstudy.outer import Refused
from quickstudy.process import keep_freed_memory

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Learn to learn: train on many small tasks, then learn a new one from a handful of examples."""
    if version:
        out.print(quickstudy.__version__, highlight=False)
        raise typer.Exit


def learners(json: Json = False) -> None:
    """List the learners."""
    rows = {name: (sys.modules[cls.__module__].__doc__ or "").splitlines()[0] for name, cls in LEARNERS.items()}
    if json:
        print_json(rows)
        return
    table = Table("name", "what it is")
    for name, line in rows.items():
        table.add_row(name, line)
    out.print(table)


_COMMANDS = (train, evaluate, compare, report, demo, data, learners)
_OF_OPTIMIZERS = (train_optimizer, evaluate_optimizer)
_OF_MODELS = (profile, adapt, add, forget, predict, export, pack, serve)
for _command in (*_COMMANDS, *_OF_OPTIMIZERS, *_OF_MODELS):
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
