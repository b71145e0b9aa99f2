"""Tensors and a description in one safetensors file, with a checksum over both. Never pickle."""

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

from quickstudy.files import write_atomically

FORMAT = 1


class SavedFileError(ValueError):
    """A file that is not what it should be; the message names it and says what to do."""


def require_format(path: Path, header: Mapping[str, Any], known: int) -> None:
    """Refuse a file of another format than ``known``.

    Raises:
        SavedFileError: made by another version.
    """
    if header.get("format") != known:
        raise SavedFileError(
            f"{path} has format {header.get('format')!r}, and this version of quickstudy reads format {known}: "
            "install the version that wrote it, or a newer one"
        )


def write_tensors(path: Path, tensors: Mapping[str, Tensor], key: str, header: dict[str, Any]) -> None:
    """Write one safetensors file with ``header`` and a checksum as JSON in its metadata, under ``key``.

    Raises:
        TypeError: a header that JSON cannot hold.
        OSError: the file could not be written; what was at ``path`` is still there.
    """
    # a copy of each tensor: safetensors refuses two names for one memory (tied parameters)
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    text = json.dumps({**header, "sha256": _checksum(copies, header)})
    write_atomically(path, tensors_to_bytes(copies, {key: text}))


def read_tensors(path: Path, key: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The header and the tensors of a file that ``write_tensors`` wrote.

    Raises:
        SavedFileError: no such file, a cut, altered or foreign one, or one without the key.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SavedFileError(f"{path} cannot be read ({error.strerror}): check the path") from error
    try:
        tensors = tensors_from_bytes(content)
        (length,) = struct.unpack("<Q", content[:8])
        metadata = json.loads(content[8 : 8 + length]).get("__metadata__") or {}
        if key not in metadata:
            raise SavedFileError(_another_kind(path, metadata, key))
        header = json.loads(metadata[key])
        if not isinstance(header, dict):
            raise ValueError(f"{key} is no object")
    except SavedFileError:
        raise
    except (SafetensorError, ValueError, struct.error) as error:
        raise SavedFileError(f"{path} is cut or is no safetensors file: use a whole copy of it") from error
    known = header.pop("sha256", None)
    # files of the first weeks have a checksum of their tensors alone; one of another format is refused for that
    if header.get("format", FORMAT) == FORMAT and known not in (_checksum(tensors, header), _checksum(tensors, None)):
        raise SavedFileError(f"{path} was altered after it was written (its SHA-256 differs): use a whole copy of it")
    return header, tensors


def _another_kind(path: Path, metadata: Mapping[str, Any], key: str) -> str:
    """What an error says of a file of another kind than ``key``."""
    kinds = {
        "quickstudy": "a learner: hand it to quickstudy.load, or to FewShotClassifier(...)",
        "quickstudy_model": "a fitted model: hand it to quickstudy.load_model, or to `quickstudy predict`",
        "quickstudy_rule": "an update rule: hand it to quickstudy.LearnedOptimizer(params, rule=...)",
        "checkpoint": "a checkpoint of training: go on with `quickstudy train --resume`",
    }
    found = next((kind for kind in kinds if kind in metadata), None)
    if found is None:
        return f"{path} was not written by quickstudy; required is {kinds[key].partition(':')[0]}: use another file"
    return f"{path} is {kinds[found]}; required is {kinds[key].partition(':')[0]}"


def _checksum(tensors: Mapping[str, Tensor], header: Mapping[str, Any] | None) -> str:
    digest = hashlib.sha256()
    if header is not None:
        digest.update(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
