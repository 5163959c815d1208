"""Where an archive in the folder form can lie, behind one small interface."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote

from framefold.pipeline.archive.disk import DISK, Disk
from framefold.pipeline.archive.errors import ArchiveError, Code
from framefold.pipeline.archive.files import InputFile, Readable
from framefold.pipeline.archive.stores.base import NotThere, Store, Stored, StoredFile, check_name, check_range, probe
from framefold.pipeline.archive.stores.http import HttpStore
from framefold.pipeline.archive.stores.local import LocalStore

__all__ = [
    "HttpStore",
    "LocalStore",
    "NotThere",
    "Store",
    "Stored",
    "StoredFile",
    "check_name",
    "check_range",
    "is_url",
    "open_file",
    "open_store",
    "probe",
]

Place = str | os.PathLike[str]


def is_url(place: Place) -> bool:
    """Whether a place is a URL and no path."""
    return "://" in os.fspath(place)


def open_store(place: Place, *, disk: Disk = DISK) -> Store:
    """The store at a folder's path or a URL: `file://`, `http(s)://` (to read), or an object store's such as `s3://`."""
    text = os.fspath(place)
    if not is_url(text):
        return LocalStore(text, disk=disk)
    scheme, _, rest = text.partition("://")
    if scheme == "file":
        return LocalStore(unquote(rest), disk=disk)
    return HttpStore(text) if scheme in {"http", "https"} else _object_store(text)


def open_file(place: Place) -> Readable:
    """Open one file by its path or its URL."""
    text = os.fspath(place)
    if not is_url(text):
        return InputFile.open(Path(text))
    path, mark, query = text.partition("?")  # a signature may hold slashes
    folder, _, name = path.rpartition("/")
    return open_store(folder).open(name + mark + query)


def _object_store(url: str) -> Store:
    try:
        from framefold.pipeline.archive.stores.object import ObjectStore  # noqa: PLC0415 - an optional dependency
    except ModuleNotFoundError as error:
        if error.name != "obstore":
            raise
        message = "object stores need obstore, which is not installed: pip install 'framefold[object-store]'"
        raise ArchiveError(Code.CANNOT_OPEN, message, archive=url) from error
    return ObjectStore.from_url(url)
