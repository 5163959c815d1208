"""The door to the folder form of an archive, and to whichever form a place asks for."""

from __future__ import annotations

import os
from pathlib import Path

from framefold.pipeline.archive.folder_writer import FolderWriter
from framefold.pipeline.archive.shards import is_folder, open_shards
from framefold.pipeline.archive.stores import Place, is_url, open_file
from framefold.pipeline.archive.writer import ArchiveWriter

__all__ = ["FolderWriter", "is_folder", "open_file", "open_shards", "open_writer"]


def open_writer(place: Place, *, archive_id: bytes | None = None) -> ArchiveWriter | FolderWriter:
    """The folder form for a path that ends in `/`, a folder or a URL; one file for every other path."""
    text = os.fspath(place)
    if is_url(text) or text.endswith("/") or Path(text).is_dir():
        return FolderWriter(text, archive_id=archive_id)
    return ArchiveWriter(Path(text), archive_id=archive_id)
