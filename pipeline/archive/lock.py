"""One writer at a time: a lock on the temporary file itself, which ends with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from contextlib import suppress
from pathlib import Path

from framefold.pipeline.archive.disk import DISK, Disk
from framefold.pipeline.errors import FramefoldError

PATIENCE_SECONDS = 3.0
"""How long a lock is waited for: a killed process holds its locks a moment longer than it takes to miss it."""
_POLL_SECONDS = 0.05
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK


class Locked(FramefoldError):
    """Somebody else is writing there."""

    def __init__(self, path: Path, holder: int | None) -> None:
        self.path, self.holder = path, holder
        super().__init__(
            f"{self.who} holds the lock on {path}; wait until it has ended, or end it, or name another place"
        )

    @property
    def who(self) -> str:
        """The process, as far as the system tells."""
        if self.holder == os.getpid():
            return f"this process ({self.holder})"
        return f"process {self.holder}" if self.holder else "another process"

    def __reduce__(self) -> tuple[type[Locked], tuple[Path, int | None]]:
        return (Locked, (self.path, self.holder))


def claim(path: Path, disk: Disk = DISK) -> int:
    """Open the regular file `path`, made if it is missing, and lock it; its descriptor, which holds the lock.

    What is in the file stays. `Locked` if another holder does not let go within `PATIENCE_SECONDS`; OSError if
    the system refuses.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        fd = disk.open(path, _FLAGS)
        try:
            if _lock(fd) and is_at(fd, path):  # else its holder has just renamed or removed what was opened
                return fd
            holder = _holder(fd)
        except BaseException:
            disk.close(fd)
            raise
        disk.close(fd)
        if time.monotonic() > deadline:
            raise Locked(path, holder)
        time.sleep(_POLL_SECONDS)


def hold(fd: int) -> None:
    """Lock a file that this process has just made, if the file system can: others then see that its writer lives."""
    with suppress(OSError):  # a network file system without locks: nothing depends on them
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_held(path: Path) -> bool:
    """Whether somebody holds a lock on this file, as far as the system tells; False if it cannot be opened."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
    return False


def is_at(fd: int, path: Path) -> bool:
    """Whether `path` still names the open file."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False


def _lock(fd: int) -> bool:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise FileExistsError("its temporary name is taken by something that is no regular file: remove that")
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(fd: int) -> int | None:
    """The process that holds the lock, where Linux says so: `1: FLOCK ADVISORY WRITE 8681 fe:00:2146472 0 EOF`."""
    status = os.fstat(fd)
    wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        return None
    pids = [int(line[4]) for line in lines if len(line) > 5 and line[1] == "FLOCK" and line[5] == wanted]
    return pids[0] if len(pids) == 1 and pids[0] > 0 else None
