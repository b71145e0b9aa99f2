"""The task distributions that the command line knows by name, each with meta-train, meta-validation and meta-test."""

from pathlib import Path
from typing import Any

from quickstudy.data import ClassData
from quickstudy.episode import TaskDistribution
from quickstudy.tasks.class_tasks import ClassTasks
from quickstudy.tasks.sinusoid import Sinusoid

TASKS = ("omniglot", "glyphs", "sinusoid")
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
        name: "omniglot" (split "vinyals" or "official"), "glyphs" (split "scripts") or "sinusoid" (no split).
        part: "train", "validation" or "test"; for omniglot also "trainval" (vinyals) and "background" (official).
        split: by default the first one named above.
        root: where the omniglot archives are; by default the data folder.
        rotations: turn every omniglot character by 90°, 180° and 270° into classes of their own; by default the
            protocol of the split (vinyals: yes, official: no).
        settings: of ``ClassTasks``; sinusoids take ``shot`` and ``queries``.
    """
    if name == "sinusoid":
        if part not in PARTS:
            raise ValueError(f"part {part!r} of sinusoid is not known; choose among {', '.join(PARTS)}")
        return Sinusoid(**{key: settings[key] for key in ("shot", "queries") if key in settings})
    if name not in TASKS:
        raise ValueError(f"tasks {name!r} are not known; choose among {', '.join(TASKS)}")
    return class_tasks(named_data(name, part, split=split, root=root, rotations=rotations), **settings)


def named_data(
    name: str, part: str, *, split: str | None = None, root: Path | None = None, rotations: bool | None = None
) -> ClassData:
    """The examples behind ``named_tasks``, for omniglot and glyphs."""
    from quickstudy.data import glyphs, omniglot  # here, because fonts and plots take long to import

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
