"""archive_sink: write bitstreams into a `.fold` archive, and measure what a reader will get from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, Field, ValidationError

from framefold.codecs import bitstream
from framefold.codecs.clip import Source, Span
from framefold.codecs.network import Bitstream
from framefold.pipeline.archive import ArchiveWriter
from framefold.pipeline.errors import FramefoldError
from framefold.pipeline.item import Item
from framefold.pipeline.stage import Hint, Options, Output, Row, Stage, StageContext
from framefold.stages.codec_choice import codec_of
from framefold.stages.device import device_of
from framefold.stages.measure import measure


class ArchiveSinkConfig(Options, frozen=True):
    """Options of `archive_sink`."""

    path: Path = Field(description="the archive to write, usually ending in .fold; replaced only when complete")
    measure: bool = Field(default=True, description="decode each unit from the archive and store its distortion")


class ArchiveSink(Stage):
    """Write a chunked archive, under a temporary name until it is whole.

    After an interruption, units that come again with the same bytes are not measured again.
    """

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
        """Open the archive under its temporary name, with fresh totals: a replica may be set up again."""
        self.close()
        self._device = device_of(context)
        self._totals = _Totals()
        self._rows: dict[str, Row] = {}  # of the units in the archive, by key
        self.config.path.parent.mkdir(parents=True, exist_ok=True)
        self._writer: ArchiveWriter | None = ArchiveWriter(self.config.path)

    def process(self, item: Item) -> Iterator[Output]:
        """Append one unit; one that is there already is not stored, measured or counted again."""
        writer = self._open_writer()
        if item.key not in self._rows:
            self._rows[item.key] = self._store(writer, item, item.payload)
        yield self._rows[item.key]

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
        """Let go of an archive that was not sealed; what was measured stays for the next writer."""
        writer = getattr(self, "_writer", None)
        if writer is not None:
            writer.suspend()

    def _open_writer(self) -> ArchiveWriter:
        if self._writer is None:
            raise FramefoldError(f"{self.config.path} is sealed already")
        return self._writer

    def _store(self, writer: ArchiveWriter, item: Item, bits: Bitstream) -> Row:
        """Append the unit with its measurement, or, if one of them fails, neither."""
        with writer.all_or_nothing():
            chunk, size = _append(writer, item.key, bits)
            quality = self._quality(writer, chunk, item)
            if quality:
                writer.add_quality(chunk, quality.model_dump())
        self._totals.add(bits.span, quality)
        seconds = quality.encode_seconds if quality else item.seconds
        return Row(bits.span.label, _columns(bits.span, size, quality) | {"encode_seconds": round(seconds, 1)})

    def _quality(self, writer: ArchiveWriter, chunk: str, item: Item) -> _Quality | None:
        """Measure the bytes just written, or take what an interrupted writer measured of the same bytes."""
        bits: Bitstream = item.payload
        if not self.config.measure or bits.target is None:
            return None
        stored = writer.read_unit(chunk).payload
        known = _Quality.known(writer.bank.quality(item.key, stored))
        if known:
            return known
        symbols = bitstream.decode(stored, span=bits.span, codec=bits.codec, config=bits.config)
        codec = codec_of(bits.codec, bits.config)
        measured = measure(codec.reconstruct(symbols.dequantize(), device=self._device), bits.target)
        return _Quality.model_validate({**measured.as_dict(), "encode_seconds": round(item.seconds, 3)})


class _Quality(BaseModel, frozen=True, extra="forbid", strict=True, allow_inf_nan=False):
    """What is stored of a unit's measurement."""

    psnr_db: float = Field(ge=0, le=100)
    ms_ssim: float = Field(ge=-1, le=1)
    frames_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    encode_seconds: float = Field(ge=0)

    @classmethod
    def known(cls, document: Mapping[str, Any] | None) -> Self | None:
        """A document from a file that anybody may have made; None if it is not what is stored here."""
        try:
            return cls.model_validate(document)
        except ValidationError:
            return None


def _append(writer: ArchiveWriter, key: str, bits: Bitstream) -> tuple[str, int]:
    """The unit's chunk, and the bytes that it takes on disk."""
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


def _columns(span: Span, size: int, quality: _Quality | None) -> dict[str, Any]:
    """The columns that a clip and the whole archive share."""
    frames, _, height, width = span.shape
    return {
        "frames": frames,
        "psnr_db": quality.psnr_db if quality else None,
        "bytes": size,
        "bits_per_pixel": round(8 * size / (frames * height * width), 5),
    }


class _Totals:
    """Sums over the archive."""

    def __init__(self) -> None:
        self.frames = self._pixels = 0
        self._psnr: list[tuple[int, float]] = []
        self._kinds: set[str] = set()

    def add(self, span: Span, quality: _Quality | None) -> None:
        """Count one unit."""
        self.frames += span.frame_count
        self._pixels += span.frame_count * span.source.width * span.source.height
        self._kinds.add(span.source.kind)
        if quality:
            self._psnr.append((span.frame_count, quality.psnr_db))

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
