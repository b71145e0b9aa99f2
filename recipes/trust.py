"""How far the learners that ship may be trusted: calibration, unknown characters, prediction sets.

    python recipes/trust.py --twin               # train the twin first; an interrupted run goes on where it stopped
    python recipes/trust.py --judge twin         # lines in benchmarks/results/trust.jsonl
    python recipes/trust.py --judge cross-fit    # the other way, described below
    python recipes/trust.py --ship               # put the twin's calibration into the files that ship

A learner that was trained on all background alphabets has no unseen ones among them to be calibrated on. So a twin, the
same network trained on 25 of them for fewer steps, answers tasks of the 5 others (meta-validation), and what is found
holds for the learner that ships, in so far as the two are alike. Judged on characters that neither saw.
The other way is cross-fitting: the learner itself answers tasks of four fifths of the evaluation alphabets and is
judged on the last fifth, each in turn; so no alphabet is in both, but all are used up.
"""

import argparse
import dataclasses
import json

import torch
from characters import Args, packed
from result import RESULTS, on_features, train_or_resume

from quickstudy import ClassTasks, Learner, load
from quickstudy.console import err
from quickstudy.data import omniglot
from quickstudy.learners import LocalMatching, SimpleShot
from quickstudy.opening import open_learner, shipped
from quickstudy.packing import Packed, open_packed, pack
from quickstudy.process import use_threads
from quickstudy.runs import RunFolder
from quickstudy.tasks import class_tasks
from quickstudy.trust import Judgement, Trust, calibrate, judge

FIRST = "runs/characters-twin-background-0"
TWIN = "runs/characters-twin-matching-background-0"
TWIN_ARGS = Args(split="background", steps=4000, matching_steps=1500)
WAYS, SHOTS, QUERIES = (2, 5, 10, 20), (1, 2, 5, 10), 5
FITTED, BETWEEN = ((5, 5), (5, 1), (20, 5), (20, 1)), ((3, 3), (7, 4), (15, 8))
EPISODES, FOLDS = 500, 5
SPLITS = {"characters": "vinyals", "characters_background": "official"}


def train_twin() -> None:
    """As ``characters_background`` is trained, on the train alphabets alone; the last step counts, as there."""
    alone = {"train_part": "train", "validate_every": 0}
    train_or_resume(dataclasses.replace(TWIN_ARGS.settings(), **alone), FIRST, threads=1)
    train_or_resume(dataclasses.replace(TWIN_ARGS.matching(FIRST), **alone), TWIN, threads=1)


def embedded(learner: Learner, split: str, part: str) -> tuple[Learner, ClassTasks]:
    """The upright characters of a part, each image embedded once, and the learner that reads them so."""
    data = omniglot.split(omniglot.load(), split, part)  # pyright: ignore[reportArgumentType]
    assert isinstance(learner, SimpleShot | LocalMatching)
    answering, tasks = on_features(learner, class_tasks(data, queries=QUERIES))
    assert isinstance(tasks, ClassTasks)
    return answering, tasks


def fit(learner: Learner, tasks: ClassTasks, source: str) -> Trust:
    """Trust at all ways and shots, from 300 tasks each."""
    generator = torch.Generator().manual_seed(1)
    return calibrate(learner, tasks, ways=WAYS, shots=SHOTS, episodes=300, generator=generator, source=source)


def twin_trust() -> Trust:
    """Trust of the twin on the validation alphabets: what ships with ``characters`` and ``characters_background``."""
    twin = packed(RunFolder(TWIN).learner).float()
    steps = sum(RunFolder(path).settings().steps for path in (FIRST, TWIN))
    source = (
        f"a twin trained on 25 background alphabets of Omniglot for {steps} steps, on tasks of "
        f"{len(omniglot.VALIDATION)} other alphabets ({', '.join(omniglot.VALIDATION)}), 300 for each way and shot"
    )
    return fit(*embedded(twin, "official", "validation"), source)


