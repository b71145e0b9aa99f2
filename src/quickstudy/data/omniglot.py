"""Omniglot: 1,623 handwritten characters of 50 alphabets, each drawn once by 20 people.

Lake, Salakhutdinov, Tenenbaum, "Human-level concept learning through probabilistic program induction", Science 2015.
"""

import hashlib
import lzma
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from quickstudy.data.arrays import ClassData
from quickstudy.data.cache import cached
from quickstudy.data.images import read_image
from quickstudy.data.root import MissingData, data_root

DRAWERS = 20
SIZE = 28
ANGLES = (0, 90, 180, 270)  # degrees, counterclockwise
_FORMAT = 1  # of the cached arrays: raise it when reading changes

BACKGROUND: Mapping[str, int] = {  # alphabet: its number of characters; 964 together
    "Alphabet_of_the_Magi": 20,
    "Anglo-Saxon_Futhorc": 29,
    "Arcadian": 26,
    "Armenian": 41,
    "Asomtavruli_(Georgian)": 40,
    "Balinese": 24,
    "Bengali": 46,
    "Blackfoot_(Canadian_Aboriginal_Syllabics)": 14,
    "Braille": 26,
    "Burmese_(Myanmar)": 34,
    "Cyrillic": 33,
    "Early_Aramaic": 22,
    "Futurama": 26,
    "Grantha": 43,
    "Greek": 24,
    "Gujarati": 48,
    "Hebrew": 22,
    "Inuktitut_(Canadian_Aboriginal_Syllabics)": 16,
    "Japanese_(hiragana)": 52,
    "Japanese_(katakana)": 47,
    "Korean": 40,
    "Latin": 26,
    "Malay_(Jawi_-_Arabic)": 40,
    "Mkhedruli_(Georgian)": 41,
    "N_Ko": 33,
    "Ojibwe_(Canadian_Aboriginal_Syllabics)": 14,
    "Sanskrit": 42,
    "Syriac_(Estrangelo)": 23,
    "Tagalog": 17,
    "Tifinagh": 55,
}
EVALUATION: Mapping[str, int] = {  # 659 together
    "Angelic": 20,
    "Atemayar_Qelisayer": 26,
    "Atlantean": 26,
    "Aurek-Besh": 26,
    "Avesta": 26,
    "Ge_ez": 26,
    "Glagolitic": 45,
    "Gurmukhi": 45,
    "Kannada": 41,
    "Keble": 26,
    "Malayalam": 47,
    "Manipuri": 40,
    "Mongolian": 30,
    "Old_Church_Slavonic_(Cyrillic)": 45,
    "Oriya": 46,
    "Sylheti": 28,
    "Syriac_(Serto)": 23,
    "Tengwar": 25,
    "Tibetan": 42,
    "ULOG": 26,
}
VALIDATION = ("Armenian", "Bengali", "Early_Aramaic", "Hebrew", "Mkhedruli_(Georgian)")
"""Background alphabets (172 characters) that the official split holds out for validation: those that the Vinyals
lists validate on, so that a model selected under one split has not trained on the validation classes of the other."""

VINYALS = {"train": "train.txt", "validation": "val.txt", "trainval": "trainval.txt", "test": "test.txt"}
OFFICIAL = ("train", "validation", "test", "background")

_MEMBER = re.compile(r"(?:^|/)([^/]+)/(character\d+)/\d+_(\d+)\.png$")
# What zipfile raises on damaged archives; undecodable names are a ValueError.
_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, RuntimeError, ValueError)
_Images = dict[tuple[str, int], tuple[str, bytes]]  # (class, drawer): (what an error calls the file, its bytes)


