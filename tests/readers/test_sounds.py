"""SoundReader: files, bytes and samples give the same log-mel images; damage, silence and excess are named."""

import io

import numpy as np
import pytest
import torch

from quickstudy.data.fsdd import image_of, load, read_wav
from quickstudy.data.root import data_root
from quickstudy.data.sounds import read_sound
from quickstudy.readers import SoundReader, reader_from_dict
from tests.data.small_fsdd import tone, wav

soundfile = pytest.importorskip("soundfile")


def beep(seconds: float = 0.5, *, rate: int = 8000, hertz: float = 700) -> np.ndarray:
    return (0.4 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def encoded(samples: np.ndarray, rate: int = 8000, kind: str = "WAV", **options) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, **options)
    return file.getvalue()


def test_it_is_the_form_of_the_spoken_digits(tmp_path):
    content = wav(tone(4, "theo", 1))
    expected = torch.from_numpy(image_of(read_wav(content, name="4")))[None, None]
    (tmp_path / "4.wav").write_bytes(content)
    samples = read_wav(content, name="4")
    for x in (
        [tmp_path / "4.wav"],
        [str(tmp_path / "4.wav")],
        [content],
        [io.BytesIO(content)],
        [(samples, 8000)],
        [(samples.astype(np.float64)[:, None], 8000)],
        [(np.repeat(samples[:, None], 2, axis=1), 8000)],
        [(torch.from_numpy(samples)[None], 8000)],  # (channels, n)
        [(np.repeat(samples[None], 8, axis=0), 8000)],
        [(torch.from_numpy(samples), 8000)],
        [[samples.tolist(), 8000]],
    ):
        found = SoundReader().fit(x).read(x)
        assert found.shape == (1, 1, 40, 40)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("kind", "options"), [
    ("WAV", {"subtype": "PCM_24"}), ("WAV", {"subtype": "FLOAT"}), ("WAV", {"subtype": "PCM_U8"}),
    ("FLAC", {}), ("OGG", {}), ("AIFF", {}),
])  # fmt: skip
def test_formats(kind, options):
    exact = SoundReader().read([(beep(), 8000)])
    found = SoundReader().read([encoded(beep(), kind=kind, **options)])
    loud = exact > 0.5
    assert int(loud.sum()) > 20
    assert float((found - exact)[loud].abs().mean()) < 0.05


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100, 48000])
def test_rates_and_channels(rate):
    both = np.stack([beep(rate=rate), beep(rate=rate)], axis=1)
    found = SoundReader().read([encoded(both, rate)])
    exact = SoundReader().read([(beep(), 8000)])
    loud = exact > 0.5
    assert float((found - exact)[loud].abs().mean()) < 0.02
    assert read_sound(encoded(both, rate), rate=16_000).shape == (8000,)


def test_channels_of_a_file_are_known_and_not_guessed():
    many = np.full((5, 12), 0.5, dtype=np.float32)  # fewer samples than channels
    assert read_sound(encoded(many, 8000)).shape == (5,)


def test_a_higher_rate_keeps_the_durations():
    low, high = (SoundReader(rate).read([(beep(rate=rate), rate)]) for rate in (8000, 16_000))
    assert low.shape == high.shape
    assert int((low.amax(2) > 0.3).sum()) > int((high.amax(2) > 0.3).sum()) - 8
    ends = [int((x[0, 0].amax(0) > 0.3).nonzero().max()) for x in (low, high)]
    assert abs(ends[0] - ends[1]) <= 1
    assert SoundReader(8000, 60).read([(beep(), 8000)]).shape == (1, 1, 40, 60)


def test_a_silent_start_does_not_push_the_sound_out():
    late = np.concatenate([np.zeros(16_000, dtype=np.float32), beep()])
    found = SoundReader().read([(late, 8000)])
    assert float(found.max()) > 0.5
    assert float(found[..., -1].max()) > 0.5  # no more is passed over than had to be cut
    early = np.concatenate([beep(), np.zeros(16_000, dtype=np.float32)])
    assert float(SoundReader().read([(early, 8000)])[..., 0].max()) > 0.5


def test_it_travels_as_json():
    assert SoundReader(16_000, 50).as_dict() == {"kind": "sounds", "rate": 16_000, "frames": 50}
    assert reader_from_dict(SoundReader(16_000, 50).as_dict()) == SoundReader(16_000, 50)


