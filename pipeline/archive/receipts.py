"""What an archive in the folder form holds already, by key: the data is its own receipt, so it is not stored twice."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

from framefold.pipeline.archive.commits import ShardRecord
from framefold.pipeline.archive.errors import ArchiveError, Code
from framefold.pipeline.archive.files import Readable
from framefold.pipeline.archive.layout import SHA256
from framefold.pipeline.archive.records import HEADER_BYTES, PACKETS
from framefold.pipeline.archive.shard_reader import ShardReader
from framefold.pipeline.archive.shards import ShardFile
from framefold.pipeline.archive.stores import Store

_AT_ONCE = 8
"""Shards that are opened at the same time: a store's answer takes long."""
_KEPT = 4
"""Shards that stay open, for units that are asked for again."""


class Receipts:
    """Keys of all units in the shards of an archive; of packets and attachments too, once they are asked for."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._files: list[Readable] = []
        self._places: dict[str, int] = {}  # SHA-256 of a shard to its place in that list
        self._labels: dict[str, int] = {}  # what ids of its units begin with, to the same
        self._units: dict[bytes, int] = {}  # key of a unit to the same
        self._readers: OrderedDict[int, ShardReader] = OrderedDict()
        self.problems: list[ArchiveError] = []
        """Why shards could not be read; what they hold is stored again when it comes."""

    def load(self, records: Sequence[ShardRecord]) -> None:
        """Take in the shards of a commit; damaged and missing ones go to `problems`."""
        files = [ShardFile(self._store, record) for record in records]
        for start in range(0, len(files), _AT_ONCE):
            batch = files[start : start + _AT_ONCE]
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                found = list(pool.map(_keys, batch))
            for file, keys in zip(batch, found, strict=True):
                file.close()  # what it has read is read again if it is needed
                if isinstance(keys, ArchiveError):
                    self.problems.append(keys)
                else:
                    self._add(file.record.sha256, file, keys)

    def take(self, sha256: str, file: Readable, label: str) -> None:
        """Take in one more shard, whose units also have ids that begin with `label`; or say where it lies now."""
        if sha256 in self._places:
            self._files[self._places[sha256]] = file
            self._readers.pop(self._places[sha256], None)
            return
        keys = _keys(file)
        if isinstance(keys, ArchiveError):
            raise keys
        self._add(sha256, file, keys)
        self._labels[label] = self._places[sha256]

    def id_of(self, key: str) -> str | None:
        """Id of the unit with this key; None if no shard has it."""
        place = self._units.get(bytes.fromhex(key)) if SHA256.fullmatch(key) else None
        if place is None:
            return None
        label = next(label for label, known in self._labels.items() if known == place)
        return f"{label}/{self._reader(place).keys[key]}"

    def shard_of(self, unit: str) -> tuple[ShardReader, str]:
        """The shard that a unit's id names, and the unit's id there."""
        label, _, own = unit.partition("/")
        if label not in self._labels:
            raise ArchiveError(Code.NO_SUCH, f"there is no unit {unit!r:.60}", archive=self._store.url)
        return self._reader(self._labels[label]), own

    @cached_property
    def packets(self) -> set[str]:
        """Keys of all packet blocks, as of the first time this is asked for. It reads 32 bytes of each."""
        return {key for place in range(len(self._files)) for key in self._packet_keys(place)}

    @cached_property
    def attachments(self) -> Mapping[str, int]:
        """SHA-256 and length of all whole attachments, as of the first time this is asked for."""
        whole: dict[str, int] = {}
        for place in range(len(self._files)):
            whole.update(self._reader(place).attachments)
        return whole

    def _add(self, sha256: str, file: Readable, keys: Mapping[str, str]) -> None:
        place = self._places[sha256] = len(self._files)
        self._files.append(file)
        length = next(n for n in range(8, 65) if sha256[:n] not in self._labels)
        self._labels[sha256[:length]] = place
        for key in keys:
            self._units.setdefault(bytes.fromhex(key), place)

    def _reader(self, place: int) -> ShardReader:
        reader = self._readers.pop(place, None) or ShardReader(self._files[place])
        self._readers[place] = reader
        if len(self._readers) > _KEPT:
            self._readers.popitem(last=False)[1].close()
        return reader

    def _packet_keys(self, place: int) -> Iterator[str]:
        index = self._reader(place).index
        for number in index.numbers(PACKETS):
            yield self._files[place].read(index[number].offset + HEADER_BYTES, 32).hex()


def _keys(file: Readable) -> Mapping[str, str] | ArchiveError:
    try:
        return ShardReader(file).keys
    except ArchiveError as error:
        if error.code == Code.IO:  # it may be whole, and then all of it would be stored again
            raise
        return error
