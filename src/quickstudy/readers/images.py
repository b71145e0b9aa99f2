"""Images in whatever form a person has them: paths, bytes, Pillow's images, arrays."""

import os
import warnings
from dataclasses import dataclass
from io import IOBase
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from quickstudy.readers.examples import as_items, is_dataframe, require_examples, shown
from quickstudy.readers.reader import Reader


@dataclass(frozen=True)
class ImageReader(Reader):
    """Small squares in [0, 1] from files, bytes, Pillow's images and arrays.

    Grey images are fitted into the square and have bright ink on a dark ground: one whose ground is bright is inverted
    (see ``read_image``). Colour images are the largest square in the middle, and are not inverted. All ways in are
    treated alike, but for arrays (n, channels, size, size), which a learner reads already and which stay as they are;
    grey ones with a bright ground are warned of.

    Args:
        size: side of the square in pixels.
        channels: 1 for grey, 3 for red, green and blue.
        max_pixels: an image of more is refused before it is decoded; None is the limit of `quickstudy.data.images`.

    Examples are a list of paths (text or ``Path``), bytes, open files, Pillow's images and arrays (h, w) or (h, w, 1, 3
    or 4), in any mixture; or one array (n, h, w), (n, h, w, c), (n, c, h, w) or of flat images (n, size·size·channels),
    whose numbers are whole from 0 to 255 or floats from 0 to 1.
    """

    kind: ClassVar[str] = "images"
    size: int = 28
    channels: int = 1
    max_pixels: int | None = None

    def __post_init__(self) -> None:
        given = (self.size, self.channels, 1 if self.max_pixels is None else self.max_pixels)
        whole = all(isinstance(n, int) and not isinstance(n, bool) for n in given)
        if not whole or min(given) < 1 or self.channels not in (1, 3):
            raise ValueError(
                f"size={self.size!r}, channels={self.channels!r}, max_pixels={self.max_pixels!r}; required are a side "
                "of 1 pixel or more, 1 (grey) or 3 (colour) channels, and 1 pixel or more"
            )

    def fit(self, X: Any) -> "ImageReader":
        """The same: there is nothing to learn of the images."""
        return self

    def read(self, X: Any) -> Tensor:
        if isinstance(X, Tensor):
            X = X.numpy(force=True)
        elif is_dataframe(X) and X.shape[1] == self.size * self.size * self.channels > 1:
            X = X.to_numpy()  # a column for each pixel
        numbers = isinstance(X, np.ndarray) and X.dtype.kind not in "OUS" and X.ndim >= 2
        items = X if numbers else as_items(X, "images")
        require_examples(len(items), "images")
        if numbers:
            if X.shape[1:] == (self.channels, self.size, self.size):
                x = _in_range(X, "X")
                if self.channels == 1:
                    _warn_of_bright_ground(x)
                return torch.from_numpy(x)
            items = self._images_of(X)
        squares = np.stack([self._square(i, item, checked=numbers) for i, item in enumerate(items)])
        x = torch.from_numpy(squares).to(torch.float32).div_(255)
        return x.view(len(items), self.channels, self.size, self.size)  # (n, size, size) -> (n, 1, size, size)

    def _images_of(self, X: np.ndarray) -> np.ndarray:
        """One array of images: checked as a whole, and with one image at each place along the first axis."""
        flat = self.size * self.size * self.channels
        if X.ndim == 2 and X.shape[1] == flat:
            square = (self.size, self.size) if self.channels == 1 else (self.size, self.size, 3)
            return _as_bytes(X, "X").reshape(len(X), *square)  # (n, size·size·channels) -> (n, size, size[, 3])
        single = X.ndim == 2 or (X.ndim == 3 and X.shape[2] in (3, 4))
        if X.ndim not in (3, 4) or single:
            what = "one image alone, or flat images of another size" if single else "no array of images"
            raise ValueError(
                f"X is an array of shape {X.shape}, {what}; required is (n, h, w), (n, h, w, c), (n, c, h, w) or flat "
                f"images (n, {flat}): put one image alone into a list, [x]"
            )
        return _as_bytes(X, "X")

    def _square(self, i: int, item: Any, *, checked: bool) -> np.ndarray:
        """(size, size) or (3, size, size) uint8, of numbers that were checked or are yet to be."""
        from PIL import Image  # here, because images and their formats take long to import

        from quickstudy.data.images import read_colour_image, read_image

        name, source = f"image {i}", item
        if isinstance(item, (str, os.PathLike)):
            source = Path(item)
            name = str(source)
        elif isinstance(item, (np.ndarray, Tensor)):
            values = item.numpy(force=True) if isinstance(item, Tensor) else item
            source = Image.fromarray(_pixels(values if checked else _as_bytes(values, name), name))
        elif not isinstance(item, (bytes, Image.Image, IOBase)):
            raise ValueError(
                f"{name} is {shown(item)} of type {type(item).__name__}; required is a path, bytes, an open file, an "
                "image of Pillow or an array (h, w) or (h, w, 3)"
            )
        read = read_image if self.channels == 1 else read_colour_image
        try:
            return read(cast(Any, source), size=self.size, name=name, max_pixels=self.max_pixels)
        except OSError as error:
            raise ValueError(
                f"{name} cannot be opened ({error.strerror or error}): check the path and its rights"
            ) from error


