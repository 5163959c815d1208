"""A finished file on its way among the shards of an archive."""

from __future__ import annotations

import hashlib
from pathlib import Path

from framefold.pipeline.archive.commits import ShardRecord
from framefold.pipeline.archive.shard_reader import ShardReader


def sha256_of(path: Path) -> str:
    """Of a file's bytes, in hex; OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def record_of(path: Path) -> ShardRecord:
    """What a commit says of the file."""
    with ShardReader.open(path) as reader:
        return ShardRecord(
            sha256=sha256_of(path),
            bytes=reader.size_bytes,
            index_sha256=reader.index_sha256.hex(),
            units=len(reader.units),
        )


def content_of(path: Path) -> set[str]:
    """Keys of units and packets, and SHA-256 of attachments."""
    with ShardReader.open(path) as reader:
        packets = {reader.read_packets(block.id).key for block in reader.packet_blocks}
        return packets | reader.keys.keys() | reader.attachments.keys()
