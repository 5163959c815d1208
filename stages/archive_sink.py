"""archive_sink: write bitstreams into a `.fold` archive, and measure what a reader will get from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import Field

from framefold.codecs import bitstream
from framefold.codecs.clip import Source, Span
from framefold.codecs.network import Bitstream
from framefold.pipeline.archive import ArchiveWriter
from framefold.pipeline.errors import FramefoldError
from framefold.pipeline.item import Item
from framefold.pipeline.stage import Hint, Options, Output, Row, Stage, StageContext
from framefold.stages.codec_choice import codec_of
from framefold.stages.device import device_of
from framefold.stages.measure import Measured, measure


class ArchiveSinkConfig(Options, frozen=True):
    """Options of `archive_sink`."""

    path: Path = Field(description="the archive to write, usually ending in .fold; replaced only when complete")
    measure: bool = Field(default=True, description="decode each unit from the archive and store its distortion")


class ArchiveSink(Stage):
    """Write a chunked archive, under a temporary name until it is whole."""

    Config = ArchiveSinkConfig
    config: ArchiveSinkConfig
    accepts = Bitstream
    stateful = True

    @classmethod
    def preflight(cls, config: ArchiveSinkConfig) -> Sequence[tuple[str, str]]:
        """The path must be one that a file can take."""
        if config.path.is_dir():
            return [("path", f"{config.path} is a folder; name a file in it, such as {config.path / 'video.fold'}")]
        blocking = next((parent for parent in config.path.parents if parent.exists() and not parent.is_dir()), None)
        return [("path", f"{blocking} is a file, so {config.path} cannot be made in it")] if blocking else []

    def setup(self, context: StageContext) -> None:
        """Open the archive under its temporary name."""
        self._device = device_of(context)
        self._totals = _Totals()
        self._sizes: dict[str, int] = {}  # unit key to its bytes, for units that are stored but not yet measured
        self.config.path.parent.mkdir(parents=True, exist_ok=True)
        self._writer: ArchiveWriter | None = ArchiveWriter(self.config.path)

    def process(self, item: Item) -> Iterator[Output]:
        """Append one unit; the same unit twice is stored once."""
        bits: Bitstream = item.payload
        writer = self._open_writer()
        chunk, written = _append(writer, item.key, bits)
        size = self._sizes.setdefault(item.key, written)
        measured = self._measure(writer, chunk, bits, item.seconds)
        self._totals.add(bits.span, measured)
        del self._sizes[item.key]
        yield Row(bits.span.label, _columns(bits.span, size, measured) | {"encode_seconds": round(item.seconds, 1)})

    def finish(self) -> Iterator[Output]:
        """Seal the archive and give it its name."""
        writer = self._open_writer()
        if not self._totals.frames:
            raise FramefoldError(f"nothing reached the archive, so {self.config.path} was not written")
        created = datetime.now(UTC).isoformat(timespec="seconds")
        path = writer.commit({"generator": f"framefold {version('framefold')}", "created": created})
        self._writer = None
        yield Row(path.name, self._totals.columns(path.stat().st_size))
        yield Hint(f"pipeline info {path}")
        yield Hint(f"pipeline decode {path} {self._totals.example_output(path)}")
        yield Hint(f"pipeline verify {path}")

    def close(self) -> None:
        """Drop an archive that was not sealed."""
        writer = getattr(self, "_writer", None)
        if writer is not None:
            writer.abort()

    def _open_writer(self) -> ArchiveWriter:
        if self._writer is None:
            raise FramefoldError(f"{self.config.path} is sealed already")
        return self._writer

    def _measure(self, writer: ArchiveWriter, chunk: str, bits: Bitstream, seconds: float) -> Measured | None:
        """Decode the unit from the bytes just written, and store what that gives."""
        if not self.config.measure or bits.target is None:
            return None
        stored = writer.read_unit(chunk)
        symbols = bitstream.decode(stored.payload, span=bits.span, codec=bits.codec, config=bits.config)
        codec = codec_of(bits.codec, bits.config)
        measured = measure(codec.reconstruct(symbols.dequantize(), device=self._device), bits.target)
        writer.add_quality(chunk, {**measured.as_dict(), "encode_seconds": round(seconds, 3)})
        return measured


def _append(writer: ArchiveWriter, key: str, bits: Bitstream) -> tuple[str, int]:
    """The unit's chunk and the bytes that it now takes on disk: none if an earlier attempt stored it."""
    span = bits.span
    source = writer.add_source(_document(span.source))
    codec = writer.add_codec(bits.codec, bits.config)
    before = writer.size_bytes
    chunk = writer.add_unit(
        key=key,
        source=source,
        codec=codec,
        first_frame=span.first_frame,
        pts=span.pts,
        duration_ticks=span.duration_ticks,
        payload=bits.payload,
    )
    return chunk, writer.size_bytes - before


def _document(source: Source) -> dict[str, Any]:
    """What is known of the source; what is unspecified is left out, for a picture's archive is small."""
    document = source.model_dump(mode="json", exclude_defaults=True)
    return {**document, "time_base": list(source.time_base)}


def _columns(span: Span, size: int, measured: Measured | None) -> dict[str, Any]:
    """The columns that a clip and the whole archive share."""
    frames, _, height, width = span.shape
    return {
        "frames": frames,
        "psnr_db": measured.psnr_db if measured else None,
        "bytes": size,
        "bits_per_pixel": round(8 * size / (frames * height * width), 5),
    }


class _Totals:
    """Sums over the archive."""

    def __init__(self) -> None:
        self.frames = self._pixels = 0
        self._psnr: list[tuple[int, float]] = []
        self._kinds: set[str] = set()

    def add(self, span: Span, measured: Measured | None) -> None:
        """Count one unit."""
        self.frames += span.frame_count
        self._pixels += span.frame_count * span.source.width * span.source.height
        self._kinds.add(span.source.kind)
        if measured:
            self._psnr.append((span.frame_count, measured.psnr_db))

    def columns(self, size: int) -> dict[str, Any]:
        """PSNR is the mean over all frames; bytes are the file on disk."""
        measured = sum(frames for frames, _ in self._psnr)
        mean = sum(frames * value for frames, value in self._psnr) / measured if measured else None
        return {
            "frames": self.frames,
            "psnr_db": mean and round(mean, 4),
            "bytes": size,
            "bits_per_pixel": round(8 * size / self._pixels, 5),
        }

    def example_output(self, archive: Path) -> Path:
        """A fitting output for `pipeline decode`."""
        return archive.with_suffix(".mp4") if self._kinds == {"video"} else archive.with_suffix("")
