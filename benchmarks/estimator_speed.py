"""How long a person waits: from a cold import to the first prediction, to fit, and to predict one image.

    python benchmarks/estimator_speed.py

The learner `characters` on 28×28 images, 5-way 5-shot. The cold start is a fresh process each time, its own clock from
before the first import. Appends one line to benchmarks/results/estimator.jsonl: medians in seconds, with the fastest
and the slowest.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results" / "estimator.jsonl"
COLD = """
import time
began = time.perf_counter()
import numpy as np
from quickstudy import FewShotClassifier
x = np.random.default_rng(0).random((25, 28, 28))
FewShotClassifier("characters").fit(x, [i // 5 for i in range(25)]).predict(x[:1])
print(time.perf_counter() - began)
"""


def seconds(times: list[float]) -> dict[str, float]:
    """Median, fastest and slowest."""
    found = {"median_s": statistics.median(times), "fastest_s": min(times), "slowest_s": max(times)}
    return {name: round(value, 5) for name, value in found.items()}


def cold(repeats: int) -> list[float]:
    """Import, fit and first prediction in fresh processes; the first, which fills the disk's cache, is left out."""
    runs = [subprocess.run([sys.executable, "-c", COLD], capture_output=True, check=True) for _ in range(repeats + 1)]
    return [float(run.stdout) for run in runs[1:]]


def warm(repeats: int) -> tuple[list[float], list[float]]:
    """Times to fit and to predict one image, after a few of each."""
    from quickstudy import FewShotClassifier

    x = np.random.default_rng(0).random((25, 28, 28))
    y = [i // 5 for i in range(25)]
    fits, predictions = [], []
    for i in range(repeats + 3):
        began = time.perf_counter()
        model = FewShotClassifier("characters").fit(x, y)
        middle = time.perf_counter()
        model.predict(x[:1])
        if i >= 3:
            fits.append(middle - began)
            predictions.append(time.perf_counter() - middle)
    return fits, predictions


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=50, help="of fit and predict; cold starts are a tenth")
    given = parser.parse_args()
    fits, predictions = warm(given.repeats)
    import torch

    line = {
        "learner": "characters",
        "way": 5,
        "shot": 5,
        "cold_import_to_first_prediction": seconds(cold(max(3, given.repeats // 10))),
        "fit": seconds(fits),
        "predict_one_image": seconds(predictions),
        "repeats": given.repeats,
        "threads": torch.get_num_threads(),
        "processors": os.cpu_count(),
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
        "command": "python benchmarks/estimator_speed.py",
    }
    with RESULTS.open("a") as file:
        file.write(json.dumps(line) + "\n")
    sys.stdout.write(json.dumps(line, indent=1) + "\n")
