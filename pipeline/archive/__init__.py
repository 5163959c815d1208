"""The container: bytes in, bytes out, no codec and no engine known; docs/archive-format.md specifies it."""

from framefold.pipeline.archive.bank import Bank
from framefold.pipeline.archive.contents import CodecEntry, PacketEntry, SourceEntry, UnitEntry, UnitRecord
from framefold.pipeline.archive.describe import describe
from framefold.pipeline.archive.errors import ArchiveError, Code
from framefold.pipeline.archive.packets import CopiedPacket, PacketBlock
from framefold.pipeline.archive.reader import ArchiveReader
from framefold.pipeline.archive.shard_reader import ShardReader
from framefold.pipeline.archive.shard_writer import ShardWriter
from framefold.pipeline.archive.verify import Finding, verify
from framefold.pipeline.archive.writer import ArchiveWriter

__all__ = [
    "ArchiveError",
    "ArchiveReader",
    "ArchiveWriter",
    "Bank",
    "Code",
    "CodecEntry",
    "CopiedPacket",
    "Finding",
    "PacketBlock",
    "PacketEntry",
    "ShardReader",
    "ShardWriter",
    "SourceEntry",
    "UnitEntry",
    "UnitRecord",
    "describe",
    "verify",
]