def cross_fitted(learner: Learner, tasks: ClassTasks) -> list[tuple[Trust, ClassTasks]]:
    """Trust fitted without each fifth of the alphabets, and the tasks of that fifth."""
    assert tasks.class_groups is not None
    alphabets = sorted(set(tasks.class_groups))
    folds = [alphabets[i::FOLDS] for i in range(FOLDS)]
    rest = [[a for a in alphabets if a not in fold] for fold in folds]
    fitted = [fit(learner, tasks.only(groups=groups), "the other evaluation alphabets") for groups in rest]
    return [(trust, tasks.only(groups=fold)) for trust, fold in zip(fitted, folds, strict=True)]


def record(
    name: str,
    learner: Learner,
    fitted: list[tuple[Trust, ClassTasks]],
    called: str,
    way: int,
    shot: int,
    within: bool,
) -> None:
    """Judge on as many tasks of each part; one line of the means over parts, the error bar over all tasks."""
    found: list[Judgement] = []
    by_probability: list[Judgement] = []
    for i, (trust, tasks) in enumerate(fitted):
        settings = {"way": way, "shot": shot, "episodes": EPISODES // len(fitted)}
        drawn = tasks.replace(within_group=within)
        for judged, kind in ((found, trust.conformity), (by_probability, "probability")):
            generator = torch.Generator().manual_seed(100 + i)
            one = dataclasses.replace(trust, conformity=kind)
            judged.append(judge(one, learner, drawn, **settings, generator=generator))

    def mean(field: str, judged: list[Judgement] = found) -> float:
        return sum(getattr(one, field) for one in judged) / len(judged)

    scores = sorted({trust.score for trust, _ in fitted})
    aurocs = {score: sum(one.auroc[score] for one in found) / len(found) for score in found[0].auroc}
    line = {
        "learner": name,
        "tasks": "omniglot",
        "split": SPLITS[name],
        "within_alphabet": within,
        "calibrated_on": called,
        "fitted_shape": way in WAYS and shot in SHOTS,
        "way": way,
        "shot": shot,
        "queries": QUERIES,
        "episodes": EPISODES,
        "asked": {"coverage": 0.9, "false_alarms": 0.05},
        **{f.name: mean(f.name) for f in dataclasses.fields(Judgement) if f.name not in ("auroc", "coverage_ci95")},
        "coverage_ci95": sum(one.coverage_ci95**2 for one in found) ** 0.5 / len(found),
        "coverage_of_parts": [one.coverage for one in found],
        "sets_by": sorted({trust.conformity for trust, _ in fitted}),
        "sets_by_probability": {key: mean(key, by_probability) for key in ("coverage", "set_size", "empty_unknown")},
        "score": scores,
        "auroc": aurocs[scores[0]],
        "aurocs": aurocs,
        "source": fitted[0][0].source,
        "command": f"python recipes/trust.py --judge {called}",
    }
    with (RESULTS / "trust.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    err.print({key: line[key] for key in ("learner", "calibrated_on", "way", "shot", "within_alphabet", "coverage",
                                          "set_size", "auroc", "ece_after", "false_alarms", "detected")})  # fmt: skip


def judge_all(called: str) -> None:
    """Every learner that ships, calibrated by the twin or by cross-fitting."""
    of_twin = [twin_trust()] if called == "twin" else []
    for name, split in SPLITS.items():
        learner, tasks = embedded(open_learner(name), split, "test")
        fitted = [(trust, tasks) for trust in of_twin] or cross_fitted(learner, tasks)
        for way, shot in FITTED + BETWEEN:
            record(name, learner, fitted, called, way, shot, within=False)
        record(name, learner, fitted, called, 5, 5, within=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--twin", action="store_true", help="train the twin")
    what.add_argument("--judge", choices=["twin", "cross-fit"], help="by which calibration")
    what.add_argument("--ship", action="store_true", help="put it into the files of the package")
    args = parser.parse_args()
    use_threads(1)
    if args.twin:
        train_twin()
    elif args.judge:
        judge_all(args.judge)
    else:
        trust = twin_trust()
        for name in SPLITS:
            path = shipped()[name]
            there = open_packed(path)
            pack(Packed(load(path), there.reader, trust, there.card), path)  # the weights as they are in the file
