"""archive_sink: write bitstreams into a `.fold` archive, and measure what a reader will get from it."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from framefold.codecs.clip import Source
from framefold.codecs.network import Bitstream
from framefold.codecs.rest import Attachment, Packet, Packets
from framefold.pipeline.archive import ArchiveReader, ArchiveWriter, CopiedPacket, PacketBlock
from framefold.pipeline.archive.folder import FolderWriter, open_writer
from framefold.pipeline.errors import FramefoldError
from framefold.pipeline.item import Item
from framefold.pipeline.stage import Hint, Options, Output, Row, Stage, StageContext
from framefold.stages.archive_pixels import with_pixels
from framefold.stages.archive_targets import TargetTotals
from framefold.stages.archive_totals import Quality, Totals, columns
from framefold.stages.codec_choice import codec_of
from framefold.stages.device import device_of
from framefold.stages.measure import measure
from framefold.stages.streams import decoded

_PACKED_BYTES = 64 * 2**10
"""Pictures up to this size share chunks: alone, each would pay some hundred bytes for a chunk of its own."""
_log = logging.getLogger(__name__)

AnyWriter = ArchiveWriter | FolderWriter


class ArchiveSinkConfig(Options, frozen=True):
    """Options of `archive_sink`."""

    path: Annotated[str, BeforeValidator(os.fspath), Field(min_length=1)] = Field(
        description="the archive to write: a file, usually ending in .fold, replaced only when complete; "
        "or a folder (ending in /) or s3://bucket/prefix, which grows with every run and takes many writers"
    )
    measure: bool = Field(default=True, description="decode each unit from the archive and store its distortion")


class ArchiveSink(Stage):
    """Write a chunked archive: a file, under a temporary name until it is whole, or a folder of shards.

    After an interruption, units that come again with the same bytes are not measured again. Beside bitstreams it takes
    what a source's port `rest` gives: copied tracks and attachments.
    """

    Config = ArchiveSinkConfig
    config: ArchiveSinkConfig
    accepts = Bitstream | Attachment | Packets
    stateful = True

    @classmethod
    def specialized(cls, config: ArchiveSinkConfig) -> type[Stage]:
        """A folder takes any number of writers, a file one."""
        return FolderSink if _is_folder(config.path) else cls

    @classmethod
    def preflight(cls, config: ArchiveSinkConfig) -> Sequence[tuple[str, str]]:
        """The path must be one that a file or an archive folder can take."""
        if "://" in config.path:
            return []
        path = Path(config.path)
        if path.is_dir() and any(path.iterdir()) and not (path / "data" / "commits").is_dir():
            return [("path", f"{path} is a folder and no archive; name a file in it, such as {path / 'video.fold'}")]
        if path.is_file() and config.path.endswith("/"):
            return [("path", f"{path} is a file; leave the / away to replace it, or name another folder")]
        blocking = next((parent for parent in path.parents if parent.exists() and not parent.is_dir()), None)
        return [("path", f"{blocking} is a file, so {path} cannot be made in it")] if blocking else []

    def setup(self, context: StageContext) -> None:
        """Open the archive, with fresh totals: a replica may be set up again."""
        self.close()
        self._device = device_of(context)
        self._totals, self._targets = Totals(), TargetTotals()
        self._rows: dict[str, Row] = {}  # of the units in the archive, by key
        self._writer: AnyWriter | None = open_writer(self.config.path)

    def process(self, item: Item) -> Iterator[Output]:
        """Append one unit; one that is there already is not stored, measured or counted again."""
        writer = self._open_writer()
        if not isinstance(item.payload, Bitstream):
            self._store_rest(writer, item.payload)
            return
        if item.key not in self._rows:
            self._rows[item.key] = self._store(writer, item, item.payload)
        yield self._rows[item.key]

    def finish(self) -> Iterator[Output]:
        """Seal the archive and give it its name."""
        writer, path = self._open_writer(), self.config.path
        if not self._totals.frames:
            raise FramefoldError(f"nothing reached the archive, so {path} was not written")
        created = datetime.now(UTC).isoformat(timespec="seconds")
        writer.commit({"generator": f"framefold {version('framefold')}", "created": created})
        self._writer = None
        yield from self._summary()
        yield Hint(f"pipeline info {path}")
        yield Hint(f"pipeline decode {path} {self._totals.example_output(path)}")
        yield Hint(f"pipeline verify {path}")

    def close(self) -> None:
        """Let go of an archive that was not sealed; what was measured stays for the next writer."""
        writer = getattr(self, "_writer", None)
        if writer is not None:
            writer.suspend()

    def _open_writer(self) -> AnyWriter:
        if self._writer is None:
            raise FramefoldError(f"{self.config.path} is sealed already")
        return self._writer

    def _summary(self) -> Iterator[Row]:
        path = self.config.path
        with ArchiveReader.open(path) as reader:
            size, shards = reader.size_bytes, len(reader.shards)
        if self._totals.base_bytes:
            yield Row("networks that others build on", {"bytes": self._totals.base_bytes})
        if self._totals.rest_bytes:
            yield Row("tracks and attachments", {"bytes": self._totals.rest_bytes})
        if _is_folder(path):  # it may hold more than this run brought: its size says nothing of these frames
            yield Row(f"{Path(path).name} ({shards} shard{'s' * (shards != 1)})", {"bytes": size})
        else:
            yield Row(Path(path).name, {**self._totals.columns(size), **self._targets.columns()})
        for missed in self._targets.missed():
            _log.warning("%s", missed)
        for missing in self._totals.left_out():
            _log.warning("not kept: %s; add the source's port `rest` to this node's inputs to keep it", missing)

    def _store(self, writer: AnyWriter, item: Item, bits: Bitstream) -> Row:
        """Append the unit with its measurement, or, if one of them fails, neither."""
        with writer.all_or_nothing():
            needed = writer.needed_bytes
            packed = bits.span.source.kind == "image" and len(bits.payload) <= _PACKED_BYTES
            size, quality = (self._store_packed if packed else self._store_alone)(writer, item, bits)
            needed = writer.needed_bytes - needed
        self._totals.add(bits.span, quality)
        wanted = self._targets.add(bits, quality)
        self._totals.base_bytes += needed
        seconds = quality.encode_seconds if quality else item.seconds
        values = {**columns(bits.span, size, quality), **wanted, "encode_seconds": round(seconds, 1)}
        return Row(bits.span.label, values)

    def _store_alone(self, writer: AnyWriter, item: Item, bits: Bitstream) -> tuple[int, Quality | None]:
        """A chunk of its own: its bytes on disk, and what was measured."""
        place = {
            "source": writer.add_source(_document(bits.span.source)),
            "codec": writer.add_codec(bits.codec, with_pixels(bits.config, bits.span.source), needs=_needs(bits)),
        }
        before = _own_bytes(writer)
        chunk = _append(writer, item.key, bits, **place)
        size = _own_bytes(writer) - before
        quality = self._quality(writer, item, writer.read_unit(chunk).payload)
        if quality:
            writer.add_quality(chunk, quality.model_dump())
        return size, quality

    def _store_packed(self, writer: AnyWriter, item: Item, bits: Bitstream) -> tuple[int, Quality | None]:
        """A place in a shared chunk: the codec's own bytes, and what was measured."""
        quality = self._quality(writer, item, bits.payload)
        writer.add_picture(
            source=_document(bits.span.source),
            codec=writer.add_codec(bits.codec, with_pixels(bits.config, bits.span.source), needs=_needs(bits)),
            key=item.key,
            payload=bits.payload,
            measured=quality.model_dump() if quality else None,
        )
        return len(bits.payload), quality

    def _quality(self, writer: AnyWriter, item: Item, stored: bytes) -> Quality | None:
        """Measure the bytes stored, or take what an interrupted writer measured of the same bytes."""
        bits: Bitstream = item.payload
        if not self.config.measure or bits.target is None:
            return None
        known = Quality.known(writer.bank.quality(item.key, stored))
        if known:
            return known
        symbols = decoded(replace(bits, payload=stored))
        codec = codec_of(bits.codec, bits.config)
        measured = measure(codec.reconstruct(symbols.dequantize(), device=self._device), bits.target)
        return Quality.model_validate({**measured.as_dict(), "encode_seconds": round(item.seconds, 3)})

    def _store_rest(self, writer: AnyWriter, rest: Attachment | Packets) -> None:
        if isinstance(rest, Attachment):
            writer.add_attachment(rest.sha256, rest.total_bytes, rest.start, rest.data)
        else:
            with writer.all_or_nothing():
                writer.add_packets(writer.add_source(_document(rest.source)), _block(rest))
        self._totals.add_rest(rest)


