"""Images are judged by their content, and nothing is decoded that is too large."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from quickstudy.readers import ImageReader
from quickstudy.serve import Limits
from quickstudy.serve.pictures import MOST_SCANS, check_image, decoded, format_of, kept_copy
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


def copy_of(data: bytes) -> bytes:
    return kept_copy(decoded(data, "it", LIMITS, side=28), "it")


@pytest.mark.parametrize("form", FORMS)
def test_the_format_is_told_by_the_content(form):
    data = drawing("circle", form=form)
    assert format_of(data) == form
    assert check_image(data, "it", LIMITS).size == (56, 56)
    assert Image.open(io.BytesIO(copy_of(data))).size == (56, 56)


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
            decoded(data[:length], "file 1", LIMITS, side=28)
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
        decoded(data, "file 1", LIMITS, side=28)
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
    copy = Image.open(io.BytesIO(copy_of(encoded(image, "JPEG", exif=exif))))
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
    assert Image.open(io.BytesIO(copy_of(encoded(image)))).getpixel((3, 3)) == (0, 0, 0, 0)
    palette = encoded(Image.new("P", (20, 20)), transparency=0)
    assert Image.open(io.BytesIO(copy_of(palette))).mode == "RGBA"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_kind_of_png_has_a_copy(mode):
    data = encoded(Image.new(mode, (30, 10)))
    assert Image.open(io.BytesIO(copy_of(data))).size == (30, 10)


def test_sixteen_bits_keep_their_greys():
    values = np.linspace(0, 65535, 90, dtype=np.uint16).reshape(9, 10)
    copy = np.asarray(Image.open(io.BytesIO(copy_of(encoded(Image.fromarray(values))))))
    assert np.abs(copy.astype(float) - values / 257).max() <= 1


def progressive(side: int = 600, **options) -> bytes:
    """A JPEG of ten scans."""
    return encoded(Image.new("RGB", (side, side), (200, 30, 90)), "JPEG", progressive=True, **options)


def with_scans(data: bytes, more: int) -> bytes:
    """A progressive JPEG with its last scan repeated."""
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * more + b"\xff\xd9"


JPEG = progressive()


@pytest.mark.parametrize("more", [MOST_SCANS, 2000])
def test_a_jpeg_of_many_scans_is_422_and_never_decoded(monkeypatch, more):
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("it was opened"))
    with pytest.raises(Refusal, match=f"file 1 is a JPEG of more than {MOST_SCANS} scans") as refused:
        decoded(with_scans(JPEG, more), "file 1", LIMITS, side=28)
    assert refused.value.status == 422


def test_scans_cannot_be_hidden_between_markers():
    scan = JPEG[JPEG.rindex(b"\xff\xda") : -2]
    for between in (b"\xff\x05", b"\xff\xd3", b"\xff\xff\xff", b"\xff\x00\xff\xfe\x00\x02"):
        data = JPEG[:-2] + (between + scan) * 99 + b"\xff\xd9"
        with pytest.raises(Refusal, match="scans"):
            decoded(data, "it", LIMITS, side=28)


def test_what_only_looks_like_scans_is_none():
    comment = b"\xff\xfe" + (2 + 2 * 300).to_bytes(2, "big") + b"\xff\xda" * 300
    film = b"\xff\xda\x00\x02" * 300  # after the end, as of telephones that append one
    for data in (JPEG, JPEG[:2] + comment + JPEG[2:], JPEG + film, with_scans(JPEG, 20)):
        assert Image.open(io.BytesIO(copy_of(data))).size == (96, 96)


def test_of_a_large_jpeg_no_more_is_decoded_than_is_needed():
    large = progressive(1900, quality=90)
    assert decoded(large, "it", LIMITS, side=28).size == (475, 475)
    assert decoded(large, "it", LIMITS, side=200).size == (950, 950)
    assert decoded(progressive(500), "it", LIMITS, side=28).size == (500, 500)


def test_a_large_jpeg_is_read_as_if_it_were_decoded_whole():
    random = np.random.default_rng(0).integers(0, 256, (30, 20), dtype=np.uint8)
    data = encoded(Image.fromarray(random).resize((1000, 1500)), "JPEG", quality=95)
    reader = ImageReader()
    whole, part = reader.read([data]), reader.read([decoded(data, "it", LIMITS, side=28)])
    assert (whole - part).abs().max() < 2 / 255


@pytest.mark.parametrize("form", FORMS)
def test_one_decoding_serves_the_reader_and_the_copy(form):
    data = drawing("cross", form=form)
    image = decoded(data, "it", LIMITS, side=28)
    assert torch.equal(ImageReader().read([image]), ImageReader().read([data]))
    assert Image.open(io.BytesIO(kept_copy(image, "it"))).size == (56, 56)


def test_the_reason_names_no_object_in_memory():
    for data in (b"BMW is a car maker", b"GIF89a", b"\x89PNG\r\n\x1a\n"):
        with pytest.raises(Refusal, match="cannot be read as an image") as refused:
            decoded(data, "it", LIMITS, side=28)
        assert "0x" not in refused.value.message
    assert "(what follows its first bytes is of no such format)" in refused.value.message
