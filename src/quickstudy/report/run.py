"""What is said of every run: its learning curve, its facts and settings, and what the numbers mean."""

import shlex
from typing import Any

from quickstudy.learner import Learner
from quickstudy.learners import LEARNERS
from quickstudy.learners.neural_process import NeuralProcess
from quickstudy.report import figures, marks
from quickstudy.report.page import Picture, Section, Table, duration, value
from quickstudy.runs import RunFolder, Settings
from quickstudy.tasks.named import REGRESSION
from quickstudy.tensor_file import SavedFileError, read_tensors

_DEFAULT_SPLIT = {"omniglot": "vinyals", "glyphs": "scripts", "fsdd": "speakers"}


def curve(settings: Settings, records: list[dict[str, Any]]) -> Section:
    """Meta-training loss and meta-validation against outer step, or a sentence on what was not recorded."""
    losses, judged = [r for r in records if "loss" in r], [r for r in records if "validation" in r]
    best, end = _best(judged), max((r["step"] for r in records), default=1)
    at = None if best is None else best["step"]
    words, panels, keys, caption = [], [], [], []
    if losses:
        steps, values = [r["step"] for r in losses], [r["loss"] for r in losses]
        in_squares = settings.tasks in REGRESSION and not issubclass(LEARNERS[settings.learner], NeuralProcess)
        unit = "squared units" if in_squares else "nats"
        label = f"Meta-training loss: {values[0]:.3f} at first, {values[-1]:.3f} at outer step {steps[-1]}."
        panels.append(figures.loss_curve(steps, values, best=at, end=end, unit=unit, label=label))
        keys = marks.loss_keys((steps[1] if len(steps) > 1 else 2 * steps[0]) - steps[0], smoothed=len(steps) >= 40)
        caption.append("The meta-training loss.")
    else:
        words.append("The run holds no record of its meta-training loss: metrics.jsonl is empty or missing.")
    if best is None:
        words.append("The run holds no meta-validation: its learner is the one after the last outer step.")
    else:
        steps, metric = [r["step"] for r in judged], best["metric"]
        label = f"Meta-validation: {value(best['validation'], best['ci95'], metric)} at best, at outer step {at}."
        mean, ci95 = [r["validation"] for r in judged], [r["ci95"] for r in judged]
        panels.append(figures.validation_curve(steps, mean, ci95, best=at, end=end, metric=metric, label=label))
        fresh = "fresh tasks" if settings.tasks in REGRESSION else "classes that are not trained on"
        caption.append(
            f"Meta-validation on {fresh}, with its ci95 as a band; the star and the dashed line mark the best one, at "
            f"outer step {at:,}, whose learner was kept."
        )
    pictures = [Picture(panels, " ".join(caption), keys)] if panels else []
    return Section("Learning curve", "learning", words, pictures=pictures)


def _best(judged: list[dict[str, Any]]) -> dict[str, Any] | None:
    if not judged:
        return None
    if judged[0]["metric"] == "mean_squared_error":
        return min(judged, key=lambda r: r["validation"])
    return max(judged, key=lambda r: r["validation"])


def facts(
    folder: RunFolder, settings: Settings, records: list[dict[str, Any]], learner: Learner
) -> list[tuple[str, str]]:
    """The run at a glance: name → value."""
    shape = f"{settings.shot}-shot" if settings.tasks in REGRESSION else f"{settings.way}-way {settings.shot}-shot"
    split = settings.split or _DEFAULT_SPLIT.get(settings.tasks)
    steps = max((r["step"] for r in records), default=0)
    best = _best([r for r in records if "validation" in r])
    seconds = _training_seconds(folder)
    validation = "not measured"
    if best is not None:
        validation = f"{value(best['validation'], best['ci95'], best['metric'])} at outer step {best['step']:,}"
    return [
        ("Learner", f"{settings.learner}, {settings.backbone} of width {settings.width}"),
        ("Tasks", settings.tasks + ("" if split is None else f", split {split}")),
        ("Meta-trained on", f"{shape} tasks of the part “{settings.train_part}”, {settings.meta_batch} per outer step"),
        ("Meta-parameters", f"{sum(p.numel() for p in learner.parameters()):,}"),
        ("Training", f"{steps:,} outer steps" + ("" if seconds is None else f" in {duration(seconds)}")),
        ("Best meta-validation", validation),
    ]


def _training_seconds(folder: RunFolder) -> float | None:
    try:
        return float(read_tensors(folder.checkpoint, "checkpoint")[0]["notes"]["seconds"])
    except (SavedFileError, KeyError):
        return None  # the checkpoint was removed, which costs nothing else


def unfinished(settings: Settings, records: list[dict[str, Any]]) -> str | None:
    """What to know about a run that was stopped; None for a whole one."""
    done = max((r["step"] for r in records), default=0)
    if done >= settings.steps:
        return None
    return (
        f"Training stopped at outer step {done:,} of {settings.steps:,}; the learner is the best up to there. Go on "
        "with quickstudy train --resume."
    )


def about(config: dict[str, Any]) -> Section:
    """config.json as tables."""
    facts = {**config.get("versions", {}), **config.get("machine", {}), "data (SHA-256)": config.get("data_sha256")}
    where = [[name, _shown(value)] for name, value in facts.items()]
    where.append(["command", shlex.join(config.get("command", [])) or "–"])
    settings = [[name, _shown(value)] for name, value in config["settings"].items()]
    return Section(
        "Settings",
        "settings",
        ["Everything that is needed to make this run again."],
        tables=[
            Table("Versions, machine, data and command", ["what", "value"], where, [False, False]),
            Table("All settings of the run", ["setting", "value"], settings, [False, False], folded=True),
        ],
    )


def meaning() -> Section:
    """How to read the numbers of the page."""
    words = [
        "An episode is one task: a support set to learn from (way classes, shot examples of each) and queries to be "
        "judged on. A score is the mean over episodes.",
        "± is ci95 = 1.96·sd/√episodes, over the episodes: it says how far another draw of episodes would move the "
        "mean, and nothing about another training of the same learner.",
        "A column “minus …” holds paired differences: both learners were judged on the same episodes, and the ci95 is "
        "that of the difference. Where it is larger than the difference, the episodes do not tell the two apart.",
        "Inductive: each query is judged on its own. Transductive: a prediction may depend on the other queries of "
        "its task, so compare it with other transductive scores only.",
        "Accuracy is the share of queries whose class is named right; mean squared error is in squared units of the "
        "target. Seconds are wall-clock time for all episodes of a row, drawing included.",
    ]
    return Section("What the numbers mean", "meaning", words)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value is None else str(value)
