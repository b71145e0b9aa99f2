"""A made set of spoken digits: a tone whose pitch tells the digit and the speaker."""

import io
import wave
import zipfile
from pathlib import Path

import numpy as np

SPEAKERS, TAKES = ("george", "theo", "yweweler"), 3


def tone(digit: int, speaker: str, take: int, *, samples: int = 2000) -> np.ndarray:
    hertz = 300 + 300 * digit + 20 * SPEAKERS.index(speaker)
    wave_form = np.sin(2 * np.pi * hertz * np.arange(samples + 200 * take) / 8000)
    return (8000 * (1 + take) * wave_form).astype("<i2")


def wav(samples: np.ndarray, *, channels: int = 1, width: int = 2, rate: int = 8000) -> bytes:
    """The bytes of a wav file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(width)
        out.setframerate(rate)
        out.writeframes(samples.tobytes())
    return file.getvalue()


def files() -> dict[str, bytes]:
    """Names and bytes of all recordings."""
    return {
        f"{digit}_{speaker}_{take}.wav": wav(tone(digit, speaker, take))
        for speaker in SPEAKERS
        for digit in range(10)
        for take in range(TAKES)
    }


def write(path: Path, members: dict[str, bytes]) -> None:
    """An archive with the folder ``recordings``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(members, reverse=True):  # an archive keeps no useful order
            archive.writestr(f"recordings/{name}", members[name])
        archive.writestr("__MACOSX/recordings/._0_george_0.wav", b"not a recording")
