"""Object stores (S3, Google Cloud Storage, Azure and what speaks like them) by `obstore`, with conditional puts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Self, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError, NotSupportedError
from obstore.store import ObjectStore as Client
from obstore.store import from_url

from framefold.pipeline.archive.errors import ArchiveError, Code
from framefold.pipeline.archive.stores.base import NotThere, Stored, StoredFile, check_name

T = TypeVar("T")
_MISSING = (NotFoundError, FileNotFoundError)  # the client raises now one, now the other
_FAILED = (BaseError, OSError, ValueError)
_UPLOAD = timedelta(minutes=30)
"""For one request. A shard of 256 MiB is put in one, for only so can its name be claimed: 1.2 Mbit/s are enough."""


class ObjectStore:
    """Objects under a prefix; credentials, region and endpoint come from the environment (`AWS_…`, `AZURE_…`, …)."""

    def __init__(self, client: Client, url: str) -> None:
        self._client, self._url = client, url

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Such as `s3://bucket/prefix`, `gs://bucket/prefix` or `az://account/container/prefix`."""
        plain = os.environ.get("AWS_ALLOW_HTTP", "").lower() == "true"  # the client reads it only if it has no options
        try:
            client = from_url(url, client_options={"timeout": _UPLOAD, "allow_http": plain})
        except _FAILED as error:
            raise ArchiveError(Code.CANNOT_OPEN, f"cannot open the store: {_first_line(error)}", archive=url) from error
        return cls(client, url)

    @property
    def url(self) -> str:
        """As it was given."""
        return self._url

    def read(self, name: str, start: int, length: int) -> bytes:
        """As `Store.read`."""
        if not length:
            return b""
        data = self._try("read", name, lambda: bytes(obstore.get_range(self._client, name, start=start, length=length)))
        if len(data) != length:
            raise ArchiveError(Code.CUT, f"{name} ends {length - len(data)} bytes early", archive=self.url)
        return data

    def tail(self, name: str, length: int) -> tuple[bytes, int]:
        """As `Store.tail`; where a store cannot read from the end (Azure, empty objects), it takes a second request."""
        return self._try("read", name, lambda: self._tail(name, length))

    def _tail(self, name: str, length: int) -> tuple[bytes, int]:
        try:
            found = obstore.get(self._client, name, options={"range": {"suffix": length}})
            return bytes(found.bytes()), found.meta["size"]
        except _MISSING:
            raise
        except _FAILED:
            size = obstore.head(self._client, name)["size"]
            start = max(size - length, 0)
            return (bytes(obstore.get_range(self._client, name, start=start, end=size)) if size else b""), size

    def list(self, folder: str) -> Iterator[Stored]:
        """As `Store.list`."""
        prefix = check_name(folder.rstrip("/"))
        try:
            for batch in obstore.list(self._client, prefix):
                for meta in batch:
                    yield Stored(meta["path"], meta["size"], meta["last_modified"].timestamp())
        except _FAILED as error:
            raise ArchiveError(Code.IO, f"cannot list {folder}: {_first_line(error)}", archive=self.url) from error

    def create(self, name: str, data: bytes | Path) -> bool:
        """As `Store.create`; stores that cannot put on condition are refused with F027."""
        check_name(name)
        try:
            obstore.put(self._client, name, data, mode="create", use_multipart=False)
        except (AlreadyExistsError, FileExistsError):
            return False
        except NotSupportedError as error:
            message = f"no conditional puts: {_first_line(error)}"
            raise ArchiveError(Code.NOT_EXCLUSIVE, message, archive=self.url) from error
        except _FAILED as error:
            raise ArchiveError(Code.IO, f"cannot create {name}: {_first_line(error)}", archive=self.url) from error
        return True

    def delete(self, name: str) -> None:
        """As `Store.delete`."""
        check_name(name)
        try:
            obstore.delete(self._client, name)
        except _MISSING:
            return
        except _FAILED as error:
            raise ArchiveError(Code.IO, f"cannot remove {name}: {_first_line(error)}", archive=self.url) from error

    def open(self, name: str) -> StoredFile:
        """As `Store.open`."""
        return StoredFile.of(self, name)

    def _try(self, what: str, name: str, action: Callable[[], T]) -> T:
        check_name(name)
        try:
            return action()
        except _MISSING as error:
            raise NotThere(Code.CANNOT_OPEN, f"there is no {name}", archive=self.url) from error
        except _FAILED as error:
            raise ArchiveError(Code.IO, f"cannot {what} {name}: {_first_line(error)}", archive=self.url) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]  # what follows is the client's own debugging