def load(root: Path | None = None, *, rotations: bool = False) -> ClassData:
    """All 1,623 characters × 20 drawers at 28×28, from the archives or the folders unpacked from them.

    Args:
        root: the folder with ``images_background.zip`` and ``images_evaluation.zip`` (or these unpacked), or the one
            above it; without it, ``omniglot`` in `data_root`.
        rotations: every character turned by 0, 90, 180 and 270 degrees counterclockwise, each turn a class of its own.

    Returns:
        x (32460, 1, 28, 28) uint8, ink near 255; classes ``ALPHABET/characterNN``, with rotations
        ``ALPHABET/characterNN/rot090`` and x (129840, 1, 28, 28); the group of a class is its alphabet, also when
        rotated. Examples of a class are in the order of the drawers, 1 to 20.

    Raises:
        MissingData: an archive is not there (a ValueError and a FileNotFoundError).
        ValueError: a damaged or incomplete archive, a damaged image; the message names it.
    """
    background, evaluation = _find("images_background", root), _find("images_evaluation", root)
    key = hashlib.sha256(f"{_FORMAT} {SIZE}".encode())
    for source in (background, evaluation):
        key.update(_digest(source))

    def build() -> ClassData:
        return _arrays({**_read(background, BACKGROUND), **_read(evaluation, EVALUATION)})

    data = cached("omniglot", key.hexdigest(), build)
    return _rotated(data) if rotations else data


def split(
    data: ClassData,
    name: Literal["official", "vinyals"],
    part: Literal["train", "validation", "trainval", "test", "background"],
    *,
    root: Path | None = None,
) -> ClassData:
    """One part of a standard split of what `load` returned.

    "official": whole alphabets. "test" is the 20 evaluation alphabets, "background" the 30 others, "validation" the
    five of these in `VALIDATION`, "train" the other 25. A part keeps the alphabets that the data hold.

    "vinyals": the class lists of "Matching Networks" (NeurIPS 2016) as published with "Prototypical Networks", in
    ``vinyals/*.txt`` beside the archives: 1028/172/423 characters × 4 rotations for "train", "validation" and "test",
    and "trainval" for the first two. Data without rotations get the characters themselves. One alphabet (Gurmukhi) has
    characters in both "train" and "test".

    Args:
        data: from `load`, with or without rotations.
        root: as in `load`; only "vinyals" reads it.

    Returns:
        The selected classes with all their examples, uint8 as given.

    Raises:
        ValueError: an unknown split or part; data that lack a listed class, or all of them.
        MissingData: the Vinyals lists are not there.
    """
    choices = {"official": OFFICIAL, "vinyals": tuple(VINYALS)}
    if name not in choices:
        raise ValueError(f"split {name!r} is unknown: choose one of {', '.join(choices)}")
    if part not in choices[name]:
        raise ValueError(f"split {name!r} has no part {part!r}: choose one of {', '.join(choices[name])}")
    if name == "vinyals":
        rotated = any(c.rpartition("/")[2].startswith("rot") for c in data.classes)
        return data.select(_listed(part, root, rotated=rotated))
    alphabets = {
        "train": set(BACKGROUND).difference(VALIDATION),
        "validation": set(VALIDATION),
        "test": set(EVALUATION),
        "background": set(BACKGROUND),
    }[part]
    chosen = [c for c, group in zip(data.classes, data.groups, strict=True) if group in alphabets]
    if not chosen:
        raise ValueError(
            f"none of the {len(data.classes)} classes given is of the official part {part!r}, which holds the "
            f"alphabets {', '.join(sorted(alphabets))}: pass the data as load() returns them"
        )
    return data.select(chosen)


def _folders(root: Path | None) -> tuple[Path, Path]:
    base = data_root() / "omniglot" if root is None else Path(root)
    return (base, base.parent if root is None else base / "omniglot")


def _find(name: str, root: Path | None) -> Path:
    """The archive ``name.zip`` or else the folder ``name``."""
    tried = [path for folder in _folders(root) for path in (folder / f"{name}.zip", folder / name)]
    for path in tried:
        if path.is_file() or (path.is_dir() and path.suffix != ".zip"):
            return path
    raise MissingData(
        f"Omniglot's {name} was not found; looked for {', '.join(map(str, tried))}: "
        "run `quickstudy data omniglot --download`, or set QUICKSTUDY_DATA to the folder that holds omniglot/"
    )


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.png") if _MEMBER.search(path.as_posix()))


