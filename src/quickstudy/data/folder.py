"""A person's own files, one folder for each class: which there are, and all of them as arrays."""

import hashlib
import warnings
from collections import Counter
from collections.abc import Iterable, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from quickstudy.data import sounds
from quickstudy.data.arrays import ClassData
from quickstudy.data.cache import cached
from quickstudy.data.images import read_colour_image, read_image, suffixes
from quickstudy.data.listing import files_of, passed_over, subfolders
from quickstudy.data.root import MissingData

Kind = Literal["images", "sounds"]
LAYOUT = "ROOT/CLASS/FILE or ROOT/GROUP/CLASS/FILE"
PARTS = {"train": (0,), "validation": (1,), "trainval": (0, 1), "test": (2,), "all": (0, 1, 2)}
"""Which of the three shares of a split each part holds: 60 %, 20 % and 20 %."""

_FORMAT = 1  # of the cached arrays: raise it when reading changes


@dataclass(frozen=True)
class Folder:
    """The examples of a folder, class by class, in natural order of their names.

    Args:
        files: one for each example.
        labels: the class of each: the name of its folder, or "GROUP/CLASS" where a class name is in several groups.
        groups: the group folder of each, or None where there are none.
        digests: SHA-256 of each file, in hexadecimal.
    """

    files: tuple[Path, ...]
    labels: tuple[str, ...]
    groups: tuple[str | None, ...]
    digests: tuple[str, ...]


def read_folder(root: Path | str, kind: Kind = "images") -> Folder:
    """The files of a folder laid out as ``ROOT/CLASS/FILE`` or ``ROOT/GROUP/CLASS/FILE``; nothing is decoded.

    Hidden files and usual clutter are passed over, and files of other endings with a warning that counts them. The same
    content twice in a class is counted once, with a warning that names both.

    Args:
        root: holds the class folders or the group folders.
        kind: "images" (PNG, JPEG, WEBP, ...) or "sounds" (wav, flac, ogg, ...): by the endings of the names.

    Raises:
        MissingData: no such folder (a ValueError and a FileNotFoundError).
        ValueError: another layout, a class without files, a single class, an empty file, the same content in two
            classes; the message names it.
    """
    root = Path(root)
    endings = _endings(kind)
    classes = _classes(root, kind, endings)
    names = [folder.name for _, folder in classes]
    full = len(set(names)) < len(names)
    files, labels, groups, digests = [], [], [], []
    seen: dict[str, tuple[Path, str]] = {}
    repeated: list[tuple[Path, Path]] = []
    for group, folder in classes:
        label = f"{group}/{folder.name}" if full else folder.name
        for path in _required(folder, kind, endings):
            digest = _digest(path)
            first, owner = seen.setdefault(digest, (path, label))
            if owner != label:
                raise ValueError(
                    f"{first} and {path} have the same content, and are of two classes; required is one class for each "
                    "example: remove one of them"
                )
            if first != path:
                repeated.append((first, path))
                continue
            for values, value in zip((files, labels, groups, digests), (path, label, group, digest), strict=True):
                values.append(value)
    if len(classes) < 2:
        raise ValueError(
            f"{root} has the single class {labels[0]!r}; required are at least two to tell apart: add a folder for "
            "another class"
        )
    _warn_of_others(root, [folder for _, folder in classes], kind, endings)
    if repeated:
        warnings.warn(
            f"{len(repeated)} of {len(files) + len(repeated)} files in {root} have the content of another one of their "
            f"class and are counted once, the first: {repeated[0][0]} and {repeated[0][1]}",
            stacklevel=2,
        )
    return Folder(tuple(files), tuple(labels), tuple(groups), tuple(digests))


def folder_kind(root: Path | str) -> Kind:
    """Whether the class folders hold images or sounds.

    Raises:
        MissingData: no such folder.
        ValueError: neither, or both.
    """
    root = Path(root)
    _require_folder(root)
    images, recordings = (_first(root, _endings(kind)) for kind in ("images", "sounds"))
    if (images is None) == (recordings is None):
        both = "holds neither" if images is None else f"holds both images ({images}) and sounds ({recordings})"
        raise ValueError(
            f"{root} {both}; required are folders of images or of sounds, laid out as {LAYOUT}, with the endings "
            f"{_list(_endings('images') | _endings('sounds'))}"
        )
    return "sounds" if images is None else "images"


