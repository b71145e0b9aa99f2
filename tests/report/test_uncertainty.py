"""The picture of a few tasks and how sure a learner is of them."""

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from quickstudy.report.uncertainty import Band, draw


def band(n: int = 3) -> Band:
    x = torch.linspace(-5, 5, 50)
    y = torch.sin(x)
    return Band("a wave", x, y, 0.9 * y, 0.9 * y - 0.3, 0.9 * y + 0.3, torch.stack([y, 0.8 * y]), x[:n], y[:n])


def test_a_picture_of_readable_size(tmp_path):
    draw([band()] * 4, tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as image:
        assert image.format == "PNG"
        assert image.width > 800
        assert image.height > 500
    assert (tmp_path / "picture.png").stat().st_size < 150_000


def test_panels_that_are_left_over_stay_empty(tmp_path):
    draw([band()] * 3, tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as image:
        pixels = np.asarray(image.convert("L"))
    h, w = pixels.shape
    assert (pixels[h * 6 // 10 :, w * 6 // 10 :] == 255).all()
    assert (pixels[h * 6 // 10 :, : w // 2] < 255).any()


def test_the_readers_own_matplotlib_settings_do_not_matter(tmp_path):
    draw([band()], tmp_path / "plain.png")
    with matplotlib.rc_context({"font.size": 30, "axes.grid": False, "axes.facecolor": "black"}):
        draw([band()], tmp_path / "other.png")
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "other.png").read_bytes()


@pytest.mark.parametrize(("bands", "columns"), [([], 2), ([band()], 0)])
def test_nothing_to_draw_is_refused(bands, columns, tmp_path):
    with pytest.raises(ValueError, match="at least one of each"):
        draw(bands, tmp_path / "picture.png", columns=columns)
