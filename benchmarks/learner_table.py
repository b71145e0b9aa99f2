"""Write the learner table of the README and the result tables of the docs from benchmarks/results.

python benchmarks/learner_table.py           # write
python benchmarks/learner_table.py --check   # exit status 1 if a page says something else
"""

import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
KINDS = {
    "protonet": ("[ProtoNet](docs/protonet.md)", "metric"),
    "maml": ("[MAML](docs/maml.md), prototype head", "gradient"),
    "maml, transductive": ("MAML, prototype head, batch statistics ᵗ", "gradient"),
    "anil": ('MAML with `adapts="head.*"` (ANIL) ᵗ', "gradient"),
    "meta_sgd, transductive": ("[Meta-SGD](docs/meta_sgd.md) ᵗ", "gradient"),
    "meta_sgd, from a ProtoNet": ("Meta-SGD that starts from a ProtoNet's weights ᵗ", "gradient"),
    "imaml, transductive": ("[iMAML](docs/imaml.md) ᵗ", "gradient"),
    "reptile": ("[Reptile](docs/reptile.md)", "gradient, first order"),
    "reptile, transductive": ("Reptile, batch statistics ᵗ", "gradient, first order"),
    "leo": ("[LEO](docs/leo.md), on a ProtoNet's features", "gradient, latent"),
    "linear_probe": ("[linear probe](docs/linear_probe.md)", "transfer, baseline"),
    "nearest_neighbour": ("[nearest neighbour](docs/nearest_neighbour.md)", "none, baseline"),
}
PAGES = ("protonet", "maml", "meta_sgd", "imaml", "reptile", "leo", "bayesian_maml")


def row_of(line: dict[str, Any]) -> str:
    """The row of the README's table that a stored line belongs to."""
    settings = line["settings"]
    if settings.get("adapts") == "head.*":
        return "anil"
    if settings.get("init"):
        return f"{line['learner']}, from a ProtoNet"
    return f"{line['learner']}, transductive" if line["transductive"] else line["learner"]


def lines(name: str) -> list[dict[str, Any]]:
    """The stored lines of one results file."""
    path = RESULTS / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def accuracy(score: dict[str, Any] | None) -> str:
    """ "98.60 ± 0.19" in per cent, or a dash."""
    return "–" if score is None else f"{100 * score['accuracy']:.2f} ± {100 * score['ci95']:.2f}"


def over_seeds(scores: list[dict[str, Any]]) -> str:
    """One run: its score. Several: the mean of their means, their mean ci95, and how many."""
    if not scores:
        return "–"
    middle = {key: mean(score[key] for score in scores) for key in ("accuracy", "ci95")}
    return accuracy(middle) + (f" ({len(scores)} seeds)" if len(scores) > 1 else "")


def learner_table() -> str:
    """The table of the README."""
    omniglot = defaultdict(list)
    for line in lines("omniglot"):
        if line["shot"] == 1 and line["settings"].get("head") != "none":
            omniglot[row_of(line), line["way"]].append(line)
    demo = json.loads((RESULTS / "demo.json").read_text())
    head = "| learner | kind | Omniglot 5-way 1-shot | 20-way 1-shot | glyphs 5-way 1-shot | 20-way 1-shot |"
    rows = [head, "|---|---|---|---|---|---|"]
    for name, (title, kind) in KINDS.items():
        ours = [over_seeds(omniglot[name, way]) for way in (5, 20)]
        theirs = [accuracy(demo[f"{way}-way 1-shot"]["scores"].get(name)) for way in (5, 20)]
        if set(ours + theirs) != {"–"}:
            rows.append(f"| {title} | {kind} | {' | '.join(ours + theirs)} |")
    return "\n".join(rows)


def result_table(learner: str) -> str:
    """Every stored line of one learner."""
    rows = ["| tasks | protocol | score | training | command |", "|---|---|---|---|---|"]
    for name in ("omniglot", "sinusoid"):
        for line in lines(name):
            if line["learner"] == learner:
                rows.append(_row(line))
    return "\n".join(rows) if len(rows) > 2 else "No stored line yet."


def _row(line: dict[str, Any]) -> str:
    settings, cost = line["settings"], line["training"]
    mode = "transductive" if line["transductive"] else "inductive"
    if "accuracy" in line:
        score, shape = (
            f"{accuracy(line)} %",
            f"{line['way']}-way {line['shot']}-shot, {line['queries']} queries per class",
        )
    else:
        score = f"{line['mean_squared_error']:.3f} ± {line['ci95']:.3f} squared error"
        shape = (
            f"{line['shot']} points, {settings['inner_steps']} inner step{'s' if settings['inner_steps'] > 1 else ''}"
        )
        if "coverage" in line:
            score += f"; the {100 * line['level']:.0f} % interval holds {100 * line['coverage']:.1f} %"
    tasks = line["tasks"] + (f", {line['split']}" if line.get("split") else "")
    minutes = f"{cost['steps']:,} steps, {cost['seconds'] / 60:.0f} min on {cost['threads']} thread"
    minutes += "s" if cost["threads"] > 1 else ""
    if cost["cpu_seconds"] is not None:
        minutes += f" ({cost['cpu_seconds'] / 60:.0f} processor min)"
    protocol = f"{shape}, {line['episodes']:,} episodes, {mode}"
    return f"| {tasks} | {protocol} | {score} | {minutes} | `{line['command']}` |"


def with_block(text: str, name: str, table: str) -> str:
    """``text`` with the block between the comments NAME and /NAME replaced."""
    opening = rf"(<!-- {re.escape(name)}[^\n]*-->\n)"
    closing = f"<!-- /{name.split(':')[0]} -->"
    return re.sub(
        opening + f".*?{re.escape(closing)}", lambda m: f"{m.group(1)}{table}\n{closing}", text, flags=re.DOTALL
    )


def main() -> int:
    """Write or check all pages."""
    blocks = {ROOT / "README.md": ("learners", learner_table())}
    for learner in PAGES:
        blocks[ROOT / "docs" / f"{learner}.md"] = (f"results: {learner}", result_table(learner))
    stale = []
    for page, (name, table) in blocks.items():
        text = page.read_text()
        new = with_block(text, name, table)
        if new != text:
            stale.append(page.name)
            if "--check" not in sys.argv:
                page.write_text(new)
    if "--check" in sys.argv and stale:
        sys.stderr.write(
            f"{', '.join(stale)}: not what benchmarks/results say: run python benchmarks/learner_table.py\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