def load(root: Path | str, *, size: int = 28, channels: int = 1) -> ClassData:
    """Every file of a folder as an array, as the readers of images and sounds read them.

    Args:
        root: see ``read_folder``.
        size: side of images in pixels.
        channels: of images, 1 (grey, bright ink on a dark ground) or 3 (colour).

    Returns:
        x (n, channels, size, size) uint8 of images, or (n, 1, 40, 40) float32 of sounds; a class without a group has
        the group "".

    Raises:
        ValueError: what ``read_folder`` refuses, a file that cannot be read, sounds of another size than usual.
    """
    kind = folder_kind(root)
    if kind == "sounds" and (size, channels) != (28, 1):
        raise ValueError(
            f"image size {size} and {channels} channels were given, and {root} holds sounds, which become log-mel "
            "images of 40 by 40: leave both out"
        )
    if channels not in (1, 3) or size < 1:
        raise ValueError(
            f"image size {size} and {channels} channels; required are a side of 1 pixel or more, and 1 channel (grey) "
            "or 3 (colour)"
        )
    folder = read_folder(root, kind)
    key = hashlib.sha256(f"{_FORMAT} {kind} {size} {channels}".encode())
    for label, digest in zip(folder.labels, folder.digests, strict=True):
        key.update(f"{label}\0{digest}\n".encode())
    return cached("folder", key.hexdigest(), lambda: _arrays(folder, kind, size, channels))


def split(data: ClassData, by: str, part: str, *, way: int = 2) -> ClassData:
    """One part of what ``load`` returned: classes or groups dealt 60/20/20 % to train, validation and test.

    They are dealt in the order of a checksum of their names, so the same names give the same parts on any machine.

    Args:
        data: from ``load``.
        by: "classes" or "groups".
        part: "train", "validation", "trainval" (both), "test" or "all" (everything, whatever the split).
        way: how many classes each of train, validation and test must have at least.

    Raises:
        ValueError: an unknown split or part, no groups, fewer classes than ``way`` in one of the parts.
    """
    if by not in ("classes", "groups"):
        raise ValueError(f"split {by!r} of a folder is not known: choose classes or groups")
    if part not in PARTS:
        raise ValueError(f"part {part!r} of a folder is not known: choose one of {', '.join(PARTS)}")
    if part == "all":
        return data
    keys = data.classes if by == "classes" else data.groups
    distinct = sorted(set(keys), key=lambda key: hashlib.sha256(key.encode()).digest())
    if by == "groups" and len(distinct) < 3:
        what = "has no groups" if distinct == [""] else f"has {len(distinct)} groups"
        raise ValueError(
            f"the folder {what}; required for a split by groups are 3 or more: lay it out as ROOT/GROUP/CLASS/FILE, or "
            "split by classes"
        )
    fifth = max(1, round(len(distinct) / 5))
    shares = distinct[: -2 * fifth], distinct[-2 * fifth : -fifth], distinct[-fifth:]
    owners = [[name for name, key in zip(data.classes, keys, strict=True) if key in share] for share in shares]
    counts = [len(names) for names in owners]
    if min(counts) < way:
        raise ValueError(
            f"the {len(data.classes)} classes give {counts[0]} to train, {counts[1]} to validation and {counts[2]} to "
            f"test; required are at least {way} each, as many as a task has classes: lower the way, or add classes"
        )
    chosen = {name for share in PARTS[part] for name in owners[share]}
    return data.select(name for name in data.classes if name in chosen)


def _endings(kind: Kind) -> Set[str]:
    if kind not in ("images", "sounds"):
        raise ValueError(f"kind={kind!r}; required is 'images' or 'sounds'")
    return suffixes() if kind == "images" else sounds.SUFFIXES


