"""The built-in characters: one shape one class, whole scripts per part, the same on every build."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from quickstudy.data import glyphs
from quickstudy.data.arrays import ClassData


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("QUICKSTUDY_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def data(cache: Path) -> ClassData:
    return glyphs.load()


def hebrew_and_some_latin(character: int) -> bool:
    return 0x5D0 <= character <= 0x5EA or 0x41 <= character <= 0x7A


def code_points(data: ClassData) -> list[int]:
    return [int(name.split()[0].removeprefix("U+"), 16) for name in data.classes]


def test_shapes(data: ClassData) -> None:
    n = len(data.classes)
    assert data.x.shape == (20 * n, 1, 28, 28)
    assert data.x.dtype == np.uint8
    assert data.y.dtype == np.int64
    np.testing.assert_array_equal(data.y, np.repeat(np.arange(n), 20))
    assert len(set(data.classes)) == n == len(data.groups)
    assert dict(zip(data.classes, data.groups, strict=True))["U+0416 Ж"] == "Cyrillic"


def test_every_example_is_drawn_and_whole(data: ClassData) -> None:
    ink = data.x[:, 0].astype(np.float64) / 255
    assert ink.sum(axis=(1, 2)).min() > 10
    assert ink.max(axis=(1, 2)).min() > 0.5
    assert ink.mean() < 0.3  # bright on dark
    border = np.concatenate([ink[:, 0], ink[:, -1], ink[:, :, 0], ink[:, :, -1]], axis=1)
    assert border.max() < 0.8  # at most the soft edge of a stroke: nothing is cut off
    assert len(np.unique(data.x, axis=0)) == len(data.x)  # the jitter never gives one image twice


def test_parts_are_whole_scripts_and_cover_everything(data: ClassData) -> None:
    parts = {name: glyphs.split(data, name) for name in glyphs.SPLIT}
    assert sum(len(part.classes) for part in parts.values()) == len(data.classes)
    groups = [set(part.groups) for part in parts.values()]
    assert sum(len(group) for group in groups) == len(set().union(*groups))
    assert len(parts["train"].classes) >= 800
    assert len(parts["validation"].classes) >= 200
    assert len(parts["test"].classes) >= 140
    counts = Counter(parts["test"].groups)
    assert min(counts.values()) >= 15
    assert len(counts) == 5


def test_one_shape_is_one_class(data: ClassData) -> None:
    kept = set(code_points(data))
    for alike in ("AΑА", "BΒВ", "oO0оοՕ", "cCсϲ", "Il|ǀ", ".·•", "-–—", "HНΗ", "PРΡ"):
        assert sum(ord(character) in kept for character in alike) <= 1, alike
    assert ord("A") in kept
    assert not kept & set(map(ord, "àáäāé²ﬁ½"))


def test_no_two_classes_correlate(data: ClassData) -> None:
    kept = set(code_points(data))
    upright = [d for d in glyphs._draw(kept.__contains__) if d.face == 0]
    pixels = np.stack([np.asarray(d.image.resize((16, 16))) for d in upright]).reshape(len(upright), -1)
    sides = np.array([d.image.width / d.image.height for d in upright])
    correlation = np.atleast_2d(np.corrcoef(pixels + 1e-3 * np.arange(256)))  # the ramp: a full square has no variance
    same_sides = np.abs(np.subtract.outer(np.log(sides), np.log(sides))) < 0.1
    np.fill_diagonal(correlation, 0)
    assert correlation[same_sides].max() < 0.97


def test_pixels_are_a_poor_measure_of_unseen_scripts(data: ClassData) -> None:
    part = glyphs.split(data, "test")
    x = part.x.reshape(len(part.classes), 20, -1).astype(np.float32) / 255
    generator = np.random.default_rng(0)
    hits = []
    for _ in range(200):
        classes = generator.choice(len(x), 20, replace=False)
        support, query = np.stack([x[c, generator.choice(20, 2, replace=False)] for c in classes], axis=1)
        distance = ((query[:, None] - support[None]) ** 2).sum(axis=-1)
        hits.append((distance.argmin(axis=1) == np.arange(20)).mean())
    assert 0.3 < np.mean(hits) < 0.6


def test_the_second_load_reads_the_first(cache: Path, data: ClassData, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = cache.glob("glyphs-*.npz")
    monkeypatch.setattr(glyphs, "_build", None)
    assert glyphs.load().checksum() == data.checksum()
    assert path.stat().st_size < 40e6


def test_a_build_repeats_and_its_arguments_matter() -> None:
    first, second = (glyphs._build(3, 28, hebrew_and_some_latin) for _ in range(2))
    assert first.checksum() == second.checksum()
    large = glyphs._build(2, 56, hebrew_and_some_latin)
    assert large.x.shape == (2 * len(first.classes), 1, 56, 56)
    assert large.classes == first.classes
    small = large.x[::2, 0].reshape(-1, 28, 2, 28, 2).mean(axis=(2, 4))
    assert np.abs(small - first.x[::3, 0]).mean() < 10  # the same drawing at another size


def test_an_example_does_not_depend_on_the_other_characters(data: ClassData) -> None:
    few = glyphs._build(20, 28, hebrew_and_some_latin)
    both = [name for name in few.classes if name in data.classes]
    assert len(both) >= 30
    np.testing.assert_array_equal(few.select(both).x, data.select(both).x)


def test_errors(data: ClassData) -> None:
    with pytest.raises(ValueError, match="part 'valid'; one of 'train', 'validation', 'test'"):
        glyphs.split(data, "valid")
    with pytest.raises(ValueError, match="examples=0, size=28; at least 1 example"):
        glyphs.load(examples=0)
    with pytest.raises(ValueError, match="size=8"):
        glyphs.load(size=8)
