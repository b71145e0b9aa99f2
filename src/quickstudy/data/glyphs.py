"""The built-in data: characters of many scripts, drawn from the DejaVu fonts that matplotlib ships.

Nothing is downloaded. A class is a character; its examples are the faces (sans, mono and serif, upright and slanted,
light and bold) under small random rotations, scales, shears and shifts. A group is a Unicode script, and ``SPLIT``
deals whole scripts to the parts, so meta-test characters come from scripts that were never seen.

One shape is one class. Characters that Unicode itself defines as a variant of others (``à``, ``ﬁ``, ``²``) are left
out, and of characters that look alike (Latin ``A``, Greek ``Α``, Cyrillic ``А``; ``c``, ``C``; ``I``, ``l``, ``|``) the
first code point stays. They look alike if, after both were cropped and scaled to one size, less than a few pixels of
ink of either lie further than one pixel from the ink of the other: in a face that both have, in two different faces,
or after one was turned, sheared or squeezed about as much as the examples are. So do they if their pixels correlate.
"""

import hashlib
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from fontTools import unicodedata as scripts
from fontTools.ttLib import TTFont
from PIL import Image, ImageFont, features

from quickstudy.data.arrays import ClassData
from quickstudy.data.cache import cached

SPLIT = {
    "train": ("Latin", "Cyrillic", "Coptic", "Lisu", "Old Italic", "Common"),
    "validation": ("Canadian Aboriginal", "Greek"),
    "test": ("Arabic", "Armenian", "Georgian", "Hebrew", "Lao"),
}
"""The scripts of each part. "Common" belongs to no script: digits, punctuation, arrows, signs of mathematics."""

_FACES = (
    "DejaVuSans",
    "DejaVuSerif",
    "DejaVuSansMono-Oblique",
    "DejaVuSans-Bold",
    "DejaVuSerif-Italic",
    "DejaVuSansMono",
    "DejaVuSans-Oblique",
    "DejaVuSerif-Bold",
    "DejaVuSansMono-Bold",
    "DejaVuSans-BoldOblique",
    "DejaVuSerif-BoldItalic",
    "DejaVuSansMono-BoldOblique",
)  # in the order of the examples: neighbours differ
_FORMAT = 1  # raise it with any change that alters the data: it is part of the key of the cache
_SEED = 20
_LEAST_FACES = 4
_EM = 96  # pixels per em of the drawings that everything else is scaled from

# Blocks whose signs differ by position, by count or by small print: nothing of that is left in a small jittered image.
_LEFT_OUT = (
    range(0x2460, 0x2500),  # enclosed numbers
    range(0x2500, 0x25A0),  # box drawing, block elements
    range(0x2776, 0x2794),  # numbers in discs
    range(0x2800, 0x2900),  # braille
    range(0x2B00, 0x2C00),  # more arrows and squares
    range(0x4DC0, 0x4E00),  # hexagrams
    range(0x10000, 0x10300),  # from here on only Old Italic
    range(0x10330, 0x110000),
)

# Two characters are one shape below these many pixels of unmatched ink in a frame of 28, or above this correlation.
_FRAME, _BOX = 28, 20
_UNMATCHED = 5.0
_UNMATCHED_OTHERWISE = 4.0  # in two different faces, or after a turn, shear or squeeze
_CORRELATION = 0.9

# The jitter of one example: drawn uniformly from plus or minus these (degrees, shear, share of the frame) and scales.
_TURN = 12.0
_SHEAR = 0.15
_SCALE = (0.8, 1.2)
_SHIFT = 1.75 / 28


class _Drawing(NamedTuple):
    character: int
    face: int
    image: Image.Image  # grey, cropped to the ink


