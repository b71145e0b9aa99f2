"""From what a person has to what a learner reads."""

from collections.abc import Mapping
from typing import Any

from quickstudy.readers.arrays import ArrayReader
from quickstudy.readers.examples import is_dataframe
from quickstudy.readers.images import ImageReader
from quickstudy.readers.reader import Reader
from quickstudy.readers.sounds import SoundReader
from quickstudy.readers.tables import TableReader
from quickstudy.readers.texts import TextReader

__all__ = [
    "READERS",
    "ArrayReader",
    "ImageReader",
    "Reader",
    "SoundReader",
    "TableReader",
    "TextReader",
    "is_dataframe",
    "reader_from_dict",
]

READERS: dict[str, type[Reader]] = {
    "images": ImageReader,
    "tables": TableReader,
    "texts": TextReader,
    "sounds": SoundReader,
    "arrays": ArrayReader,
}
"""Every reader by its kind."""


def reader_from_dict(values: Mapping[str, Any]) -> Reader:
    """The reader that ``as_dict`` described.

    Raises:
        ValueError: an unknown kind, values that are none of the reader's, or that it refuses.
    """
    kind = values.get("kind")
    if not isinstance(kind, str) or kind not in READERS:
        raise ValueError(f"a reader of kind {kind!r} is not known; required is one of {', '.join(READERS)}")
    try:
        return READERS[kind](**{name: value for name, value in values.items() if name != "kind"})
    except TypeError as error:
        raise ValueError(
            f"the values {sorted(set(values) - {'kind'})} are not those of a reader of {kind} ({error}): it was "
            "written by another version, or changed"
        ) from error
