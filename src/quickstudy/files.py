"""Files that are whole or not there."""

import errno
import os
from contextlib import suppress
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def require_file_path(path: Path, option: str) -> None:
    """Refuse the path of a folder before any work is done for the file.

    Args:
        path: where a file is to be written.
        option: what an error calls it, such as "--out".

    Raises:
        ValueError: a folder is there.
    """
    if path.is_dir():
        raise ValueError(f"{option} {path} is a folder; required is the name of a file: {_inside(path)}")


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a temporary file in the same folder, flush it to the disk, and rename it to ``path``.

    Raises:
        OSError: a full disk, a folder without permission or a folder at ``path``; what was there is unchanged.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, f"{path} is a folder; required is the name of a file: {_inside(path)}")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        advice = "free some space" if error.errno in _FULL else "check that the folder can be written to"
        raise OSError(
            error.errno, f"could not write {path} ({error.strerror}); what was there before is unchanged: {advice}"
        ) from error
    finally:
        with suppress(OSError):  # nothing is left after the renaming
            temporary.unlink()


def _inside(folder: Path) -> str:
    return f"give one in it, such as {folder / 'NAME'}"
