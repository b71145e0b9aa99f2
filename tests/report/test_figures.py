"""Figures and marks: readable on light and dark, without an address in them."""

import base64
import io
import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from quickstudy.report import figures, marks, page

TEMPLATE = Path(figures.__file__).with_name("report.html.jinja")


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2)."""
    parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(a: str, b: str) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def palettes() -> list[dict[str, str]]:
    """The page's colours, light and dark."""
    light, dark = re.findall(r":root \{(.*?)\}", TEMPLATE.read_text(encoding="utf-8"), re.DOTALL)
    return [dict(re.findall(r"--(\w+): (#\w{6})", part)) for part in (light, dark)]


@pytest.mark.parametrize("palette", palettes())
def test_contrast(palette):
    for name in ("ink", "soft", "accent", "good", "bad"):
        assert contrast(palette[name], palette["page"]) >= 4.5
    assert contrast(palette["soft"], palette["card"]) >= 4.5
    assert contrast(palette["ink"], palette["note"]) >= 4.5
    for colour in marks.COLOURS:
        assert contrast(colour, palette["page"]) >= 3


def test_figures_take_the_ink_of_the_page_and_hold_no_address():
    svg = figures.loss_curve([1, 2, 3], [3.0, 2.0, 1.0], best=2, end=3, unit="nats", label='a "label" <')
    assert "currentColor" in svg
    assert "#010203" not in svg
    assert "http" not in svg
    assert 'aria-label="a &#34;label&#34; &lt;"' in svg
    assert "<metadata" not in svg


def test_the_readers_own_matplotlib_settings_do_not_matter():
    def draw() -> str:
        return figures.validation_curve(
            [5, 10], [0.5, 0.6], [0.1, 0.1], best=10, end=10, metric="accuracy", label="validation"
        )

    plain = draw()
    with matplotlib.rc_context({"text.usetex": True, "font.size": 30, "axes.grid": False, "svg.fonttype": "none"}):
        assert draw() == plain


def test_picture_in_grey_and_as_ink():
    x = torch.tensor([[[0.0, 1.0], [0.5, 0.0]]])

    def pixels(uri: str) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))

    assert pixels(marks.picture(x)).tolist() == [[0, 255], [128, 0]]
    ink = pixels(marks.picture(x, "#2784d5"))
    assert ink[0, 1].tolist() == [0x27, 0x84, 0xD5, 255]
    assert ink[..., 3].tolist() == [[0, 255], [128, 0]]
    assert pixels(marks.picture(x.expand(3, 2, 2))).shape == (2, 2, 3)


@pytest.mark.parametrize("kind", marks.MARKERS)
def test_a_swatch_for_every_marker(kind):
    assert marks.COLOURS[0] in marks.swatch(marks.COLOURS[0], kind)


@pytest.mark.parametrize(
    ("seconds", "words"), [(3.4, "3 s"), (59.7, "1 min 0 s"), (125, "2 min 5 s"), (7500, "2 h 5 min")]
)
def test_duration(seconds, words):
    assert page.duration(seconds) == words


def test_values():
    assert page.value(0.98765, 0.00123, "accuracy") == "98.77 ± 0.12 %"
    assert page.value(0.98765, float("nan"), "accuracy") == "98.77 %"
    assert page.value(0.98765, 0.00123, "mean_squared_error") == "0.9877 ± 0.0012"
