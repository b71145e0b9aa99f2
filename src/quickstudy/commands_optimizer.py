"""The commands of learned optimizers: train-optimizer, evaluate-optimizer."""

import dataclasses
import json as json_format
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from quickstudy.commands_options import Threads, say, was_said
from quickstudy.console import err, out, plain_table, print_json, step_bar
from quickstudy.files import write_atomically
from quickstudy.inner import UpdateRule
from quickstudy.optimizer_evaluation import Evaluated, evaluate_rules, in_words
from quickstudy.optimizer_losses import BASELINES
from quickstudy.optimizers.named import PROBLEMS, named_problems
from quickstudy.optimizers.rule_file import SHIPPED, open_rule
from quickstudy.process import use_threads
from quickstudy.rule_runs import RuleProgress, train_in_folder
from quickstudy.rule_setup import RuleSettings, rule_settings
from quickstudy.run_facts import about_process
from quickstudy.runs import RunFolder

_NAMES = ", ".join(PROBLEMS)


def train_optimizer(
    context: typer.Context,
    folder: Annotated[Path, typer.Option("--out", help="The run folder.")],
    rule: Annotated[Literal["lstm", "mlp", "sgd", "adam"], typer.Option(help="The update rule.")] = "lstm",
    hidden: Annotated[int, typer.Option(help="Units of each layer of lstm and mlp; 0 takes the rule's own.")] = 0,
    problems: Annotated[str, typer.Option(help=f"{_NAMES}, or several as in quadratics+mlp.")] = "mlp",
    estimator: Annotated[
        Literal["backprop", "es", "pes"], typer.Option(help="Backpropagation, or (persistent) evolution strategies.")
    ] = "backprop",
    mode: Annotated[
        Literal["reverse", "recompute", "first_order"], typer.Option(help="How backprop differentiates a window.")
    ] = "reverse",
    n: Annotated[int, typer.Option("--n", help="Problems that run side by side.")] = 16,
    unroll: Annotated[int, typer.Option(help="Steps of a window; 0 takes 20, the whole horizon for es.")] = 0,
    horizon: Annotated[int, typer.Option(help="Steps after which problems are replaced.")] = 100,
    groups: Annotated[int, typer.Option(help="Runs that take turns.")] = 4,
    objective: Annotated[Literal["log", "loss"], typer.Option(help="What is made small.")] = "log",
    limit: Annotated[float, typer.Option(help="A problem with this many times its first loss diverged.")] = 1e10,
    late: Annotated[float, typer.Option(help="Later steps count for more: by this power of their number.")] = 0.0,
    pairs: Annotated[int, typer.Option(help="Antithetic pairs of particles of es and pes.")] = 16,
    sigma: Annotated[float, typer.Option(help="Standard deviation of the perturbations of es and pes.")] = 0.01,
    steps: Annotated[int, typer.Option(help="Outer steps.")] = 2000,
    lr: Annotated[float, typer.Option(help="Outer learning rate; falls to 0 along a cosine.")] = 1e-3,
    clip: Annotated[float, typer.Option(help="Largest norm of the meta-gradient.")] = 1.0,
    seed: int = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the folder's checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that is in the folder.")] = False,
    threads: Threads = 0,
) -> None:
    """Train an update rule on optimisation problems, into a run folder."""
    names = [field.name for field in dataclasses.fields(RuleSettings)]
    given = {name: value for name, value in locals().items() if name in names}
    use_threads(threads)
    settings = RuleSettings(**given)
    if resume:
        said = {name: given[name] for name in names if was_said(context, name)}
        settings = dataclasses.replace(rule_settings(RunFolder(folder)), **said)
    idle = ("pairs", "sigma") if settings.estimator == "backprop" else ("mode",)
    unused = [f"--{name}" for name in idle if was_said(context, name)]
    if unused:
        raise ValueError(
            f"{' and '.join(unused)} and --estimator {settings.estimator} were given, which makes no use of it: leave "
            "it out, or choose another estimator"
        )
    try:
        _train_with_bar(settings, folder, resume=resume, overwrite=overwrite)
    except KeyboardInterrupt:
        say(f"stopped; go on with: quickstudy train-optimizer --out {folder} --resume")
        raise typer.Exit(130) from None
    kinds = settings.problems.replace("+", ",")
    say(f"rule: {RunFolder(folder).rule}")
    say(f"use it: quickstudy.LearnedOptimizer(model.parameters(), rule={str(folder)!r})")
    say(f"judge it: quickstudy evaluate-optimizer {shlex.quote(str(folder))} --problems {kinds}")


