"""What travels beside the clips, once for each original: copied packets and attachments.

It goes from port `rest` of a source into the archive, and from there to what writes the originals' files again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from framefold.codecs.clip import Source


@dataclass(frozen=True, kw_only=True)
class Attachment:
    """Bytes of one attachment, or a piece of them where they are many."""

    sha256: str
    """Of the whole."""
    total_bytes: int
    start: int = 0
    """Where in the whole `data` begins."""
    data: bytes = field(repr=False)

    @property
    def label(self) -> str:
        """For people."""
        return f"attachment {self.sha256[:8]}"

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return len(self.data)


@dataclass(frozen=True, kw_only=True)
class Packet:
    """One packet as the demuxer gave it; times in ticks of its track."""

    data: bytes = field(repr=False)
    pts: int | None = None
    dts: int | None = None
    duration: int = 0
    flags: int = 0
    """Bit 0 key frame, 1 corrupt, 2 discard, 3 trusted, 4 disposable."""
    side_data: tuple[tuple[str, bytes], ...] = ()
    """(FFmpeg's name of the type, its bytes)."""


@dataclass(frozen=True, kw_only=True)
class Packets:
    """Consecutive packets of one track of one source."""

    source: Source
    track: int
    """Position in `source.carried.tracks`."""
    part: int
    """0, 1, 2, … among the parts of this track."""
    packets: tuple[Packet, ...] = field(repr=False)
    """1 to 65,536 of them."""

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.source.name} track {self.source.carried.tracks[self.track].index} part {self.part}"

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(len(packet.data) + 64 for packet in self.packets)
