"""A file that takes its name all at once; until then it lies beside it, and there is one writer of it."""

from __future__ import annotations

import os
from pathlib import Path

from framefold.pipeline.archive.bank import Bank
from framefold.pipeline.archive.errors import ArchiveError, Code
from framefold.pipeline.archive.files import InputFile
from framefold.pipeline.archive.lock import Locked, claim, is_at


class OutputFile:
    """A locked file under a temporary name, `.{name}.part` beside its final one, until it is published.

    What a writer before left under that name is set aside as `.{name}.part.old` and serves as `bank`: the units
    that it measured need not be measured again. That file stays until the new one is whole.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.part = path.with_name(f".{path.name}.part")
        self.old = path.with_name(f".{path.name}.part.old")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise IsADirectoryError(f"{path} is a folder")
            self.fd, self.bank = self._begin()
        except Locked as error:
            raise ArchiveError(
                Code.LOCKED, f"{error.who} is writing it and holds the lock on {self.part}", archive=str(path)
            ) from error
        except (OSError, ValueError) as error:
            raise self._failed("begin", error) from error

    def _begin(self) -> tuple[int, Bank]:
        """The empty file, locked, and the bank.

        A file left behind becomes the bank, unless the bank from before knows all of its units: a run that was
        interrupted early must not cost what an earlier one had done.
        """
        bank = Bank.of(self.old) if self.old.exists() else Bank()
        while True:
            fd = claim(self.part)
            try:
                size = os.fstat(fd).st_size
                left = Bank.read(InputFile(fd, str(self.part), size)) if size else Bank()
                if left.keys <= bank.keys:
                    if size:
                        os.ftruncate(fd, 0)
                    return fd, bank
                self.part.replace(self.old)
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
            bank = left

    def write(self, data: bytes, offset: int) -> None:
        """Write all of `data`, the new end of the file; after a failure the file ends at `offset`."""
        try:
            self._write_all(data, offset)
        except OSError as error:
            self.cut(offset)
            raise self._failed("write", error) from error

    def _write_all(self, data: bytes, offset: int) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self.fd, view, offset)
            view, offset = view[written:], offset + written

    def cut(self, end: int) -> None:
        """Forget everything from `end` on."""
        try:
            os.ftruncate(self.fd, end)
        except OSError:
            # Harmless: the next write begins at `end` all the same, and `publish` cuts again.
            return

    def publish(self, end: int) -> None:
        """Flush the first `end` bytes to the medium, drop the bank and take the final name, in one step."""
        try:
            os.ftruncate(self.fd, end)
            os.fsync(self.fd)
            self.old.unlink(missing_ok=True)  # not later: killed here, the whole file is the next bank
            self.part.replace(self.path)
        except OSError as error:
            raise self._failed("publish", error) from error

    def sync_folder(self) -> None:
        """Make the new name survive a power cut."""
        try:
            fd = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise self._failed("flush the folder of", error) from error

    def leave(self) -> None:
        """Let go of the file under its temporary name, for the next writer's bank."""
        os.close(self.fd)

    def discard(self) -> None:
        """Remove the temporary name, if the file still has it, and let go of the file."""
        if is_at(self.fd, self.part):
            self.part.unlink(missing_ok=True)
        os.close(self.fd)  # last, for it ends the lock: the name might be another writer's by then

    def _failed(self, what: str, error: Exception) -> ArchiveError:
        return ArchiveError(Code.IO, f"cannot {what} the archive: {error}", archive=str(self.path))
