"""A part of an archive, to be checked alone: the same parts in every run, disjoint, and together everything.

Which part something belongs to is a matter of its name alone. A folder is divided by shards, for the SHA-256 of a shard
takes all of its bytes; a single file by chunks.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Subset:
    """Part `number` (from 1) of `count`."""

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count <= 10**6:
            raise ValueError(f"part {self.number} of {self.count}; allowed are 1/1 to 1000000/1000000, such as 3/20")

    @property
    def is_all(self) -> bool:
        """Nothing is left out."""
        return self.count == 1

    def has_shard(self, sha256: str) -> bool:
        """Whether a shard of this name (64 hex digits, or the beginning of them) belongs to the part."""
        return int(sha256[:8], 16) % self.count == self.number - 1

    def has_chunk(self, name: str) -> bool:
        """Whether a chunk or unit belongs to the part: a packed unit with its pack, anything of a shard with that."""
        shard, slash, chunk = name.rpartition("/")
        if slash:
            return self.has_shard(shard)
        digest = hashlib.sha256(chunk.partition(".")[0].encode()).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.number - 1


ALL = Subset(1, 1)
