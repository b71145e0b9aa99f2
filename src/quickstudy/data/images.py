"""Any image file as a small grey square: bright ink on a dark ground."""

import functools
import io
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
MAX_PIXELS = 80_000_000  # an 80 megapixel photo; more is taken for a decompression bomb
_ALPHA = {"RGBA", "LA", "PA", "La", "RGBa"}
# What Pillow raises on damaged files of these formats.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, OverflowError, struct.error, zlib.error)


@functools.cache
def suffixes() -> frozenset[str]:
    """The endings of files of the formats that are read, in lower case: ".png", ".jpg", ..."""
    return frozenset(ending for ending, kind in Image.registered_extensions().items() if kind in FORMATS)


def read_image(source: Path | bytes | BinaryIO, *, size: int = 28, name: str | None = None) -> np.ndarray:
    """Read one image as a grey square.

    The camera's rotation mark is applied, transparency is laid on white, and the picture is fitted into the square with
    an antialiased resize and padded with its own ground (the median of its border). Where that ground is bright, as
    with ink on paper, the result is inverted.

    Args:
        source: a file's path, its bytes, or an open binary file; of an animation the first frame is read.
        size: side of the result, in pixels.
        name: what an error calls the image; without it, the path or the open file's name.

    Returns:
        (size, size) uint8, ground near 0.

    Raises:
        ValueError: not an image, a damaged one, or one of more than ``MAX_PIXELS`` pixels; the message names it.
        OSError: the file cannot be opened at all.
    """
    if size < 1:
        raise ValueError(f"size is {size}, but must be at least 1 pixel: pass for example size=28")
    if name is None:
        name = str(source) if isinstance(source, Path) else str(getattr(source, "name", "the given image"))
    data = source if isinstance(source, bytes) else source.read_bytes() if isinstance(source, Path) else source.read()
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise _too_large(name)
            grey, ground = _fit(_grey(ImageOps.exif_transpose(image)), size)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(name) from error
    except _TooLarge:
        raise
    except _BROKEN as error:
        raise ValueError(
            f"{name} cannot be read as an image ({error}); a whole file of format {', '.join(FORMATS)} is required: "
            "replace it or leave it out"
        ) from error
    return 255 - grey if ground >= 128 else grey


class _TooLarge(ValueError):
    """Told apart from what the decoder raises."""


def _too_large(name: str) -> _TooLarge:
    return _TooLarge(
        f"{name} has more than the {MAX_PIXELS:,} pixels that are accepted: scale it down before it is read"
    )


def _grey(image: Image.Image) -> Image.Image:
    """Mode L, 0 black to 255 white."""
    if image.mode.startswith(("I", "F")):
        return _grey_from_numbers(np.asarray(image, dtype=np.float32))
    if image.mode in _ALPHA or "transparency" in image.info:
        ink = image.convert("RGBA")
        white = Image.new("RGBA", ink.size, "white")
        return Image.alpha_composite(white, ink).convert("L")
    if image.mode == "LAB":
        return image.getchannel(0)
    return image.convert("L")


def _grey_from_numbers(value: np.ndarray) -> Image.Image:
    """16 or 32 bit integers, or floats: the smallest usual range (1, 255, 65535) that holds them becomes 0..255."""
    if not np.isfinite(value).all():
        raise ValueError("it holds values that are not finite")
    low, high = float(value.min()), float(value.max())
    if low < 0 or high > 65535:
        value, high = value - low, high - low
    top = next((t for t in (1.0, 255.0, 65535.0) if high <= t), high)
    return Image.fromarray(np.rint(value * (255 / top)).astype(np.uint8))


def _fit(image: Image.Image, size: int) -> tuple[np.ndarray, float]:
    """The image in a (size, size) square padded with its ground, and the ground's grey level."""
    full = np.asarray(image)
    border = np.concatenate((full[0], full[-1], full[1:-1, 0], full[1:-1, -1]))
    ground = float(np.median(border))
    longer = max(image.size)
    width, height = (max(1, round(side * size / longer)) for side in image.size)
    small = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    if width == height:
        return small, ground
    square = np.full((size, size), round(ground), dtype=np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    square[top : top + height, left : left + width] = small
    return square, ground
