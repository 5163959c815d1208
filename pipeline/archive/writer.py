"""Write an archive of one file: under a temporary name, until all of it is there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from framefold.pipeline.archive.bank import Bank
from framefold.pipeline.archive.disk import DISK, Disk
from framefold.pipeline.archive.errors import ArchiveError
from framefold.pipeline.archive.output import OutputFile
from framefold.pipeline.archive.records import FileHeader
from framefold.pipeline.archive.shard_writer import ShardWriter


class ArchiveWriter(ShardWriter):
    """One archive being written; nothing is seen under `path` until `commit`, and nobody else writes it.

    As a context manager it aborts unless `commit` was reached.
    """

    def __init__(self, path: Path, *, archive_id: bytes | None = None, disk: Disk = DISK) -> None:
        self.path = Path(path)
        header = FileHeader.first_of(os.urandom(16) if archive_id is None else archive_id)
        self._file = OutputFile(self.path, disk=disk)
        try:
            super().__init__(self._file, header, str(self.path))
        except BaseException:
            self._file.discard()
            raise

    @property
    def bank(self) -> Bank:
        """What a writer before, interrupted at the same archive, had measured."""
        return self._file.bank

    def commit(self, manifest: Mapping[str, Any]) -> Path:
        """Finish the file and give it its name; `manifest` needs `generator` and `created` (UTC, ISO)."""
        with self._as_before(Exception):
            self._file.publish(self.finish(manifest))
        self._open = False
        self._file.close()
        self._file.sync_folder()
        return self.path

    def suspend(self) -> None:
        """Stop for now: measured units stay in the temporary file, for the next writer's `bank`.

        Without one it is as `abort`; nothing happens after `commit` or a second time.
        """
        if self._open:
            with suppress(ArchiveError):  # what does not fit on the medium is measured again
                self.close_pack()
        if self._open and self.has_measurements:
            self._open = False
            self._file.leave()
        self.abort()

    def abort(self) -> None:
        """Remove the temporary file; nothing happens after `commit` or a second time."""
        if self._open:
            self._open = False
            self._file.discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()