def evaluate_optimizer(
    rule: Annotated[
        str, typer.Argument(metavar="RULE", help=f"A run folder, a file or a name ({', '.join(SHIPPED)}); with commas.")
    ],
    problems: Annotated[str, typer.Option(help=f"Some of {_NAMES}, with commas.")] = "mlp",
    steps: Annotated[str, typer.Option(help="After how many steps.")] = "100,200,1000",
    baselines: Annotated[str, typer.Option(help="Some of them, with commas.")] = ",".join(BASELINES),
    problems_count: Annotated[int, typer.Option(help="Fresh problems of each kind, a multiple of 4.")] = 128,
    seed: Annotated[int, typer.Option(help="Of the fresh problems.")] = 0,
    folder: Annotated[Path, typer.Option("--out", help="Where report.html and evaluation.json go.")] = Path(
        "runs/evaluate-optimizer"
    ),
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
    threads: Threads = 0,
) -> None:
    """Judge update rules on fresh problems, beside torch's optimizers with tuned learning rates."""
    from quickstudy.report import optimizer as reporting  # here, because plots take long to import

    at = _numbers(steps)
    kinds, wanted = _words("--problems", problems), _words("--baselines", baselines)
    unknown = [name for name in wanted if name not in BASELINES]
    if unknown:
        raise ValueError(f"--baselines {unknown[0]}; choose among {', '.join(BASELINES)}")
    for kind in kinds:
        named_problems(kind)
    if seed < 0:
        raise ValueError(f"--seed {seed}; required is at least 0")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out {folder} is a file; required is a folder: give another name")
    use_threads(threads)
    rules = open_rules(rule)
    for name in _words("RULE", rule):
        if name not in SHIPPED:
            _say_if_unfinished(RunFolder(name))
    found = []
    with err.status("tuning") as status:
        for kind in kinds:
            work = status.update
            found.append(
                evaluate_rules(rules, kind, at=at, count=problems_count, seed=seed, baselines=wanted, on_work=work)
            )
    about = about_process()
    value = {"rules": list(rules), **about, "evaluations": [one.as_dict() for one in found]}
    write_atomically(folder / "evaluation.json", (json_format.dumps(value, indent=1) + "\n").encode())
    report = reporting.write(
        found, folder / "report.html", command=about["command"], versions={**about["versions"], **about["machine"]}
    )
    if json:
        print_json(value)
        return
    for one in found:
        for at_steps in one.at:
            print_evaluated(one, at_steps)
        for note in one.notes():
            out.print(note, highlight=False, markup=False, soft_wrap=True)
    out.print(f"report: {report}", highlight=False, markup=False, soft_wrap=True)


def open_rules(names: str) -> dict[str, UpdateRule]:
    """The rules of a list with commas, each by a short name where that is clear.

    Raises:
        ValueError: no names, one given twice, one that is called like a baseline, and what ``open_rule`` refuses.
    """
    given = _words("RULE", names)
    short = [_short(name) for name in given]
    rules: dict[str, Any] = {}
    for name, label in zip(given, short, strict=True):
        clear = short.count(label) == 1 and label not in BASELINES
        rules[label if clear else name] = open_rule(name)
    taken = [name for name in rules if name in BASELINES]
    if taken:
        raise ValueError(f"the rule {taken[0]!r} is called like a baseline: write ./{taken[0]}")
    return rules


def print_evaluated(found: Evaluated, steps: int) -> None:
    """One table, a row for each optimizer, and who wins."""
    table = plain_table(f"{found.problems}, {steps:,} steps, {found.count} fresh problems, seed {found.seed}")
    table.add_column("optimizer", overflow="fold")
    for column in ("lr", "mean\nlog-loss", "diverged"):
        table.add_column(column, justify="right", no_wrap=True)
    for rule in found.rules:
        table.add_column(f"loss of\n{rule} ÷ its", justify="right")
    for judged in found.after(steps):
        tuned = found.tuning(judged.name, steps)
        lr = "" if tuned is None else f"{tuned.lr:.3g}" + ("*" if tuned.at_edge else "")
        ratios = [
            "" if judged.name == rule else in_words(found.of(rule, steps).ratio_to(judged)) for rule in found.rules
        ]
        table.add_row(judged.name, lr, f"{judged.log_loss:.3f}", str(judged.diverged), *ratios)
    out.print(table)
    for rule in found.rules:
        out.print(found.verdict(rule, steps).in_words(), highlight=False, markup=False, soft_wrap=True)
    out.print()


def _train_with_bar(settings: RuleSettings, path: Path, **options: Any) -> None:
    with step_bar(settings.rule, settings.steps) as show:

        def on_step(at: RuleProgress) -> None:
            show(at.step, f"loss {at.loss:.3f} diverged {at.diverged} skipped {at.skipped}")

        train_in_folder(settings, path, on_step=on_step, **options)


def _say_if_unfinished(run: RunFolder) -> None:
    """A rule of a run that was stopped can be judged as it is, and a person should know."""
    if not run.config.exists():
        return
    done, steps = max((record["step"] for record in run.records()), default=0), rule_settings(run).steps
    if done < steps:
        say(f"training in {run.path} stopped at outer step {done:,} of {steps:,}; its rule is the one of then")


def _short(name: str) -> str:
    path = Path(name)
    return name if name in SHIPPED else path.stem if path.is_file() else path.name or name


def _words(option: str, text: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    twice = [word for word in words if words.count(word) > 1]
    if not all(words):
        raise ValueError(f"{option} {text!r} has an empty name; required are names with one comma between them")
    if twice:
        raise ValueError(f"{option} names {twice[0]!r} twice; required are different ones: name it once")
    return words


def _numbers(text: str) -> list[int]:
    try:
        found = [int(word) for word in text.split(",")]
    except ValueError as error:
        raise ValueError(f"--steps {text!r}; required are whole numbers with commas between them: 100,200") from error
    if min(found) < 1 or len(set(found)) < len(found):
        raise ValueError(f"--steps {text!r}; required are different numbers of at least 1, such as 100,200,1000")
    return sorted(found)
