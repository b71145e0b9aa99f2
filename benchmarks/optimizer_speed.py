"""What a learned optimizer costs to use, and how fast its rule is trained.

    python benchmarks/optimizer_speed.py --threads 1 2      # appends to benchmarks/results/optimizer_speed.jsonl
    python benchmarks/optimizer_speed.py --quick            # small sizes, nothing is stored

Use: one step on an MLP of about a million parameters (784-800-400-10) with random gradients, `torch.optim.Adam` with
its default arguments against `LearnedOptimizer` with the rules that ship. Training: meta-steps per second of the LSTM
rule on 10-dimensional quadratics, gradients of problems as constants, against the same written with PyTorch alone
(`peers/learned_rule.py`): problems one after the other, and batched by hand. A meta-step draws new problems when it is
time to, takes a window of steps on every problem, backpropagates through it, clips and takes a step of Adam.

The candidates take turns (A B C A B C ...), so that a change of the machine's speed meets all of them; only ratios of
medians within one run count.
"""

import argparse
import itertools
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import torch
from peers.learned_rule import CoordinatewiseLSTM, PlainTraining
from torch import nn

from quickstudy.optimizers import RULES, LSTMRule, Quadratics
from quickstudy.outer.backpropagated import Backpropagated
from quickstudy.process import keep_freed_memory
from quickstudy.rule_training import train_rule

RESULTS = Path(__file__).parent / "results" / "optimizer_speed.jsonl"
ADAM, LOOP = "torch.optim.Adam", "plain PyTorch loop"
SIZES = (784, 800, 400, 10)


def in_turn(candidates: dict[str, Callable[[], Any]], repeats: int, warm_ups: int = 3) -> dict[str, list[float]]:
    """Seconds of each call, the candidates one after the other again and again."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for i in range(warm_ups + repeats):
        for name, work in candidates.items():
            began = time.perf_counter()
            work()
            if i >= warm_ups:
                times[name].append(time.perf_counter() - began)
    return times


def steps_of_use(sizes: tuple[int, ...], *, trained: bool) -> tuple[dict[str, Callable[[], Any]], int]:
    """One step of each optimizer on a network of its own with the same weights and gradients; and its parameters."""
    from quickstudy.optimizers.learned_optimizer import LearnedOptimizer

    def network() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layers = [nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
            model = nn.Sequential(*layers)
            for p in model.parameters():
                p.grad = 0.01 * torch.randn_like(p)
        return model

    def learned(name: str) -> torch.optim.Optimizer:
        return LearnedOptimizer(network().parameters(), rule=name if trained else RULES[name]())

    optimizers = {ADAM: torch.optim.Adam(network().parameters()), **{name: learned(name) for name in ("mlp", "lstm")}}
    count = sum(p.numel() for p in network().parameters())
    return {name: optimizer.step for name, optimizer in optimizers.items()}, count


def steps_of_training(*, hidden: int, n: int, unroll: int, horizon: int) -> dict[str, Callable[[], Any]]:
    """The meta-steps of one horizon, of each candidate."""
    windows = horizon // unroll
    rule = LSTMRule(hidden)
    estimator = Backpropagated(Quadratics(), n=n, unroll=unroll, horizon=horizon, groups=1, mode="first_order")
    ours = train_rule(
        rule,
        estimator,  # pyright: ignore[reportArgumentType]
        torch.optim.Adam(rule.parameters(), lr=1e-3),
        steps=10**9,
        generator=torch.Generator().manual_seed(0),
    )
    shape = {"n": n, "unroll": unroll, "horizon": horizon}
    peers = {LOOP: 1, "plain PyTorch, batched by hand": n}
    plain = {name: PlainTraining(peer(hidden), together=together, **shape) for name, together in peers.items()}
    candidates: dict[str, Callable[[], Any]] = {"quickstudy": lambda: [next(ours) for _ in range(windows)]}
    for name, training in plain.items():
        candidates[name] = lambda training=training: [training.step() for _ in range(windows)]
    return candidates


def peer(hidden: int) -> CoordinatewiseLSTM:
    """The other rule, with the same first weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return CoordinatewiseLSTM(hidden)


