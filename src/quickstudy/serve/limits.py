"""What one request, one task and the whole server may hold."""

import dataclasses
import unicodedata
from dataclasses import dataclass

from quickstudy.serve.refusal import Refusal


@dataclass(frozen=True)
class Limits:
    """Everything a client could make too large.

    Attributes:
        body_bytes: of one request.
        pixels: width times height of one image; looked up in its header, before anything is decoded.
        files: images of one request.
        tasks: on this server.
        classes: of one task, with or without examples.
        examples_per_class, examples_per_task: stored images.
        name_length: characters of the name of a task or class.
        at_once: requests that are being received or answered.
        body_seconds: how long a client may take to send a request.

    Raises:
        ValueError: a limit that is not above 0.
    """

    body_bytes: int = 5_000_000
    pixels: int = 4_000_000
    files: int = 64
    tasks: int = 100
    classes: int = 200
    examples_per_class: int = 50
    examples_per_task: int = 2000
    name_length: int = 80
    at_once: int = 64
    body_seconds: float = 30.0

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not value > 0:
                raise ValueError(f"{name}={value}; required is a number above 0: leave it out for the default")


def checked_name(given: str, what: str, limits: Limits) -> str:
    """The name in its composed form, without spaces around it.

    Args:
        given: as it was sent.
        what: "a task" or "a class", for the message.

    Raises:
        Refusal: 422, empty, too long, not printable, or "." or "..", which no address can hold.
    """
    name = as_stored(given)
    if not name or len(name) > limits.name_length or not name.isprintable():
        raise Refusal(
            422,
            f"{shortened(given)} was given as the name of {what}; required are 1 to {limits.name_length} printable "
            "characters: choose another name",
        )
    if name in (".", ".."):
        raise Refusal(422, f"{name!r} was given as the name of {what}; no address can hold it: choose another name")
    return name


def as_stored(name: str) -> str:
    """A name in the form in which names are stored and compared: composed, without spaces around it."""
    return unicodedata.normalize("NFC", name).strip()


def shortened(text: str, most: int = 60) -> str:
    """``text`` as Python writes it, cut after ``most`` characters."""
    return repr(text) if len(text) <= most else f"{text[:most]!r}... ({len(text)} characters)"
