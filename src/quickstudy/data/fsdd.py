"""Free Spoken Digit Dataset: ten English digits, each said 50 times by each of six speakers, 8,000 samples per second.

Zohar Jackson et al., github.com/Jakobovski/free-spoken-digit-dataset, CC BY-SA 4.0.
"""

import hashlib
import io
import lzma
import math
import re
import struct
import wave
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from quickstudy.data.arrays import ClassData
from quickstudy.data.cache import cached
from quickstudy.data.log_mel import log_mel
from quickstudy.data.root import MissingData, data_root

RATE = 8000  # samples per second
BANDS = FRAMES = 40
FRAME, HOP = 256, 160  # samples: 32 ms, every 20 ms
FLOOR = 1e-4  # power that counts as silence, for a root mean square of 0.1
TAKES = 50  # recordings of a digit by a speaker
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
PARTS = {
    "train": ("george", "jackson"),
    "validation": ("lucas", "nicolas"),
    "trainval": ("george", "jackson", "lucas", "nicolas"),
    "test": ("theo", "yweweler"),
}
"""The speakers of each part, in alphabetical order; nobody is heard in two of train, validation and test."""

HELD_OUT = ("5", "6", "7", "8", "9")
"""The digits that the split "digits" keeps for meta-test; it trains and validates on the others."""

_FORMAT = 1  # of the cached arrays: raise it when reading changes
_MEMBER = re.compile(r"(?:^|/)(\d)_([a-z]+)_(\d+)\.wav$")
# What zipfile raises on damaged archives; undecodable names are a ValueError.
_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, RuntimeError, ValueError)


def load(root: Path | None = None) -> ClassData:
    """All 3,000 recordings as log-mel images of 40 bands × 40 frames, from the archive or the folder unpacked from it.

    A recording is scaled to a root mean square of 0.1, as its loudness says nothing of the digit, and cut into 40
    frames of 32 ms, 20 ms apart. Shorter ones are followed by silence, and what is longer than 0.81 s is cut off.

    Args:
        root: the folder with ``recordings.zip`` (or ``recordings``), or the one above it; without it, ``fsdd`` in
            `data_root`.

    Returns:
        x (3000, 1, 40, 40) float32, in units of 10 nats of power above silence, which is 0: the lowest band in row 0,
        the start in column 0; classes ``SPEAKER/DIGIT``, the group of a class is its speaker. Examples of a class are
        in the order of their numbers, 0 to 49.

    Raises:
        MissingData: the archive is not there (a ValueError and a FileNotFoundError).
        ValueError: a damaged or incomplete archive, a damaged recording; the message names it.
    """
    source = _find(root)
    key = hashlib.sha256(f"{_FORMAT} {BANDS} {FRAMES} {FRAME} {HOP} {FLOOR}".encode())
    key.update(_digest(source))
    return cached("fsdd", key.hexdigest(), lambda: _arrays(_read(source)))


def split(data: ClassData, name: str, part: str) -> ClassData:
    """One part of a split of what `load` returned; in all of them no speaker is in two parts.

    Args:
        data: from `load`.
        name: "speakers": all ten digits in each part, so meta-test has digits that meta-training has heard, from other
            people. "digits": meta-test has the five digits in `HELD_OUT`, and the other parts have the five others, so
            it has neither the speakers nor the words of meta-training.
        part: "train", "validation", "trainval" or "test", see `PARTS`.

    Returns:
        The selected classes with all their examples.

    Raises:
        ValueError: an unknown split or part; data that lack one of its classes.
    """
    if name not in ("speakers", "digits"):
        raise ValueError(f"split {name!r} of spoken digits is unknown: choose one of speakers, digits")
    if part not in PARTS:
        raise ValueError(f"split {name!r} has no part {part!r}: choose one of {', '.join(PARTS)}")
    digits = [str(d) for d in range(10) if name == "speakers" or (str(d) in HELD_OUT) is (part == "test")]
    return data.select(f"{speaker}/{digit}" for speaker in PARTS[part] for digit in digits)


