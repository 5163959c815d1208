"""Files that grow: what was flushed stays, what failed is cut off; one of them takes its name all at once."""

from __future__ import annotations

import os
from pathlib import Path

from framefold.pipeline.archive.bank import Bank
from framefold.pipeline.archive.disk import DISK, Disk
from framefold.pipeline.archive.errors import ArchiveError, Code
from framefold.pipeline.archive.files import InputFile
from framefold.pipeline.archive.lock import Locked, claim, is_at


class Output:
    """An open file that is written from its beginning to its end."""

    def __init__(self, fd: int, name: str, disk: Disk) -> None:
        """`name` is for messages."""
        self.fd, self._name, self._disk = fd, name, disk
        self._end = self._safe_end = 0  # of what was written, and of what is on the medium
        self._is_doubtful = False

    def write(self, data: bytes | bytearray, offset: int) -> None:
        """Write all of `data`, the new end of the file; after a failure the file ends at `offset`."""
        try:
            self._disk.write(self.fd, data, offset)
        except OSError as error:
            self.cut(offset)
            raise self._failed("write", error) from error
        self._end = offset + len(data)
        self._safe_end = min(self._safe_end, offset)

    def cut(self, end: int) -> None:
        """Forget everything from `end` on."""
        self._end, self._safe_end = end, min(self._safe_end, end)
        self._is_doubtful &= end > self._safe_end
        try:
            self._disk.truncate(self.fd, end)
        except OSError:
            # Harmless: the next write begins at `end` all the same, and `sync` cuts again.
            return

    def sync(self) -> None:
        """Flush what was written to the medium, and nothing else with it.

        After a failure the system may have dropped what it could not write and say yes the next time. So that is
        refused until all that was not safe is cut off: written again, it is the system's to flush again.
        """
        if self._is_doubtful:
            message = f"what was written from byte {self._safe_end} on may be lost: a flush failed, so write it again"
            raise ArchiveError(Code.IO, message, archive=self._name)
        try:
            is_longer = os.fstat(self.fd).st_size != self._end
            if is_longer:
                self._disk.truncate(self.fd, self._end)
        except OSError as error:
            raise self._failed("cut", error) from error
        if is_longer or self._safe_end != self._end:
            self._flush()

    def _flush(self) -> None:
        try:
            self._disk.sync(self.fd)
        except OSError as error:
            self._is_doubtful = True
            raise self._failed("flush", error) from error
        self._safe_end = self._end

    def close(self) -> None:
        """Let go of the file, and with it of its lock."""
        self._disk.close(self.fd)

    def _failed(self, what: str, error: Exception) -> ArchiveError:
        return ArchiveError(Code.IO, f"cannot {what} the archive: {error}", archive=self._name)


class OutputFile(Output):
    """A locked file under a temporary name, `.{name}.part` beside its final one, until it is published.

    What a writer before left under that name is set aside as `.{name}.part.old` and serves as `bank`: the units
    that it measured need not be measured again. That file stays until the new one is whole.
    """

    def __init__(self, path: Path, *, disk: Disk = DISK) -> None:
        self.path, self._name, self._disk = path, str(path), disk
        self.part = path.with_name(f".{path.name}.part")
        self.old = path.with_name(f".{path.name}.part.old")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise IsADirectoryError(f"{path} is a folder")
            fd, self.bank = self._begin()
        except Locked as error:
            raise ArchiveError(
                Code.LOCKED, f"{error.who} is writing it and holds the lock on {self.part}", archive=str(path)
            ) from error
        except (OSError, ValueError) as error:
            raise self._failed("begin", error) from error
        super().__init__(fd, str(path), disk)

    def _begin(self) -> tuple[int, Bank]:
        """The empty file, locked, and the bank.

        A file left behind becomes the bank, unless the bank from before knows all of its units: a run that was
        interrupted early must not cost what an earlier one had done.
        """
        bank = Bank.of(self.old) if self.old.exists() else Bank()
        while True:
            fd = claim(self.part, self._disk)
            try:
                size = os.fstat(fd).st_size
                left = Bank.read(InputFile(fd, str(self.part), size)) if size else Bank()
                if left.keys <= bank.keys:
                    if size:
                        self._disk.truncate(fd, 0)
                    return fd, bank
                self._disk.replace(self.part, self.old)
            except BaseException:
                self._disk.close(fd)
                raise
            self._disk.close(fd)
            bank = left

    def publish(self, end: int) -> None:
        """Flush the first `end` bytes to the medium, drop the bank and take the final name, in one step."""
        if end != self._end:
            self.cut(end)
        self.sync()
        try:
            self._disk.unlink(self.old)  # not later: killed here, the whole file is the next bank
            self._disk.replace(self.part, self.path)
        except OSError as error:
            raise self._failed("publish", error) from error

    def sync_folder(self) -> None:
        """Make the new name survive a power cut."""
        try:
            self._disk.sync_folder(self.path.parent)
        except OSError as error:
            raise self._failed("flush the folder of", error) from error

    def leave(self) -> None:
        """Let go of the file under its temporary name, for the next writer's bank."""
        self.close()

    def discard(self) -> None:
        """Remove the temporary name, if the file still has it, and let go of the file."""
        if is_at(self.fd, self.part):
            self._disk.unlink(self.part)
        self.close()  # last, for it ends the lock: the name might be another writer's by then
