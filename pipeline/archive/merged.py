"""Several shards as one archive: what their ids, sources and codecs are called in the whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from framefold.pipeline.archive.contents import CodecEntry, PacketEntry, SourceEntry, UnitEntry
from framefold.pipeline.archive.documents import pack_document
from framefold.pipeline.archive.needs import codec_document
from framefold.pipeline.archive.shard_reader import ShardReader


@dataclass
class Part:
    """One shard among the others."""

    shard: ShardReader
    prefix: str
    """Before its ids: empty for an archive of one file, else the beginning of its name and a slash."""
    sources: list[int] = field(default_factory=list)
    """Number in the shard to number in the archive; filled by `Merged`."""
    codecs: list[int] = field(default_factory=list)

    def unit(self, unit: UnitEntry) -> UnitEntry:
        """The unit as the whole archive calls it."""
        source, codec = self.sources[unit.source], self.codecs[unit.codec]
        return replace(unit, id=self.prefix + unit.id, source=source, codec=codec)

    def packets(self, entry: PacketEntry) -> PacketEntry:
        """The packets as the whole archive calls them."""
        return replace(entry, id=self.prefix + entry.id, source=self.sources[entry.source])


class Merged:
    """All shards, with one count of sources and one of codecs; equal ones have one number."""

    def __init__(self, shards: Sequence[tuple[str, ShardReader]]) -> None:
        """From (name, reader) of each; prefixes are eight letters of the names, or as many as tell them apart."""
        names = [name for name, _ in shards]
        length = 8
        while len({name[:length] for name in names}) < len(set(names)):
            length += 1
        self._parts = [Part(shard, name and f"{name[:length]}/") for name, shard in shards]

    @cached_property
    def by_prefix(self) -> Mapping[str, Part]:
        """The shards by what their ids begin with."""
        return {part.prefix: part for part in self._parts}

    @property
    def names(self) -> Sequence[Part]:
        """The shards, to find one by its prefix; no source is read."""
        return self._parts

    @cached_property
    def parts(self) -> Sequence[Part]:
        """The shards, each with the numbers of its sources and codecs in the archive."""
        sources, codecs = dict[bytes, int](), dict[bytes, int]()
        for part in self._parts:
            part.sources = [sources.setdefault(_spelled(source, part), len(sources)) for source in part.shard.sources]
            part.codecs = [codecs.setdefault(_spelled(codec, part), len(codecs)) for codec in part.shard.codecs]
        return self._parts

    @cached_property
    def sources(self) -> tuple[SourceEntry, ...]:
        """All originals, by number."""
        found: dict[int, SourceEntry] = {}
        for part in self.parts:
            for number, entry in zip(part.sources, part.shard.sources, strict=True):
                found.setdefault(number, replace(entry, number=number, id=part.prefix + entry.id))
        return tuple(found.values())

    @cached_property
    def codecs(self) -> tuple[CodecEntry, ...]:
        """All codecs, by number."""
        found: dict[int, CodecEntry] = {}
        for part in self.parts:
            for number, entry in zip(part.codecs, part.shard.codecs, strict=True):
                found.setdefault(number, replace(entry, number=number, id=part.prefix + entry.id))
        return tuple(found.values())


def _spelled(entry: SourceEntry | CodecEntry, part: Part) -> bytes:
    """What equal ones have in common; a source whose description is lost equals no other."""
    if isinstance(entry, SourceEntry) and entry.is_lost:
        return (part.prefix + entry.id).encode()
    if isinstance(entry, SourceEntry):
        return pack_document(entry.document)
    return codec_document(entry.name, entry.config, entry.needs)
