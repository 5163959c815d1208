"""What both fuzz tests need: an end to what hangs."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

SECONDS = 60
"""A file or stream of a few kilobytes that takes longer is a hang."""


@pytest.fixture(scope="session")
def guarded() -> Callable[[], AbstractContextManager[None]]:
    """A context that raises TimeoutError in what takes more than a minute."""
    return _guarded


@contextmanager
def _guarded() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError(f"not done after {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