def _warn_of_bright_ground(x: np.ndarray) -> None:
    """x (n, 1, size, size) in [0, 1], as a learner takes it: nothing is inverted any more."""
    edge = np.ones(x.shape[2:], dtype=bool)
    edge[1:-1, 1:-1] = False
    ground = float(np.median(x[:, 0, edge]))
    if ground > 0.5:
        warnings.warn(
            f"X of shape {x.shape} is in the form of a learner, with a ground of {ground:.2f}: it looks like dark ink "
            "on a bright ground; required is bright ink on dark: give (n, h, w) or files, which are turned over, or "
            "1 - X",
            stacklevel=3,
        )


def _pixels(values: np.ndarray, name: str) -> np.ndarray:
    """The axes of one image as Pillow has them: (h, w), (h, w, 3) or (h, w, 4)."""
    if values.ndim == 3 and values.shape[2] not in (1, 3, 4) and values.shape[0] in (1, 3, 4):
        values = values.transpose(1, 2, 0)  # (c, h, w) -> (h, w, c)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]  # (h, w, 1) -> (h, w)
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in (3, 4)) or 0 in values.shape:
        raise ValueError(
            f"{name} is an array of shape {values.shape}; required is (h, w), (h, w, 1), (h, w, 3) or (h, w, 4) with "
            "at least one pixel"
        )
    return np.ascontiguousarray(values)


def _as_bytes(values: np.ndarray, name: str) -> np.ndarray:
    """Numbers in one of the two usual ranges as uint8."""
    if values.dtype == np.uint8 and values.size and int(values.max()) > 1:
        return values
    return np.rint(_in_range(values, name) * 255).astype(np.uint8)


def _in_range(values: np.ndarray, name: str) -> np.ndarray:
    """Numbers in one of the two usual ranges as float32 in [0, 1], a new array."""
    if values.dtype.kind not in "biuf" or values.size == 0:
        raise ValueError(
            f"{name} is an array of type {values.dtype} and shape {values.shape}; required are numbers: whole ones "
            "from 0 to 255, or floats from 0 to 1"
        )
    low, high = float(values.min()), float(values.max())
    top = 255.0 if values.dtype.kind in "iu" else 1.0
    if not (low >= -1e-6 and high <= top * (1 + 1e-6)):  # also for NaN
        hint = {"f": "divide by 255" if high <= 255 else "scale them", "b": ""}.get(
            values.dtype.kind, "divide by the largest number that is possible, such as 65535, to get floats"
        )
        raise ValueError(
            f"{name} holds numbers of type {values.dtype} from {low:g} to {high:g}; required are whole numbers from 0 "
            f"to 255, or floats from 0 to 1: {hint if low >= 0 else 'shift and scale them'}"
        )
    if values.dtype.kind in "iu" and high == 1:
        raise ValueError(
            f"{name} holds whole numbers that are 0 or 1, where 255 would be white; required are whole numbers from 0 "
            "to 255, or floats from 0 to 1: if 1 is white, pass X.astype(float)"
        )
    return np.clip(values.astype(np.float32) / np.float32(top), 0, 1)
