"""The envelope in which a payload travels; the engine never looks inside."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

Seq = tuple[int, ...]
"""Place in source order: (source, n-th output), one more number for each stage that divided the item."""


@dataclass(frozen=True)
class Item:
    """One payload with its identity."""

    key: str
    """Unit key: hex SHA-256 over the content's identity and the options of every stage so far."""
    label: str
    seq: Seq
    payload: Any
    attempt: int = 0
    """0 on the first try."""
    seconds: float = 0.0
    """Working time spent on this unit so far, over all stages."""
    checkpoint: Any = None
    """What `Progress.state` gave before the work on this item was interrupted; None at a fresh start."""


def unit_key(lineage: str, identity: str) -> str:
    """The key of content `identity` after the stages summed up in `lineage` (itself a digest).

    The same job run twice makes the same keys, so resuming, retrying and de-duplicating are one mechanism.
    """
    return hashlib.sha256(f"{lineage}\n{identity}".encode()).hexdigest()
