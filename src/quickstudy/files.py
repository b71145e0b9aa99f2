"""Files that are whole or not there."""

import errno
import os
from contextlib import suppress
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a temporary file in the same folder, flush it to the disk, and rename it to ``path``.

    Raises:
        OSError: a full disk or a folder without permission; what was at ``path`` is unchanged.
    """
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
