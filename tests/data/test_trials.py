"""load_trials: the layout, the order, unequal ways and shots, and every error."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quickstudy.data.images import suffixes
from quickstudy.data.root import MissingData
from quickstudy.data.trials import load_trials


def write(path: Path, ink: int = 0) -> None:
    """White paper with a bar; its grey level tells the files apart."""
    array = np.full((50, 50), 255, dtype=np.uint8)
    array[10:40, 20:30] = ink
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """run10: 2-way with 2 + 1 shots and one class without queries; run2: 3-way 1-shot."""
    root = tmp_path / "trials"
    for i in (2, 10):
        write(root / "run10" / "support" / "class2" / f"item{i}.PNG", ink=10 * i)
    write(root / "run10" / "support" / "class10" / "a.jpeg")
    write(root / "run10" / "query" / "class10" / "b.Gif")
    write(root / "run10" / "query" / "class10" / "c.bmp")
    for name in ("x", "y", "z"):
        write(root / "run2" / "support" / name / "1.jpg")
        write(root / "run2" / "query" / name / "2.png")
    for hidden in (".DS_Store", "run2/.hidden/x", "run2/query/x/._2.png", "run2/query/x/notes.txt", "__MACOSX/run2/x"):
        path = root / hidden
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not an image")
    return root


def test_load(folder: Path):
    first, second = load_trials(folder)
    assert (first.name, second.name) == ("run2", "run10")
    assert first.classes == ("x", "y", "z")
    assert second.classes == ("class2", "class10")
    assert first.support_x.shape == first.query_x.shape == (3, 1, 28, 28)
    assert second.support_x.shape == (3, 1, 28, 28)
    assert second.query_x.shape == (2, 1, 28, 28)
    assert second.support_x.dtype == np.uint8
    assert second.support_y.dtype == np.int64
    np.testing.assert_array_equal(second.support_y, [0, 0, 1])
    np.testing.assert_array_equal(second.query_y, [1, 1])
    np.testing.assert_array_equal(first.query_y, [0, 1, 2])
    # item2 is darker ink than item10, so brighter when read, and comes first
    assert [int(x.max()) for x in second.support_x[:2]] == [235, 155]


def test_size(folder: Path):
    assert load_trials(folder, size=40)[0].support_x.shape == (3, 1, 40, 40)


def test_a_missing_folder(tmp_path: Path):
    with pytest.raises(MissingData, match=r"absent is not a folder: give one laid out as FOLDER/TRIAL/support/CLASS"):
        load_trials(tmp_path / "absent")


def test_an_empty_folder(tmp_path: Path):
    with pytest.raises(ValueError, match=r"holds no trials: it must be laid out as FOLDER/TRIAL/support/CLASS"):
        load_trials(tmp_path)


@pytest.mark.parametrize("part", ["support", "query"])
def test_a_trial_without_a_part(folder: Path, part):
    (folder / "run2" / part).rename(folder / "run2" / "other")
    with pytest.raises(ValueError, match=rf"run2 has no folder '{part}': it must be laid out as"):
        load_trials(folder)


@pytest.mark.parametrize("part", ["support", "query"])
def test_a_part_without_classes(folder: Path, part):
    (folder / "run2" / part).rename(folder / "run2" / "other")
    (folder / "run2" / part).mkdir()
    with pytest.raises(ValueError, match=rf"run2/{part} has no class folders"):
        load_trials(folder)


def test_a_trial_given_as_the_folder(folder: Path):
    with pytest.raises(ValueError, match=r"run2 is itself a trial: give the folder above it, laid out as FOLDER"):
        load_trials(folder / "run2")


def test_a_query_class_without_support(folder: Path):
    write(folder / "run2" / "query" / "w" / "1.png")
    with pytest.raises(
        ValueError, match=r"query class 'w' of trial .*run2 has no support .* support classes are x, y, z"
    ):
        load_trials(folder)


def test_every_format_that_is_read_is_found(folder: Path):
    for i, ending in enumerate((".webp", ".tif", ".TIFF", ".ppm", ".jfif")):
        write(folder / "run2" / "support" / "x" / f"{i}{ending}")
    assert np.bincount(load_trials(folder)[0].support_y).tolist() == [6, 1, 1]
    assert {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif"} <= suffixes()


def test_an_empty_query_class_is_a_class_without_queries(folder: Path):
    (folder / "run2" / "query" / "y" / "2.png").unlink()
    (folder / "run2" / "query" / "z" / "2.png").unlink()
    (folder / "run2" / "query" / "z").rmdir()
    trial = load_trials(folder)[0]
    assert trial.classes == ("x", "y", "z")
    assert trial.query_y.tolist() == [0]


def test_a_trial_without_any_query(folder: Path):
    for name in "xyz":
        (folder / "run2" / "query" / name / "2.png").unlink()
    with pytest.raises(ValueError, match=r"trial .*run2 has no query; required is at least one image in .*query/CLASS"):
        load_trials(folder)


def test_a_trial_of_one_class(folder: Path):
    write(folder / "run3" / "support" / "x" / "1.png")
    write(folder / "run3" / "query" / "x" / "2.png")
    with pytest.raises(ValueError, match=r"trial .*run3 has the single class 'x'; required are at least two"):
        load_trials(folder)


def test_a_folder_that_is_no_trial_is_passed_over(folder: Path):
    write(folder / "originals" / "x" / "1.png")
    (folder / "notes").mkdir()
    assert [trial.name for trial in load_trials(folder)] == ["run2", "run10"]


def test_only_folders_that_are_no_trials(tmp_path: Path):
    write(tmp_path / "originals" / "x" / "1.png")
    with pytest.raises(ValueError, match="holds no trials: it must be laid out as"):
        load_trials(tmp_path)


def test_a_class_without_images(folder: Path):
    (folder / "run2" / "support" / "y" / "1.jpg").unlink()
    with pytest.raises(ValueError, match=r"support/y holds no image; at least one of .*\.bmp, .* is required"):
        load_trials(folder)


def test_an_unreadable_image(folder: Path):
    (folder / "run2" / "query" / "y" / "2.png").write_bytes(b"\x89PNG")
    with pytest.raises(ValueError, match=r"run2/query/y/2\.png cannot be read as an image"):
        load_trials(folder)
