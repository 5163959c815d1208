"""Payloads on disk: outputs worth keeping, checkpoints of half-done work, the inputs of dead letters.

A file is a line that names the format, the SHA-256 of the rest, and a pickle. It is written under a temporary name,
synced and renamed; one that was cut short or changed is found out before anything in it is followed. A folder that
came from somewhere else cannot run code by being opened: `plain_pickle` says what is read back, and what is promised.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from framefold.pipeline import plain_pickle
from framefold.pipeline.errors import FramefoldError

_MAGIC = b"framefold keepsake 1\n"
_BEGIN = len(_MAGIC) + hashlib.sha256().digest_size


class DamagedKeepsake(FramefoldError):
    """A kept file is missing, cut short or changed, or holds what is not read back."""


def write(path: Path, payload: Any, *, sync: bool = True) -> tuple[int, str]:
    """Write a payload; returns the file's size in bytes and a hex SHA-256. The file is whole or not there."""
    pickled = plain_pickle.dumped(payload)
    digest = hashlib.sha256(pickled)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with draft.open("wb") as file:
            file.write(_MAGIC + digest.digest())
            file.write(pickled)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return _BEGIN + pickled.nbytes, digest.hexdigest()


def read(path: Path, *, packages: Collection[str] = (), sha256: str | None = None) -> Any:
    """Read a payload again; DamagedKeepsake if that is not what was written, or holds what is not admitted.

    `packages` are the top-level packages, beside framefold, whose classes may be in it; `sha256` is what `write` gave.
    """
    data = _whole(path, sha256)
    try:
        return plain_pickle.loaded(data, _BEGIN, {"framefold", *packages})
    except plain_pickle.NotAdmitted as error:
        raise DamagedKeepsake(f"{path} is not read: {error}") from error
    except Exception as error:  # parts that do not fit may raise anything
        raise DamagedKeepsake(f"{path} cannot be read: {type(error).__name__}: {error}") from error


def _whole(path: Path, sha256: str | None) -> bytes:
    """The file's bytes, if they are those that were written."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DamagedKeepsake(f"{path} cannot be read: {error.strerror}") from error
    if not data.startswith(_MAGIC):
        raise DamagedKeepsake(f"{path} is damaged, or was written by another version: it begins with {data[:21]!r}")
    digest = hashlib.sha256(memoryview(data)[_BEGIN:])
    if digest.digest() != data[len(_MAGIC) : _BEGIN] or sha256 not in (None, digest.hexdigest()):
        raise DamagedKeepsake(f"{path} is not what was written: its SHA-256 differs")
    return data