def read_wav(content: bytes, *, name: str, rate: int = RATE) -> np.ndarray:
    """The samples of a wav file with one channel of 16-bit numbers: (n,) float32 in [−1, 1).

    Args:
        content: the bytes of the file.
        name: what an error calls it.
        rate: samples per second that it must have.

    Raises:
        ValueError: a damaged file, another format, or no samples.
    """
    try:
        with wave.open(io.BytesIO(content)) as file:
            form = file.getnchannels(), 8 * file.getsampwidth(), file.getframerate()
            count, samples = file.getnframes(), file.readframes(file.getnframes())
    except (wave.Error, EOFError, RuntimeError, struct.error) as error:
        raise ValueError(f"{name} is damaged or no wav file ({error}): replace it by a whole copy") from error
    if form != (1, 16, rate):
        raise ValueError(
            f"{name} has {form[0]} channels of {form[1]} bits at {form[2]} samples per second; required are 1 channel "
            f"of 16 bits at {rate}: convert it"
        )
    if count == 0 or len(samples) != 2 * count:
        raise ValueError(f"{name} is cut: {len(samples) // 2} of {count} samples are there: replace it by a whole copy")
    return np.frombuffer(samples, dtype="<i2").astype(np.float32) / 32768


def image_of(samples: np.ndarray, *, rate: int = RATE, frames: int = FRAMES) -> np.ndarray:
    """A recording (n,) as a log-mel image (40, frames) float32 in units of 10 nats above silence; see `load`.

    Args:
        samples: (n,) float32.
        rate: samples per second; frames are 32 ms long and 20 ms apart at any rate.
        frames: how many.
    """
    frame, hop = round(FRAME / RATE * rate), round(HOP / RATE * rate)
    x = torch.from_numpy(samples)
    x = 0.1 * x / x.square().mean().sqrt().clamp(min=1e-8)
    needed = frame + (frames - 1) * hop
    x = F.pad(x, (0, max(0, needed - len(x))))[:needed]
    found = log_mel(x, rate=rate, bands=BANDS, frame=frame, hop=hop, floor=FLOOR)
    return ((found - math.log(FLOOR)) / 10).numpy()


def _find(root: Path | None) -> Path:
    """The archive or else the folder."""
    base = data_root() / "fsdd" if root is None else Path(root)
    folders = (base, base.parent if root is None else base / "fsdd")
    tried = [path for folder in folders for path in (folder / "recordings.zip", folder / "recordings")]
    for path in tried:
        if path.is_file() or (path.is_dir() and path.suffix != ".zip"):
            return path
    raise MissingData(
        f"the spoken digits were not found; looked for {', '.join(map(str, tried))}: fetch "
        "github.com/Jakobovski/free-spoken-digit-dataset and put its folder recordings (or an archive of it) there, or "
        "set QUICKSTUDY_DATA to the folder that holds fsdd/"
    )


def _digest(source: Path) -> bytes:
    """Of an archive its bytes; of a folder its recordings' names, sizes and bytes."""
    if source.is_file():
        with source.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    digest = hashlib.sha256()
    for name, content in _members(source):
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.digest()


def _members(source: Path) -> Iterator[tuple[str, bytes]]:
    """(name within the source, content) of every recording."""
    if source.is_dir():
        for path in sorted(path for path in source.rglob("*.wav") if _MEMBER.search(path.as_posix())):
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
            f"the archive {source} is damaged{f' at {member}' if member else ''} ({error}): replace it by a whole copy"
        ) from error


def _read(source: Path) -> dict[tuple[str, int], tuple[str, bytes]]:
    """(class, number): (what an error calls the recording, its bytes); complete, or an error."""
    found = {}
    for member, content in _members(source):
        parts = _MEMBER.search(member)
        assert parts is not None
        digit, speaker, number = parts.groups()
        found[f"{speaker}/{digit}", int(number)] = (f"{member} in {source}", content)
    expected = {(f"{s}/{d}", i) for s in SPEAKERS for d in range(10) for i in range(TAKES)}
    wrong = sorted(expected.symmetric_difference(found))
    if wrong:
        (name, number), state = wrong[0], "missing" if wrong[0] in expected else "not part of it"
        speaker, _, digit = name.partition("/")
        raise ValueError(
            f"{source} is not the complete set of spoken digits: of {len(expected)} recordings {len(found)} were "
            f"found, and {digit}_{speaker}_{number}.wav is {state}: unpack it again, or fetch a whole copy"
        )
    return found


def _arrays(recordings: dict[tuple[str, int], tuple[str, bytes]]) -> ClassData:
    order = sorted(recordings)  # by class, then by number
    classes = tuple(dict.fromkeys(name for name, _ in order))
    images = [image_of(read_wav(content, name=name)) for name, content in map(recordings.__getitem__, order)]
    return ClassData(
        x=np.stack(images)[:, None],  # (n, 1, 40, 40)
        y=np.repeat(np.arange(len(classes), dtype=np.int64), TAKES),
        classes=classes,
        groups=tuple(name.partition("/")[0] for name in classes),
    )
