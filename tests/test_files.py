"""Files that are whole or not there, on a disk that is full."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import quickstudy as q
from quickstudy.files import require_file_path, write_atomically

_FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import torch
import quickstudy as q

learner = q.ProtoNet(q.MLP(6, (64, 64), 4))
optimizer = torch.optim.Adam(learner.parameters())
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # from here on no file can grow beyond 4 KiB
for write in (
    lambda: q.save_checkpoint(Path(sys.argv[1]), learner, optimizer, step=2, generator=torch.Generator()),
    lambda: q.save(learner, sys.argv[2]),
):
    try:
        write()
    except OSError as error:
        sys.stdout.write(f"{error}\\n")
"""


def test_a_full_disk_leaves_the_previous_files_whole_and_nothing_beside_them(tmp_path):
    checkpoint, saved = tmp_path / "checkpoint.safetensors", tmp_path / "learner.safetensors"
    learner = q.ProtoNet(q.MLP(6, (64, 64), 4))
    optimizer = torch.optim.Adam(learner.parameters())
    q.save_checkpoint(checkpoint, learner, optimizer, step=1, generator=torch.Generator())
    q.save(learner, saved)
    before = checkpoint.read_bytes(), saved.read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, checkpoint, saved], capture_output=True, text=True, timeout=120, check=True
    )
    said = done.stdout.splitlines()
    assert len(said) == 2
    for line, path in zip(said, (checkpoint, saved), strict=True):
        assert f"could not write {path}" in line
        assert "what was there before is unchanged: free some space" in line
    assert (checkpoint.read_bytes(), saved.read_bytes()) == before
    assert q.load_checkpoint(checkpoint, learner, optimizer, generator=torch.Generator()).step == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == [checkpoint.name, saved.name]


def test_content_replaces_what_was_there(tmp_path):
    path = tmp_path / "a" / "b"
    for content in (b"first", b"second, longer", b""):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert [p.name for p in path.parent.iterdir()] == ["b"]


def test_a_file_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    write_atomically(tmp_path / "atomic", b"")
    plain, atomic = (stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "atomic"))
    assert atomic == plain


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OSError, match=r"could not write .*taken/inside .*check that the folder can be written to"):
        write_atomically(tmp_path / "taken" / "inside", b"content")
    assert (tmp_path / "taken").read_text() == "a file"


def test_an_interrupted_writing_leaves_the_previous_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"before")

    def interrupted(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"after")
    assert path.read_bytes() == b"before"
    assert [p.name for p in Path(tmp_path).iterdir()] == ["file"]


def test_a_folder_is_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (Path(), tmp_path):
        with pytest.raises(OSError, match=r"is a folder; required is the name of a file: give one in it"):
            write_atomically(path, b"content")
        with pytest.raises(ValueError, match=r"--out .* is a folder"):
            require_file_path(path, "--out")
    require_file_path(tmp_path / "new", "--out")
    assert list(tmp_path.iterdir()) == []
