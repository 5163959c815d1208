"""What was measured already: in the archive's shards, and in open shards whose writers have died."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from framefold.pipeline.archive.bank import Bank
from framefold.pipeline.archive.documents import Document
from framefold.pipeline.archive.layout import OPEN_SUFFIX
from framefold.pipeline.archive.lock import is_held
from framefold.pipeline.archive.receipts import Receipts


class FolderBank:
    """As `Bank`, for the folder form. The open shards are read when they are first asked for, and never changed."""

    def __init__(self, receipts: Receipts, folder: Path) -> None:
        """`folder` is where open shards lie."""
        self._receipts, self._folder = receipts, folder

    def quality(self, key: str, payload: bytes) -> Document | None:
        """What was measured of the unit `key` with exactly these codec's bytes; None if that is not known."""
        unit = self._receipts.id_of(key)
        if unit is not None:
            shard, own = self._receipts.shard_of(unit)
            if shard.read_unit(own).payload == payload:
                return shard.quality(own)
        return next((said for bank in self._left if (said := bank.quality(key, payload)) is not None), None)

    @cached_property
    def _left(self) -> tuple[Bank, ...]:
        """Of each open shard that nobody holds. If locks do not work here, living writers' too: that does no harm."""
        return tuple(Bank.of(path) for path in sorted(self._folder.glob(f"*{OPEN_SUFFIX}")) if not is_held(path))
