"""The report of update rules against tuned baselines: tables and loss curves, one file."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from quickstudy.files import write_atomically
from quickstudy.optimizer_evaluation import Evaluated, in_words
from quickstudy.optimizer_judging import RATES, Judged
from quickstudy.optimizer_losses import BASELINES
from quickstudy.report.html import environment
from quickstudy.report.optimizer_curves import Curve, curves
from quickstudy.report.page import Picture, Section, Table


def write(found: Sequence[Evaluated], path: Path, *, command: Sequence[str], versions: dict[str, Any]) -> Path:
    """Write one self-contained page.

    Args:
        found: one for each distribution, all with the same rules and numbers of steps.
        path: of the file.
        command: what was called.
        versions: of packages and of the machine, by name.
    """
    first = found[0]
    where = [[name, str(value)] for name, value in versions.items()]
    page = environment().get_template("report.html.jinja")
    text = page.render(
        title=f"{_list(first.rules)} against tuned optimizers",
        lead=_lead(found),
        warning=None,
        facts=[
            ("Rules", ", ".join(first.rules)),
            ("Problems", ", ".join(one.problems for one in found)),
            ("Judged after", f"{_list([f'{steps:,}' for steps in first.at])} steps"),
            ("Fresh problems", f"{first.count} of each kind, seed {first.seed}"),
            ("Baselines", ", ".join(dict.fromkeys(t.name for t in first.tuned))),
            ("Tuned over", f"{len(RATES)} learning rates × 5 seeds, for each number of steps"),
        ],
        sections=[
            _summary(found),
            *(_of(one) for one in found),
            _meaning(),
            Section(
                "Command",
                "settings",
                [],
                tables=[
                    Table(
                        "Versions and command",
                        ["what", "value"],
                        [*where, ["command", shlex.join(command) or "–"]],
                        [False, False],
                    )
                ],
            ),
        ],
    )
    write_atomically(path, text.encode())
    return path


def _lead(found: Sequence[Evaluated]) -> str:
    """How often a rule wins."""
    verdicts = [v for one in found for v in one.verdicts()]
    won, lost = (sum(v.certain and v.wins is side for v in verdicts) for side in (True, False))
    several = "the rules have" if len(found[0].rules) > 1 else f"{_list(found[0].rules)} has"
    count = f"{len(verdicts)} comparisons" if len(verdicts) > 1 else "the one comparison"
    text = f"In {count} with the best tuned baseline, {several} the lower loss in {won} and the higher loss in {lost}"
    rest = len(verdicts) - won - lost
    return f"{text}; {rest} cannot be told apart." if rest else f"{text}."


def _summary(found: Sequence[Evaluated]) -> Section:
    rows = []
    for one in found:
        for v in one.verdicts():
            who = "not certain" if not v.certain else v.rule if v.wins else v.best
            adam = "–" if v.to_adam is None else in_words(v.to_adam)
            rows.append([one.problems, f"{v.steps:,}", v.rule, who, v.best, in_words(v.to_best), adam])
    columns = ["problems", "steps", "rule", "who wins", "best baseline", "loss ÷ best", "loss ÷ Adam"]
    numbers = [False, True, False, False, False, True, True]
    words = [
        "Loss ÷ best is the rule's loss by that of the best baseline, the geometric mean over problems with its ci95: "
        "below 1 the rule wins, above 1 the baseline."
    ]
    table = Table("Rules against the best tuned baseline, and against tuned Adam", columns, rows, numbers)
    return Section("Who wins", "summary", words, tables=[table])


def _of(one: Evaluated) -> Section:
    """One distribution: sentences, curves, a table for each number of steps."""
    panels = []
    for steps in one.at:
        shown = [_curve(one, judged) for judged in one.after(steps) if judged.curve is not None]
        if shown:
            label = f"Losses on {one.problems} over {steps} steps. " + " ".join(_sentences(one, steps))
            panels.append(curves(shown, y_label="loss", label=label))
    caption = (
        "The median loss over problems at each step, on the mini-batch of that step. Rules and the best baseline are "
        "bold, with the middle half of the problems as a band. In each panel baselines have the learning rate that is "
        "best for its last step."
    )
    tables = [_table(one, steps) for steps in one.at]
    return Section(
        one.problems,
        _anchor(one.problems),
        one.notes(),
        pictures=[Picture(panels, caption)] if panels else [],
        tables=tables,
    )


def _sentences(one: Evaluated, steps: int) -> list[str]:
    return [f"After {steps:,} steps, {one.verdict(rule, steps).in_words()}." for rule in one.rules]


def _curve(one: Evaluated, judged: Judged) -> Curve:
    rules, baselines = list(one.rules), list(BASELINES)
    is_rule = judged.name in rules
    place = rules.index(judged.name) if is_rule else len(rules) + baselines.index(judged.name)
    bold = is_rule or judged.name == one.baselines(judged.steps)[0].name
    assert judged.curve is not None
    return Curve(judged.name, np.asarray(judged.curve, dtype=float), place, bold)


def _table(one: Evaluated, steps: int) -> Table:
    columns = ["optimizer", "lr", "mean log-loss", "diverged", *(f"loss of {rule} ÷ its" for rule in one.rules)]
    rows = []
    for judged in one.after(steps):
        tuned = one.tuning(judged.name, steps)
        lr = "–" if tuned is None else f"{tuned.lr:.3g}" + (" (edge)" if tuned.at_edge else "")
        ratios = ["–" if judged.name == rule else in_words(one.of(rule, steps).ratio_to(judged)) for rule in one.rules]
        shown = f"{judged.log_loss:.3f}".replace("-", "−")
        rows.append([judged.name, lr, shown, f"{judged.diverged}", *ratios])
    return Table(f"{one.problems}, {steps:,} steps", columns, rows, [False, *[True] * (len(columns) - 1)])


def _meaning() -> Section:
    words = [
        "A problem is a function to minimise: initial parameters and a loss with a stream of mini-batches. Every "
        "optimizer starts from the same parameters and sees the same mini-batches. The loss that counts is measured "
        "after the last step on a fixed set of examples; networks are judged on images and rows that no rule was "
        "trained on.",
        f"Each baseline was run at {len(RATES)} learning rates from {RATES[0]:g} to {RATES[-1]:g} on the training part "
        "of the same distribution, five seeds each, and the rate with the lowest mean log-loss was taken, for each "
        "number of steps by itself.",
        "The best baseline is the one with the lowest mean log-loss on the very problems that rules are judged on, "
        "which favours the baseline.",
        "± or (low–high) is the ci95, 1.96·sd/√shapes, over groups of problems of the same shape (width, depth, batch "
        "size), as problems within a group are no independent draws. Where it holds 1, the problems do not tell "
        "the two apart.",
        "Diverged counts problems whose last loss is no finite number, or above the first one. Such a problem counts "
        "with its loss before the first step, for rules and baselines alike, in tuning as in judging.",
    ]
    return Section("What the numbers mean", "meaning", words)


def _list(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def _anchor(name: str) -> str:
    return "problems-" + "".join(letter if letter.isalnum() else "-" for letter in name)
