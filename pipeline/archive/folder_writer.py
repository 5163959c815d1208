"""Write an archive in the folder form: many writers at once, on many machines, each into shards of its own."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from framefold.pipeline.archive.commits import generator, now
from framefold.pipeline.archive.contents import CodecEntry, SourceEntry, UnitRecord, checked_manifest
from framefold.pipeline.archive.disk import DISK, Disk
from framefold.pipeline.archive.documents import Document, pack_document, unpack_document
from framefold.pipeline.archive.errors import ArchiveError, Code
from framefold.pipeline.archive.growing import GrowingShard
from framefold.pipeline.archive.leftovers import FolderBank
from framefold.pipeline.archive.needs import codec_document
from framefold.pipeline.archive.numbered import Numbered
from framefold.pipeline.archive.packets import PacketBlock
from framefold.pipeline.archive.publisher import Publisher
from framefold.pipeline.archive.shards import as_store, spool_of
from framefold.pipeline.archive.stores import LocalStore, Place, Store

ROLL_BYTES = 256 * 2**20
ROLL_SECONDS = 600.0


class FolderWriter:
    """One of perhaps many writers of an archive; what it adds is seen when its shard is committed.

    A unit is acknowledged when `add_unit` returns, or the outermost `all_or_nothing` around it ends: it is on the
    medium then, and nothing that dies later takes it away again. Pictures are acknowledged when their pack is closed:
    by `close_pack`, by `commit`, or because it is full. A shard is closed and committed at `roll_bytes`, `roll_seconds`
    after it was begun, by `roll`, and by `commit`.

    Every method may be repeated after an `ArchiveError`. As a context manager it suspends, unless `commit` was reached.
    Not for several threads.
    """

    def __init__(
        self,
        place: Place | Store,
        *,
        archive_id: bytes | None = None,
        spool: Path | None = None,
        roll_bytes: int = ROLL_BYTES,
        roll_seconds: float = ROLL_SECONDS,
        sync: bool = True,
        disk: Disk = DISK,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Without `sync`, units are flushed when their shard is closed, not before: faster, and lost in a power cut."""
        self._store = as_store(place, disk=disk)
        self._roll_bytes, self._roll_seconds, self._sync, self._clock = roll_bytes, roll_seconds, sync, clock
        spool = spool or spool_of(self._store)
        self._publisher = Publisher(self._store, spool, disk, archive_id)
        self._receipts = self._publisher.receipts
        self._sources, self._codecs = Numbered(), Numbered()
        self._needs: dict[str, bytes] = {}  # SHA-256 to what codecs need
        self._growing: GrowingShard | None = None
        self._roll_at_seconds, self._depth, self._is_open = 0.0, 0, True
        self.bank = FolderBank(self._receipts, spool)
        """What was measured already, in the archive or by writers that died."""

    @property
    def place(self) -> str:
        """Path or URL of the archive."""
        return self._store.url

    @property
    def size_bytes(self) -> int:
        """Bytes of all shards that are committed, and of those that this writer has written besides."""
        own = [*self._publisher.waiting, *([self._growing] if self._growing else [])]
        return self._publisher.newest.size_bytes + sum(shard.writer.size_bytes for shard in own)

    @property
    def needed_bytes(self) -> int:
        """As `ShardWriter.needed_bytes`, of the open shard."""
        return self._growing.writer.needed_bytes if self._growing else 0

    @property
    def problems(self) -> Sequence[ArchiveError]:
        """Why shards of the archive could not be read: what they hold is stored again when it comes."""
        return tuple(self._receipts.problems)

    def add_source(self, document: Mapping[str, Any]) -> int:
        """As `ShardWriter.add_source`; it is written into each shard that has a unit of it, and nowhere else."""
        data = pack_document(document)
        SourceEntry.of(0, "", unpack_document(data))
        return self._sources.number(data)

    def add_codec(self, name: str, config: Mapping[str, Any], *, needs: Sequence[bytes] = ()) -> int:
        """As `ShardWriter.add_codec`; it is written as sources are, and with it what it needs."""
        named = {hashlib.sha256(each).hexdigest(): each for each in needs}
        data = codec_document(name, config, tuple(named))
        CodecEntry.of(0, "", unpack_document(data))
        self._needs |= named
        return self._codecs.number(data)

    def add_unit(
        self,
        *,
        key: str,
        source: int,
        codec: int,
        first_frame: int,
        pts: Sequence[int],
        duration_ticks: int,
        payload: bytes,
    ) -> str:
        """As `ShardWriter.add_unit`; a key that the archive has already is not stored again."""
        known = self._receipts.id_of(key)
        if known is not None:
            return known
        with self._writing() as shard:
            chunk = shard.writer.add_unit(
                key=key,
                source=self._source_in(shard, source),
                codec=self._codec_in(shard, codec),
                first_frame=first_frame,
                pts=pts,
                duration_ticks=duration_ticks,
                payload=payload,
            )
            return f"{shard.label}/{chunk}"

    def add_picture(
        self, *, source: Mapping[str, Any], codec: int, key: str, payload: bytes, measured: Document | None = None
    ) -> None:
        """As `ShardWriter.add_picture`; a key that the archive has already is not stored again."""
        if self._receipts.id_of(key) is None:
            with self._writing() as shard:
                number = self._codec_in(shard, codec)
                shard.writer.add_picture(source=source, codec=number, key=key, payload=payload, measured=measured)

    def close_pack(self) -> None:
        """As `ShardWriter.close_pack`."""
        if self._growing:
            with self._writing() as shard:
                shard.writer.close_pack()

    def add_packets(self, source: int, block: PacketBlock) -> str:
        """As `ShardWriter.add_packets`; empty if the archive has the key already."""
        if block.key in self._receipts.packets:
            return ""
        with self._writing() as shard:
            return f"{shard.label}/{shard.writer.add_packets(self._source_in(shard, source), block)}"

    def add_attachment(self, sha256: str, total_bytes: int, start: int, data: bytes) -> str:
        """As `ShardWriter.add_attachment`; empty if the archive has the whole attachment already.

        All pieces of one go into the same shard, which is not closed before it has them.
        """
        if sha256 in self._receipts.attachments:
            return ""
        with self._writing() as shard:
            return f"{shard.label}/{shard.add_attachment(sha256, total_bytes, start, data)}"

    def add_quality(self, unit: str, document: Mapping[str, Any]) -> None:
        """As `ShardWriter.add_quality`, while the unit's shard is open; a closed one keeps what it says."""
        self._require_open()
        if self._growing and unit.startswith(f"{self._growing.label}/"):
            with self._writing() as shard:
                shard.writer.add_quality(unit.partition("/")[2], document)
        else:
            self._receipts.shard_of(unit)

    def read_unit(self, unit: str) -> UnitRecord:
        """Read a stored unit back, of this writer's or any other shard of the archive."""
        self._require_open()
        label, _, own = unit.partition("/")
        if self._growing and label == self._growing.label:
            return self._growing.writer.read_unit(own)
        shard, own = self._receipts.shard_of(unit)
        return shard.read_unit(own)

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """Take what is added inside only if nothing is raised there, and acknowledge it as a whole."""
        with self._writing():
            yield

    def roll(self, manifest: Mapping[str, Any] | None = None) -> None:
        """Close the open shard and commit it; what comes then goes into a new one.

        `manifest` is that shard's; without one it says when and by what the shard was made.
        """
        self._require_open()
        shard = self._growing
        if shard and shard.is_empty:
            self._growing = None
            shard.discard()
        elif shard:
            shard.finish(manifest or {"generator": generator(), "created": now()})
            self._growing = None
            self._publisher.take(shard)
        self._publisher.publish()

    def commit(self, manifest: Mapping[str, Any]) -> Path | str:
        """Commit everything and end; the archive's path, or its URL. `manifest` needs `generator` and `created`."""
        self.roll(checked_manifest(manifest))
        self._is_open = False
        return self._store.root if isinstance(self._store, LocalStore) else self.place

    def suspend(self) -> None:
        """Stop for now: the open shard stays, for the bank of the next writer, or for `pipeline repair`.

        Nothing happens after `commit` or a second time.
        """
        if self._is_open:
            with suppress(ArchiveError):  # pictures that were not acknowledged
                self.close_pack()
            self._end(keep=True)

    def abort(self) -> None:
        """Remove the open shard, and leave what was committed; nothing happens after `commit` or a second time."""
        if self._is_open:
            self._end(keep=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.suspend()

    def _end(self, *, keep: bool) -> None:
        self._is_open = False
        self._publisher.leave()
        if self._growing:
            _end = self._growing.leave if keep and not self._growing.is_empty else self._growing.discard
            _end()

    @contextmanager
    def _writing(self) -> Iterator[GrowingShard]:
        """The shard to write into; flushed when the outermost block ends, undone if it raises."""
        shard = self._shard()
        self._depth += 1
        try:
            with shard.all_or_nothing():
                yield shard
                if self._depth == 1 and self._sync:
                    shard.output.sync()
        finally:
            self._depth -= 1

    def _shard(self) -> GrowingShard:
        self._require_open()
        shard = self._growing
        if shard and not self._depth and self._is_due(shard):
            self.roll()
        if self._growing is None:
            self._growing = self._publisher.begin_shard()
            self._roll_at_seconds = self._clock() + self._roll_seconds
        return self._growing

    def _is_due(self, shard: GrowingShard) -> bool:
        is_old = self._clock() >= self._roll_at_seconds and not shard.is_empty
        return (is_old or shard.writer.size_bytes >= self._roll_bytes) and not shard.is_between

    def _source_in(self, shard: GrowingShard, number: int) -> int:
        data = self._sources.document("source", number)
        known = shard.writer.known_source(data)
        return shard.writer.add_source(unpack_document(data)) if known is None else known

    def _codec_in(self, shard: GrowingShard, number: int) -> int:
        data = self._codecs.document("codec", number)
        known = shard.writer.known_codec(data)
        if known is not None:
            return known
        entry = CodecEntry.of(0, "", unpack_document(data))
        return shard.writer.add_codec(entry.name, entry.config, needs=[self._needs[each] for each in entry.needs])

    def _require_open(self) -> None:
        if not self._is_open:
            raise ArchiveError(Code.MISUSE, "this writer was committed, suspended or aborted", archive=self.place)
