"""A web server as a store to read from: every read is one request for a range of bytes."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import NoReturn
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
)

from framefold.pipeline.archive.errors import ArchiveError, Code
from framefold.pipeline.archive.stores.base import NotThere, Stored, StoredFile

_TIMEOUT_SECONDS = 60
_SLOWEST = 4096
"""Bytes in a second, after the time above."""
_SAFE = "%/?#[]@!$&'()*+,;=:"
"""Characters that mean something in a URL: what is quoted already, or a signature behind a `?`, stays as it is."""
_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})")


class HttpStore:
    """Files below a URL. A range must be answered with 206 (Partial Content): no whole file is ever read by mistake."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/") + "/"
        if not url.startswith(("http://", "https://")):
            raise ArchiveError(Code.CANNOT_OPEN, "a URL that begins with http:// or https:// is needed", archive=url)
        self._opener = _opener()

    @property
    def url(self) -> str:
        """With a slash at its end."""
        return self._url

    def read(self, name: str, start: int, length: int) -> bytes:
        """As `Store.read`."""
        if not length:
            return b""
        data, first, _ = self._get(name, f"bytes={start}-{start + length - 1}", length)
        if (first, len(data)) != (start, length):
            got = f"{len(data)} bytes from {first}"
            raise self._error(Code.CUT, name, f"it answers with {got}, asked for {length} from {start}")
        return data

    def tail(self, name: str, length: int) -> tuple[bytes, int]:
        """As `Store.tail`."""
        data, first, size = self._get(name, f"bytes=-{length}", length)
        if first + len(data) != size:
            raise self._error(Code.IO, name, f"it answers with bytes {first} to {first + len(data)} of {size}")
        return data, size

    def list(self, folder: str) -> Iterator[Stored]:
        """Not possible here."""
        raise self._error(Code.IO, folder, "a web server does not list what it has")

    def create(self, name: str, data: bytes | Path) -> bool:
        """Not possible here."""
        self._read_only(name)

    def delete(self, name: str) -> None:
        """Not possible here."""
        self._read_only(name)

    def open(self, name: str) -> StoredFile:
        """As `Store.open`."""
        return StoredFile.of(self, name)

    def _get(self, name: str, wanted: str, limit: int) -> tuple[bytes, int, int]:
        """The bytes of a range, at most `limit`; where they begin, and the size of the whole file."""
        url, headers = self._url + quote(name, safe=_SAFE), {"Range": wanted, "Accept-Encoding": "identity"}
        try:
            asked = Request(url, headers=headers)  # noqa: S310 - the scheme was checked
            with self._opener.open(asked, timeout=_TIMEOUT_SECONDS) as answer:
                first, end, size = self._range(name, answer)
                if end - first > limit:
                    raise self._error(Code.IO, name, f"it answers with {end - first} bytes, asked for {limit}")
                data = _read(answer, end - first)
        except HTTPError as error:
            error.close()
            raise self._refused(name, error.code, wanted) from error
        except (OSError, HTTPException, ValueError) as error:
            raise self._error(Code.IO, name, f"cannot read: {error!r}") from error
        if len(data) != end - first:
            raise self._error(Code.IO, name, f"the connection ended after {len(data)} of {end - first} bytes")
        return data, first, size

    def _range(self, name: str, answer: HTTPResponse) -> tuple[int, int, int]:
        """First byte, end and size, from the header of an answer."""
        if answer.status != 206:
            message = f"the server answers {answer.status} where a part was asked for (206); it cannot serve archives"
            raise self._error(Code.IO, name, message + ": fetch the file, or use a server that knows ranges")
        found = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        coding = answer.headers.get("Content-Encoding", "identity")
        if not found or coding != "identity":
            got = f"Content-Range {answer.headers.get('Content-Range', '')[:80]!r}, encoding {coding[:40]!r}"
            raise self._error(Code.IO, name, f"an answer with {got}; plain bytes of one range are needed")
        first, last, size = map(int, found.groups())
        if not first <= last < size:
            raise self._error(Code.IO, name, f"an answer with bytes {first} to {last} of {size}")
        return first, last + 1, size

    def _refused(self, name: str, status: int, wanted: str) -> ArchiveError:
        if status in {404, 410}:
            return NotThere(Code.CANNOT_OPEN, f"there is no {name}", archive=self.url)
        if status == 416:
            return self._error(Code.CUT, name, f"it does not have {wanted}")
        return self._error(Code.IO, name, f"the server answers {status}")

    def _read_only(self, name: str) -> NoReturn:
        raise self._error(Code.IO, name, "an archive on a web server can be read, not written")

    def _error(self, code: Code, name: str, message: str) -> ArchiveError:
        return ArchiveError(code, message, archive=self._url + name)


def _read(answer: HTTPResponse, length: int) -> bytes:
    """Read so many bytes, or fewer if the connection ends; a server that trickles is not waited for."""
    deadline = time.monotonic() + _TIMEOUT_SECONDS + length / _SLOWEST
    pieces = []
    while length and (piece := answer.read1(length)):
        pieces.append(piece)
        length -= len(piece)
        if time.monotonic() > deadline:
            raise TimeoutError(f"less than {_SLOWEST} bytes in a second")
    return b"".join(pieces)


def _opener() -> OpenerDirector:
    """HTTP and nothing else: a server cannot send us on to a local file or to FTP."""
    opener = OpenerDirector()
    for handler in (
        ProxyHandler(),
        HTTPHandler(),
        HTTPSHandler(),
        HTTPDefaultErrorHandler(),
        HTTPRedirectHandler(),
        HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener
