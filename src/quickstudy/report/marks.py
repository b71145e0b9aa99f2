"""Colours, markers, legends and single images: what stands beside the figures."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from PIL import Image
from torch import Tensor

COLOURS = (
    *("#2784d5", "#c46016", "#2c965d", "#ac5db1", "#ca545a", "#2b9095"),
    *("#957f23", "#7970d5", "#6c8e03", "#c5547c", "#138db1", "#a67628"),
)
"""Mid-tones of equal lightness: each has a contrast of at least 3 to the light and to the dark page."""

MARKERS = ("o", "s", "^", "D", "v", "P")


@dataclass(frozen=True)
class Key:
    """One line of a legend: a swatch (SVG) and what it stands for."""

    swatch: Markup
    text: str


def keys(names: Sequence[str], *, chance: bool = False) -> list[Key]:
    """The legend of ``score_curve``."""
    found = [Key(_swatch(*look(i)), name) for i, name in enumerate(names)]
    return [*found, Key(_swatch(None, None, dash="1 3"), "chance")] if chance else found


def wave_keys(*, before: bool) -> list[Key]:
    """The legend of ``wave``."""
    found = [
        Key(_swatch(None, None, dash="1 3"), "true curve"),
        Key(_swatch(COLOURS[1], "^", line=False), "support points"),
        Key(_swatch(COLOURS[2], None, dash="5 3"), "before adaptation (0 inner steps)"),
        Key(_swatch(COLOURS[0], None), "after adaptation"),
    ]
    return found if before else [key for key in found if "before" not in key.text]


def loss_keys(every: int, *, smoothed: bool) -> list[Key]:
    """The legend of ``loss_curve``, whose records are means over that many outer steps."""
    words = "every outer step" if every == 1 else f"mean of every {every} outer steps"
    if not smoothed:
        return [Key(_swatch(COLOURS[0], None), words)]
    return [
        Key(_swatch(COLOURS[0], None, width=1.2, opacity=0.7), words),
        Key(_swatch(COLOURS[0], None), "moving average"),
    ]


def picture(x: Tensor, colour: str | None = None) -> str:
    """A data URI of one image.

    Args:
        x: (1 or 3, height, width) floats in [0, 1].
        colour: draw the ink of a grey image in this colour on a transparent ground.
    """
    values = (x.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()  # (h, w, c)
    if colour is not None:
        ink = np.broadcast_to(np.frombuffer(bytes.fromhex(colour[1:]), np.uint8), (*values.shape[:2], 3))
        image = Image.fromarray(np.concatenate([ink, values[..., :1]], axis=-1))
    else:
        image = Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values)
    buffer = io.BytesIO()
    image.save(buffer, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def is_ink(x: Tensor) -> bool:
    """Whether images (n, c, h, w) are bright strokes on a dark ground, like characters."""
    return x.shape[1] == 1 and float(x.median()) < 0.1


def look(i: int) -> tuple[str, str]:
    """Colour and marker of the i-th learner or class."""
    return COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]


def swatch(colour: str, kind: str) -> Markup:
    """A marker on its own, for a legend."""
    return _swatch(colour, kind, line=False)


def _swatch(
    colour: str | None,
    kind: str | None,
    *,
    line: bool = True,
    dash: str = "",
    width: float = 2.5,
    opacity: float = 1,
) -> Markup:
    ink = colour or "currentColor"
    stroke = Markup(
        '<line x1="2" y1="7" x2="30" y2="7" stroke="{}" stroke-width="{:g}" stroke-dasharray="{}" opacity="{:g}"/>'
    ).format(ink, width, dash, opacity)
    drawn = (stroke if line else Markup("")) + (Markup("") if kind is None else marker(kind, ink, x=16, y=7))
    return Markup('<svg class="swatch" viewBox="0 0 32 14" aria-hidden="true">{}</svg>').format(drawn)


def marker(kind: str, colour: str, *, x: float, y: float, size: float = 5) -> Markup:
    """An SVG element that looks like matplotlib's marker."""
    a, b = size, 0.4 * size
    plus = [(-a, -b), (-b, -b), (-b, -a), (b, -a), (b, -b), (a, -b)]  # half of it; the other half is turned
    points = {
        "s": [(-a, -a), (a, -a), (a, a), (-a, a)],
        "^": [(0, -a), (a, a), (-a, a)],
        "D": [(0, -1.2 * a), (1.2 * a, 0), (0, 1.2 * a), (-1.2 * a, 0)],
        "v": [(0, a), (a, -a), (-a, -a)],
        "P": [*plus, *((-x, -y) for x, y in plus)],
    }
    if kind == "o":
        return Markup('<circle cx="{:.1f}" cy="{:.1f}" r="{:.1f}" fill="{}"/>').format(x, y, a, colour)
    corners = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in points[kind])
    return Markup('<polygon points="{}" fill="{}"/>').format(corners, colour)
