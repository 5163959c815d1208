"""Where a stream of frames goes: standard output, a FIFO or device, or a file that appears when it is whole."""

from __future__ import annotations

import os
import signal
import sys
import threading
from abc import ABC, abstractmethod
from pathlib import Path

from framefold.pipeline.errors import FramefoldError
from framefold.stages.media_output import StagedFile

STANDARD_OUTPUT = "-"


class Target(ABC):
    """Takes bytes, in order."""

    fd: int

    def write(self, data: bytes) -> int:
        """Write all of it. When nobody reads any more, the process ends as `cat` does: quietly, by SIGPIPE."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self.fd, view) :]
        except BrokenPipeError:
            self.broken()
        except OSError as error:
            raise FramefoldError(f"the frames cannot be written: {error}") from error
        return len(data)

    def broken(self) -> None:
        """Nobody reads on."""
        raise FramefoldError("nobody reads the frames any more")

    @abstractmethod
    def commit(self) -> None:
        """Everything is written; a file gets its name now."""

    @abstractmethod
    def close(self) -> None:
        """Let go of it."""


class _StandardOutput(Target):
    """Ours alone from now on: what others print there goes to standard error, so that it spoils no frame."""

    def __init__(self) -> None:
        sys.stdout.flush()
        self.fd = os.dup(1)
        os.dup2(2, 1)

    def broken(self) -> None:
        """End at once; nothing is left behind, for nothing lies under any name."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGPIPE)
        super().broken()

    def commit(self) -> None:
        """Every frame is out already."""

    def close(self) -> None:
        """Standard output is everybody's again."""
        sys.stdout.flush()
        os.dup2(self.fd, 1)
        os.close(self.fd)


class _Special(Target):
    """A FIFO, a terminal, a device: opening waits for its other end."""

    def __init__(self, path: str) -> None:
        try:
            self.fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            raise FramefoldError(f"{path} cannot be opened for the frames: {error}") from error

    def commit(self) -> None:
        """Every frame is out already."""

    def close(self) -> None:
        """The reader sees the end."""
        os.close(self.fd)


class _File(Target):
    """Written beside its place and moved there at the end."""

    def __init__(self, path: str) -> None:
        self._staged = StagedFile(Path(path))
        self.fd = os.open(self._staged.path, os.O_WRONLY | os.O_CLOEXEC)

    def commit(self) -> None:
        """Under its name from now on."""
        self._staged.commit()

    def close(self) -> None:
        """What was not committed is removed."""
        os.close(self.fd)
        self._staged.discard()


def open_target(path: str) -> Target:
    """Begin; `-` is standard output."""
    if path == STANDARD_OUTPUT:
        return _StandardOutput()
    return _Special(path) if is_special(path) else _File(path)


def is_special(path: str) -> bool:
    """Whether something is there that is neither a file nor a folder, and is written to as it is."""
    place = Path(path)
    return place.exists() and not (place.is_file() or place.is_dir())
