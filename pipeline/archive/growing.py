"""A shard while it is written: a file of its own under `open/`, until it is whole and has its name in the archive."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from framefold.pipeline.archive.commits import ShardRecord
from framefold.pipeline.archive.disk import Disk
from framefold.pipeline.archive.errors import ArchiveError, Code
from framefold.pipeline.archive.files import pread_exactly
from framefold.pipeline.archive.layout import OPEN_SUFFIX
from framefold.pipeline.archive.lock import hold
from framefold.pipeline.archive.output import Output
from framefold.pipeline.archive.records import HEADER_BYTES, FileHeader, Footer
from framefold.pipeline.archive.shard_writer import ShardWriter

_PIECE = 2**20


class GrowingShard:
    """One open shard; its name there is its shard id in hex. Locked while its writer lives, where locks work."""

    def __init__(self, folder: Path, archive_id: bytes, disk: Disk) -> None:
        shard_id = os.urandom(16)
        self.label, self._disk = f"open-{shard_id.hex()[:8]}", disk
        """Ids of its units begin with the label and a slash."""
        self.path = folder / f"{shard_id.hex()}{OPEN_SUFFIX}"
        self.output = self._create()
        try:
            self.writer = ShardWriter(self.output, FileHeader(archive_id=archive_id, shard_id=shard_id), str(self.path))
            self.output.sync()  # so that a unit whose flush fails is all that is in doubt
        except BaseException:
            self.discard()
            raise
        self._length: int | None = None
        self._partial: dict[str, int] = {}  # SHA-256 of attachments that are not whole yet, to the bytes so far

    def _create(self) -> Output:
        try:
            fd = self._disk.create(self.path)
            hold(fd)
            try:
                self._disk.sync_folder(self.path.parent)  # what is acknowledged later must not lose its name
            except BaseException:
                self._disk.close(fd)
                self._disk.unlink(self.path)
                raise
        except OSError as error:
            raise ArchiveError(Code.IO, f"cannot begin a shard: {error}", archive=str(self.path)) from error
        return Output(fd, str(self.path), self._disk)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was added."""
        return self.writer.size_bytes == HEADER_BYTES

    @property
    def is_between(self) -> bool:
        """Whether some attachment is there in part: its other pieces belong into the same shard."""
        return bool(self._partial)

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """As `ShardWriter.all_or_nothing`."""
        partial = dict(self._partial)
        try:
            with self.writer.all_or_nothing():
                yield
        except BaseException:
            self._partial = partial
            raise

    def add_attachment(self, sha256: str, total_bytes: int, start: int, data: bytes) -> str:
        """As `ShardWriter.add_attachment`; remembers which ones are not whole yet."""
        chunk = self.writer.add_attachment(sha256, total_bytes, start, data)
        self._partial[sha256] = max(self._partial.get(sha256, 0), start + len(data))
        if self._partial[sha256] == total_bytes:
            del self._partial[sha256]
        return chunk

    def finish(self, manifest: Mapping[str, Any]) -> None:
        """Write what is left, index and footer, and flush the file; nothing can be added then."""
        if self._length is None:
            self._length = self.writer.finish(manifest)

    @cached_property
    def record(self) -> ShardRecord:
        """What a commit says of it, once it is finished. Reads the whole file back."""
        if self._length is None:
            raise ArchiveError(Code.MISUSE, "a shard that is not finished has no name", archive=str(self.path))
        sha256 = hashlib.sha256()
        for start in range(0, self._length, _PIECE):
            sha256.update(pread_exactly(self.output.fd, min(_PIECE, self._length - start), start))
        footer = Footer.unpack(pread_exactly(self.output.fd, HEADER_BYTES, self._length - HEADER_BYTES))
        return ShardRecord(
            sha256=sha256.hexdigest(),
            bytes=self._length,
            index_sha256=footer.index_sha256.hex(),
            units=self.writer.unit_count,
        )

    def leave(self) -> None:
        """Let go of the file, for the next writer's bank, or for `pipeline repair`."""
        self.output.close()

    def discard(self) -> None:
        """Remove the file and let go of it."""
        try:
            self._disk.unlink(self.path)
        except OSError as error:
            raise ArchiveError(Code.IO, f"cannot remove an open shard: {error}", archive=str(self.path)) from error
        finally:
            self.output.close()
