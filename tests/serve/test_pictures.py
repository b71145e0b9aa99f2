"""Images are judged by their content, and nothing is decoded that is too large."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from quickstudy.serve import Limits
from quickstudy.serve.pictures import check_image, format_of, kept_copy
from quickstudy.serve.refusal import Refusal
from tests.serve.small_server import drawing, encoded

LIMITS = Limits()
FORMS = ("PNG", "JPEG", "GIF", "BMP", "WEBP")


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_bomb(side: int) -> bytes:
    """A PNG of side × side black pixels in a few kilobytes."""
    rows = zlib.compress(bytes(side // 8 + 1) * side, 9)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("form", FORMS)
def test_the_format_is_told_by_the_content(form):
    data = drawing("circle", form=form)
    assert format_of(data) == form
    assert check_image(data, "it", LIMITS).size == (56, 56)
    assert Image.open(io.BytesIO(kept_copy(data, "it", LIMITS))).size == (56, 56)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "file 1 is empty; required is a PNG"),
        (b"%PDF-1.7 and so on", "begins with b'%PDF-1.7'"),
        (b"<svg xmlns='x'/>", "begins with b'<svg xml'"),
        (b"#!/bin/sh\nrm -rf /", "begins with b'#!/bin/s'"),
        (b"II*\x00" + bytes(99), "required is a PNG, JPEG, GIF, BMP or WEBP"),
    ],
)
def test_other_contents_are_415(data, words):
    with pytest.raises(Refusal, match=words) as refused:
        check_image(data, "file 1", LIMITS)
    assert refused.value.status == 415


@pytest.mark.parametrize("form", FORMS)
def test_an_image_that_was_cut_is_422(form):
    data = drawing("cross", form=form)
    for length in (12, len(data) // 3):
        with pytest.raises(Refusal, match="file 1 cannot be read as an image") as refused:
            kept_copy(data[:length], "file 1", LIMITS)
        assert refused.value.status == 422


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (png_bomb(9_000), r"has 9000 × 9000 pixels; required are at most 4,000,000"),
        (png_bomb(20_000), r"has more than 80 million pixels"),
        (encoded(Image.new("1", (4001, 1000)), "GIF"), "4001 × 1000 pixels"),
        (encoded(Image.new("L", (2001, 2000)), "WEBP"), "2001 × 2000 pixels"),
        (encoded(Image.new("L", (2001, 2000)), "WEBP", lossless=True), "2001 × 2000 pixels"),
        (encoded(Image.new("RGBA", (2001, 2000)), "WEBP"), "2001 × 2000 pixels"),
    ],
)
def test_too_many_pixels_are_413_before_anything_is_decoded(data, words):
    assert len(data) < LIMITS.body_bytes
    tracemalloc.start()
    with pytest.raises(Refusal, match=words) as refused:
        kept_copy(data, "file 1", LIMITS)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()
    assert refused.value.status == 413


def test_a_header_that_names_a_large_webp_is_believed():
    data = bytearray(encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 9)), "WEBP", exif=b"Exif\x00\x00"))
    assert data[12:16] == b"VP8X"
    data[24:30] = (16382).to_bytes(3, "little") * 2
    with pytest.raises(Refusal, match="16383 × 16383"):
        check_image(bytes(data), "it", LIMITS)


def test_the_copy_is_upright_small_and_without_metadata():
    image = Image.new("RGB", (400, 200), "white")
    image.paste("red", (0, 0, 200, 200))
    exif = image.getexif()
    exif[0x0112] = 6  # turned by a quarter
    exif[0x010F] = "a camera"
    copy = Image.open(io.BytesIO(kept_copy(encoded(image, "JPEG", exif=exif), "it", LIMITS)))
    assert copy.size == (48, 96)
    assert not dict(copy.getexif())
    assert "exif" not in copy.info
    red, white = copy.getpixel((24, 10)), copy.getpixel((24, 90))
    assert isinstance(red, tuple)
    assert isinstance(white, tuple)
    assert red[0] > 200 > 100 > red[1]
    assert min(white) > 200


def test_transparency_is_kept():
    image = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    assert Image.open(io.BytesIO(kept_copy(encoded(image), "it", LIMITS))).getpixel((3, 3)) == (0, 0, 0, 0)
    palette = encoded(Image.new("P", (20, 20)), transparency=0)
    assert Image.open(io.BytesIO(kept_copy(palette, "it", LIMITS))).mode == "RGBA"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_kind_of_png_has_a_copy(mode):
    data = encoded(Image.new(mode, (30, 10)))
    assert Image.open(io.BytesIO(kept_copy(data, "it", LIMITS))).size == (30, 10)


def test_sixteen_bits_keep_their_greys():
    values = np.linspace(0, 65535, 90, dtype=np.uint16).reshape(9, 10)
    copy = np.asarray(Image.open(io.BytesIO(kept_copy(encoded(Image.fromarray(values)), "it", LIMITS))))
    assert np.abs(copy.astype(float) - values / 257).max() <= 1
