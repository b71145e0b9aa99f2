"""The cache returns what was built, and builds again whatever it cannot trust."""

from pathlib import Path

import numpy as np
import pytest

from quickstudy.data.arrays import ClassData
from quickstudy.data.cache import cache_dir, cached

KEY = "0123456789abcdef" * 4


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "deep" / "er"))
    return tmp_path / "deep" / "er"


class Builder:
    """Counts how often it is called."""

    def __init__(self, value: int = 0) -> None:
        self.calls = 0
        x = np.arange(value, value + 12, dtype=np.float32).reshape(4, 3)
        self.data = ClassData(x, np.array([0, 0, 1, 1]), ("é, ", 'U+0022 "'), ("Ж", "line\nbreak"))

    def __call__(self) -> ClassData:
        self.calls += 1
        return self.data


def test_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.setenv("QUICKSTUDY_CACHE", "~/here")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "here"
    monkeypatch.delenv("QUICKSTUDY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "quickstudy"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == tmp_path / ".cache" / "quickstudy"


def test_second_load_reads(folder: Path) -> None:
    build = Builder()
    first, second = cached("name", KEY, build), cached("name", KEY, build)
    assert build.calls == 1
    assert [path.name for path in folder.iterdir()] == [f"name-{KEY[:16]}.npz"]  # nothing temporary is left
    np.testing.assert_array_equal(first.x, second.x)
    np.testing.assert_array_equal(first.y, second.y)
    assert (second.classes, second.groups) == (first.classes, first.groups)
    assert (second.x.dtype, second.y.dtype) == (np.float32, np.int64)


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "one byte"])
def test_a_damaged_file_is_built_again(folder: Path, damage: str) -> None:
    build = Builder()
    cached("name", KEY, build)
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    at = whole.index(build.data.x.tobytes()) + 5
    broken = {
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "text": b"not an archive",
        "one byte": whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :],
    }
    path.write_bytes(broken[damage])
    assert cached("name", KEY, build).checksum() == build.data.checksum()
    assert build.calls == 2
    assert path.read_bytes() == whole


def test_a_file_for_another_key_is_built_again(folder: Path) -> None:
    cached("name", KEY, Builder())
    other = Builder(value=7)
    key = KEY[:16] + "f" * 48  # the same file name
    assert cached("name", key, other).x[0, 0] == 7
    assert cached("name", key, Builder()).x[0, 0] == 7


def test_arrays_that_do_not_match_their_checksum_are_built_again(folder: Path) -> None:
    build = Builder()
    cached("name", KEY, build)
    (path,) = folder.iterdir()
    with np.load(path) as arrays:
        stored = dict(arrays)
    np.savez(path, **{**stored, "x": stored["x"] + 1})
    assert cached("name", KEY, build).checksum() == build.data.checksum()
    assert build.calls == 2


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")  # holds for every user, the administrator too
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "file"))
    build = Builder()
    with pytest.warns(UserWarning, match="cannot be written .* set the environment variable QUICKSTUDY_CACHE"):
        assert cached("name", KEY, build) is build.data


def test_an_error_while_building_leaves_nothing(folder: Path) -> None:
    def build() -> ClassData:
        raise ValueError("no data")

    with pytest.raises(ValueError, match="no data"):
        cached("name", KEY, build)
    assert not folder.exists()
