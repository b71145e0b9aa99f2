"""download_omniglot against a server on the loopback: what is kept, what is skipped, what is refused."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from quickstudy.data import download
from quickstudy.data.download import CHECKSUMS, DownloadError, download_omniglot
from quickstudy.data.root import data_root
from tests.data.loopback import Server, serving

ARCHIVE = b"archive" * 30_000  # several chunks
LIST = b"Greek/character01/rot000\n"
ACCEPTED = {
    "images_background.zip": ("0" * 32, hashlib.md5(ARCHIVE).hexdigest()),
    "vinyals/train.txt": (hashlib.sha256(LIST).hexdigest(),),
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving({"/python/images_background.zip": ARCHIVE, "/lists/train.txt": LIST}) as running:
        yield running


def fetch(server: Server, root: Path, **options) -> Path:
    options = {"checksums": ACCEPTED, "timeout": 5.0, **options}
    return download_omniglot(root, base_url=f"{server.url}/python", lists_url=f"{server.url}/lists/", **options)


def kept(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_both_are_fetched_and_the_second_time_skipped(server: Server, tmp_path: Path):
    seen: list[tuple[str, int, int]] = []
    root = fetch(server, tmp_path / "new" / "omniglot", progress=lambda *at: seen.append(at))
    assert root == tmp_path / "new" / "omniglot"
    assert kept(root) == ["images_background.zip", "vinyals/train.txt"]
    assert (root / "images_background.zip").read_bytes() == ARCHIVE
    assert (root / "vinyals" / "train.txt").read_bytes() == LIST
    assert seen[-1] == ("vinyals/train.txt", len(LIST), len(LIST))
    archive = [done for name, done, total in seen if name == "images_background.zip" and total == len(ARCHIVE)]
    assert len(archive) > 1
    assert archive == sorted(archive)
    assert archive[-1] == len(ARCHIVE)
    fetch(server, root)
    assert len(server.asked) == 2


def test_without_a_folder_the_data_root_is_filled(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("QUICKSTUDY_DATA", str(tmp_path))
    root = download_omniglot(base_url=f"{server.url}/python", lists_url=f"{server.url}/lists", checksums=ACCEPTED)
    assert root == tmp_path / "omniglot"
    assert len(kept(root)) == 2


def test_a_wrong_checksum_keeps_nothing(server: Server, tmp_path: Path):
    server.files["/python/images_background.zip"] = b"other"
    found = hashlib.md5(b"other").hexdigest()
    with pytest.raises(
        ValueError,
        match=rf"^images_background\.zip from http.*expected {'0' * 32} or .*, found {found}\) and was not kept",
    ):
        fetch(server, tmp_path)
    assert kept(tmp_path) == []


def test_a_file_of_other_content_is_left_alone(server: Server, tmp_path: Path):
    path = tmp_path / "images_background.zip"
    path.write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"images_background\.zip is there with other content .* move or delete it"):
        fetch(server, tmp_path)
    assert path.read_bytes() == b"mine"
    assert server.asked == []


def test_not_found(server: Server, tmp_path: Path):
    del server.files["/lists/train.txt"]
    with pytest.raises(
        DownloadError, match=r"lists/train\.txt could not be downloaded: the server answers 404 .* again"
    ):
        fetch(server, tmp_path)
    assert kept(tmp_path) == ["images_background.zip"]  # what was whole stays; a second call goes on from there


def test_a_connection_that_breaks_leaves_no_half_file(server: Server, tmp_path: Path):
    server.cut.add("/python/images_background.zip")
    with pytest.raises(DownloadError, match=r"ended after 105,000 of 210,000 bytes; nothing of it was kept"):
        fetch(server, tmp_path)
    assert kept(tmp_path) == []
    server.cut.clear()
    fetch(server, tmp_path)
    assert len(kept(tmp_path)) == 2


def test_a_caller_that_stops_leaves_no_half_file(server: Server, tmp_path: Path):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(server, tmp_path, progress=stop)
    assert kept(tmp_path) == []


def test_an_endless_file(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(download, "MAX_BYTES", 100_000)
    with pytest.raises(DownloadError, match="sends more than the 100,000 bytes"):
        fetch(server, tmp_path)
    assert kept(tmp_path) == []


def test_no_server(server: Server, tmp_path: Path):
    with Server({}) as closed:
        url = closed.url
    with pytest.raises(ConnectionError, match=r"could not be downloaded: .*check the connection"):
        download_omniglot(tmp_path, base_url=url, lists_url=url, checksums=ACCEPTED, timeout=5.0)


def test_redirects_stay_on_the_web(server: Server, tmp_path: Path):
    server.moved["/python/images_background.zip"] = "/elsewhere"
    server.files["/elsewhere"] = ARCHIVE
    fetch(server, tmp_path)
    (tmp_path / "images_background.zip").unlink()
    for target in ("file:///etc/hostname", "ftp://127.0.0.1/x"):
        server.moved["/python/images_background.zip"] = target
        with pytest.raises(DownloadError, match=r"images_background\.zip could not be downloaded"):
            fetch(server, tmp_path)


@pytest.mark.parametrize("url", ["file:///data", "ftp://host/x", "data:text/plain,x", ""])
def test_only_the_web(tmp_path: Path, url):
    with pytest.raises(ValueError, match="is not one that is downloaded from: give one of http:// or https://"):
        download_omniglot(tmp_path, base_url=url)
    with pytest.raises(ValueError, match="is not one that is downloaded from"):
        download_omniglot(tmp_path, lists_url=url)


@pytest.mark.skipif(
    not all((data_root() / "omniglot" / name).is_file() for name in CHECKSUMS),
    reason=f"Omniglot with its lists is not in {data_root()}",
)
def test_the_real_files_are_accepted_without_a_connection():
    assert download_omniglot(base_url="http://127.0.0.1:9", lists_url="http://127.0.0.1:9") == data_root() / "omniglot"
