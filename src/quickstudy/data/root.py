"""Where data sets are looked for."""

import os
from pathlib import Path

from quickstudy.data.cache import cache_dir


class MissingData(FileNotFoundError, ValueError):
    """A data set is not on this machine; the message says where it was looked for and what to run."""


def data_root() -> Path:
    """The folder that holds one folder for each data set.

    The first that applies: the environment variable ``QUICKSTUDY_DATA``; ``../shared/data`` beside the checkout (of an
    editable install) or relative to the current folder, where it exists; the folder ``data`` in the user's cache.
    Nothing is created.
    """
    given = os.environ.get("QUICKSTUDY_DATA")
    if given:
        return Path(given).expanduser()
    checkout = Path(__file__).resolve().parents[3]
    starts = [checkout] if (checkout / "pyproject.toml").is_file() else []
    for start in (*starts, Path.cwd()):
        shared = start.parent / "shared" / "data"
        if shared.is_dir():
            return shared
    return cache_dir() / "data"
