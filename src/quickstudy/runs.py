"""One folder per training run: its settings and its files."""

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quickstudy.episode import TaskDistribution
from quickstudy.evaluation import number
from quickstudy.files import write_atomically
from quickstudy.tasks import named_tasks
from quickstudy.tensor_file import read_tensors


@dataclass(frozen=True)
class Settings:
    """Every argument of a run, as config.json holds it.

    Args:
        learner: a name in ``LEARNERS``.
        tasks, split, root, rotations, image_size, channels: the task distribution, see ``named_tasks``.
        kind: what a folder of examples holds, "images" or "sounds", as ``train`` has found it; "" for other tasks.
        train_part: the part that is meta-trained on; "trainval" or "background" leave nothing to validate on.
        way, shot, queries: of the meta-training episodes.
        within_group: classes of a task share a group.
        augment, elastic: random affine changes of meta-training images; with ``elastic`` they are bent as well.
        augment_strength: factor of all these changes; 1 is ``RandomAffine()`` and ``RandomElastic()``.
        backbone, width, norm, pool: the network; ``width`` is channels for conv4, channels of the first block
            for resnets (the others in proportion) and units per hidden layer for mlp.
        precision: of convolutional networks in training, "float32" or "bfloat16".
        head, inner_lr, inner_steps, first_order, adapts, mode: of gradient-based learners; ``adapts`` is a list of name
            patterns with commas between them.
        options: further arguments of the learner by name, for example {"strength": 2.0} of iMAML.
        strategy: how tasks of a meta-batch are run.
        steps, meta_batch: outer steps and tasks per step.
        optimizer, lr, weight_decay, schedule, clip: the outer optimizer; ``clip`` bounds the gradient's norm, 0 is off.
        validate_every: outer steps between meta-validations, 0 for none.
        validation_episodes, validation_way, validation_shot: their size; 0 takes the training value.
        init: a learner file or run folder whose weights to start from, instead of fresh ones.
        seed: of the initial weights and of all tasks.
    """

    learner: str = "protonet"
    tasks: str = "glyphs"
    split: str | None = None
    root: str | None = None
    rotations: bool | None = None
    image_size: int = 28
    channels: int = 1
    kind: str = ""
    train_part: str = "train"
    way: int = 5
    shot: int = 1
    queries: int = 15
    within_group: bool = False
    augment: bool = False
    elastic: bool = False
    augment_strength: float = 1.0
    backbone: str = "conv4"
    width: int = 64
    norm: str = "population"
    pool: str = "max"
    precision: str = "float32"
    head: str = "shared"
    inner_lr: float = 0.1
    inner_steps: int = 1
    first_order: bool = False
    adapts: str = "*"
    mode: str = "reverse"
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    strategy: str = "auto"
    steps: int = 2000
    meta_batch: int = 1
    optimizer: str = "adam"
    lr: float = 1e-3
    weight_decay: float = 0.0
    schedule: str = "cosine"
    clip: float = 0.0
    validate_every: int = 500
    validation_episodes: int = 200
    validation_way: int = 0
    validation_shot: int = 0
    init: str | None = None
    seed: int = 0

    def part(self, part: str, **changes: Any) -> TaskDistribution:
        """The tasks of one part, in the training shape unless changed."""
        settings = {"way": self.way, "shot": self.shot, "queries": self.queries, "within_group": self.within_group}
        if self.tasks == "omniglot_trials" and self.queries == type(self).queries:
            del settings["queries"]  # trials have their own number
        return named_tasks(
            self.tasks,
            part,
            split=self.split,
            root=None if self.root is None else Path(self.root),
            rotations=self.rotations,
            image_size=self.image_size,
            channels=self.channels,
            **{**settings, **changes},
        )


class RunFolder:
    """The files of one run.

    Args:
        path: the folder.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.metrics = self.path / "metrics.jsonl"
        self.checkpoint = self.path / "checkpoint.safetensors"
        self.learner = self.path / "learner.safetensors"
        self.rule = self.path / "rule.safetensors"
        self.report = self.path / "report.html"

    def start(self, settings: Any, *, overwrite: bool, facts: dict[str, Any]) -> None:
        """Begin a run in an empty folder.

        Args:
            settings: a dataclass of them.
            overwrite: remove the files of a run that is there.
            facts: what else config.json is to hold.

        Raises:
            ValueError: the folder already holds a run, and ``overwrite`` was not asked for.
        """
        files = (self.config, self.metrics, self.checkpoint, self.learner, self.rule, self.report)
        if any(path.exists() for path in files) and not overwrite:
            raise ValueError(
                f"{self.path} already holds a run; go on with it (--resume), replace it (--overwrite), or choose "
                "another folder"
            )
        for path in files:
            path.unlink(missing_ok=True)
        config = {"settings": dataclasses.asdict(settings), **facts}
        write_atomically(self.config, (json.dumps(config, indent=2) + "\n").encode())

    def read_config(self) -> dict[str, Any]:
        """config.json as it was written.

        Raises:
            ValueError: no run here, or a config.json that is no JSON.
        """
        try:
            return json.loads(self.config.read_text())
        except FileNotFoundError as error:
            raise ValueError(f"{self.path} holds no run (there is no config.json): check the path") from error
        except ValueError as error:
            raise ValueError(f"{self.config} is not readable as JSON ({error}): restore it, or start again") from error

    def settings(self) -> Settings:
        """The settings of a run that trains a learner."""
        config = self.read_config()
        if isinstance(config, dict) and "rule" in config.get("settings", ()):
            raise ValueError(
                f"{self.path} holds the run of an update rule, and no learner: go on with it by quickstudy "
                "train-optimizer --resume, and judge it by quickstudy evaluate-optimizer"
            )
        try:
            return Settings(**config["settings"])
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{self.config} does not hold the settings of a run ({error}): restore it, or start again"
            ) from error

    def records(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, NaN for null; a last line that was cut off is left out."""
        lines = self.metrics.read_text().splitlines() if self.metrics.exists() else []
        records = []
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:
                break
            records.append({name: math.nan if value is None else value for name, value in record.items()})
        return records

    def cost(self) -> dict[str, float | int | None]:
        """Wall-clock and processor seconds that training took (None where unknown), and its threads."""
        notes = read_tensors(self.checkpoint, "checkpoint")[0]["notes"]
        seconds = {key: notes.get(key, math.nan) for key in ("seconds", "cpu_seconds")}
        rounded = {key: round(value, 1) if math.isfinite(value) else None for key, value in seconds.items()}
        return {**rounded, "threads": self.read_config()["machine"]["threads"]}

    def record(self, **values: Any) -> None:
        """Add one line to metrics.jsonl; null for a number that is not finite, which JSON cannot hold."""
        with self.metrics.open("a") as file:
            file.write(_line(values))

    def forget_after(self, step: int) -> None:
        """Drop the records that a resumed run will write again."""
        kept = [_line(r) for r in self.records() if r["step"] <= step]
        write_atomically(self.metrics, "".join(kept).encode())


def _line(record: dict[str, Any]) -> str:
    return json.dumps({k: number(v) if isinstance(v, float) else v for k, v in record.items()}) + "\n"
