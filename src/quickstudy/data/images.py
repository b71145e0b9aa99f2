"""Any image as a small square: grey, with bright ink on a dark ground, or in colour."""

import contextlib
import functools
import io
import struct
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from PIL import Image, ImageOps

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
MAX_PIXELS = 80_000_000  # an 80 megapixel photo; more is taken for a decompression bomb
Source = Path | bytes | BinaryIO | Image.Image
Converted = TypeVar("Converted")
_FAINT = 16  # of 255 grey levels: less is no picture
_ALPHA = {"RGBA", "LA", "PA", "La", "RGBa"}
# What Pillow raises on damaged files of these formats.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, OverflowError, struct.error, zlib.error)


@functools.cache
def suffixes() -> frozenset[str]:
    """The endings of files of the formats that are read, in lower case: ".png", ".jpg", ..."""
    return frozenset(ending for ending, kind in Image.registered_extensions().items() if kind in FORMATS)


def read_image(source: Source, *, size: int = 28, name: str | None = None, max_pixels: int | None = None) -> np.ndarray:
    """Read one image as a grey square.

    The camera's rotation mark is applied, transparency is laid on white (on black where white shows nothing), and the
    picture is fitted into the square with an antialiased resize and padded with its own ground (the median of its
    border). Where that ground is bright, as with ink on paper, the result is inverted.

    Args:
        source: a file's path, its bytes, an open binary file, or an image that Pillow holds; of an animation the first
            frame is read.
        size: side of the result, in pixels.
        name: what an error calls the image; without it, the path or the open file's name.
        max_pixels: an image of more is refused before it is decoded; by default ``MAX_PIXELS``.

    Returns:
        (size, size) uint8, ground near 0.

    Raises:
        ValueError: not an image, a damaged one, or one of too many pixels; the message names it.
        OSError: the file cannot be opened at all.
    """
    grey, ground = _decoded(source, name, max_pixels, size, lambda image: _fit(_grey(image), size))
    return 255 - grey if ground >= 128 else grey


def read_colour_image(
    source: Source, *, size: int = 28, name: str | None = None, max_pixels: int | None = None
) -> np.ndarray:
    """Read one image in colour: the largest square in its middle, resized; nothing is inverted.

    Rotation marks and transparency are treated as in ``read_image``, whose arguments and errors these are.

    Returns:
        (3, size, size) uint8: red, green, blue.
    """
    return _decoded(source, name, max_pixels, size, lambda image: _middle(_colour(image), size))


def _decoded(
    source: Source, name: str | None, max_pixels: int | None, size: int, convert: Callable[[Image.Image], Converted]
) -> Converted:
    """What ``convert`` makes of the image, upright; every way in which it can be damaged is one kind of error."""
    if size < 1:
        raise ValueError(f"size is {size}, but must be at least 1 pixel: pass for example size=28")
    if name is None:
        name = str(source) if isinstance(source, Path) else str(getattr(source, "name", "the given image"))
    most = MAX_PIXELS if max_pixels is None else max_pixels
    image = source if isinstance(source, bytes | Image.Image) else _content(source)
    try:
        with _opened(image) as opened:
            if opened.width * opened.height > most:
                raise _too_large(name, most)
            return convert(ImageOps.exif_transpose(opened))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(name, most) from error
    except _TooLarge:
        raise
    except _BROKEN as error:
        raise ValueError(
            f"{name} cannot be read as an image ({error}); a whole file of format {', '.join(FORMATS)} is required: "
            "replace it or leave it out"
        ) from error


def _content(source: Path | BinaryIO) -> bytes:
    return source.read_bytes() if isinstance(source, Path) else source.read()


def _opened(image: Image.Image | bytes) -> AbstractContextManager[Image.Image]:
    """What is opened here is closed again; the caller's own image stays open."""
    if isinstance(image, Image.Image):
        return contextlib.nullcontext(image)
    if not image:
        raise ValueError("the file is empty: 0 bytes")
    return Image.open(io.BytesIO(image), formats=FORMATS)


class _TooLarge(ValueError):
    """Told apart from what the decoder raises."""


def _too_large(name: str, most: int) -> _TooLarge:
    return _TooLarge(f"{name} has more than the {most:,} pixels that are accepted: scale it down before it is read")


def _grey(image: Image.Image) -> Image.Image:
    """Mode L, 0 black to 255 white."""
    if image.mode.startswith(("I", "F")):
        return _grey_from_numbers(np.asarray(image, dtype=np.float32))
    if image.mode == "LAB":
        return image.getchannel(0)
    return _opaque(image).convert("L")


def _colour(image: Image.Image) -> Image.Image:
    """Mode RGB; of numbers and of the mode LAB the lightness alone."""
    if image.mode == "LAB" or image.mode.startswith(("I", "F")):
        return _grey(image).convert("RGB")
    return _opaque(image).convert("RGB")


def _opaque(image: Image.Image) -> Image.Image:
    """Transparency laid on white, or on black where the picture is seen on that alone; an image without any as it is.

    So is white ink without a ground.
    """
    if image.mode not in _ALPHA and "transparency" not in image.info:
        return image
    ink = image.convert("RGBA")
    on_white, on_black = (
        Image.alpha_composite(Image.new("RGBA", ink.size, ground), ink) for ground in ("white", "black")
    )
    unseen = _contrast(on_white) < _FAINT
    return on_black if unseen and _contrast(on_black) >= _FAINT else on_white


def _contrast(image: Image.Image) -> float:
    """From the darkest to the brightest pixel, of 255."""
    return float(np.ptp(np.asarray(image.convert("L"))))


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


def _middle(image: Image.Image, size: int) -> np.ndarray:
    """The largest square in the middle, as (3, size, size)."""
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    small = image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
    return np.ascontiguousarray(np.asarray(small).transpose(2, 0, 1))  # (size, size, 3) -> (3, size, size)
