"""A folder of data that were built or read once: the second load is a file read with a checksum."""

import json
import os
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from quickstudy.data.arrays import ClassData

# What a missing, cut, overwritten or foreign file can raise while it is read.
_UNREADABLE = (OSError, EOFError, KeyError, ValueError, TypeError, RuntimeError, zipfile.BadZipFile, zlib.error)


def cache_dir() -> Path:
    """The folder of the cache: QUICKSTUDY_CACHE, else XDG_CACHE_HOME/quickstudy, else ~/.cache/quickstudy.

    Nothing is created. Where the user has no home, the folder lies among the temporary files.
    """
    if own := os.environ.get("QUICKSTUDY_CACHE"):
        return Path(own).expanduser()
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg).expanduser() / "quickstudy"
    try:
        return Path.home() / ".cache" / "quickstudy"
    except RuntimeError:
        return Path(tempfile.gettempdir()) / "quickstudy"


def cached(name: str, key: str, build: Callable[[], ClassData]) -> ClassData:
    """The data that ``build`` returns, from ``cache_dir()/NAME-KEY.npz`` where that file is there and whole.

    A file that is missing, damaged or made for another key is built again and replaced in one step, so two processes
    may load at once. Where the folder cannot be written the data are returned all the same, with a warning.

    Args:
        name: the first part of the file name, e.g. ``"glyphs"``.
        key: hexadecimal text that changes whenever the data would; its first 16 characters are in the file name.
        build: called without arguments when there is no such file.

    Returns:
        The data; ``x`` and ``y`` as ``build`` made them, to the byte.
    """
    path = cache_dir() / f"{name}-{key[:16]}.npz"
    stored = _read(path, key)
    if stored is not None:
        return stored
    data = build()
    try:
        _write(path, key, data)
    except OSError as error:
        warnings.warn(
            f"the folder {path.parent} cannot be written ({error}), so {name} will be built again at each load; "
            "set the environment variable QUICKSTUDY_CACHE to a folder that can be written",
            stacklevel=2,
        )
    return data


def _read(path: Path, key: str) -> ClassData | None:
    """The data in the file, or None where it is missing, damaged or made for another key."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:  # damage is found here, before anything is parsed
                return None
        with np.load(path, allow_pickle=False) as arrays:
            about = json.loads(arrays["about"].tobytes())
            data = ClassData(arrays["x"], arrays["y"], tuple(about["classes"]), tuple(about["groups"]))
            whole = about["key"] == key and about["checksum"] == data.checksum()
    except _UNREADABLE:
        return None
    return data if whole else None


def _write(path: Path, key: str, data: ClassData) -> None:
    """Writes beside ``path`` and renames, so that no reader ever sees half a file."""
    about = {"key": key, "checksum": data.checksum(), "classes": data.classes, "groups": data.groups}
    text = np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, x=data.x, y=data.y, about=text)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
