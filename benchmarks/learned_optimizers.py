"""The update rules that ship against torch's optimizers, tuned: result lines for docs/learned_optimizer.md.

    python benchmarks/learned_optimizers.py --problems quadratics,mlp --steps 100,200,1000
    python benchmarks/learned_optimizers.py --table     # writes the tables in the docs from stored lines

For each kind of problems, each of six baselines is tuned for each number of steps on the kind's training part, over 17
learning rates and 5 seeds; then all are judged on 128 fresh problems of its test part. One line for each kind replaces
an older one in benchmarks/results/learned_optimizers.jsonl.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from quickstudy.files import write_atomically
from quickstudy.optimizer_evaluation import evaluate_rules
from quickstudy.optimizers import RULES as RULES_OF_PACKAGE
from quickstudy.optimizers import open_rule
from quickstudy.optimizers.named import PROBLEMS
from quickstudy.run_facts import about_process

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "learned_optimizers.jsonl"
PAGE = ROOT / "docs" / "learned_optimizer.md"
SPEED = ROOT / "benchmarks" / "results" / "optimizer_speed.jsonl"
RULES = ("mlp", "lstm")


def measure(problems: str, at: list[int], count: int, seed: int) -> dict[str, Any]:
    """One kind of problems: everything but the losses of single problems."""
    began = time.perf_counter()
    rules = {name: open_rule(name) for name in RULES}
    first = {f"{name}, untrained": RULES_OF_PACKAGE[name]() for name in RULES}
    found = evaluate_rules({**rules, **first}, problems, at=at, count=count, seed=seed).as_dict()
    for optimizer in found["optimizers"]:
        del optimizer["log_losses"]
    for tuning in found["tuning"]:
        del tuning["mean_log_loss_by_rate"]
    facts = {"seconds": round(time.perf_counter() - began, 1), **about_process()}
    return {**found, **facts, "command": " ".join(["python", "benchmarks/learned_optimizers.py", *sys.argv[1:]])}


def store(line: dict[str, Any]) -> None:
    """Put a line in the place of an older one of the same kind, in the order of ``PROBLEMS``."""
    lines = {**read(), line["problems"]: line}
    text = "".join(json.dumps(lines[name]) + "\n" for name in PROBLEMS if name in lines)
    write_atomically(RESULTS, text.encode())


def read() -> dict[str, dict[str, Any]]:
    """The stored lines by kind."""
    if not RESULTS.exists():
        return {}
    return {line["problems"]: line for line in map(json.loads, RESULTS.read_text().splitlines())}


def table() -> str:
    """A row for each kind and number of steps."""
    rows = [
        "| problems | steps | best baseline (lr) | `mlp` | `lstm` | untrained `mlp` | untrained `lstm` | `mlp` to best "
        "| `lstm` to best | `mlp` to Adam | `lstm` to Adam |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, line in read().items():
        by = {(o["name"], o["steps"]): o for o in line["optimizers"]}
        verdicts = {(v["rule"], v["steps"]): v for v in line["verdicts"]}
        for steps in sorted({v["steps"] for v in line["verdicts"]}):
            best = by[verdicts[RULES[0], steps]["best_baseline"], steps]
            logs = [_log(by[rule, steps]) for rule in (*RULES, *(f"{rule}, untrained" for rule in RULES))]
            ratios = [_ratio(verdicts[rule, steps][to]) for to in ("ratio_to_best", "ratio_to_adam") for rule in RULES]
            cells = [name, str(steps), f"{_log(best)}, {best['name']} ({best['lr']:.3g})", *logs, *ratios]
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _log(optimizer: dict[str, Any]) -> str:
    """The mean log-loss, and how many problems diverged if any did."""
    lost = f" [{optimizer['diverged']}]" if optimizer["diverged"] else ""
    return f"{optimizer['mean_log_loss']:.2f}{lost}".replace("-", "−")


def _ratio(found: dict[str, Any] | None) -> str:
    """The ratio and its interval, bold where the rule is better for certain."""
    if found is None or found["ratio"] is None:
        return "–"
    low, high = found["ci95"]
    text = f"{found['ratio']:.3g} ({low:.3g}–{high:.3g})"
    return f"**{text}**" if high < 1 else text


def speed_table() -> str:
    """The last stored run of benchmarks/optimizer_speed.py: a row for each number of threads."""
    rows = [
        "| threads | Adam, ms | `mlp` | `lstm` | training `lstm`: against a plain loop | against one batched by hand |",
        "|---|---|---|---|---|---|",
    ]
    found = [json.loads(line) for line in SPEED.read_text().splitlines()] if SPEED.exists() else []
    for threads in sorted({line["threads"] for line in found}):
        last = {line["job"]: line["candidates"] for line in found if line["threads"] == threads}
        use, training = last["one step"], last["meta-training"]
        ratios = [f"{use[name]['ratio_to_adam']:.1f} ×" for name in RULES]
        adam = f"{1e3 * use['torch.optim.Adam']['median_s']:.2f}"
        ours = training["quickstudy"]["times_as_fast_as_loop"]
        batched = ours / training["plain PyTorch, batched by hand"]["times_as_fast_as_loop"]
        cells = [str(threads), adam, *ratios, f"{ours:.1f} × as fast", f"{batched:.2f} × as fast"]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def page() -> str:
    """The page with both tables between their marks."""
    text = PAGE.read_text()
    for name, found in (("learned_optimizers", table()), ("optimizer_speed", speed_table())):
        start = f"<!-- results: {name}, written by benchmarks/learned_optimizers.py -->"
        before = text.index(start) + len(start)
        after = text.index("<!-- /results -->", before)
        text = f"{text[:before]}\n{found}\n{text[after:]}"
    return text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", default=",".join(PROBLEMS))
    parser.add_argument("--steps", default="100,200")
    parser.add_argument("--count", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="write the table in the docs, measure nothing")
    parser.add_argument("--check", action="store_true", help="measure nothing; fail if the page says something else")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if not args.table and not args.check:
        for name in args.problems.split(","):
            store(measure(name, [int(word) for word in args.steps.split(",")], args.count, args.seed))
    if args.check and page() != PAGE.read_text():
        sys.exit(f"{PAGE} does not say what the stored lines say: python benchmarks/learned_optimizers.py --table")
    write_atomically(PAGE, page().encode())
