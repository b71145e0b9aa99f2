"""Fetching Omniglot and the Vinyals class lists from where their authors publish them."""

import hashlib
import http.client
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from quickstudy.data.root import data_root

BASE_URL = "https://github.com/brendenlake/omniglot/raw/master/python"
LISTS_URL = "https://raw.githubusercontent.com/jakesnell/prototypical-networks/master/data/omniglot/splits/vinyals"

CHECKSUMS: Mapping[str, tuple[str, ...]] = {  # file: what is accepted, md5 (32 digits) or sha256 (64 digits)
    "images_background.zip": (
        "68d2efa1b9178cc56df9314c21c6e718",
        "add435dd0acfbea8bad1e70d648165c2",  # a known copy, zipped again: the same images
    ),
    "images_evaluation.zip": (
        "6b91aef0f799c5bb55b94e3f2daec811",
        "80076698297a434988c30cdd745585cd",  # likewise
    ),
    "vinyals/train.txt": ("984522c194c30fb678ce53304a160a42faf5403ad4f9a67010f32dd3a35738e0",),
    "vinyals/val.txt": ("11f99e54faee3e26f53d3231c1cceac5bf7b8730e9be31cb6dab256551dc0c1a",),
    "vinyals/trainval.txt": ("5276ae50c755596d0bff7f2284e85625695549a85ee6e36b6491ad1e5d1cc26a",),
    "vinyals/test.txt": ("845264cc5c156180828ccf17915668b17ee21424d0170df6e7d81676aa5d1204",),
}

MAX_BYTES = 100_000_000  # of one file; the largest has 9.5 MB
_CHUNK = 1 << 16


class DownloadError(ConnectionError, ValueError):
    """The server could not be reached, refused, or stopped before the end."""


def download_omniglot(
    root: Path | None = None,
    *,
    base_url: str = BASE_URL,
    lists_url: str = LISTS_URL,
    progress: Callable[[str, int, int], None] | None = None,
    checksums: Mapping[str, tuple[str, ...]] = CHECKSUMS,
    timeout: float = 30.0,
) -> Path:
    """Fetch the two archives and the four lists, each verified before it gets its name.

    A file that is there with an accepted checksum is skipped, so a broken download is resumed by calling again.

    Args:
        root: the folder to fill, created where it is missing; without it, ``omniglot`` in `data_root`.
        base_url: where ``images_background.zip`` and ``images_evaluation.zip`` are; http or https.
        lists_url: where ``train.txt``, ``val.txt``, ``trainval.txt`` and ``test.txt`` are; http or https.
        progress: called with (file, bytes so far, bytes in all, 0 where unknown) as data arrive.
        checksums: the files to fetch and the checksums accepted for each, md5 or sha256 in hexadecimal.
        timeout: seconds that the server may be silent.

    Returns:
        The folder, which `quickstudy.data.omniglot.load` takes.

    Raises:
        ValueError: a URL that is not http(s); a wrong checksum, of what was fetched (nothing is kept) or of a file that
            is already there (it is left alone).
        DownloadError: the connection failed or ended early (a ValueError and a ConnectionError); nothing is kept.
    """
    for url in (base_url, lists_url):
        if not url.lower().startswith(("http://", "https://")):
            raise ValueError(f"the URL {url!r} is not one that is downloaded from: give one of http:// or https://")
    folder = data_root() / "omniglot" if root is None else Path(root)
    for name, accepted in checksums.items():
        path = folder / name
        if path.exists():
            found = _checksums(path)
            if not found.intersection(accepted):
                raise ValueError(
                    f"{path} is there with other content ({_mismatch(accepted, found)}): move or delete it, "
                    "then download again"
                )
            continue
        url = f"{(lists_url if name.startswith('vinyals/') else base_url).rstrip('/')}/{path.name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with _part(path) as (part, file):
            _fetch(url, file, name, progress, timeout)
            file.close()
            found = _checksums(part)
            if not found.intersection(accepted):
                raise ValueError(
                    f"{name} from {url} has the wrong checksum ({_mismatch(accepted, found)}) and was not kept: "
                    "download again; if it stays wrong, the file has changed at its source"
                )
            part.replace(path)
    return folder


@contextmanager
def _part(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file ``PATH.*.part``, open for writing; gone at the end unless it was renamed."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.", suffix=".part")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield part, file
    finally:
        part.unlink(missing_ok=True)


def _opener() -> urllib.request.OpenerDirector:
    """Follows redirects, but to http and https only."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener


def _fetch(
    url: str, file: BinaryIO, name: str, progress: Callable[[str, int, int], None] | None, timeout: float
) -> None:
    try:
        with _opener().open(url, timeout=timeout) as response:
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdecimal() else 0
            done = 0
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                done += len(chunk)
                if done > MAX_BYTES:
                    raise _failed(url, f"it sends more than the {MAX_BYTES:,} bytes expected at most")
                if progress is not None:
                    progress(name, done, total)
    except urllib.error.HTTPError as error:
        error.close()
        raise _failed(url, f"the server answers {error.code} {error.reason}") from error
    except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
        if isinstance(error, DownloadError):
            raise
        raise _failed(url, str(getattr(error, "reason", error)) or type(error).__name__) from error
    if done < total:
        raise _failed(url, f"the connection ended after {done:,} of {total:,} bytes")


def _failed(url: str, reason: str) -> DownloadError:
    return DownloadError(
        f"{url} could not be downloaded: {reason}; nothing of it was kept: check the connection and run the command "
        "again, or put the file there by hand"
    )


def _checksums(path: Path) -> set[str]:
    content = path.read_bytes()
    return {hashlib.md5(content, usedforsecurity=False).hexdigest(), hashlib.sha256(content).hexdigest()}


def _mismatch(accepted: tuple[str, ...], found: set[str]) -> str:
    """Expected and found, of the kind that is expected."""
    same_kind = [digits for digits in sorted(found) if any(len(digits) == len(other) for other in accepted)]
    return f"expected {' or '.join(accepted)}, found {' / '.join(same_kind)}"
