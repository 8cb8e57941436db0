"""Files for resuming a run, each with a checksum of its content, so that damage is detected on reading."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slimvox.util.files import atomic_file, write_atomically

CHECKSUM = "sha256"


class DamagedFileError(Exception):
    """A file that cannot be read, or whose content does not have the checksum that was written with it."""


def write_checked_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with its checksum.

    Raises:
        OSError: if it cannot be written.
    """
    content = json.loads(json.dumps(content))
    write_atomically(path, json.dumps({**content, CHECKSUM: checksum(content)}, indent=1).encode())


def read_checked_json(path: Path) -> dict[str, Any]:
    """Read a file of `write_checked_json`, or an object of an older slimvox, which has no checksum.

    Raises:
        FileNotFoundError: if there is none.
        DamagedFileError: if it is damaged.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedFileError(path) from error
    if not isinstance(content, dict):
        raise DamagedFileError(path)
    written = content.pop(CHECKSUM, None)
    if written is not None and written != checksum(content):
        raise DamagedFileError(path)
    return content


def write_checked_state(path: Path, state: Mapping[str, Any], *, before: Path | None = None) -> None:
    """Write a nested dictionary of tensors and plain values with its checksum.

    Args:
        path: file to write.
        state: values that `torch.load(weights_only=True)` can read.
        before: path at which the present file of `path` is kept once the new one is complete. There is a file at
            `path` at any time, where the file system has hard links.

    Raises:
        OSError: if it cannot be written.
        RuntimeError: from torch, for the same reasons.
    """
    with atomic_file(path) as file:
        torch.save({"state": dict(state), CHECKSUM: checksum(state)}, file)
        file.flush()
        if before is not None and path.is_file():
            before.parent.mkdir(exist_ok=True)
            before.unlink(missing_ok=True)
            try:
                before.hardlink_to(path)
            except OSError:
                path.replace(before)


def read_checked_state(path: Path) -> dict[str, Any]:
    """Read a file of `write_checked_state`, with tensors on the CPU.

    Raises:
        FileNotFoundError: if there is none.
        DamagedFileError: if it is damaged, or of an older slimvox and without a checksum.
    """
    if not path.exists():
        raise FileNotFoundError(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        state, written = content["state"], content[CHECKSUM]
        if written == checksum(state):
            return dict(state)
    except Exception as error:  # a damaged zip, pickle or tensor, each with exceptions of its own
        raise DamagedFileError(path) from error
    raise DamagedFileError(path)


def file_checksum(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes.

    Raises:
        OSError: if it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def checksum(content: Any) -> str:
    """SHA-256 (hex) of nested dictionaries and sequences of tensors and plain values.

    Tensors count by their type, shape and bytes, so that any changed bit of the data changes the checksum.
    """
    digest = hashlib.sha256()
    _digest(content, digest)
    return digest.hexdigest()


def _digest(content: Any, digest: Any) -> None:
    if isinstance(content, Tensor):
        tensor = content.detach().cpu().contiguous()
        digest.update(f"tensor {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    elif isinstance(content, Mapping):
        digest.update(f"mapping {len(content)};".encode())
        for key, value in content.items():
            _digest(key, digest)
            _digest(value, digest)
    elif isinstance(content, (list, tuple)):
        digest.update(f"sequence {len(content)};".encode())
        for value in content:
            _digest(value, digest)
    else:
        text = repr(content).encode()
        digest.update(f"{type(content).__name__} {len(text)};".encode())
        digest.update(text)
