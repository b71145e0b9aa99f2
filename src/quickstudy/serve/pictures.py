"""Uploaded images, judged by their first bytes and their header before anything decodes them."""

import io
import re
import struct
import zlib
from typing import Literal

from PIL import Image, ImageOps, UnidentifiedImageError

from quickstudy.serve.limits import Limits
from quickstudy.serve.refusal import Refusal

Format = Literal["PNG", "JPEG", "GIF", "BMP", "WEBP"]
KEPT_SIDE = 96  # pixels of the longer side of the copy that is kept to be shown
MOST_SCANS = 64  # of a JPEG; a progressive one has ten or so, and each is a pass over all its pixels
_SHARPNESS = 4  # times the pixels of a side that are needed are decoded at least
_MARKER = re.compile(rb"\xff([^\x00\xff])")
# what Pillow raises on damaged files of these formats
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, OverflowError, struct.error, zlib.error)


def format_of(data: bytes) -> Format | None:
    """The format by the first bytes; None for anything else."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith(b"BM"):
        return "BMP"
    return None


def decoded(data: bytes, which: str, limits: Limits, *, side: int) -> Image.Image:
    """The image with its pixels; of a large JPEG only as many as a square of ``side``, and the kept copy, need.

    Args:
        data: the file.
        which: what the message calls it, such as "file 2 of 3".
        limits: of pixels.
        side: of the square that a reader makes of it, in pixels.

    Raises:
        Refusal: as ``check_image``.
    """
    image = check_image(data, which, limits)
    try:
        least = _SHARPNESS * max(side, KEPT_SIDE)
        image.draft(None, (least, least))
        image.load()
    except _BROKEN as error:
        raise _damaged(which, error) from error
    return image


def kept_copy(image: Image.Image, which: str) -> bytes:
    """A small PNG of an image, upright and without anything but its pixels: no camera, no place, no comment.

    Raises:
        Refusal: 422, damaged.
    """
    try:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):  # sixteen bits
            image = image.convert("I").point(lambda value: value / 257).convert("L")
        alpha = "A" in image.getbands() or "transparency" in image.info
        image = image.convert("RGBA" if alpha else "L" if image.mode in ("1", "L") else "RGB")
        image.thumbnail((KEPT_SIDE, KEPT_SIDE))
        clean = Image.new(image.mode, image.size)
        clean.paste(image)
        target = io.BytesIO()
        clean.save(target, "PNG", optimize=True)
    except _BROKEN as error:
        raise _damaged(which, error) from error
    return target.getvalue()


def check_image(data: bytes, which: str, limits: Limits) -> Image.Image:
    """The image, opened and not yet decoded.

    Raises:
        Refusal: 415, no image of an accepted format; 413, too many pixels; 422, damaged, or a JPEG of so many scans
            that it would take long to decode.
    """
    kind = format_of(data)
    if kind is None:
        what = f"begins with {data[:8]!r}" if data else "is empty"
        raise Refusal(415, f"{which} {what}; required is a PNG, JPEG, GIF, BMP or WEBP image: send one of these")
    if kind == "JPEG" and _scans(data) > MOST_SCANS:
        raise Refusal(
            422,
            f"{which} is a JPEG of more than {MOST_SCANS} scans, which takes long to decode; required are at most "
            f"{MOST_SCANS}: save it anew as a plain JPEG or PNG",
        )
    width, height = _webp_size(data) if kind == "WEBP" else (0, 0)  # its decoder takes memory as soon as it is opened
    try:
        if width * height <= limits.pixels:
            image = Image.open(io.BytesIO(data), formats=[kind])
            width, height = image.size
            if width * height <= limits.pixels:
                return image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(which, "more than 80 million pixels", limits) from error
    except _BROKEN as error:
        raise _damaged(which, error) from error
    raise _too_large(which, f"{width} × {height} pixels", limits)


def _scans(data: bytes) -> int:
    """How many scans a JPEG has, found by its markers and without decoding; of one with too many, one too many."""
    scans, at = 0, 2
    while scans <= MOST_SCANS and (found := _MARKER.search(data, at)):
        code, at = found[1][0], found.end()
        if code == 0xD9:  # the end
            break
        scans += code == 0xDA
        if code >= 0xC0 and code not in range(0xD0, 0xD9):  # the others have no content
            at += int.from_bytes(data[at : at + 2])
    return scans


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height in the header; (0, 0) where it is cut, which the decoder will refuse."""
    kind, body = data[12:16], data[20:30]
    if len(body) < 10:
        return 0, 0
    if kind == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF


def _too_large(which: str, size: str, limits: Limits) -> Refusal:
    return Refusal(
        413, f"{which} has {size}; required are at most {limits.pixels:,}: scale the image down before it is sent"
    )


def _damaged(which: str, error: Exception) -> Refusal:
    unidentified = isinstance(error, UnidentifiedImageError)  # whose message names an object in memory
    reason = "what follows its first bytes is of no such format" if unidentified else error
    return Refusal(422, f"{which} cannot be read as an image ({reason}); required is a whole file: send it again")
