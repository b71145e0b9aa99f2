"""What the store gives and takes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Class:
    """A class of a task: its name, and how many examples it has."""

    name: str
    examples: int


@dataclass(frozen=True)
class Task:
    """A task; ``created`` is a time in UTC as ISO 8601 writes it, ``classes`` are in the order they were added."""

    id: str
    name: str
    created: str
    classes: tuple[Class, ...]


@dataclass(frozen=True)
class Stored:
    """An example that comes in: what the learner reads, as bytes, and the copy to be shown."""

    x: bytes
    png: bytes


@dataclass(frozen=True)
class Support:
    """The examples of a task in the order they were added, at one version of it."""

    version: int
    ids: tuple[str, ...]
    labels: tuple[str, ...]
    x: tuple[bytes, ...]
