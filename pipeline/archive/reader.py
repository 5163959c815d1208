"""Read an archive, one file or many shards, as if it were one: units by id, key, source, frame and time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from functools import cached_property
from typing import Self

from framefold.pipeline.archive.commits import Commit
from framefold.pipeline.archive.contents import CodecEntry, PacketEntry, SourceEntry, UnitEntry, UnitRecord
from framefold.pipeline.archive.documents import Document
from framefold.pipeline.archive.errors import ArchiveError, Code
from framefold.pipeline.archive.files import Readable
from framefold.pipeline.archive.merged import Merged, Part
from framefold.pipeline.archive.packets import PacketBlock
from framefold.pipeline.archive.shard_reader import ShardReader
from framefold.pipeline.archive.shards import is_folder, snapshot
from framefold.pipeline.archive.stores import open_file


class ArchiveReader:
    """An open archive. Units are read on demand; reading is safe from several threads.

    Equal sources and codecs of several shards are one. Of units with the same key the first counts, in the order of the
    shards. Ids in the folder form begin with the shard's name: `3fa9c1d2/u000002`.
    """

    def __init__(self, shards: Sequence[tuple[str, ShardReader]], commit: Commit | None = None) -> None:
        self.shards = tuple(shards)
        """(name, reader) of each file; the name is empty for an archive of one file."""
        self.commit = commit
        """The newest whole commit, of the folder form."""
        self._unopened: tuple[ArchiveError, ...] = ()
        self._merged = Merged(self.shards)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open a file, a folder or a URL; `ArchiveError` if that is not possible.

        In the folder form a shard that is damaged or gone does not keep the others from being read: see `problems`.
        """
        if not is_folder(path):
            return cls([("", _shard(open_file(path)))])
        now = snapshot(path)
        shards, problems = [], [now.problem] if now.problem else []
        for name, file in now.files:
            try:
                shards.append((name, _shard(file)))
            except ArchiveError as error:
                problems.append(error)
        reader = cls(shards, now.commit)
        reader._unopened = tuple(problems)
        return reader

    @property
    def problems(self) -> tuple[ArchiveError, ...]:
        """Why shards that belong to the archive are not read here, and packs not listed."""
        return (*self._unopened, *(error for _, shard in self.shards for error in shard.problems))

    @property
    def sources(self) -> tuple[SourceEntry, ...]:
        """All originals, by number."""
        return self._merged.sources

    @property
    def codecs(self) -> tuple[CodecEntry, ...]:
        """All codecs, by number."""
        return self._merged.codecs

    @property
    def manifest(self) -> Document:
        """As given to `commit`; in the folder form, of the newest commit."""
        if self.commit is not None:
            return {"created": self.commit.created, "generator": self.commit.generator}
        return self.shards[0][1].manifest

    @property
    def archive_id(self) -> bytes:
        """16 bytes."""
        return self.commit.archive_id if self.commit else self.shards[0][1].header.archive_id

    @property
    def size_bytes(self) -> int:
        """Length of all files."""
        return sum(shard.size_bytes for _, shard in self.shards)

    @cached_property
    def units(self) -> tuple[UnitEntry, ...]:
        """All units in the order of shards and files; of a key that comes twice only the first."""
        if self.commit is None and len(self.shards) == 1:
            return self.shards[0][1].units
        units = ((part, unit) for part in self._merged.parts for unit in part.shard.units)
        return tuple(part.unit(unit) for part, unit in units if self._counts(part, unit))

    def _counts(self, part: Part, unit: UnitEntry) -> bool:
        """Whether no unit before has its key, as far as that can be read."""
        key = part.shard.key_of.get(unit.id)
        return key is None or self.keys[key] == part.prefix + unit.id

    @cached_property
    def keys(self) -> Mapping[str, str]:
        """Key of every unit to its id."""
        keys: dict[str, str] = {}
        for part in self._merged.names:
            for key, unit in part.shard.keys.items():
                keys.setdefault(key, part.prefix + unit)
        return keys

    def find(
        self, source: int | str, *, frame: int | None = None, seconds: float | Fraction | None = None
    ) -> UnitEntry:
        """The unit of a source, by number or name, that shows a frame or stands at a time; F017 if there is none.

        `seconds` counts from 0 of the source's own clock. Without frame and time it is the source's first unit.
        """
        number = self._source_number(source)
        base = Fraction(*self.sources[number].time_base)
        for unit in self._units_of_source.get(number, ()):
            if frame is not None and not unit.first_frame <= frame < unit.first_frame + unit.frame_count:
                continue
            if seconds is not None and not unit.t0 <= Fraction(seconds) / base < unit.t0 + max(unit.duration, 1):
                continue
            return unit
        where = f"frame {frame}" if frame is not None else f"second {seconds}" if seconds is not None else "anything"
        raise ArchiveError(Code.NO_SUCH, f"no unit of {self.sources[number].name} holds {where}", archive=self._name)

    @cached_property
    def _units_of_source(self) -> Mapping[int, Sequence[UnitEntry]]:
        units: dict[int, list[UnitEntry]] = {}
        for unit in sorted(self.units, key=lambda unit: unit.first_frame):
            units.setdefault(unit.source, []).append(unit)
        return units

    def _source_number(self, source: int | str) -> int:
        if isinstance(source, str):
            numbers = [entry.number for entry in self.sources if entry.name == source]
        else:
            numbers = [source] if 0 <= source < len(self.sources) else []
        if len(numbers) == 1:
            return numbers[0]
        found = f"{len(numbers)} sources are called {source!r:.60}" if numbers else f"there is no source {source!r:.60}"
        raise ArchiveError(Code.NO_SUCH, f"{found}; name one by its number", archive=self._name)

    def read_unit(self, unit: str) -> UnitRecord:
        """Return the unit with this id, verified: one read."""
        part, own = self._part_of(unit)
        return part.shard.read_unit(own)

    def quality(self, unit: str) -> Document | None:
        """Return what was last measured of this unit, or None."""
        part, own = self._part_of(unit)
        return part.shard.quality(own)

    @cached_property
    def packet_blocks(self) -> tuple[PacketEntry, ...]:
        """All copied packets; those with the same key in two shards are there twice."""
        return tuple(part.packets(entry) for part in self._merged.parts for entry in part.shard.packet_blocks)

    def read_packets(self, block: str) -> PacketBlock:
        """Return the packets in the chunk with this id, verified."""
        part, own = self._part_of(block)
        return part.shard.read_packets(own)

    @cached_property
    def attachments(self) -> Mapping[str, int]:
        """SHA-256 of every attachment that has all its pieces, and its bytes; see `attachment_damage`."""
        return {sha256: size for part in self._merged.names for sha256, size in part.shard.attachments.items()}

    @cached_property
    def attachment_chunks(self) -> Mapping[str, str]:
        """Id of every chunk with a piece of an attachment to the SHA-256 of the whole, as its head says, unchecked."""
        parts = self._merged.names
        return {part.prefix + name: sha256 for part in parts for name, sha256 in part.shard.attachment_chunks.items()}

    @property
    def attachment_damage(self) -> tuple[ArchiveError, ...]:
        """What is wrong with pieces of attachments that are not among the whole ones."""
        return tuple(error for _, shard in self.shards for error in shard.attachment_damage)

    def attachment_pieces(self, sha256: str) -> Iterator[bytes]:
        """Yield the attachment's bytes, a chunk at a time; F011 after the last if its SHA-256 is another."""
        for part in self._merged.names:
            if sha256 in part.shard.attachments:
                return part.shard.attachment_pieces(sha256)
        raise ArchiveError(Code.NO_SUCH, f"there is no attachment {sha256!r:.70}", archive=self._name)

    def read_attachment(self, sha256: str) -> bytes:
        """Return an attachment, checked against its SHA-256; of several shards that have it, one where it is whole."""
        shards = [part.shard for part in self._merged.names if sha256 in part.shard.attachments]
        for shard in shards[:-1]:
            with suppress(ArchiveError):
                return shard.read_attachment(sha256)
        return shards[-1].read_attachment(sha256) if shards else b"".join(self.attachment_pieces(sha256))

    def close(self) -> None:
        """Let go of all files."""
        for _, shard in self.shards:
            shard.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _name(self) -> str | None:
        return self.shards[0][1].path if self.shards else None

    def _part_of(self, name: str) -> tuple[Part, str]:
        """The shard that a prefixed id belongs to, and the id there."""
        prefix, slash, own = name.rpartition("/")
        part = self._merged.by_prefix.get(prefix + slash)
        if part:
            return part, own
        raise ArchiveError(Code.NO_SUCH, f"there is no {name!r:.60}", archive=self._name)


def _shard(file: Readable) -> ShardReader:
    try:
        return ShardReader(file)
    except BaseException:
        file.close()
        raise
