"""read_image: any mode, shape, polarity and rotation mark gives bright ink on a dark square; damage is named."""

import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quickstudy.data import images
from quickstudy.data.images import read_image


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def drawing(size: int = 105, ground: int = 255, ink: int = 0) -> np.ndarray:
    """A thick bar in the upper left quarter: its place shows a rotation."""
    array = np.full((size, size), ground, dtype=np.uint8)
    array[size // 5 : size // 5 + 8, size // 5 : size // 2] = ink
    return array


def check(grey: np.ndarray, size: int = 28) -> None:
    assert grey.shape == (size, size)
    assert grey.dtype == np.uint8
    assert grey[5:9, 8:13].max() > 200
    assert grey[size // 2 :].max() < 10


def modes() -> dict[str, bytes]:
    paper = Image.fromarray(drawing())
    transparent = Image.new("RGBA", paper.size, (0, 0, 0, 0))
    transparent.paste((20, 10, 30, 255), mask=Image.fromarray(255 - drawing()))
    deep = Image.fromarray(drawing().astype(np.uint16) * 257)
    palette = paper.convert("P")
    return {
        "1": encoded(paper.convert("1")),
        "L": encoded(paper),
        "L dark": encoded(Image.fromarray(drawing(ground=0, ink=255))),
        "RGB": encoded(paper.convert("RGB")),
        "RGBA": encoded(transparent),
        "LA": encoded(transparent.convert("LA")),
        "P": encoded(palette),
        "P transparent": encoded(palette, transparency=255),
        "L transparent": encoded(paper, transparency=255),
        "1 transparent": encoded(paper.convert("1"), transparency=1),
        "I;16": encoded(deep),
        "I;16 tiff": encoded(deep, "TIFF"),
        "I;16 transparent": encoded(deep, transparency=65535),
        "F tiff": encoded(Image.fromarray(drawing().astype(np.float32) / 255), "TIFF"),
        "I tiff": encoded(Image.fromarray(drawing().astype(np.int32) * 1000 - 7), "TIFF"),
        "LAB tiff": encoded(Image.merge("LAB", (paper, paper, paper)), "TIFF"),
        "jpeg": encoded(paper, "JPEG", quality=95),
        "mpo": encoded(paper.convert("RGB"), "MPO", save_all=True, append_images=[paper.convert("RGB")]),
        "cmyk": encoded(paper.convert("CMYK"), "JPEG", quality=95),
        "gif": encoded(paper, "GIF"),
        "bmp": encoded(paper, "BMP"),
        "webp": encoded(paper.convert("RGB"), "WEBP", lossless=True),
    }


@pytest.mark.parametrize("mode", modes())
def test_every_mode_gives_bright_ink_on_a_dark_ground(mode):
    check(read_image(modes()[mode]))


def test_one_bit_strokes_become_grey():
    """Averages over the cells: a line of three pixels across cells of 3.75 is never hard black and white."""
    array = np.full((105, 105), 255, dtype=np.uint8)
    for i in range(10, 90):
        array[i, i : i + 3] = 0
    grey = read_image(encoded(Image.fromarray(array).convert("1")))
    assert len(np.unique(grey)) > 8
    assert 100 < grey.max() <= 255
    assert abs(grey.mean() - (255 - array).mean()) < 1  # the ink is preserved


def test_source_may_be_a_path_bytes_or_a_file(tmp_path: Path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.fromarray(drawing())))
    with path.open("rb") as file:
        from_file = read_image(file)
    np.testing.assert_array_equal(read_image(path), from_file)
    np.testing.assert_array_equal(read_image(path.read_bytes()), from_file)


def test_camera_rotation_is_applied():
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(drawing(), 1)))  # stored a quarter counterclockwise
    exif = Image.Exif()
    exif[0x0112] = 6  # the viewer turns it a quarter clockwise
    check(read_image(encoded(turned, "JPEG", exif=exif, quality=95)))


@pytest.mark.parametrize(("shape", "inked"), [((20, 80), (7, 28)), ((80, 20), (28, 7))])
def test_a_picture_that_is_not_square_is_padded_with_its_ground(shape, inked):
    array = np.full(shape, 230, dtype=np.uint8)
    array[5:-5, 5:-5] = 30
    grey = read_image(encoded(Image.fromarray(array)))
    rows, columns = np.nonzero(grey > 60)
    assert grey.shape == (28, 28)
    assert np.ptp(rows) < inked[0]
    assert np.ptp(columns) < inked[1]
    assert abs(rows.mean() - 13.5) < 1
    assert abs(columns.mean() - 13.5) < 1
    assert (grey[[0, 0, -1, -1], [0, -1, 0, -1]] == 25).all()


def test_a_thread_of_pixels_stays_small_in_memory():
    grey = read_image(encoded(Image.new("L", (100_000, 1), 255)))
    assert grey.shape == (28, 28)
    assert grey.max() == 0


@pytest.mark.parametrize("size", [1, 7, 64, 150])
def test_size(size):
    assert read_image(encoded(Image.fromarray(drawing())), size=size).shape == (size, size)


def test_smallest_image():
    assert read_image(encoded(Image.new("L", (1, 1), 255))).max() == 0


def test_size_must_be_positive():
    with pytest.raises(ValueError, match=r"size is 0, .* at least 1"):
        read_image(b"", size=0)


def test_too_many_pixels(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 10_000)
    with pytest.raises(ValueError, match=r"huge\.png has more than the 10,000 pixels .* scale it down"):
        read_image(encoded(Image.fromarray(drawing())), name="huge.png")


@pytest.mark.parametrize("side", [9_600, 20_000])  # where Pillow itself warns, and where it refuses
def test_a_bomb_is_refused_before_it_is_decoded(side):
    head = bytearray(encoded(Image.new("1", (8, 8))))
    ihdr = b"IHDR" + side.to_bytes(4, "big") * 2 + bytes(head[24:29])
    head[12:29] = ihdr
    head[29:33] = zlib.crc32(ihdr).to_bytes(4, "big")
    with pytest.raises(ValueError, match=r"bomb has more than the 80,000,000 pixels"):
        read_image(bytes(head), name="bomb")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("kept", [0.0, 0.05, 0.5])
def test_a_truncated_file_is_named(tmp_path: Path, kind, kept):
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    whole = encoded(Image.fromarray(noise), kind)
    path = tmp_path / "broken.img"
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(ValueError, match=r"broken\.img cannot be read as an image .* replace it or leave it out"):
        read_image(path)


@pytest.mark.parametrize("content", [b"hello", b"\x89PNG\r\n\x1a\n" + b"\0" * 40, b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_not_an_image(content):
    with pytest.raises(ValueError, match="the given image cannot be read"):
        read_image(content)


def test_damaged_bytes_are_an_image_or_a_value_error():
    generator = np.random.default_rng(0)
    for kind in ("PNG", "GIF", "BMP", "JPEG"):
        whole = np.frombuffer(encoded(Image.fromarray(drawing(40)), kind), dtype=np.uint8)
        for _ in range(150):
            damaged = whole.copy()
            damaged[generator.integers(len(whole), size=4)] = generator.integers(256, size=4)
            try:
                assert read_image(damaged.tobytes()).shape == (28, 28)
            except ValueError as error:
                assert "the given image" in str(error)  # noqa: PT017


def test_a_missing_file_says_so(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"absent\.png"):
        read_image(tmp_path / "absent.png")
