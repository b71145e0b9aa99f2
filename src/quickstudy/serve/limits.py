"""What one request, one task and the whole server may hold."""

import dataclasses
import re
import unicodedata
from dataclasses import dataclass

from quickstudy.serve.refusal import Refusal

# the joiners of Persian words and of emoji, each between two other characters
_JOINED = re.compile("(?<=[^\u200c\u200d])[\u200c\u200d](?=[^\u200c\u200d])")
# printable to Python, and nothing is to be seen: fillers, the empty braille cell, selectors of variants
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | {
    chr(code)
    for first, last in ((0x180B, 0x180F), (0xFE00, 0xFE0F), (0xE0100, 0xE01EF))
    for code in range(first, last + 1)
}


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
        at_once: requests that are being received or answered; a quarter of it beside them for the page and /health,
            and as many that are being refused.
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
    body_seconds: float = 15.0

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
        Refusal: 422, empty, too long, invisible, with a character that is not printable, or "." or "..", which no
            address can hold.
    """
    name = as_stored(given)
    plain = _JOINED.sub("", name)
    hidden = next((letter for letter in plain if not letter.isprintable()), None)
    if not name or len(name) > limits.name_length:
        problem = f"which has {len(name)} characters" if name else "which is empty"
    elif hidden is not None:
        problem = f"which holds {_described(hidden)}"
    elif all(letter == " " or letter in _BLANK for letter in plain):
        problem = f"of which nothing is to be seen, as of {_described(plain[0])}"
    else:
        problem = ""
    if problem:
        raise Refusal(
            422,
            f"{shortened(given)} was given as the name of {what}, {problem}; required are 1 to {limits.name_length} "
            "printable characters: choose another name",
        )
    if name in (".", ".."):
        raise Refusal(422, f"{name!r} was given as the name of {what}; no address can hold it: choose another name")
    return name


def as_stored(name: str) -> str:
    """A name in the form in which names are stored and compared: composed, without spaces around it."""
    return unicodedata.normalize("NFC", name).strip()


def _described(letter: str) -> str:
    """A character that cannot be shown as it is: U+202E (RIGHT-TO-LEFT OVERRIDE)."""
    name = unicodedata.name(letter, "")
    return f"U+{ord(letter):04X}" + (f" ({name})" if name else "")


def shortened(text: str, most: int = 60) -> str:
    """``text`` as Python writes it, cut after ``most`` characters."""
    return repr(text) if len(text) <= most else f"{text[:most]!r}... ({len(text)} characters)"
