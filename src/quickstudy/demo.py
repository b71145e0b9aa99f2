"""The main job in a few minutes: learn to learn characters from one example, and be judged on scripts never seen."""

import json
import time
from pathlib import Path

import torch

from quickstudy import report
from quickstudy.console import err, out, plain_table, score_in_words, train_with_bar
from quickstudy.evaluation import Comparison, compare
from quickstudy.files import write_atomically
from quickstudy.learner import Learner
from quickstudy.learners import NearestNeighbour
from quickstudy.runs import RunFolder, Settings
from quickstudy.saving import load

_COMMON = {"tasks": "glyphs", "augment": True, "lr": 2e-3, "validation_way": 20, "validation_episodes": 30}
RUNS = {
    "protonet": Settings(learner="protonet", way=20, queries=5, steps=300, validate_every=100, **_COMMON),
    "maml": Settings(
        learner="maml", head="prototypes", way=20, queries=5, steps=160, validate_every=80, inner_lr=0.02, **_COMMON
    ),
    "linear_probe": Settings(learner="linear_probe", way=10, queries=12, steps=300, validate_every=150, **_COMMON),
}
"""What the demo trains; each is also a ``quickstudy train`` command."""

WAYS = (5, 20)


def run(path: Path, *, episodes: int = 100, overwrite: bool = False) -> dict[str, Comparison]:
    """Train, compare on the meta-test scripts, print one table, write the report.

    Args:
        path: the folder of the demo; each learner gets a run folder in it.
        episodes: test episodes per protocol.
        overwrite: replace an earlier demo.
    """
    err.print("built-in glyphs: meta-training on Latin, Cyrillic, symbols, ...; judged on scripts never seen")
    with err.status("rendering the glyphs (once)"):
        settings = RUNS["protonet"]
        test = {way: settings.part("test", way=way, shot=1, queries=15) for way in WAYS}
    seconds, learners = {}, {}
    folders = {name: RunFolder(path / name) for name in RUNS}
    for name, settings in RUNS.items():
        start = time.perf_counter()
        train_with_bar(settings, folders[name].path, overwrite=overwrite)
        seconds[name] = round(time.perf_counter() - start, 1)
        learners[name] = load(folders[name].learner)
    learners: dict[str, Learner] = {**learners, "nearest_neighbour": NearestNeighbour()}
    comparisons = {}
    for way in WAYS:
        with err.status(f"judging on unseen scripts, {way}-way 1-shot"):
            generator = torch.Generator().manual_seed(0)
            comparisons[f"{way}-way 1-shot"] = compare(learners, test[way], episodes=episodes, generator=generator)
    _print(comparisons, seconds)
    found = {name: comparison.as_dict() for name, comparison in comparisons.items()}
    write_atomically(path / "comparisons.json", (json.dumps({"training_seconds": seconds, **found}) + "\n").encode())
    with err.status("writing the report"):
        rivals = {name: learner for name, learner in learners.items() if name != "protonet"}
        report.write(folders["protonet"], rivals=rivals, comparisons=comparisons, episodes=30)
        folders["protonet"].report.replace(path / "report.html")
    out.print(f"report: {path / 'report.html'}   runs: {', '.join(str(f.path) for f in folders.values())}")
    return comparisons


def _print(comparisons: dict[str, Comparison], seconds: dict[str, float]) -> None:
    first = next(iter(comparisons.values()))
    table = plain_table("accuracy in % on scripts never seen, one example for each class")
    for column in ("learner", *(name.removesuffix(" 1-shot") for name in comparisons), "mode", "train s", "test s"):
        table.add_column(column, no_wrap=True)
    for name, score in first.scores.items():
        scores = [comparison.scores[name] for comparison in comparisons.values()]
        mode = "transductive" if score.transductive else "inductive"
        trained = f"{seconds[name]:.0f}" if name in seconds else "–"
        table.add_row(name, *map(score_in_words, scores), mode, trained, f"{sum(s.seconds for s in scores):.0f}")
    out.print(table)