def _digest(source: Path) -> bytes:
    """Of an archive its bytes; of a folder its images' names, sizes and bytes."""
    if source.is_file():
        with source.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    digest = hashlib.sha256()
    for path in _files(source):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(source).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.digest()


def _members(source: Path) -> Iterator[tuple[str, bytes]]:
    """(name within the source, content) of every image file."""
    if source.is_dir():
        for path in _files(source):
            yield path.relative_to(source.parent).as_posix(), path.read_bytes()
        return
    member = None
    try:
        with zipfile.ZipFile(source) as archive:
            for member in archive.namelist():
                if _MEMBER.search(member):
                    yield member, archive.read(member)
    except _DAMAGED as error:
        raise ValueError(
            f"the archive {source} is damaged{f' at {member}' if member else ''} ({error}): "
            "delete it and run `quickstudy data omniglot --download`"
        ) from error


def _read(source: Path, alphabets: Mapping[str, int]) -> _Images:
    """Every image of these alphabets; complete, or an error."""
    images: _Images = {}
    for member, content in _members(source):
        parts = _MEMBER.search(member)
        assert parts is not None
        alphabet, character, drawer = parts.groups()
        images[f"{alphabet}/{character}", int(drawer)] = (f"{member} in {source}", content)
    expected = {
        (f"{alphabet}/character{i:02d}", drawer)
        for alphabet, count in alphabets.items()
        for i in range(1, count + 1)
        for drawer in range(1, DRAWERS + 1)
    }
    wrong = sorted(expected.symmetric_difference(images))
    if wrong:
        (character, drawer), state = wrong[0], "missing" if wrong[0] in expected else "not part of it"
        raise ValueError(
            f"{source} is not the complete {source.stem} of Omniglot: of {len(expected)} images {len(images)} were "
            f"found, and {character} by drawer {drawer:02d} is {state}: unpack it again, or delete it and run "
            "`quickstudy data omniglot --download`"
        )
    return images


def _arrays(images: _Images) -> ClassData:
    classes = tuple(sorted({character for character, _ in images}))
    x = np.empty((len(images), 1, SIZE, SIZE), dtype=np.uint8)
    for i, place in enumerate(sorted(images)):  # by class, then by drawer
        name, content = images[place]
        x[i, 0] = read_image(content, size=SIZE, name=name)
    return ClassData(
        x=x,
        y=np.repeat(np.arange(len(classes), dtype=np.int64), DRAWERS),
        classes=classes,
        groups=_alphabets(classes),
    )


def _rotated(data: ClassData) -> ClassData:
    """Four classes of each, next to one another; examples stay in the order of the drawers."""
    n, way = len(data.x), len(data.classes)
    x = data.x.reshape(way, DRAWERS, 1, SIZE, SIZE)
    turned = np.stack([np.rot90(x, angle // 90, axes=(-2, -1)) for angle in ANGLES], axis=1)  # (way, 4, 20, 1, 28, 28)
    classes = tuple(f"{name}/rot{angle:03d}" for name in data.classes for angle in ANGLES)
    return ClassData(
        x=turned.reshape(n * len(ANGLES), 1, SIZE, SIZE),
        y=np.repeat(np.arange(len(classes), dtype=np.int64), DRAWERS),
        classes=classes,
        groups=_alphabets(classes),
    )


def _alphabets(classes: Iterable[str]) -> tuple[str, ...]:
    return tuple(name.partition("/")[0] for name in classes)


def _listed(part: str, root: Path | None, *, rotated: bool) -> list[str]:
    """The class names of one Vinyals list."""
    tried = [folder / "vinyals" / VINYALS[part] for folder in _folders(root)]
    path = next((path for path in tried if path.is_file()), None)
    if path is None:
        raise MissingData(
            f"the Vinyals list {VINYALS[part]} was not found; looked for {', '.join(map(str, tried))}: "
            "run `quickstudy data omniglot --download`"
        )
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return lines if rotated else [line.removesuffix("/rot000") for line in lines if line.endswith("/rot000")]
