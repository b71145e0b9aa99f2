"""Few labelled rows of five tables: the default head against tuned logistic regression, on the same draws.

    python recipes/tables.py

Of each table 10, 20 and 50 rows are drawn, each class in proportion and at least once, and all other rows are judged:
area under the ROC curve, for several classes the mean of each class against the rest. Both see the same columns:
numbers as they are, categories one-hot as far as the drawn rows show them. Logistic regression standardises them and
chooses C among ten values by the log-likelihood of held-out folds, five or as many as the smallest class has rows (at
least two); --scoring accuracy chooses by accuracy, as LogisticRegressionCV does. Appends a line for each table and
number of rows, and one for the mean of all, to benchmarks/results/tables.jsonl.
"""

import argparse
import csv
import json
import math
import sys
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import sklearn
import torch
from result import RESULTS
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

import quickstudy as qs
from quickstudy.data.root import data_root
from quickstudy.learners import Ridge

TABLES = {name: name for name in ("german", "sonar", "ecoli", "glass")} | {"pima": "pima-indians-diabetes"}
ROWS = (10, 20, 50)
STRENGTHS = np.logspace(-4, 4, 10)


@dataclass(frozen=True)
class Table:
    """Columns of numbers or of texts, and the class of each row."""

    columns: tuple[np.ndarray, ...]
    y: np.ndarray

    @classmethod
    def read(cls, name: str) -> "Table":
        """A table without a header whose last column is the class."""
        with (data_root() / "tabular" / f"{name}.csv").open(newline="") as file:
            *columns, target = zip(*(row for row in csv.reader(file) if row), strict=True)
        return cls(tuple(map(_numbers, columns)), np.unique(target, return_inverse=True)[1])

    def encoded(self, rows: np.ndarray) -> np.ndarray:
        """All rows as numbers, with the categories that ``rows`` show."""
        parts = [
            column[:, None] if column.dtype.kind == "f" else (column[:, None] == np.unique(column[rows])).astype(float)
            for column in self.columns
        ]
        return np.concatenate(parts, axis=1)


def _numbers(column: tuple[str, ...]) -> np.ndarray:
    try:
        return np.array(column, dtype=float)
    except ValueError:
        return np.array(column)


def draw(y: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """``n`` rows, of each class in proportion, at least one, and never all."""
    counts = np.bincount(y)
    due = n * counts / len(y)
    take = np.maximum(1, np.floor(due)).astype(int)
    while take.sum() < n:
        take[np.argmax(due - take)] += 1
    while take.sum() > n:
        take[np.argmax(np.where(take > 1, take - due, -np.inf))] -= 1
    take = np.minimum(take, counts - 1)
    return np.concatenate([rng.choice(np.flatnonzero(y == j), k, replace=False) for j, k in enumerate(take)])


def ours(x: np.ndarray, y: np.ndarray, query: np.ndarray, way: int) -> np.ndarray:
    """Probabilities of the default head."""
    support = qs.Labelled(torch.from_numpy(x), qs.one_hot(torch.from_numpy(y), way))
    return Ridge().answer(support, torch.from_numpy(query)).softmax(-1).numpy()


def tuned_logistic(x: np.ndarray, y: np.ndarray, query: np.ndarray, way: int, scoring: str) -> np.ndarray:
    """Probabilities of logistic regression whose strength was chosen by cross-validation."""
    counts = np.bincount(y, minlength=way)
    strength = 1.0  # where no class has a row to hold out
    if counts.max() > 1:
        folds = StratifiedKFold(max(2, min(5, int(counts.min()))), shuffle=True, random_state=0)
        found = np.zeros(len(STRENGTHS))
        for kept, held in folds.split(x, y):
            if len(np.unique(y[kept])) > 1:
                found += [_judged(x[kept], y[kept], x[held], y[held], way, c, scoring) for c in STRENGTHS]
        strength = float(STRENGTHS[found.argmax()])
    return _logistic(x, y, query, way, strength)


def _judged(
    x: np.ndarray, y: np.ndarray, query: np.ndarray, truth: np.ndarray, way: int, strength: float, scoring: str
) -> float:
    p = _logistic(x, y, query, way, strength)
    if scoring == "accuracy":
        return float((p.argmax(1) == truth).sum())
    return float(np.log(p[np.arange(len(truth)), truth].clip(1e-9)).sum())


def _logistic(x: np.ndarray, y: np.ndarray, query: np.ndarray, way: int, strength: float) -> np.ndarray:
    scaler = StandardScaler().fit(x)
    model = LogisticRegression(C=strength, max_iter=1000).fit(scaler.transform(x), y)
    p = np.zeros((len(query), way))
    p[:, model.classes_] = model.predict_proba(scaler.transform(query))
    return p


def area(p: np.ndarray, y: np.ndarray) -> float:
    """The area under the ROC curve in [0, 1]; of several classes the mean of each against the rest."""
    classes = [1] if p.shape[1] == 2 else np.unique(y)
    return float(np.mean([roc_auc_score(y == j, p[:, j]) for j in classes]))


def summary(found: np.ndarray) -> dict[str, Any]:
    """Means over draws (draws, 2), and the paired difference with its ci95."""
    difference = found[:, 0] - found[:, 1]
    return {
        "roc_auc": {"ridge": float(found[:, 0].mean()), "logistic regression": float(found[:, 1].mean())},
        "difference": float(difference.mean()),
        "ci95": float(1.96 * difference.std(ddof=1) / math.sqrt(len(difference))),
        "draws": len(difference),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scoring", choices=("log-likelihood", "accuracy"), default="log-likelihood")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"sklearn\.model_selection")  # classes of one row
    facts = {
        "versions": {"quickstudy": qs.__version__, "torch": torch.__version__, "sklearn": sklearn.__version__},
        "settings": vars(args),
        "command": " ".join(["python", "recipes/tables.py", *sys.argv[1:]]),
    }
    lines, everything = [], []
    for name, file in sorted(TABLES.items()):
        table = Table.read(file)
        way = int(table.y.max()) + 1
        for n in ROWS:
            found = []
            for t in range(args.draws):
                chosen = draw(table.y, n, np.random.default_rng((args.seed, n, t)))
                rest = np.setdiff1d(np.arange(len(table.y)), chosen)
                x = table.encoded(chosen)
                seen = x[chosen], table.y[chosen], x[rest], way
                answers = ours(*seen), tuned_logistic(*seen, args.scoring)
                found.append([area(p, table.y[rest]) for p in answers])
            everything.append(np.array(found))
            lines.append({"table": name, "rows": n, "classes": way, **summary(everything[-1]), **facts})
            sys.stderr.write(f"{name} {n}: {json.dumps(summary(everything[-1]))}\n")
    mean = np.mean(everything, axis=0)  # (draws, 2) over tables and numbers of rows
    lines.append({"table": "mean", "rows": list(ROWS), "classes": None, **summary(mean), **facts})
    sys.stderr.write(f"mean: {json.dumps(summary(mean))}\n")
    RESULTS.mkdir(parents=True, exist_ok=True)
    with (RESULTS / "tables.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
