"""A folder for each class: what there is, dealt to parts; every wrong layout is named."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import quickstudy as q
from quickstudy.data import cache, folder
from quickstudy.data.folder import folder_kind, load, read_folder, split
from quickstudy.data.images import read_image
from quickstudy.data.root import MissingData
from quickstudy.readers import ImageReader, SoundReader
from tests.data.small_fsdd import tone, wav


def image(seed: int, size: int = 20) -> bytes:
    """A drawing of its own, no two alike."""
    values = np.random.default_rng(seed).integers(0, 90, (size, size + 3, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


def write(root: Path, names: list[str]) -> Path:
    for i, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = wav(tone(i % 10, "theo", i // 10)) if path.suffix.lower() == ".wav" else image(i)
        path.write_bytes(content if path.suffix != ".txt" else b"notes")
    return root


def classes(root: Path, count: int, examples: int = 2, groups: int = 0) -> Path:
    place = [f"G{i % groups}/c{i}" if groups else f"c{i}" for i in range(count)]
    return write(root, [f"{name}/{j}.png" for name in place for j in range(examples)])


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path_factory.mktemp("cache")))


def test_classes_in_natural_order(tmp_path):
    write(tmp_path, ["b/x10.png", "b/x2.PNG", "a/1.jpg", ".hidden/a.png", "a/.b.png", "a/notes.txt", "top.txt"])
    found = read_folder(str(tmp_path))
    assert [path.name for path in found.files] == ["1.jpg", "x2.PNG", "x10.png"]
    assert found.labels == ("a", "b", "b")
    assert found.groups == (None, None, None)
    assert len(set(found.digests)) == 3
    assert folder_kind(tmp_path) == "images"


def test_files_that_are_passed_over_are_counted(tmp_path):
    write(tmp_path, ["a/1.png", "a/2.HEIC", "a/Thumbs.db", "b/3.png", "b/4.heic", "b/5.pdf", "b/README", "b/.DS_Store"])
    words = r"2 files of \.heic, 1 file without an ending, 1 file of \.pdf in .* were passed over, the first in .*a;"
    with pytest.warns(UserWarning, match=words) as caught:
        assert len(read_folder(tmp_path).files) == 2
    assert len(caught) == 1
    (tmp_path / "b" / "3.png").unlink()
    with pytest.raises(ValueError, match=r"holds no images, but 1 file without an ending, 1 file of \.heic"):
        read_folder(tmp_path)


def test_groups_are_part_of_a_name_only_where_it_is_needed(tmp_path):
    unique = write(tmp_path / "unique", ["Greek/alpha/1.png", "Latin/a/1.png", "Latin/b/1.png"])
    assert read_folder(unique).labels == ("alpha", "a", "b")
    assert read_folder(unique).groups == ("Greek", "Latin", "Latin")
    shared = write(tmp_path / "shared", ["Greek/1/1.png", "Latin/1/1.png", "Latin/2/1.png"])
    assert read_folder(shared).labels == ("Greek/1", "Latin/1", "Latin/2")


@pytest.mark.parametrize(("names", "words"), [
    ([], r"is empty; required are images in a folder for each class"),
    (["notes.txt"], r"is empty"),
    (["1.png"], r"1\.png lies beside the class folders"),
    (["a/1.png", "1.png"], r"1\.png lies beside the class folders; .*move it into the folder of its class"),
    (["a/1.png", "a/2.png"], r"has the single class 'a'; required are at least two"),
    (["a/1.png", "b/notes.txt"], r"class folder .*b holds no images; required are images alone, at least .*\.png"),
    (["a/1.png", "b/old/1.png"], r"a holds images and .*b holds folders; required is one layout for all"),
    (["a/1.png", "a/old/2.png", "b/3.png"], r"a holds images and .*a holds folders"),
    (["G/a/1.png", "H/notes.txt"], r"the group .*H has no class folder"),
    (["G/a/1.png", "G/b/notes.txt"], r"class folder .*b holds no images"),
    (["G/a/1.png", "G/b/deep/1.png"], r"class folder .*b holds the folder 'deep'"),
    (["a/1.wav", "b/1.wav"], r"holds no images"),
])  # fmt: skip
def test_wrong_layouts_are_named(tmp_path, names, words):
    with pytest.raises(ValueError, match=words):
        read_folder(write(tmp_path, names))


def test_a_missing_folder_and_an_unknown_kind(tmp_path):
    with pytest.raises(MissingData, match=r"none is not a folder: give one laid out as ROOT/CLASS/FILE or ROOT/GROUP"):
        read_folder(tmp_path / "none")
    with pytest.raises(MissingData, match="is not a folder"):
        folder_kind(tmp_path / "none")
    with pytest.raises(ValueError, match="kind='videos'; required is 'images' or 'sounds'"):
        read_folder(tmp_path, "videos")  # pyright: ignore[reportArgumentType]


def test_an_empty_file_is_named(tmp_path):
    write(tmp_path, ["a/1.png", "b/1.png"])
    (tmp_path / "b" / "2.png").touch()
    with pytest.raises(ValueError, match=r"b/2\.png is empty \(0 bytes\)"):
        read_folder(tmp_path)


def test_the_same_file_twice(tmp_path):
    write(tmp_path, ["a/1.png", "a/2.png", "b/1.png"])
    (tmp_path / "a" / "copy.png").write_bytes((tmp_path / "a" / "1.png").read_bytes())
    with pytest.warns(UserWarning, match=r"1 of 4 files .* counted once, the first: .*a/1\.png and .*a/copy\.png"):
        found = read_folder(tmp_path)
    assert found.labels == ("a", "a", "b")
    (tmp_path / "b" / "copy.png").write_bytes((tmp_path / "a" / "2.png").read_bytes())
    with pytest.raises(ValueError, match=r"a/2\.png and .*b/copy\.png have the same content, and are of two classes"):
        read_folder(tmp_path)


def test_arrays_are_what_the_readers_read(tmp_path):
    classes(tmp_path, 3)
    files = read_folder(tmp_path).files
    data = load(tmp_path)
    assert (data.x.shape, data.x.dtype) == ((6, 1, 28, 28), np.uint8)
    assert np.array_equal(data.x[3, 0], read_image(files[3]))
    torch.testing.assert_close(torch.from_numpy(data.x) / 255, ImageReader().read(files))
    colour = load(tmp_path, size=16, channels=3)
    torch.testing.assert_close(torch.from_numpy(colour.x) / 255, ImageReader(16, 3).read(files))
    assert data.y.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.classes == ("c0", "c1", "c2")
    assert data.groups == ("", "", "")
    for options in ({"size": 0}, {"channels": 2}):
        with pytest.raises(ValueError, match="required are a side of 1 pixel or more, and 1 channel"):
            load(tmp_path, **options)


def test_arrays_are_kept_until_a_file_changes(tmp_path, monkeypatch):
    classes(tmp_path, 2)
    first = load(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(folder, "read_image", None)  # nothing is decoded again
        assert load(tmp_path).checksum() == first.checksum()
    (tmp_path / "c1" / "1.png").write_bytes(image(99))
    assert load(tmp_path).checksum() != first.checksum()
    assert len(list(cache.cache_dir().glob("folder-*.npz"))) == 2
    (tmp_path / "c1" / "1.png").write_bytes(image(7)[:90])
    with pytest.raises(ValueError, match=r"c1/1\.png cannot be read as an image"):
        load(tmp_path)


def test_sounds(tmp_path):
    pytest.importorskip("soundfile")
    write(tmp_path, ["yes/1.wav", "yes/2.WAV", "no/1.wav", "no/cover.txt"])
    assert folder_kind(tmp_path) == "sounds"
    data = load(tmp_path)
    assert data.classes == ("no", "yes")
    expected = SoundReader().read(read_folder(tmp_path, "sounds").files)
    assert torch.equal(torch.from_numpy(data.x), expected)
    with pytest.raises(ValueError, match=r"image size 40 and 1 channels were given, and .* holds sounds"):
        load(tmp_path, size=40)
    (tmp_path / "no" / "cover.png").write_bytes(image(0))
    with pytest.raises(ValueError, match=r"holds both images \(.*cover\.png\) and sounds \(.*\.wav\)"):
        folder_kind(tmp_path)
    with pytest.raises(ValueError, match="holds neither; required are folders of images or of sounds"):
        folder_kind(write(tmp_path / "other", ["a/notes.txt"]))


def test_classes_are_dealt_to_disjoint_parts_by_their_names(tmp_path):
    data = load(classes(tmp_path, 10))
    parts = {part: split(data, "classes", part) for part in ("train", "validation", "test")}
    assert [len(part.classes) for part in parts.values()] == [6, 2, 2]
    assert sorted(name for part in parts.values() for name in part.classes) == sorted(data.classes)
    assert [len(part.y) for part in parts.values()] == [12, 4, 4]
    assert not {*parts["train"].classes} & {*parts["test"].classes}
    both = split(data, "classes", "trainval").classes
    assert set(both) == {*parts["train"].classes, *parts["validation"].classes}
    assert split(data, "classes", "all") is data


def test_groups_are_dealt_whole(tmp_path):
    data = load(classes(tmp_path, 12, groups=4))
    groups = [set(split(data, "groups", part).groups) for part in ("train", "validation", "test")]
    assert [len(found) for found in groups] == [2, 1, 1]
    assert set.union(*groups) == {"G0", "G1", "G2", "G3"}


def test_splits_that_cannot_be(tmp_path):
    data = load(classes(tmp_path, 10))
    words = "the 10 classes give 6 to train, 2 to validation and 2 to test; required are at least 5 each.*lower the way"
    with pytest.raises(ValueError, match=words):
        split(data, "classes", "train", way=5)
    with pytest.raises(ValueError, match="the folder has no groups; required for a split by groups are 3 or more"):
        split(data, "groups", "train")
    with pytest.raises(ValueError, match="split 'drawers' of a folder is not known: choose classes or groups"):
        split(data, "drawers", "train")
    with pytest.raises(ValueError, match="part 'exam' of a folder is not known: choose one of train, validation"):
        split(data, "classes", "exam")


def test_named_tasks(tmp_path):
    root = classes(tmp_path, 10, examples=3)
    tasks = q.named_tasks("folder", "test", root=root, way=2, shot=1, queries=2, image_size=20, channels=3)
    episodes = tasks.sample(2, generator=torch.Generator())
    assert episodes.support.x.shape == (2, 2, 3, 20, 20)
    assert float(episodes.support.x.max()) <= 1
    with pytest.raises(ValueError, match=r"tasks folder needs its root.*--root DIR"):
        q.named_tasks("folder", "test")
    with pytest.raises(ValueError, match=r"required are at least 4 each"):
        q.named_tasks("folder", "test", root=root, way=(2, 4), queries=2)
    with pytest.raises(ValueError, match=r"image_size=64 and channels=1 were given, and sinusoid has"):
        q.named_tasks("sinusoid", "test", image_size=64)