def load(*, examples: int = 20, size: int = 28) -> ClassData:
    """All characters that can be told apart, built on the first call and read from the cache afterwards.

    Args:
        examples: images of each character.
        size: height and width of an image in pixels.

    Returns:
        ``x`` (n, 1, size, size) uint8, ink 255 on 0; ``classes`` such as ``"U+0416 Ж"``; ``groups`` such as
        ``"Cyrillic"``. The characters do not depend on the arguments.

    Raises:
        ValueError: fewer than 1 example, or images smaller than 14 pixels.
    """
    if examples < 1 or size < 14:
        raise ValueError(
            f"examples={examples}, size={size}; at least 1 example and 14 pixels are required: raise the smaller one"
        )
    key = hashlib.sha256(f"{_FORMAT} {examples} {size} {features.version('freetype2')}".encode())
    for path in _font_files():
        key.update(path.read_bytes())
    return cached("glyphs", key.hexdigest(), lambda: _build(examples, size, lambda character: True))


def split(data: ClassData, part: str) -> ClassData:
    """The classes of one part of ``SPLIT``: "train", "validation" or "test".

    Raises:
        ValueError: no such part.
    """
    if part not in SPLIT:
        raise ValueError(f"part {part!r}; one of {', '.join(map(repr, SPLIT))} is required: choose one of these")
    return data.select(name for name, group in zip(data.classes, data.groups, strict=True) if group in SPLIT[part])


def _build(examples: int, size: int, wanted: Callable[[int], bool]) -> ClassData:
    """The data over those characters that are ``wanted`` (called with the code point)."""
    drawings = _distinct(_draw(wanted))
    faces: dict[int, list[Image.Image]] = {}
    for drawing in drawings:
        faces.setdefault(drawing.character, []).append(drawing.image)
    x = np.empty((len(faces), examples, size, size), dtype=np.uint8)
    for i, (character, images) in enumerate(faces.items()):
        generator = np.random.default_rng([_SEED, character])  # its own stream: no character moves another's examples
        for k in range(examples):
            x[i, k] = _jittered(images[k % len(images)], size, generator)
    return ClassData(
        x=x.reshape(-1, 1, size, size),
        y=np.repeat(np.arange(len(faces)), examples),
        classes=tuple(f"U+{character:04X} {chr(character)}" for character in faces),
        groups=tuple(_group(character) for character in faces),
    )


def _font_files() -> list[Path]:
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return [folder / f"{face}.ttf" for face in _FACES]


def _group(character: int) -> str:
    return scripts.script_name(scripts.script(chr(character)))


def _candidate(character: int) -> bool:
    """Letters and numbers, and signs of no script; no variant of another character, and in no block left out."""
    text = chr(character)
    category = unicodedata.category(text)
    return (
        category[0] in ("LNPS" if _group(character) == "Common" else "LN")
        and category not in ("Lm", "Sk")  # raised letters and accents on their own
        and not unicodedata.decomposition(text)
        and not any(character in block for block in _LEFT_OUT)
    )


def _draw(wanted: Callable[[int], bool]) -> list[_Drawing]:
    """Every face of every character that enough faces draw, by code point and then by face."""
    coverage: list[set[int]] = []
    for path in _font_files():
        with TTFont(path, lazy=True) as font:
            coverage.append(set(font.getBestCmap() or ()))
    counted, counts = np.unique([c for covered in coverage for c in covered], return_counts=True)
    often = (int(c) for c in counted[counts >= _LEAST_FACES])
    characters = [c for c in often if wanted(c) and _candidate(c)]
    drawings = []
    for face, (path, covered) in enumerate(zip(_font_files(), coverage, strict=True)):
        # The basic layout draws the same with and without the optional shaping library.
        font = ImageFont.truetype(str(path), _EM, layout_engine=ImageFont.Layout.BASIC)
        for character in covered.intersection(characters):
            mask = font.getmask(chr(character), mode="L")
            ink = mask.getbbox()
            if ink is not None:
                image = Image.new("L", mask.size)
                image.im = mask
                drawings.append(_Drawing(character, face, image.crop(ink)))
    drawings.sort(key=lambda drawing: drawing[:2])
    drawn, counts = np.unique([drawing.character for drawing in drawings], return_counts=True)
    rare = set(drawn[counts < _LEAST_FACES].tolist())  # in the font, but blank
    return [drawing for drawing in drawings if drawing.character not in rare]


