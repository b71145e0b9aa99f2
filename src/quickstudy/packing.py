"""A learner with all that it needs to meet a person's data: how it reads them, how far it can be trusted, its card.

A packed learner is an ordinary learner file, which ``load`` takes, with these facts in its header.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from torch import nn

from quickstudy.learner import Learner
from quickstudy.learners import Ridge, SimpleShot
from quickstudy.opening import open_file, open_learner, shipped
from quickstudy.readers import ArrayReader, ImageReader, Reader, SoundReader, TableReader, TextReader, reader_from_dict
from quickstudy.runs import RunFolder, Settings
from quickstudy.saving import SavedFileError, save
from quickstudy.tasks.trials import innermost
from quickstudy.trust import Trust


@dataclass(frozen=True)
class Packed:
    """A learner that meets a person's data.

    Attributes:
        learner: adapts to what the reader reads.
        reader: from a person's files, arrays or tables to the learner's tensors.
        trust: what was found on meta-validation tasks about probabilities and unknown classes; None if nothing was.
        card: name, licence, data, recipe, ...: what a person who is handed the file should know.
    """

    learner: Learner
    reader: Reader
    trust: Trust | None = None
    card: Mapping[str, str] = field(default_factory=dict)


def _tables(regression: bool) -> Packed:
    return Packed(Ridge(regression=regression), TableReader(), card={"name": "tables"})


def _texts(regression: bool) -> Packed:
    return Packed(Ridge(scale="together", regression=regression), TextReader(), card={"name": "texts"})


def _sounds(regression: bool) -> Packed:
    if regression:
        return Packed(Ridge(regression=True), SoundReader(), card={"name": "sounds"})
    return Packed(SimpleShot(nn.Identity()), SoundReader(), card={"name": "sounds"})


WITHOUT_TRAINING = {"tables": _tables, "texts": _texts, "sounds": _sounds}
"""Learners by name that have no trained weights."""


def names() -> list[str]:
    """The names that ``open_packed`` knows."""
    return [*WITHOUT_TRAINING, *shipped()]


def open_packed(learner: Learner | Packed | str | Path, *, regression: bool = False) -> Packed:
    """The learner that a person names, with its reader, trust and card.

    Args:
        learner: a Learner, of which a copy is taken; a Packed one; a run folder or learner file; or one of ``names()``,
            which a text always means: write "./characters" for a folder or file of such a name.
        regression: it is to predict numbers, which changes the heads that have no trained weights.

    Raises:
        ValueError: nothing of that name, or a file that cannot be read.
    """
    if isinstance(learner, Packed):
        return learner
    if isinstance(learner, Learner):
        own = copy.deepcopy(learner).eval()
        return Packed(own, reader_for(own))
    if not isinstance(learner, str | Path):
        raise ValueError(f"learner={learner!r}; required is a Learner (an object, not its class), a path or a name")
    if learner in WITHOUT_TRAINING:
        return WITHOUT_TRAINING[str(learner)](regression)
    if learner not in (*shipped(), "nearest_neighbour") and not Path(learner).exists():
        raise ValueError(
            f"learner {str(learner)!r}; required is a Learner, a run folder, a learner file, or one of "
            f"{', '.join(names())}: train one with quickstudy train --out {learner}"
        )
    named = shipped().get(learner) if isinstance(learner, str) else None
    path = named or (None if learner == "nearest_neighbour" else Path(learner))
    if path is None or path.is_dir():
        opened = open_learner(learner)
        reader = reader_for(opened) if path is None else reader_of_run(RunFolder(path).settings(), opened)
        return Packed(opened, reader)
    found = path.stat()
    return _read(path.absolute(), found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=4)
def _read(path: Path, _changed: int, _size: int) -> Packed:
    """The packed learner of a file, shared by all who open it until the file changes: nothing writes to a learner."""
    opened, facts = open_file(path)
    try:
        reader = reader_from_dict(facts["reader"]) if "reader" in facts else reader_for(opened)
        trust = Trust.from_dict(facts["trust"]) if facts.get("trust") else None
    except (AttributeError, KeyError, TypeError) as error:
        raise SavedFileError(f"{path} does not describe a reader and its trust ({error!r}): pack it again") from error
    return Packed(opened, reader, trust, facts.get("card", {}))


def pack(packed: Packed, path: str | Path) -> None:
    """Write one learner file with reader, trust and card in it; ``open_packed`` and ``load`` take it."""
    facts = {
        "reader": packed.reader.as_dict(),
        "trust": None if packed.trust is None else packed.trust.as_dict(),
        "card": dict(packed.card),
    }
    save(packed.learner, path, facts=facts)


def reader_for(learner: Learner) -> Reader:
    """What the learner's network reads: images for a convolutional one, arrays as they are for any other."""
    channels = getattr(innermost(learner), "in_channels", None)
    size = next((part.image_size for part in learner.modules() if hasattr(part, "image_size")), 28)
    if isinstance(channels, int) and channels in (1, 3) and isinstance(size, int):
        return ImageReader(size=size, channels=channels)
    return ArrayReader()


def reader_of_run(settings: Settings, learner: Learner) -> Reader:
    """What the tasks of a run consist of: recordings, or as ``reader_for`` says."""
    if settings.tasks == "fsdd" or settings.kind == "sounds":
        return SoundReader()
    if settings.tasks == "folder":
        return ImageReader(size=settings.image_size, channels=settings.channels)
    return reader_for(learner)
