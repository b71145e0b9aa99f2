"""Omniglot: from archives or folders to arrays, rotations, the two standard splits, and every error."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quickstudy.data import omniglot
from quickstudy.data.arrays import ClassData
from quickstudy.data.root import MissingData, data_root
from tests.data.small_omniglot import BACKGROUND, EVALUATION, LISTS, files, write, zipped

CLASSES = ("Angelic/character01", "Angelic/character02", "Greek/character01", "Greek/character02", "Hebrew/character01")


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(omniglot, "BACKGROUND", BACKGROUND)
    monkeypatch.setattr(omniglot, "EVALUATION", EVALUATION)
    root = tmp_path / "data" / "omniglot"
    write(root)
    return root


def test_load(small: Path):
    data = omniglot.load(small)
    assert data.classes == CLASSES
    assert data.groups == ("Angelic", "Angelic", "Greek", "Greek", "Hebrew")
    assert data.x.shape == (100, 1, 28, 28)
    assert data.x.dtype == np.uint8
    assert data.y.dtype == np.int64
    np.testing.assert_array_equal(data.y, np.repeat(np.arange(5), 20))
    length = (data.x[:, 0].max(axis=1) > 60).sum(axis=1).reshape(5, 20)  # bright ink; longer from drawer 1 to 20
    assert (np.diff(length) >= 0).all()
    assert (length[:, -1] > 2 * length[:, 0]).all()


def test_rotations_are_classes_turned_counterclockwise(small: Path):
    data, turned = omniglot.load(small), omniglot.load(small, rotations=True)
    assert turned.classes[:5] == (
        *(f"{CLASSES[0]}/rot{angle}" for angle in ("000", "090", "180", "270")),
        f"{CLASSES[1]}/rot000",
    )
    assert turned.groups == tuple(group for group in data.groups for _ in range(4))
    assert turned.x.shape == (400, 1, 28, 28)
    for i, j in ((0, 0), (3, 7), (4, 19)):
        upright = Image.fromarray(data.x[20 * i + j, 0])
        for k, angle in enumerate((0, 90, 180, 270)):
            (place,) = np.flatnonzero(turned.y == turned.classes.index(f"{data.classes[i]}/rot{angle:03d}"))[[j]]
            assert place == 20 * (4 * i + k) + j
            np.testing.assert_array_equal(turned.x[place, 0], np.asarray(upright.rotate(angle)))  # counterclockwise


def test_folders_and_the_folder_above_give_the_same(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    expected = omniglot.load(small).checksum()
    assert omniglot.load(small.parent).checksum() == expected
    monkeypatch.setenv("QUICKSTUDY_DATA", str(small.parent))
    assert omniglot.load().checksum() == expected
    monkeypatch.setenv("QUICKSTUDY_DATA", str(small))
    assert omniglot.load().checksum() == expected
    unpacked = tmp_path / "unpacked"
    for name in ("images_background", "images_evaluation"):
        with zipfile.ZipFile(small / f"{name}.zip") as archive:
            archive.extractall(unpacked)
    assert omniglot.load(unpacked).checksum() == expected
    (unpacked / "images_background" / "Greek" / "character01" / "._0001_01.png").write_bytes(b"hidden")
    assert omniglot.load(unpacked).checksum() == expected


def test_the_second_load_reads_no_image_and_a_changed_one_is_seen(small: Path, monkeypatch: pytest.MonkeyPatch):
    first = omniglot.load(small)
    with monkeypatch.context() as patch:
        patch.setattr(omniglot, "read_image", None)
        assert omniglot.load(small).checksum() == first.checksum()
    members = files(BACKGROUND)
    members["Greek/character01/0001_01.png"] = members["Greek/character02/0002_20.png"]
    zipped(small / "images_background.zip", members)
    assert omniglot.load(small).checksum() != first.checksum()


@pytest.mark.parametrize("rotations", [False, True])
def test_splits(small: Path, rotations):
    data = omniglot.load(small, rotations=rotations)
    expected = {
        ("official", "background"): CLASSES[2:],
        ("official", "train"): CLASSES[2:4],
        ("official", "validation"): CLASSES[4:],
        ("official", "test"): CLASSES[:2],
        ("vinyals", "train"): LISTS["train.txt"],
        ("vinyals", "validation"): LISTS["val.txt"],
        ("vinyals", "trainval"): LISTS["trainval.txt"],
        ("vinyals", "test"): LISTS["test.txt"],
    }
    for (name, part), characters in expected.items():
        chosen = omniglot.split(data, name, part, root=small)  # pyright: ignore[reportArgumentType]
        found = tuple(dict.fromkeys("/".join(c.split("/")[:2]) for c in chosen.classes))
        assert found == characters
        assert len(chosen.classes) == len(characters) * (4 if rotations else 1)
        assert len(chosen.x) == 20 * len(chosen.classes)


def test_unknown_split_and_part(small: Path):
    data = omniglot.load(small)
    with pytest.raises(ValueError, match="split 'lake' is unknown: choose one of official, vinyals"):
        omniglot.split(data, "lake", "train")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="no part 'trainval': choose one of train, validation, test, background"):
        omniglot.split(data, "official", "trainval")
    with pytest.raises(ValueError, match="no part 'background': choose one of train, validation, trainval, test"):
        omniglot.split(data, "vinyals", "background")


def test_data_without_the_part(small: Path):
    angelic = omniglot.split(omniglot.load(small), "official", "test")
    with pytest.raises(ValueError, match="none of the 2 classes given is of the official part 'train'"):
        omniglot.split(angelic, "official", "train")
    with pytest.raises(ValueError, match="2 of 2 classes are not in the data"):
        omniglot.split(angelic, "vinyals", "train", root=small)


def test_missing_lists(small: Path):
    data = omniglot.load(small)
    shutil.rmtree(small / "vinyals")
    with pytest.raises(MissingData, match=r"train\.txt was not found; looked for .*: run `quickstudy data omniglot"):
        omniglot.split(data, "vinyals", "train", root=small)


@pytest.mark.parametrize("name", ["images_background", "images_evaluation"])
def test_a_missing_archive(small: Path, name):
    (small / f"{name}.zip").unlink()
    with pytest.raises(ValueError, match=rf"{name} was not found; looked for .*{name}\.zip.*omniglot --download`"):
        omniglot.load(small)
    with pytest.raises(FileNotFoundError):
        omniglot.load(small)


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.99])
def test_a_truncated_archive(small: Path, kept):
    path = small / "images_evaluation.zip"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ValueError, match=r"archive .*images_evaluation\.zip is damaged .*delete it and run"):
        omniglot.load(small)


def test_a_damaged_member(small: Path):
    path = small / "images_evaluation.zip"
    content = bytearray(path.read_bytes())
    member = b"images_evaluation/Angelic/character01/0001_05.png"
    content[content.index(member) + len(member) + 40] ^= 0xFF  # the archive's own checksum of this member fails
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"images_evaluation\.zip is damaged at .*Angelic/character01/0001_05\.png"):
        omniglot.load(small)


def test_a_damaged_name_is_an_error_of_the_archive(small: Path):
    path = small / "images_evaluation.zip"
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02")  # of the list at the end of the archive
    content[entry + 9] |= 0x08  # the name is said to be UTF-8
    content[entry + 46 + 20] = 0xFF  # and is not
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"archive .*images_evaluation\.zip is damaged .*utf-8.* delete it"):
        omniglot.load(small)


def test_any_flipped_bytes_name_the_archive(small: Path):
    path, random = small / "images_evaluation.zip", np.random.default_rng(0)
    whole = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    for _ in range(300):
        flipped = whole.copy()
        flipped[random.integers(len(whole), size=4)] ^= random.integers(1, 256, size=4, dtype=np.uint8)
        path.write_bytes(flipped.tobytes())
        try:
            for _member in omniglot._members(path):
                pass
        except ValueError as error:
            assert "images_evaluation.zip is damaged" in str(error)  # noqa: PT017


@pytest.mark.parametrize("unpacked", [False, True])
def test_a_damaged_image(small: Path, unpacked):
    members = files(BACKGROUND)
    name = "Greek/character02/0002_07.png"
    members[name] = members[name][:60]
    zipped(small / "images_background.zip", members)
    if unpacked:
        with zipfile.ZipFile(small / "images_background.zip") as archive:
            archive.extractall(small)
        (small / "images_background.zip").unlink()
    with pytest.raises(ValueError, match=rf"images_background/{name} in .*images_background.* cannot be read as an"):
        omniglot.load(small)
    assert not list((small.parents[1] / "cache").glob("omniglot*"))


def test_an_incomplete_archive(small: Path):
    members = files(BACKGROUND)
    del members["Greek/character02/0002_07.png"]
    zipped(small / "images_background.zip", members)
    with pytest.raises(
        ValueError, match=r"complete images_background .* 60 images 59 .*Greek/character02 by drawer 07 is missing"
    ):
        omniglot.load(small)


def test_an_archive_under_the_wrong_name(small: Path):
    shutil.copy(small / "images_background.zip", small / "images_evaluation.zip")
    with pytest.raises(
        ValueError, match=r"not the complete images_evaluation .* Angelic/character01 by drawer 01 is missing"
    ):
        omniglot.load(small)
    zipped(small / "images_evaluation.zip", files({**EVALUATION, "Zapf": 1}))
    with pytest.raises(ValueError, match=r"Zapf/character01 by drawer 01 is not part of it"):
        omniglot.load(small)


def test_constants():
    assert (len(omniglot.BACKGROUND), sum(omniglot.BACKGROUND.values())) == (30, 964)
    assert (len(omniglot.EVALUATION), sum(omniglot.EVALUATION.values())) == (20, 659)
    assert set(omniglot.VALIDATION) < set(omniglot.BACKGROUND)
    assert not set(omniglot.BACKGROUND) & set(omniglot.EVALUATION)


def test_data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("QUICKSTUDY_DATA", str(tmp_path / "own"))
    assert data_root() == tmp_path / "own"
    monkeypatch.delenv("QUICKSTUDY_DATA")
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("quickstudy.data.root.__file__", str(tmp_path / "site" / "a" / "b" / "c" / "root.py"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert data_root() == tmp_path / "cache" / "data"
    (tmp_path / "shared" / "data").mkdir(parents=True)
    assert data_root() == tmp_path / "shared" / "data"
    checkout = tmp_path / "beside" / "checkout"
    (checkout / "src" / "quickstudy" / "data").mkdir(parents=True)
    (checkout / "pyproject.toml").touch()
    (tmp_path / "beside" / "shared" / "data").mkdir(parents=True)
    monkeypatch.setattr("quickstudy.data.root.__file__", str(checkout / "src" / "quickstudy" / "data" / "root.py"))
    assert data_root() == tmp_path / "beside" / "shared" / "data"


def is_here() -> bool:
    folder = data_root() / "omniglot"
    return all((folder / f"images_{part}.zip").is_file() for part in ("background", "evaluation"))


HAS_LISTS = (data_root() / "omniglot" / "vinyals").is_dir()


@pytest.fixture(scope="module")
def real() -> ClassData:
    if not is_here():
        pytest.skip(f"Omniglot is not in {data_root()}")
    return omniglot.load()


def test_all_of_the_real_data(real: ClassData):
    assert real.x.shape == (32_460, 1, 28, 28)
    assert len(real.classes) == 1_623
    assert (np.bincount(real.y) == 20).all()
    assert len(set(real.groups)) == 50
    assert (real.x.mean(axis=(1, 2, 3)) < 80).all()  # everywhere little ink on much ground
    assert (real.x.max(axis=(1, 2, 3)) > 120).all()


def test_the_official_split_of_the_real_data(real: ClassData):
    sizes = {part: len(omniglot.split(real, "official", part).classes) for part in omniglot.OFFICIAL}
    assert sizes == {"train": 792, "validation": 172, "background": 964, "test": 659}


@pytest.mark.skipif(not HAS_LISTS, reason=f"the Vinyals lists are not in {data_root()}")
@pytest.mark.parametrize(("rotations", "sizes"), [(False, (1028, 172, 423)), (True, (4112, 688, 1692))])
def test_the_vinyals_split_of_the_real_data(real: ClassData, rotations, sizes):
    data = omniglot.load(rotations=True) if rotations else real
    parts = [omniglot.split(data, "vinyals", part) for part in ("train", "validation", "test")]
    assert tuple(len(part.classes) for part in parts) == sizes
    assert tuple(len(part.x) for part in parts) == tuple(20 * size for size in sizes)
    together = [name for part in parts for name in part.classes]
    assert len(set(together)) == len(together) == len(data.classes)
    assert set(omniglot.split(data, "vinyals", "trainval").classes) == set(together).difference(parts[2].classes)