def _placed(image: Image.Image, size: int, linear: np.ndarray, shift: np.ndarray, over: int = 3) -> np.ndarray:
    """The drawing in the middle of a frame, its longest side ``_BOX / _FRAME`` of it, then mapped; all of it inside.

    Args:
        image: the drawing, cropped to the ink.
        size: side of the frame in pixels.
        linear: (2, 2), applied to (x, y) about the middle of the drawing.
        shift: (2,) in [-1, 1], the part of the way that ``_SHIFT`` permits; shortened where ink would leave the frame.
        over: drawn so much larger and averaged down, which keeps the weight of thin strokes.

    Returns:
        (size, size) uint8.
    """
    width, height = image.size
    scale = _BOX / _FRAME * size / max(width, height)
    half = np.abs(linear) @ (0.5 * scale * np.array([width, height]))  # of the box around the mapped drawing
    room = 0.5 * size - 0.5
    shrink = min(1.0, room / half.max())
    reach = np.minimum(_SHIFT * size, room - shrink * half)
    inverse = np.linalg.inv(linear * (scale * shrink * over))  # from pixels of the large frame to those of the drawing
    middle = 0.5 * size * over + over * reach * shift
    offset = 0.5 * np.array([width, height]) - inverse @ middle + 1  # 1: the margin below
    margin = Image.new("L", (width + 2, height + 2))  # so that the border of the drawing is smooth as well
    margin.paste(image, (1, 1))
    rows = (*inverse[0], offset[0], *inverse[1], offset[1])
    large = margin.transform(
        (size * over, size * over), Image.Transform.AFFINE, rows, resample=Image.Resampling.BILINEAR
    )
    return np.asarray(large.reduce(over))


def _linear(turn: float, shear: float, scale_x: float, scale_y: float) -> np.ndarray:
    """(2, 2): scaled, sheared, then turned by ``turn`` degrees."""
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    return np.array([[c, -s], [s, c]]) @ np.array([[1.0, shear], [0.0, 1.0]]) @ np.diag([scale_x, scale_y])


def _jittered(image: Image.Image, size: int, generator: np.random.Generator) -> np.ndarray:
    turn, shear, *shift = 2 * generator.random(4) - 1
    scale_x, scale_y = _SCALE[0] + (_SCALE[1] - _SCALE[0]) * generator.random(2)
    return _placed(image, size, _linear(_TURN * turn, _SHEAR * shear, scale_x, scale_y), np.array(shift))


def _frames(drawings: list[_Drawing], linear: np.ndarray) -> np.ndarray:
    """(n, 28, 28) uint8: the drawings in the middle, mapped and scaled to one size again."""
    frames = np.empty((len(drawings), _FRAME, _FRAME), dtype=np.uint8)
    for i, drawing in enumerate(drawings):
        width, height = drawing.image.size
        sides = np.abs(linear) @ np.array([width, height])
        again = max(width, height) / sides.max()
        frames[i] = _placed(drawing.image, _FRAME, linear * again, np.zeros(2), over=2)
    return frames