LONG = encoded(np.zeros(61 * 8000, dtype=np.float32), kind="FLAC")
FLAC = encoded(beep(), kind="FLAC")
STREAMED = wav(tone(1, "theo", 0))[:40] + b"\xff\xff\xff\xff" + wav(tone(1, "theo", 0))[44:]


def test_a_wav_that_was_written_as_a_stream_has_no_length():
    assert SoundReader().read([STREAMED]).shape == (1, 1, 40, 40)


@pytest.mark.parametrize(("x", "words"), [
    ("a.wav", "X is a single str; required is a list of sounds"),
    ((beep(), 8000), r"X is a single pair \(samples, rate\).*pass \[X\]"),
    ([], "there are 0 sounds"),
    (["nowhere/a.wav"], r"nowhere/a\.wav cannot be opened \(No such file"),
    ([b""], r"sound 0 is empty \(0 bytes\)"),
    ([(beep(), 8000), b"RIFF"], "sound 1 cannot be read as a sound"),
    ([b"hello, this is no sound at all"], r"sound 0 cannot be read as a sound \(Format not recognised"),
    ([wav(tone(1, "theo", 0))[:-1000]], r"is cut: 1,500 samples are there, and its last 1,000 bytes are missing"),
    ([wav(tone(1, "theo", 0))[:44]], "sound 0 is cut: 0 samples are there, and its last 4,000 bytes are missing"),
    ([FLAC[: len(FLAC) // 2]], "sound 0 (is cut|cannot be read)"),
    ([wav(np.zeros(4000, dtype="<i2"))], "sound 0 is silent: 4,000 samples, none above 0.0001"),
    ([wav(np.zeros(0, dtype="<i2"))], "sound 0 is silent: 0 samples"),
    ([LONG], r"lasts 61\.0 s with 1 channel; required are at most 60 s"),
    ([(np.zeros((8, 7_000_000), dtype=np.float32), 8000)], r"lasts 875\.0 s with 8 channels.* and 50,000,000 samples"),
    ([(np.zeros((9, 4000)), 8000)], r"shape \(9, 4000\); required is \(n,\), .* with 1 to 8 channels"),
    ([(np.zeros((4000, 9)), 8000)], r"shape \(4000, 9\); required is"),
    ([(np.zeros((20, 20)), 8000)], r"shape \(20, 20\); required is"),
    ([(np.zeros((4000, 0)), 8000)], r"shape \(4000, 0\); required is"),
    ([(beep(), 500)], "sound 0 has 500 samples per second; required are 1,000 to 400,000"),
    ([(tone(1, "theo", 0), 8000)], "samples of type int16.*divide 16-bit samples by 32768"),
    ([(np.zeros((1, 1, 1)), 8000)], r"shape \(1, 1, 1\)"),
    ([([[1.0], [1.0, 2.0]], 8000)], "samples form no array"),
    ([(np.full(4000, np.nan), 8000)], "sound 0 holds samples that are NaN or infinite"),
    ([3], "sound 0 is 3 of type int; required is a path"),
])  # fmt: skip
def test_what_is_no_sound_is_named(x, words):
    with pytest.raises(ValueError, match=words):
        SoundReader().read(x)


@pytest.mark.parametrize("values", [{"rate": 4000}, {"rate": 8000.0}, {"frames": 0}, {"frames": 10_000}])
def test_wrong_values(values):
    with pytest.raises(ValueError, match="required are 8000 to 48000 samples per second and 1 to 3000 frames"):
        SoundReader(**values)


def test_without_soundfile(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
    with pytest.raises(ValueError, match=r"sound 0 is a sound, .*pip install 'quickstudy\[audio\]'"):
        SoundReader().read([wav(tone(1, "theo", 0))])
    assert SoundReader().read([(beep(), 8000)]).shape == (1, 1, 40, 40)


@pytest.mark.skipif(not (data_root() / "fsdd" / "recordings.zip").is_file(), reason="the spoken digits are not there")
def test_real_digits_are_read_alike():
    import zipfile

    data = load()
    with zipfile.ZipFile(data_root() / "fsdd" / "recordings.zip") as archive:
        content = archive.read(next(name for name in archive.namelist() if name.endswith("3_theo_7.wav")))
    row = np.flatnonzero(data.y == data.classes.index("theo/3"))[7]
    torch.testing.assert_close(SoundReader().read([content])[0], torch.from_numpy(data.x[row]))
