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

TASKS = ("omniglot", "omniglot_trials", "glyphs", *REGRESSION, "fsdd", "folder")
PARTS = ("train", "validation", "test")


def named_tasks(
    name: str,
    part: str,
    *,
    split: str | None = None,
    root: Path | None = None,
    rotations: bool | None = None,
    image_size: int = 28,
    channels: int = 1,
    **settings: Any,
) -> TaskDistribution:
    """One part of a known task distribution.

    Args:
        name: "omniglot" (split "vinyals" or "official"), "omniglot_trials" (split "official": 1-shot trials of two
            drawers within an alphabet, 20-way unless said otherwise), "glyphs" (split "scripts"), "sinusoid" or
            "gaussian_process" (no split), "fsdd" (split "speakers", "across" or "digits": spoken digits, all of a task
            from one speaker, or with "across" the queries from another one than the support set), or "folder" (split
            "classes" or "groups": one's own images or sounds, see ``quickstudy.data.folder``).
        part: "train", "validation" or "test"; also "trainval" (vinyals, fsdd, folder), "background" (official) and
            "all" (folder).
        split: by default the first one named above.
        root: of a folder; else where the archives are, by default the data folder.
        rotations: turn every omniglot character by 90°, 180° and 270° into classes of their own; by default the
            protocol of the split (vinyals: yes, official: no).
        image_size, channels: of the images of a folder: their side in pixels, and 1 (grey) or 3 (colour).
        settings: of ``ClassTasks``; those of numbers take ``shot`` and ``queries``.
    """
    if name != "folder" and (image_size, channels) != (28, 1):
        raise ValueError(
            f"image_size={image_size} and channels={channels} were given, and {name} has examples of a size of its "
            "own: leave them out, or use the tasks folder"
        )
    if name in REGRESSION:
        if part not in PARTS:
            raise ValueError(f"part {part!r} of {name} is not known; choose among {', '.join(PARTS)}")
        return REGRESSION[name](**{key: settings[key] for key in ("shot", "queries") if key in settings})
    if name not in TASKS:
        raise ValueError(f"tasks {name!r} are not known; choose among {', '.join(TASKS)}")
    if name == "folder":
        data = _folder_data(part, split, root, settings, size=image_size, channels=channels)
        return class_tasks(data, **settings)
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


def _folder_data(part: str, split: str | None, root: Path | None, settings: dict[str, Any], **form: int) -> ClassData:
    from quickstudy.data import folder  # here, because images and their formats take long to import

    if root is None:
        raise ValueError(f"tasks folder needs its root, the folder with {folder.LAYOUT}: pass root (--root DIR)")
    way = settings.get("way", 5)
    most = way if isinstance(way, int) else max(way)
    return folder.split(folder.load(root, **form), split or "classes", part, way=most)


def class_tasks(data: ClassData, **settings: Any) -> ClassTasks:
    """Episodes over the classes of ``data``, by their names and with their groups."""
    names = [data.classes[i] for i in data.y]
    groups = [data.groups[i] for i in data.y]
    return ClassTasks(data.x, names, groups=groups, **settings)
