"""Spoken digits: from an archive or a folder to log-mel images, the splits by speaker, and every error."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import quickstudy as q
from quickstudy.data import fsdd
from quickstudy.data.log_mel import mel_corners
from quickstudy.data.root import MissingData, data_root
from quickstudy.tasks import AcrossGroups
from tests.data.small_fsdd import SPEAKERS, TAKES, files, tone, wav, write

PARTS = {"train": ("george",), "validation": ("george",), "trainval": ("george",), "test": ("theo", "yweweler")}


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "cache"))
    for name, value in (("SPEAKERS", SPEAKERS), ("TAKES", TAKES), ("PARTS", PARTS)):
        monkeypatch.setattr(fsdd, name, value)
    root = tmp_path / "data" / "fsdd"
    write(root / "recordings.zip", files())
    return root


def test_load(small: Path):
    data = fsdd.load(small)
    assert data.classes == tuple(f"{speaker}/{digit}" for speaker in SPEAKERS for digit in range(10))
    assert data.groups == tuple(speaker for speaker in SPEAKERS for _ in range(10))
    assert data.x.shape == (90, 1, 40, 40)
    assert data.x.dtype == np.float32
    np.testing.assert_array_equal(data.y, np.repeat(np.arange(30), TAKES))
    corners = mel_corners(40, low=0, high=4000)
    for i in (0, 14, 29):
        speaker, digit = data.classes[i].split("/")
        hertz = 300 + 300 * int(digit) + 20 * SPEAKERS.index(speaker)
        for take, image in enumerate(data.x[data.y == i, 0]):
            band = int(image[:, 3].argmax())
            assert float(corners[band]) < hertz < float(corners[band + 2])
            heard = int((image.max(0) > 0).sum())  # then silence
            assert heard == 1 + (2000 + 200 * take - 1) // fsdd.HOP
            assert not image[:, heard:].any()
    loud, quiet = (
        fsdd.image_of(np.float32(0.9) * np.ones(4000, "f4")),
        fsdd.image_of(np.float32(0.01) * np.ones(4000, "f4")),
    )
    np.testing.assert_allclose(loud, quiet, atol=1e-4)


def test_degenerate_recordings_give_finite_images():
    for samples in (np.zeros(3000, "f4"), np.ones(1, "f4"), np.ones(50_000, "f4")):
        image = fsdd.image_of(samples)
        assert image.shape == (40, 40)
        assert np.isfinite(image).all()
        assert image.min() >= 0


def test_archive_folder_and_the_folder_above_give_the_same(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    expected = fsdd.load(small).checksum()
    assert fsdd.load(small.parent).checksum() == expected
    monkeypatch.setenv("QUICKSTUDY_DATA", str(small.parent))
    assert fsdd.load().checksum() == expected
    with zipfile.ZipFile(small / "recordings.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    assert fsdd.load(tmp_path / "unpacked").checksum() == expected
    with monkeypatch.context() as patch:
        patch.setattr(fsdd, "read_wav", None)  # the second load reads no recording
        assert fsdd.load(small).checksum() == expected


def test_splits_share_no_speaker_and_digits_may_be_held_out(small: Path):
    data = fsdd.load(small)
    for part, speakers in PARTS.items():
        assert fsdd.split(data, "speakers", part).classes == tuple(f"{s}/{d}" for s in speakers for d in range(10))
        digits = range(5, 10) if part == "test" else range(5)
        assert fsdd.split(data, "digits", part).classes == tuple(f"{s}/{d}" for s in speakers for d in digits)
    with pytest.raises(ValueError, match="split 'words' of spoken digits is unknown: choose one of speakers, digits"):
        fsdd.split(data, "words", "test")
    with pytest.raises(ValueError, match="no part 'background': choose one of train"):
        fsdd.split(data, "speakers", "background")


def test_the_real_parts_are_disjoint():
    train, validation, test = (set(fsdd.PARTS[part]) for part in ("train", "validation", "test"))
    assert train | validation == set(fsdd.PARTS["trainval"])
    assert train | validation | test == set(fsdd.SPEAKERS)
    assert len(train) + len(validation) + len(test) == 6


def test_tasks_by_name(small: Path):
    shape = {"way": 5, "shot": 1, "queries": 2}
    within = q.named_tasks("fsdd", "test", root=small, **shape)
    assert isinstance(within, q.ClassTasks)
    assert within.within_group
    across = q.named_tasks("fsdd", "test", split="across", root=small, **shape)
    assert isinstance(across, AcrossGroups)
    held_out = q.named_tasks("fsdd", "test", split="digits", root=small, **shape)
    assert {str(name)[-1] for name in held_out.classes} == set(fsdd.HELD_OUT)  # pyright: ignore
    with pytest.raises(ValueError, match="split 'words' of spoken digits"):
        q.named_tasks("fsdd", "test", split="words", root=small, **shape)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"RIFFsomething", "x.wav is damaged or no wav file"),
        (b"", "x.wav is damaged or no wav file"),
        (wav(np.zeros(10, "<i2"), channels=2), "2 channels of 16 bits at 8000.*required are 1 channel"),
        (wav(np.zeros(10, "u1"), width=1), "1 channels of 8 bits"),
        (wav(np.zeros(10, "<i2"), rate=16000), "at 16000 samples per second"),
        (wav(np.zeros(0, "<i2")), "is cut: 0 of 0 samples"),
        (wav(np.zeros(100, "<i2"))[:-50], "is cut: 75 of 100 samples"),
    ],
)
def test_a_wav_file_that_cannot_be_used_is_named(content, words):
    with pytest.raises(ValueError, match=words):
        fsdd.read_wav(content, name="x.wav")


def test_a_wav_file_is_read_to_the_number():
    samples = tone(3, "theo", 1)
    np.testing.assert_array_equal(fsdd.read_wav(wav(samples), name="x.wav"), samples.astype("f4") / 32768)


def test_what_is_missing_or_too_much_is_named(small: Path, tmp_path: Path):
    members = files()
    del members["7_theo_1.wav"]
    write(tmp_path / "less" / "recordings.zip", members)
    with pytest.raises(ValueError, match=r"of 90 recordings 89 were found, and 7_theo_1.wav is missing"):
        fsdd.load(tmp_path / "less")
    write(tmp_path / "more" / "recordings.zip", files() | {"7_zoe_1.wav": b""})
    with pytest.raises(ValueError, match=r"7_zoe_1.wav is not part of it"):
        fsdd.load(tmp_path / "more")
    with pytest.raises(MissingData, match=r"spoken digits were not found; looked for .*recordings.zip"):
        fsdd.load(tmp_path / "nowhere")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "recordings.zip").write_bytes((small / "recordings.zip").read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"recordings.zip is damaged"):
        fsdd.load(tmp_path / "bad")
    write(tmp_path / "cut" / "recordings.zip", files() | {"0_george_0.wav": b"RIFF"})
    with pytest.raises(ValueError, match=r"0_george_0.wav in .* is damaged or no wav file"):
        fsdd.load(tmp_path / "cut")


@pytest.mark.skipif(not (data_root() / "fsdd").is_dir(), reason="the spoken digits are not in the data folder")
def test_the_real_recordings(generator):
    data = fsdd.load()
    assert (len(data.x), len(data.classes), len(set(data.groups))) == (3000, 60, 6)
    assert data.x.min() == 0
    tasks = q.named_tasks("fsdd", "test", way=5, shot=1, queries=15)
    score = q.evaluate(q.ProtoNet(torch.nn.Flatten()), tasks, episodes=20, generator=generator)
    assert 0.3 < score.mean < 0.8
