"""Any sound file as one channel of samples at the rate that is asked for (the extra ``audio``)."""

import io
import math
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from quickstudy.data.fsdd import FRAME, HOP, RATE, image_of

SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".mp3", ".aif", ".aiff"})
LONGEST = 60.0  # seconds
MOST_CHANNELS = 8  # of samples that are given as an array, whose longer side is time
RATES = (1000, 400_000)  # samples per second that are taken for sound
SILENCE = 1e-4  # the largest sample of what is taken for silence, of a range of 1
_MOST = 50_000_000  # samples of all channels together
_STREAMED = (0, 0xFFFFFFFF)  # the length that a wav file states which was written before its end was known


def read_sound(source: Path | bytes | BinaryIO, *, rate: int = 8000, name: str | None = None) -> np.ndarray:
    """Read one recording: its channels averaged, resampled.

    Args:
        source: a path, the bytes of a file, or an open binary file: wav, flac, ogg, mp3, aiff.
        rate: samples per second of the result.
        name: what an error calls it; without it, the path or the open file's name.

    Returns:
        (n,) float32, in [−1, 1] but for the ripple of resampling.

    Raises:
        ValueError: soundfile is not installed; an empty, damaged, cut, silent or overlong recording; the message names
            it.
        OSError: the file cannot be opened at all.
    """
    if name is None:
        name = str(source) if isinstance(source, Path) else str(getattr(source, "name", "the given sound"))
    if not isinstance(source, bytes):
        source = source.read_bytes() if isinstance(source, Path) else source.read()
    if not source:
        raise ValueError(f"{name} is empty (0 bytes); required is a whole sound file: replace it or leave it out")
    soundfile = _soundfile(name)
    try:
        with soundfile.SoundFile(io.BytesIO(source)) as file:
            frames, given = file.frames, file.samplerate
            _check_length(frames, given, file.channels, name)
            samples = file.read(dtype="float32", always_2d=True)  # (n, channels)
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        reason = str(error).rpartition(": ")[2]
        raise ValueError(
            f"{name} cannot be read as a sound ({reason}); required is a whole wav, flac, ogg, mp3 or aiff file: "
            "replace it or leave it out"
        ) from error
    missing = _missing_bytes(source)
    if missing or len(samples) < frames:
        what = f"its last {missing:,} bytes are missing" if missing else f"{frames:,} samples were announced"
        raise ValueError(
            f"{name} is cut: {len(samples):,} samples are there, and {what}; required is a whole file: replace it or "
            "leave it out"
        )
    return _mono(samples, given, rate=rate, name=name)


def as_samples(samples: np.ndarray, given: int, *, rate: int, name: str) -> np.ndarray:
    """Samples (n,), (n, channels) or (channels, n) of ``given`` per second, as ``read_sound`` returns them.

    Raises:
        ValueError: no numbers, other shapes, more than 8 channels, integers, silence, more than 60 seconds; the message
            begins with ``name``.
    """
    if samples.ndim not in (1, 2) or samples.dtype.kind != "f":
        raise ValueError(
            f"{name} has samples of type {samples.dtype} and shape {samples.shape}; required are floats in [-1, 1], "
            "(n,), (n, channels) or (channels, n): divide 16-bit samples by 32768"
        )
    if samples.ndim == 2:
        n, channels = samples.shape
        if 1 <= n <= MOST_CHANNELS and n < channels:
            samples = samples.T  # (channels, n) -> (n, channels)
        elif not 1 <= channels <= MOST_CHANNELS:
            raise ValueError(
                f"{name} has samples of shape {samples.shape}; required is (n,), (n, channels) or (channels, n) with "
                f"1 to {MOST_CHANNELS} channels: choose one recording, or one channel"
            )
    return _mono(samples, given, rate=rate, name=name)


def _mono(samples: np.ndarray, given: int, *, rate: int, name: str) -> np.ndarray:
    """Samples (n,) or (n, channels) with their channels averaged, at the rate that is asked for."""
    _check_length(len(samples), given, samples.shape[1] if samples.ndim == 2 else 1, name)
    if not np.isfinite(samples).all():
        raise ValueError(
            f"{name} holds samples that are NaN or infinite; required are numbers: replace it or leave it out"
        )
    mono = samples if samples.ndim == 1 else samples.mean(1)  # (n, channels) -> (n,)
    if len(mono) == 0 or float(np.abs(mono).max()) < SILENCE:
        raise ValueError(
            f"{name} is silent: {len(mono):,} samples, none above {SILENCE:g} of the full range; required is something "
            "to hear: record it again, or leave it out"
        )
    if given == rate:
        return mono.astype(np.float32)
    from scipy.signal import resample_poly  # here, because it takes long to import

    common = math.gcd(given, rate)
    return resample_poly(mono, rate // common, given // common).astype(np.float32)


def sound_image(samples: np.ndarray, *, rate: int = 8000, frames: int = 40) -> np.ndarray:
    """Samples (n,) as a log-mel image (1, 40, frames) float32, in the form that ``fsdd.image_of`` gives.

    A recording that is longer than the image begins where it is no longer quiet (40 dB below its loudest 20 ms), or
    earlier where less must be cut: a silent second before a word does not push the word out.
    """
    window = (FRAME + (frames - 1) * HOP) * rate // RATE
    surplus = len(samples) - window
    if surplus > 0:
        step = HOP * rate // RATE
        whole = len(samples) // step * step
        power = np.square(samples[:whole]).reshape(-1, step).mean(1)  # (whole / step,)
        start = int((power > 1e-4 * power.max()).argmax()) * step
        samples = samples[min(start, surplus) :]
    return image_of(samples, rate=rate, frames=frames)[None]


def _check_length(frames: int, rate: int, channels: int, name: str) -> None:
    if not RATES[0] <= rate <= RATES[1]:
        raise ValueError(
            f"{name} has {rate:,} samples per second; required are {RATES[0]:,} to {RATES[1]:,}: check the rate"
        )
    if frames > LONGEST * rate or frames * channels > _MOST:
        raise ValueError(
            f"{name} lasts {frames / rate:,.1f} s with {channels} channel{'s' if channels > 1 else ''}; required are "
            f"at most {LONGEST:g} s and {_MOST:,} samples: cut out what matters"
        )


def _missing_bytes(content: bytes) -> int:
    """By how much a wav file is shorter than it says; libsndfile reads what is left of it without a word."""
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        return 0
    place = 12
    while place + 8 <= len(content):
        length = int.from_bytes(content[place + 4 : place + 8], "little")
        if content[place : place + 4] == b"data":
            return 0 if length in _STREAMED else max(0, length - (len(content) - place - 8))
        place += 8 + length + length % 2
    return 0


def _soundfile(name: str) -> Any:
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: the package is there, and libsndfile is not
        raise ValueError(
            f"{name} is a sound, and reading sounds needs soundfile, which is not installed: pip install "
            "'quickstudy[audio]'"
        ) from error
    return soundfile
