"""The command ``quickstudy pack``: a trained run as one learner file that is calibrated and says what it is."""

import dataclasses
import json as json_format
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer

from quickstudy.console import err, out, print_json
from quickstudy.episode import TaskDistribution
from quickstudy.evaluation import Score, evaluate
from quickstudy.files import require_file_path, write_atomically
from quickstudy.process import use_threads
from quickstudy.runs import RunFolder, Settings
from quickstudy.tasks import ClassTasks

if TYPE_CHECKING:
    from quickstudy.packing import Packed
    from quickstudy.trust import Trust

_WAYS, _SHOTS = (2, 5, 10, 20), (1, 5, 10)
_WITHOUT_VALIDATION = ("trainval", "background")


def pack(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder of `quickstudy train`.")],
    file: Annotated[Path, typer.Option("--out", help="The learner file to write, such as my_learner.safetensors.")],
    name: Annotated[str | None, typer.Option(help="What to call the learner; by default as the file.")] = None,
    licence: Annotated[str, typer.Option(help="The licence of the weights.")] = "not stated",
    episodes: Annotated[int, typer.Option(help="Meta-validation tasks for each calibration.")] = 200,
    seed: Annotated[int, typer.Option(help="Of these tasks.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
    threads: Annotated[int, typer.Option(help="Threads for torch; 0 takes every processor.")] = 0,
) -> None:
    """Pack a trained run: one learner file with how it reads, how far it can be trusted, and a model card beside it."""
    from quickstudy.packing import open_packed
    from quickstudy.packing import pack as write

    use_threads(threads)
    if episodes < 1:
        raise ValueError(f"--episodes {episodes}; required is at least 1: the calibration rests on these tasks")
    require_file_path(file, "--out")
    card_file = file.with_suffix(".md")
    if card_file == file:
        raise ValueError(
            f"--out {file} would be both learner and model card; required is a file such as learner.safetensors"
        )
    settings = RunFolder(run).settings()
    packed = open_packed(run)
    with err.status("measuring on meta-validation tasks"):
        found = _measured(packed, settings, episodes, seed)
    for note in found.notes:
        err.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    card = _card(settings, name or file.stem, licence, found)
    write(dataclasses.replace(packed, trust=found.trust, card=card), file)
    write_atomically(card_file, _page(card).encode())
    if json:
        print_json({"learner": str(file), "model_card": str(card_file), "calibrated": found.trust is not None, **card})
        return
    for line in (f"learner: {file}", f"model card: {card_file}", f"accuracy: {card['accuracy']}"):
        out.print(line, highlight=False, markup=False, soft_wrap=True)


@dataclass(frozen=True)
class _Measured:
    """What meta-validation tasks said; None where there are none."""

    score: Score | None = None
    trust: "Trust | None" = None
    notes: list[str] = field(default_factory=list)


def _measured(packed: "Packed", settings: Settings, episodes: int, seed: int) -> _Measured:
    from quickstudy.trust import calibrate

    if settings.train_part in _WITHOUT_VALIDATION:
        return _Measured(notes=[f"trained on {settings.train_part}: no meta-validation tasks are left to calibrate on"])
    tasks = settings.part("validation")
    score = evaluate(packed.learner, tasks, episodes=episodes, generator=torch.Generator().manual_seed(seed))
    ways, shots = _shapes(tasks)
    if not isinstance(tasks, ClassTasks) or not ways or not shots:
        why = "too few classes or examples" if isinstance(tasks, ClassTasks) else "no tasks of classes"
        return _Measured(score, notes=[f"the meta-validation tasks of {settings.tasks} are {why} to calibrate on"])
    trust = calibrate(
        packed.learner,
        tasks,
        ways=ways,
        shots=shots,
        episodes=episodes,
        generator=torch.Generator().manual_seed(seed),
        source=f"{episodes} meta-validation tasks of {_data(settings)} for each of {len(ways) * len(shots)} shapes",
    )
    return _Measured(score, trust)


def _shapes(tasks: TaskDistribution) -> tuple[list[int], list[int]]:
    """The ways and shots for which the tasks have classes and examples, with a class beside those of a task."""
    if not isinstance(tasks, ClassTasks):
        return [], []
    groups = tasks.class_groups if tasks.within_group and tasks.class_groups is not None else [0] * len(tasks)
    most, fewest = max(groups.count(group) for group in set(groups)), int(tasks.counts.min())
    return [way for way in _WAYS if way < most], [shot for shot in _SHOTS if shot + tasks.queries <= fewest]


def _card(settings: Settings, name: str, licence: str, found: _Measured) -> dict[str, str]:
    changed = {
        field.name: value
        for field in dataclasses.fields(Settings)
        if (value := getattr(settings, field.name)) != _default(field) and field.name not in ("root", "init", "kind")
    }
    changed = {"learner": settings.learner, "tasks": settings.tasks, **changed}
    card = {
        "name": name,
        "recipe": ", ".join(f"{key} {_plain(value)}" for key, value in changed.items()),
        "seed": str(settings.seed),
        "data": _data(settings),
        "accuracy": "not measured: no meta-validation tasks" if found.score is None else _in_words(found.score),
        "licence": licence,
    }
    if settings.init is not None:
        card["started from"] = Path(settings.init).name
    if found.trust is not None:
        card["calibration"] = found.trust.source
    return card


def _page(card: dict[str, str]) -> str:
    lines = [f"# {card['name']}", ""]
    lines += [f"- **{key[0].upper()}{key[1:]}**: {value}" for key, value in card.items() if key != "name"]
    how = f"Use it: `quickstudy adapt --learner {card['name']}.safetensors --support DIR --out model.safetensors`."
    return "\n".join([*lines, "", how]) + "\n"


def _in_words(score: Score) -> str:
    unit, word = (100, " %") if score.metric == "accuracy" else (1, f" {score.metric.replace('_', ' ')}")
    seed = "" if score.seed is None else f", seed {score.seed}"
    value = f"{unit * score.mean:.2f} ± {unit * score.ci95:.2f}{word}"
    return f"{value} on {score.episodes} meta-validation tasks ({score.protocol}{seed})"


def _data(settings: Settings) -> str:
    split = "" if settings.split is None else f", split {settings.split}"
    return f"{settings.tasks}{split}, part {settings.train_part}"


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json_format.dumps(value)