def _require_folder(root: Path) -> None:
    if not root.is_dir():
        raise MissingData(f"{root} is not a folder: give one laid out as {LAYOUT}")


def _classes(root: Path, kind: Kind, endings: Set[str]) -> list[tuple[str | None, Path]]:
    """(group or None, class folder) for each class."""
    _require_folder(root)
    loose, top = files_of(root, endings), subfolders(root)
    if loose:
        raise ValueError(
            f"{loose[0]} lies beside the class folders; required is a folder for each class, {LAYOUT}: move it into "
            "the folder of its class, or out of the way"
        )
    if not top:
        raise ValueError(f"{root} is empty; required are {kind} in a folder for each class: lay it out as {LAYOUT}")
    flat = [folder for folder in top if files_of(folder, endings)]
    deep = [folder for folder in top if subfolders(folder)]
    if flat and deep:
        raise ValueError(
            f"{flat[0]} holds {kind} and {deep[0]} holds folders; required is one layout for all, {LAYOUT}: move the "
            f"{kind} or the folders"
        )
    if not deep:
        return [(None, folder) for folder in top]
    for group in top:
        if not subfolders(group):
            raise ValueError(f"the group {group} has no class folder: add one, or remove the group")
    return [(group.name, folder) for group in top for folder in subfolders(group)]


def _required(folder: Path, kind: Kind, endings: Set[str]) -> list[Path]:
    files, inner = files_of(folder, endings), subfolders(folder)
    if files and not inner:
        return files
    others = passed_over(folder, endings)
    none = f"holds no {kind}" + (f", but {_counted(others)}" if others else "")
    what = f"holds the folder {inner[0].name!r}" if inner else none
    raise ValueError(
        f"the class folder {folder} {what}; required are {kind} alone, at least one of {_list(endings)}, laid out as "
        f"{LAYOUT}: move them there, or remove the folder"
    )


def _warn_of_others(root: Path, folders: list[Path], kind: Kind, endings: Set[str]) -> None:
    found = {folder: others for folder in folders if (others := passed_over(folder, endings))}
    if found:
        total = sum(found.values(), Counter[str]())
        warnings.warn(
            f"{_counted(total)} in {root} were passed over, the first in {next(iter(found))}; {kind} are read with the "
            f"endings {_list(endings)}: convert them if they are examples",
            stacklevel=3,
        )


def _counted(others: Counter[str]) -> str:
    """Such as: 3 files of .heic, 1 file of .pdf."""
    return ", ".join(
        f"{n} file{'s' * (n != 1)} {f'of {ending}' if ending else 'without an ending'}"
        for ending, n in sorted(others.items(), key=lambda item: (-item[1], item[0]))
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if file.tell() == 0:
            raise ValueError(f"{path} is empty (0 bytes); required is a whole file: replace it or remove it")
    return digest


def _first(root: Path, endings: Set[str]) -> Path | None:
    """Any file of these endings in the folders of one or two levels."""
    top = subfolders(root)
    folders = [root, *top, *(inner for folder in top for inner in subfolders(folder))]
    return next((files[0] for folder in folders if (files := files_of(folder, endings))), None)


def _arrays(folder: Folder, kind: Kind, size: int, channels: int) -> ClassData:
    classes = tuple(dict.fromkeys(folder.labels))
    index = {name: i for i, name in enumerate(classes)}
    owner = dict(zip(folder.labels, folder.groups, strict=True))
    if kind == "sounds":
        x = np.stack([sounds.sound_image(sounds.read_sound(path)) for path in folder.files])  # (n, 1, 40, 40)
    elif channels == 3:
        x = np.stack([read_colour_image(path, size=size) for path in folder.files])  # (n, 3, size, size)
    else:
        x = np.stack([read_image(path, size=size) for path in folder.files])[:, None]  # (n, 1, size, size)
    y = np.array([index[label] for label in folder.labels], dtype=np.int64)
    return ClassData(x, y, classes, tuple(owner[name] or "" for name in classes))


def _list(endings: Iterable[str]) -> str:
    return ", ".join(sorted(endings))
