"""Time the sampling of 5-way 1-shot 15-query Omniglot episodes on one thread.

python benchmarks/sampling.py   # appends one line to benchmarks/results/sampling.jsonl
"""

import json
import platform
import sys
import time
from pathlib import Path
from statistics import median

import torch

from quickstudy import ClassTasks, named_tasks

RESULTS = Path(__file__).parent / "results" / "sampling.jsonl"
SHAPE = {"way": 5, "shot": 1, "queries": 15}
BATCH, EPISODES, REPEATS = 32, 1024, 9


def episodes_per_second(tasks: ClassTasks, batch: int) -> float:
    """The median of several repeats, each of EPISODES episodes drawn ``batch`` at a time."""
    generator = torch.Generator().manual_seed(0)
    rates = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        for _ in range(EPISODES // batch):
            tasks.sample(batch, generator=generator)
        rates.append(EPISODES / (time.perf_counter() - start))
    return median(rates[1:])  # the first repeat warms up


def main() -> int:
    """Measure, print, and append."""
    torch.set_num_threads(1)
    try:
        tasks = named_tasks("omniglot", "train", **SHAPE)
    except FileNotFoundError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    assert isinstance(tasks, ClassTasks)
    line = {
        "tasks": "omniglot, vinyals, train",
        **SHAPE,
        "episodes_per_second": round(episodes_per_second(tasks, 1)),
        f"episodes_per_second_in_batches_of_{BATCH}": round(episodes_per_second(tasks, BATCH)),
        "repeats": REPEATS,
        "threads": torch.get_num_threads(),
        "processor": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "command": "python benchmarks/sampling.py",
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    sys.stdout.write(json.dumps(line, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
