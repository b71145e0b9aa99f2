"""Fixed trials from folders of images: a published list of few-shot questions that every method answers alike."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from quickstudy.data.images import read_image, suffixes
from quickstudy.data.listing import files_of, subfolders
from quickstudy.data.root import MissingData

LAYOUT = "FOLDER/TRIAL/support/CLASS/*.png and FOLDER/TRIAL/query/CLASS/*.png"


class Trial(NamedTuple):
    """One few-shot question. Images are uint8 with bright ink on a dark ground, labels int64 indices into ``classes``.

    Args:
        name: of the trial's folder.
        support_x: (n, 1, size, size), class by class, the files of a class in natural order.
        support_y: (n,); classes may have unequal shots.
        query_x: (m, 1, size, size).
        query_y: (m,); a class may have no query.
        classes: the names of the support's class folders, in natural order.
    """

    name: str
    support_x: np.ndarray
    support_y: np.ndarray
    query_x: np.ndarray
    query_y: np.ndarray
    classes: tuple[str, ...]


def load_trials(folder: Path, *, size: int = 28) -> list[Trial]:
    """Every trial of a folder laid out as ``FOLDER/TRIAL/support/CLASS/*.png`` and ``FOLDER/TRIAL/query/CLASS/*.png``.

    Also .jpg, .webp, .tif and whatever else ``read_image`` reads, in capitals or not; other and hidden files are passed
    over, and so are folders with neither support nor query. Trials may differ in their ways and shots, and a class may
    have no query. Numbers in names sort by value: run2 before run10.

    Args:
        folder: holds one folder for each trial.
        size: side of the images that are returned, in pixels.

    Returns:
        The trials in natural order of their names.

    Raises:
        MissingData: no such folder (a ValueError and a FileNotFoundError).
        ValueError: a folder that is not laid out so, a trial of a single class or without queries, a query class that
            the support lacks, an image that cannot be read; the message names it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingData(f"{folder} is not a folder: give one laid out as {LAYOUT}")
    if _is_trial(folder):
        raise ValueError(f"{folder} is itself a trial: give the folder above it, laid out as {LAYOUT}")
    trials = [_trial(path, size) for path in subfolders(folder) if _is_trial(path)]
    if not trials:
        raise ValueError(f"{folder} holds no trials: it must be laid out as {LAYOUT}")
    return trials


def _is_trial(folder: Path) -> bool:
    """Whether it has at least one of the two parts; a missing other one is an error then."""
    return (folder / "support").is_dir() or (folder / "query").is_dir()


def _trial(folder: Path, size: int) -> Trial:
    support, query = _files(folder, "support"), _files(folder, "query")
    foreign = [name for name in query if name not in support]
    if foreign:
        raise ValueError(
            f"the query class {foreign[0]!r} of trial {folder} has no support ({len(foreign)} of {len(query)} query "
            f"classes); its support classes are {', '.join(support)}: add {folder / 'support' / foreign[0]}, or remove "
            "the query class"
        )
    empty = next((name for name, files in support.items() if not files), None)
    if empty is not None:
        raise ValueError(
            f"{folder / 'support' / empty} holds no image; at least one of {', '.join(sorted(suffixes()))} is "
            "required: add one, or remove the folder"
        )
    if len(support) < 2:
        raise ValueError(
            f"the trial {folder} has the single class {next(iter(support))!r}; required are at least two to tell "
            "apart: add a class, or remove the trial"
        )
    if not any(query.values()):
        raise ValueError(
            f"the trial {folder} has no query; required is at least one image in {folder / 'query'}/CLASS: add one, or "
            "remove the trial"
        )
    classes = tuple(support)
    support_x, support_y = _read(support, classes, size)
    query_x, query_y = _read(query, classes, size)
    return Trial(folder.name, support_x, support_y, query_x, query_y, classes)


def _files(trial: Path, part: str) -> dict[str, list[Path]]:
    """Class name: its image files, which may be none; there is at least one class."""
    if not (trial / part).is_dir():
        raise ValueError(f"the trial {trial} has no folder {part!r}: it must be laid out as {LAYOUT}")
    found = {path.name: files_of(path, suffixes()) for path in subfolders(trial / part)}
    if not found:
        raise ValueError(f"{trial / part} has no class folders: the trial must be laid out as {LAYOUT}")
    return found


def _read(files: dict[str, list[Path]], classes: tuple[str, ...], size: int) -> tuple[np.ndarray, np.ndarray]:
    labelled = [(path, classes.index(name)) for name, paths in files.items() for path in paths]
    x = np.stack([read_image(path, size=size) for path, _ in labelled])[:, None]  # (n, 1, size, size)
    return x, np.array([label for _, label in labelled], dtype=np.int64)