def _needs(bits: Bitstream) -> Sequence[bytes]:
    """What has to be in the archive beside the stream."""
    return () if bits.parent is None else (bits.parent,)


def _own_bytes(writer: AnyWriter) -> int:
    """Without the networks on which units build, which come with the first of them."""
    return writer.size_bytes - writer.needed_bytes


class FolderSink(ArchiveSink):
    """Write into an archive in the folder form; each replica has shards of its own, and none waits for another."""

    stateful = False


def _is_folder(path: str) -> bool:
    return "://" in path or path.endswith("/") or Path(path).is_dir()


def _append(writer: AnyWriter, key: str, bits: Bitstream, *, source: int, codec: int) -> str:
    """The chunk of a unit that has one for itself."""
    span = bits.span
    return writer.add_unit(
        key=key,
        source=source,
        codec=codec,
        first_frame=span.first_frame,
        pts=span.pts,
        duration_ticks=span.duration_ticks,
        payload=bits.payload,
    )


def _document(source: Source) -> Mapping[str, Any]:
    """What is known of the source; what is unspecified is left out, for a picture's archive is small."""
    document = source.model_dump(mode="json", exclude_defaults=True)
    return {**document, "time_base": list(source.time_base)}


def _block(rest: Packets) -> PacketBlock:
    """The packets as the archive takes them; source, track and part make the key."""
    place = f"{rest.source.model_dump_json()} {rest.track} {rest.part}"
    packets = tuple(map(_copied, rest.packets))
    key = hashlib.sha256(place.encode()).hexdigest()
    return PacketBlock(key=key, track=rest.track, part=rest.part, packets=packets)


def _copied(packet: Packet) -> CopiedPacket:
    return CopiedPacket(
        data=packet.data,
        pts=packet.pts,
        dts=packet.dts,
        duration=packet.duration,
        flags=packet.flags,
        side_data=packet.side_data,
    )