def measured_use(args: argparse.Namespace) -> dict[str, Any]:
    """The cost of one step."""
    candidates, count = steps_of_use((12, 9, 3) if args.quick else SIZES, trained=not args.untrained)
    times = in_turn(candidates, args.repeats or (3 if args.quick else 60))
    adam = median(times[ADAM])
    found = {name: {**seconds(of), "ratio_to_adam": round(median(of) / adam, 3)} for name, of in times.items()}
    return {"job": "one step", "parameters": count, "trained": not args.untrained, "candidates": found}


def measured_training(args: argparse.Namespace) -> dict[str, Any]:
    """The speed of meta-training."""
    hidden = args.hidden or LSTMRule().hidden
    shape = {"n": 3, "unroll": 2, "horizon": 4} if args.quick else {"n": 64, "unroll": 20, "horizon": 100}
    windows = shape["horizon"] // shape["unroll"]
    times = in_turn(steps_of_training(hidden=hidden, **shape), args.repeats or (2 if args.quick else 9), warm_ups=1)
    times = {name: [t / windows for t in of] for name, of in times.items()}
    loop = median(times[LOOP])
    found = {}
    for name, of in times.items():
        rate = {"meta_steps_per_second": round(1 / median(of), 3), "times_as_fast_as_loop": round(loop / median(of), 3)}
        found[name] = {**seconds(of), **rate}
    return {"job": "meta-training", "rule": "lstm", "hidden": hidden, "problems": "quadratics", **shape} | {
        "candidates": found
    }


def seconds(times: list[float]) -> dict[str, Any]:
    """Median, fastest and slowest."""
    ends = {"median_s": median(times), "fastest_s": min(times), "slowest_s": max(times)}
    return {**{name: float(f"{value:.4g}") for name, value in ends.items()}, "repeats": len(times)}


def processor() -> str:
    """Its name, where the system says it."""
    info = Path("/proc/cpuinfo")
    rows = info.read_text().splitlines() if info.exists() else []
    return next((row.split(":", 1)[1].strip() for row in rows if row.startswith("model name")), platform.machine())


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="of torch, one measurement for each")
    parser.add_argument("--job", choices=["use", "training", "all"], default="all")
    parser.add_argument("--repeats", type=int, default=0, help="timed turns; 0: 60 steps, 9 horizons")
    parser.add_argument("--hidden", type=int, default=0, help="of the LSTM that is trained; 0: the rule's own")
    parser.add_argument("--untrained", action="store_true", help="rules with their first weights, not those that ship")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works; nothing is stored")
    parser.add_argument("--out", type=Path, help="where lines are appended, if not to the stored results")
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> int:
    """Measure, print and store."""
    args = arguments(given)
    out = args.out or (None if args.quick else RESULTS)
    keep_freed_memory()
    jobs = {"use": measured_use, "training": measured_training}
    before = torch.get_num_threads()
    for threads in args.threads:
        torch.set_num_threads(threads)
        for job in jobs if args.job == "all" else (args.job,):
            line = {
                **jobs[job](args),
                "threads": threads,
                "processor": processor(),
                "cpu_count": os.cpu_count(),
                "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
                "run": datetime.now(UTC).isoformat(timespec="seconds"),
                "command": shlex.join(["python", "benchmarks/optimizer_speed.py", *(given or sys.argv[1:])]),
            }
            sys.stdout.write(json.dumps(line, indent=1) + "\n")
            if out is not None:
                out.parent.mkdir(parents=True, exist_ok=True)
                with out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
    torch.set_num_threads(before)
    return 0


if __name__ == "__main__":
    sys.exit(main())