def _ink_and_gap(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ink in [0, 1], and what lies further than a pixel from it: both (n, 784) float32."""
    padded = np.pad(frames, ((0, 0), (1, 1), (1, 1)))
    near = np.zeros_like(frames)
    for i in range(3):
        for j in range(3):
            np.maximum(near, padded[:, i : i + _FRAME, j : j + _FRAME], out=near)
    ink, gap = frames.astype(np.float32) / 255, 1 - near.astype(np.float32) / 255
    return ink.reshape(len(frames), -1), gap.reshape(len(frames), -1)


def _centred(ink: np.ndarray) -> np.ndarray:
    """(n, 784) of mean 0 and length 1, so that products are correlations."""
    centred = ink - ink.mean(axis=1, keepdims=True)
    return centred / np.linalg.norm(centred, axis=1, keepdims=True)


def _first_of_each(alike: np.ndarray) -> np.ndarray:
    """(m,) the indices that remain if, in order, whatever is alike to one that remains is dropped; ``alike`` (n, n)."""
    remain = np.zeros(len(alike), dtype=bool)
    for i in range(len(alike)):
        remain[i] = not alike[i, remain].any()
    return np.flatnonzero(remain)


def _only(drawings: list[_Drawing], remain: np.ndarray) -> list[_Drawing]:
    """The drawings of those characters whose place among all characters is in ``remain``."""
    characters = np.unique([drawing.character for drawing in drawings])
    kept = set(characters[remain].tolist())
    return [drawing for drawing in drawings if drawing.character in kept]


def _distinct(drawings: list[_Drawing]) -> list[_Drawing]:
    """The drawings of one character per shape, the first by code point."""
    drawings = _only(drawings, _first_of_each(_alike_in_a_face(drawings)))
    drawings = _only(drawings, _first_of_each(_alike_across_faces(drawings)))
    return _only(drawings, _first_of_each(_alike_when_mapped(drawings)))


def _alike_in_a_face(drawings: list[_Drawing]) -> np.ndarray:
    """(n, n) bool over the characters: alike in some face that both have."""
    place, face = _places(drawings)
    ink, gap = _ink_and_gap(_frames(drawings, np.eye(2)))
    centred = _centred(ink)
    alike = np.zeros((place.max() + 1,) * 2, dtype=bool)
    for f in range(len(_FACES)):
        those = face == f
        unmatched = ink[those] @ gap[those].T
        near = (np.maximum(unmatched, unmatched.T) < _UNMATCHED) | (centred[those] @ centred[those].T > _CORRELATION)
        alike[np.ix_(place[those], place[those])] |= near
    return alike


def _alike_across_faces(drawings: list[_Drawing]) -> np.ndarray:
    """(n, n) bool over the characters: a face of one is alike to any face of the other."""
    place, _ = _places(drawings)
    starts = np.searchsorted(place, np.arange(place.max() + 1))
    ink, gap = _ink_and_gap(_frames(drawings, np.eye(2)))
    alike = np.zeros((place.max() + 1,) * 2, dtype=bool)
    for a in range(0, len(place), 512):  # (512, all) at a time: the whole square would fill the memory
        block = slice(a, a + 512)
        near = np.maximum(ink[block] @ gap.T, gap[block] @ ink.T) < _UNMATCHED_OTHERWISE
        np.logical_or.at(alike, place[block], np.logical_or.reduceat(near, starts, axis=1))
    return alike | alike.T


def _alike_when_mapped(drawings: list[_Drawing]) -> np.ndarray:
    """(n, n) bool over the characters: alike in a face after one of the two was turned, sheared or squeezed."""
    place, face = _places(drawings)
    alike = np.zeros((place.max() + 1,) * 2, dtype=bool)
    for f in (0, 1):  # the plain sans and serif
        those = [drawing for drawing in drawings if drawing.face == f]
        if not those:
            continue
        at = place[face == f]
        ink, gap = _ink_and_gap(_frames(those, np.eye(2)))
        near = np.zeros((len(at),) * 2, dtype=bool)
        for turn, shear in ((0, 0), (-_TURN, 0), (_TURN, 0), (0, -_SHEAR), (0, _SHEAR)):
            for squeeze in (0.8, 1.0, 1.25):
                mapped_ink, mapped_gap = _ink_and_gap(_frames(those, _linear(turn, shear, squeeze, 1.0)))
                near |= np.maximum(mapped_ink @ gap.T, mapped_gap @ ink.T) < _UNMATCHED_OTHERWISE
        alike[np.ix_(at, at)] |= near | near.T
    return alike


def _places(drawings: list[_Drawing]) -> tuple[np.ndarray, np.ndarray]:
    """(n,) the place of each drawing's character among all characters, and its face."""
    _, place = np.unique([drawing.character for drawing in drawings], return_inverse=True)
    return place, np.array([drawing.face for drawing in drawings])
