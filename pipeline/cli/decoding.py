"""The way back from an archive to frames, as a graph: what `decode`, `cat` and `verify` have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Stages = dict[str, Mapping[str, Any]]


def chain(archive: str, prefix: str = "", *, selection: Mapping[str, Any] | None = None, **options: Any) -> Stages:
    """Nodes `bits`, `symbols` and `frames`, each after `prefix`; `options` are those of `archive_source`.

    With a selection units that hold any of its frames are read, and of these the wanted frames are drawn.
    """
    bits, symbols, frames = (f"{prefix}{name}" for name in ("bits", "symbols", "frames"))
    wanted = dict(selection or {})
    return {
        bits: {"stage": "archive_source", "path": archive, **options, **wanted},
        symbols: {"stage": "entropy_decode", "inputs": [bits]},
        frames: {"stage": "reconstruct", "inputs": [symbols], **wanted},
    }


def accepts_rest(stage: str) -> bool:
    """Whether a sink takes what travels beside the pictures: packets or attachments."""
    from framefold.pipeline import registry  # noqa: PLC0415 - it imports the stages
    from framefold.pipeline.wiring import fits  # noqa: PLC0415

    accepted = registry.load_stage(stage).accepts
    return accepted is not None and fits(registry.load_stage("archive_source").emits["rest"], accepted)
