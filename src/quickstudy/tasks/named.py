"""The task distributions that the command line knows by name, each with meta-train, meta-validation and meta-test."""

from pathlib import Path
from typing import Any

from quickstudy.data import ClassData
from quickstudy.episode import TaskDistribution
from quickstudy.tasks.across_groups import AcrossGroups
from quickstudy.tasks.class_tasks import ClassTasks
from quickstudy.tasks.gaussian_process import GaussianProcess
from quickstudy.tasks.sinusoid import Sinusoid
from quickstudy.tasks.two_drawers import TwoDrawers

REGRESSION = {"sinusoid": Sinusoid, "gaussian_process": GaussianProcess}
"""Tasks of numbers to predict, which take ``shot`` and ``queries``."""

TASKS = ("omniglot", "omniglot_trials", "glyphs", *REGRESSION, "fsdd")
PARTS = ("train", "validation", "test")


def named_tasks(
    name: str,
    part: str,
    *,
    split: str | None = None,
    root: Path | None = None,
    rotations: bool | None = None,
    **settings: Any,
) -> TaskDistribution:
    """One part of a known task distribution.

    Args:
        name: "omniglot" (split "vinyals" or "official"), "omniglot_trials" (split "official": 1-shot trials of two
            drawers within an alphabet, 20-way unless said otherwise), "glyphs" (split "scripts"), "sinusoid" or
            "gaussian_process" (no split), or "fsdd" (split "speakers", "across" or "digits": spoken digits, all of a
            task from one speaker, or with "across" the queries from another one than the support set).
        part: "train", "validation" or "test"; also "trainval" (vinyals, fsdd) and "background" (official).
        split: by default the first one named above.
        root: where the omniglot archives are; by default the data folder.
        rotations: turn every omniglot character by 90°, 180° and 270° into classes of their own; by default the
            protocol of the split (vinyals: yes, official: no).
        settings: of ``ClassTasks``; those of numbers take ``shot`` and ``queries``.
    """
    if name in REGRESSION:
        if part not in PARTS:
            raise ValueError(f"part {part!r} of {name} is not known; choose among {', '.join(PARTS)}")
        return REGRESSION[name](**{key: settings[key] for key in ("shot", "queries") if key in settings})
    if name not in TASKS:
        raise ValueError(f"tasks {name!r} are not known; choose among {', '.join(TASKS)}")
    if name == "omniglot_trials":
        shape = {"way": 20, "shot": 1, "queries": 1, **settings}
        if (shape["shot"], shape["queries"]) != (1, 1):
            raise ValueError(
                f"shot={shape['shot']}, queries={shape['queries']}; trials have 1 of each for a class: leave them out"
            )
        data = named_data("omniglot", part, split=split or "official", root=root, rotations=rotations)
        return TwoDrawers(class_tasks(data, **{**shape, "within_group": True}))
    data = named_data(name, part, split=split, root=root, rotations=rotations)
    if name == "fsdd":
        tasks = class_tasks(data, **{**settings, "within_group": True})
        return AcrossGroups(tasks) if split == "across" else tasks
    return class_tasks(data, **settings)


def named_data(
    name: str, part: str, *, split: str | None = None, root: Path | None = None, rotations: bool | None = None
) -> ClassData:
    """The examples behind ``named_tasks``, for omniglot, glyphs and fsdd."""
    from quickstudy.data import fsdd, glyphs, omniglot  # here, because fonts and plots take long to import

    if name == "fsdd":
        return fsdd.split(fsdd.load(root), "speakers" if split in (None, "across") else split, part)
    if name == "glyphs":
        if split not in (None, "scripts"):
            raise ValueError(f"split {split!r} of glyphs is not known; choose 'scripts'")
        return glyphs.split(glyphs.load(), part)
    split = split or "vinyals"
    turned = split == "vinyals" if rotations is None else rotations
    return omniglot.split(omniglot.load(root, rotations=turned), split, part, root=root)  # pyright: ignore[reportArgumentType]


def class_tasks(data: ClassData, **settings: Any) -> ClassTasks:
    """Episodes over the classes of ``data``, by their names and with their groups."""
    names = [data.classes[i] for i in data.y]
    groups = [data.groups[i] for i in data.y]
    return ClassTasks(data.x, names, groups=groups, **settings)
