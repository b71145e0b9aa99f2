"""ImageReader: every way in which a person has an image gives the same numbers; what is no image is named."""

import io
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from quickstudy.data.images import read_image
from quickstudy.readers import ImageReader, reader_from_dict


def drawing(size: int = 40) -> np.ndarray:
    """Dark ink on paper, in the upper left."""
    array = np.full((size, size), 250, dtype=np.uint8)
    array[5:15, 5:12] = 20
    return array


def png(values: np.ndarray | Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    (values if isinstance(values, Image.Image) else Image.fromarray(values)).save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def expected():
    return torch.from_numpy(read_image(png(drawing()))).float()[None, None] / 255


def ways(path: Path) -> dict[str, object]:
    values = drawing()
    path.write_bytes(png(values))
    return {
        "text": [str(path)],
        "path": [path],
        "object array": np.array([path], dtype=object),
        "text array": np.array([str(path)]),
        "column of paths": np.array([[str(path)]]),
        "bytes": [png(values)],
        "open file": [io.BytesIO(png(values))],
        "Pillow": [Image.fromarray(values)],
        "Pillow colour": (Image.fromarray(values).convert("RGB"),),
        "array": [values],
        "array (h, w, 1)": [values[:, :, None]],
        "array (h, w, 3)": [np.repeat(values[:, :, None], 3, axis=2)],
        "array (1, h, w)": [values[None]],
        "floats": [values / 255],
        "integers": [values.astype(np.int64)],
        "tensor": [torch.from_numpy(values)],
        "(n, h, w)": values[None],
        "(n, h, w) floats": (values / 255)[None],
        "(n, h, w, 1)": values[None, :, :, None],
        "(n, 1, h, w)": values[None, None],
        "(n, 3, h, w)": np.repeat(values[None, None], 3, axis=1),
        "tensor (n, h, w)": torch.from_numpy(values)[None],
    }


def test_all_ways_in_agree(tmp_path, expected):
    for name, x in ways(tmp_path / "a.png").items():
        reader = ImageReader()
        found = reader.fit(x).read(x)
        assert found.dtype == torch.float32, name
        assert found.shape == (1, 1, 28, 28), name
        torch.testing.assert_close(found, expected, atol=2e-3, rtol=0, msg=name)
        assert float(found[0, 0, -1].max()) < 0.05, name  # the paper is dark now


def test_pandas_columns_of_paths(tmp_path, expected):
    pd = pytest.importorskip("pandas")
    (tmp_path / "a.png").write_bytes(png(drawing()))
    frame = pd.DataFrame({"file": [str(tmp_path / "a.png")]})
    for x in (frame, frame["file"]):
        torch.testing.assert_close(ImageReader().read(x), expected)
    with pytest.raises(ValueError, match=r"DataFrame of 2 columns.*one column of images.*X\['name'\]"):
        ImageReader().read(frame.assign(label="x"))
    pixels = pd.DataFrame(np.random.default_rng(0).random((2, 784)))
    assert ImageReader().read(pixels).shape == (2, 1, 28, 28)


def test_flat_images_are_images(expected):
    small = np.asarray(Image.fromarray(drawing()).resize((28, 28)))
    flat = ImageReader().read(small.reshape(1, -1))
    assert torch.equal(flat, ImageReader().read([small]))
    dark = np.zeros((2, 784), dtype=np.uint8)
    dark[1, 0] = 200  # an image whose largest number is 0 is fine where others show the range
    assert ImageReader().read(dark).amax((1, 2, 3)).tolist() == pytest.approx([0, 200 / 255])
    colour = np.random.default_rng(0).integers(0, 256, (2, 5 * 5 * 3), dtype=np.uint8)
    found = ImageReader(5, 3).read(colour)
    torch.testing.assert_close(found, torch.from_numpy(colour.reshape(2, 5, 5, 3)).permute(0, 3, 1, 2) / 255)


def test_the_form_of_a_learner_with_a_bright_ground_is_warned_of():
    x = np.stack([1 - drawing(28).astype(np.float32) / 255] * 2)[:, None]
    ImageReader().read(x)
    with pytest.warns(UserWarning, match=r"X of shape \(2, 1, 28, 28\) .*ground of 0\.98.*dark ink.*or 1 - X"):
        found = ImageReader().read(1 - x)
    np.testing.assert_array_equal(found.numpy(), 1 - x)  # it stays as it is
    ImageReader(28, 3).read(np.repeat(1 - x, 3, axis=1))  # colours have no ground
    ImageReader().read((1 - x)[:, 0])


def test_the_form_of_a_learner_passes_unchanged(generator):
    x = 0.9 * torch.rand(3, 1, 28, 28, generator=generator)
    found = ImageReader().read(x)
    assert torch.equal(found, x)
    found.zero_()  # it is no view of what was given
    assert float(x.sum()) > 0
    whole = (x.numpy() * 255).astype(np.uint8)
    assert torch.equal(ImageReader().read(whole), torch.from_numpy(whole) / 255)
    colour = torch.rand(2, 3, 8, 8, generator=generator)
    assert torch.equal(ImageReader(8, 3).read(colour), colour)


def test_colour_is_the_middle_and_is_not_inverted():
    wide = np.zeros((20, 60, 3), dtype=np.uint8)
    wide[:, 20:40] = (250, 120, 10)
    for x in ([wide], [png(wide)], wide[None], [wide.transpose(2, 0, 1)]):
        found = ImageReader(20, 3).read(x)
        assert found.shape == (1, 3, 20, 20)
        torch.testing.assert_close(found[0].mean((1, 2)), torch.tensor([250, 120, 10]) / 255)
    grey = ImageReader(20, 3).read([wide[:, :, 0]])
    assert torch.equal(grey[:, 0], grey[:, 2])


@pytest.mark.parametrize("mode", ["RGBA", "P", "CMYK", "I;16", "LAB", "1", "YCbCr"])
def test_colour_of_any_mode(mode):
    paper = Image.new("RGB", (30, 20), "white")
    image = Image.merge("LAB", [Image.new("L", (30, 20), 255)] * 3) if mode == "LAB" else None
    deep = Image.fromarray(np.full((20, 30), 65535, dtype=np.uint16)) if mode == "I;16" else None
    found = ImageReader(8, 3).read([image or deep or paper.convert(mode)])
    torch.testing.assert_close(found, torch.ones(1, 3, 8, 8), atol=0.01, rtol=0)
    clear = Image.new("RGBA", (9, 9), (0, 0, 0, 0))
    assert ImageReader(8, 3).read([clear]).min() == 1  # transparent is white


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_white_ink_without_a_ground_is_seen(mode):
    chalk = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    chalk.paste((250, 250, 250, 255), (10, 5, 20, 35))
    ink = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    ink.paste((5, 5, 5, 255), (10, 5, 20, 35))
    seen, expected = (ImageReader().read([image.convert(mode)]) for image in (chalk, ink))
    torch.testing.assert_close(seen, expected, atol=0.05, rtol=0)
    assert float(seen.max()) > 0.9
    assert ImageReader(28, 3).read([chalk.convert(mode)])[0, :, 0, 0].tolist() == [0, 0, 0]
    assert ImageReader(28, 3).read([ink.convert(mode)])[0, :, 0, 0].tolist() == [1, 1, 1]


def test_rotation_marks_turn_colour_images_too():
    values = np.zeros((16, 16, 3), dtype=np.uint8)
    values[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: its left is the top
    turned = ImageReader(16, 3).read([png(values, exif=exif)])
    assert torch.equal(turned[0, 0], ImageReader(16, 3).read([values])[0, 0].rot90(-1))


def test_animations_show_their_first_frame():
    first, second = Image.fromarray(drawing()), Image.new("L", (40, 40), 250)
    moving = png(first, "GIF", save_all=True, append_images=[second])
    torch.testing.assert_close(ImageReader().read([moving]), ImageReader().read([first]), atol=0.03, rtol=0)


def test_what_is_given_stays_as_it_was():
    values = drawing()
    image = Image.fromarray(values)
    kept = values.copy()
    ImageReader().read([values, image])
    assert np.array_equal(values, kept)
    assert np.array_equal(np.asarray(image), kept)


def test_it_travels_as_json():
    reader = ImageReader(64, 3, max_pixels=1000)
    assert reader.as_dict() == {"kind": "images", "size": 64, "channels": 3, "max_pixels": 1000}
    assert reader_from_dict(reader.as_dict()) == reader


@pytest.mark.parametrize(("x", "words"), [
    ("cat.png", r"X is a single str; required is a list of images, one for each.*a list, \[x\]"),
    (b"abc", "X is a single bytes"),
    (7, "X is of type int; required is a list of images"),
    ([], "there are 0 images"),
    (np.zeros((0, 28, 28)), "there are 0 images"),
    (["nowhere/cat.png"], r"nowhere/cat\.png cannot be opened \(No such file"),
    ([b""], r"image 0 cannot be read as an image \(the file is empty"),
    ([drawing(), b"abc"], "image 1 cannot be read as an image"),
    ([png(drawing())[:60]], "image 0 cannot be read as an image"),
    ([drawing(), None], "image 1 is None of type NoneType; required is a path, bytes"),
    ([np.zeros((2, 2, 2, 2))], r"image 0 is an array of shape \(2, 2, 2, 2\); required is \(h, w\)"),
    ([np.zeros((5, 5, 2))], r"image 0 is an array of shape \(5, 5, 2\)"),
    (np.zeros((30, 30)), r"X is an array of shape \(30, 30\), one image alone, or flat.*flat images \(n, 784\)"),
    (np.zeros((30, 30, 3)), r"shape \(30, 30, 3\), one image alone"),
    (np.zeros((1, 2, 3, 4, 5)), "no array of images"),
    ([drawing().astype(float)], r"from 20 to 250; required .* floats from 0 to 1: divide by 255"),
    ([drawing().astype(np.uint16) * 257], r"divide by the largest number that is possible, such as 65535"),
    ([-(drawing() / 255)], r"shift and scale them"),
    ([np.full((4, 4), np.nan)], r"from nan to nan"),
    ([np.eye(8, dtype=np.uint8)], r"whole numbers that are 0 or 1, where 255 would be white.*X\.astype\(float\)"),
    ([np.array([["a"]])], "required are numbers"),
    (torch.zeros(2, 1, 28, 28) - 1, "X holds numbers of type float32 from -1 to -1"),
])  # fmt: skip
def test_what_is_no_image_is_named(x, words):
    with pytest.raises(ValueError, match=words):
        ImageReader().read(x)


def test_too_many_pixels_are_refused_before_they_are_decoded():
    bomb = png(Image.new("1", (3000, 3000)))
    assert len(bomb) < 3000
    for channels in (1, 3):
        with pytest.raises(ValueError, match=r"image 0 has more than the 4,000,000 pixels"):
            ImageReader(28, channels, max_pixels=4_000_000).read([bomb])
    assert ImageReader().read([bomb]).shape == (1, 1, 28, 28)


@pytest.mark.parametrize("values", [
    {"size": 0}, {"size": 2.5}, {"size": "28"}, {"channels": 2}, {"channels": True}, {"max_pixels": 0},
])  # fmt: skip
def test_wrong_values(values):
    with pytest.raises(ValueError, match=r"required are a side of 1 pixel or more, 1 .grey. or 3 .colour. channels"):
        ImageReader(**values)


def test_pillow_is_imported_only_where_it_is_used():
    names = ("PIL", "pandas", "soundfile")
    code = f"import sys, quickstudy.readers; print([name for name in {names} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("ground", "bright"), [(0.45, False), (0.55, True)])
def test_a_ground_is_bright_above_the_middle(ground, bright):
    x = np.full((2, 1, 28, 28), ground, dtype=np.float32)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        ImageReader(28).read(x)
    assert len(said) == bright
