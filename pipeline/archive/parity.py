"""Parity files: a few blocks more, from which lost ones come back bit for bit; see docs/archive-parity.md."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from framefold.pipeline.archive.errors import ArchiveError, Code, located
from framefold.pipeline.archive.files import InputFile
from framefold.pipeline.archive.fresh import fresh_file
from framefold.pipeline.archive.parity_heal import Damage, Healing
from framefold.pipeline.archive.parity_layout import (
    DATA_BLOCKS,
    PARITY_BLOCKS,
    PARITY_HEADER_BYTES,
    Crcs,
    ParityHeader,
    Plan,
    unpack_table,
)
from framefold.pipeline.archive.parity_make import Making
from framefold.pipeline.archive.worn import WornFile

__all__ = [
    "FOLDER",
    "SUFFIX",
    "Damage",
    "create",
    "damage",
    "heal",
    "heal_in_part",
    "path_beside",
    "path_for",
    "read_header",
]

SUFFIX, FOLDER = ".parity", "data/parity/"


def path_beside(path: Path) -> Path:
    """Where the parity file of a file lies."""
    return path.with_name(path.name + SUFFIX)


def path_for(root: Path, sha256: str) -> Path:
    """Where the parity file of a shard lies in a folder archive."""
    return root / FOLDER / f"{sha256}{SUFFIX}"


def create(
    path: Path,
    parity: Path | None = None,
    *,
    data_blocks: int = DATA_BLOCKS,
    parity_blocks: int = PARITY_BLOCKS,
    plan: Plan | None = None,
) -> Path:
    """Make the parity file of a file, beside it unless `parity` says where; its path. One that is there is replaced.

    Reads the file twice, and needs little memory. `plan` overrides the numbers of blocks.
    """
    target = parity or path_beside(path)
    with located(archive=str(path)), InputFile.open(path) as file:
        if not file.size:
            raise ArchiveError(Code.LIMIT, "an empty file needs no parity")
        made = plan or Plan.of(file.size, data_blocks=data_blocks, parity_blocks=parity_blocks)
        with fresh_file(target, replace=True) as out:
            Making(made, file).write(out)
    return target


def read_header(parity: Path) -> ParityHeader:
    """What a parity file protects, and how; F029 if both of its headers are damaged."""
    with located(archive=str(parity)), WornFile.open(parity) as file:
        return _header(file)


def damage(path: Path, parity: Path) -> Damage:
    """Compare a file with its parity; nothing is written. A `path` that is missing counts as empty."""
    with _healing(path, parity) as healing:
        return healing.damage


def heal(path: Path, parity: Path, output: Path, *, replace: bool = False, scratch: Path | None = None) -> Damage:
    """Write the file as it was when its parity was made to `output`; what was damaged.

    `output` takes its name only if its SHA-256 is right; it may be `path` itself if it is to be replaced. F029 if too
    much is lost, and nothing is written then. A `path` that is missing counts as empty. Until it is named, the new
    file lies in the folder `scratch`, or beside.
    """
    with _healing(path, parity) as healing:
        healing.refuse_if_hopeless()
        with fresh_file(output, replace=replace, scratch=scratch) as out:
            healing.write(out)
            healing.check(out)
        return healing.damage


def heal_in_part(path: Path, parity: Path, output: Path) -> Damage:
    """As `heal`, but what is lost beyond the parity stays as it is, and nothing is checked: a scan does that."""
    with _healing(path, parity) as healing:
        with fresh_file(output) as out:
            healing.write(out)
        return healing.damage


@contextmanager
def _healing(path: Path, parity: Path) -> Iterator[Healing]:
    with WornFile.open(parity) as blocks, _opened(path) as file:
        with located(archive=str(parity)):
            header = _header(blocks)
            crcs = _table(blocks, header)
        with located(archive=str(path)):
            yield Healing(header, crcs, file, blocks)


def _opened(path: Path) -> WornFile:
    return WornFile.open(path) if path.exists() else WornFile.empty(path)


def _header(file: WornFile) -> ParityHeader:
    """The first header, or the last one."""
    size = PARITY_HEADER_BYTES
    try:
        return ParityHeader.unpack(file.read(0, size, size))
    except ArchiveError as error:
        if error.code != Code.PARITY or file.size < 2 * size:
            raise
    return ParityHeader.unpack(file.read(file.size - size, size, size))


def _table(file: WornFile, header: ParityHeader) -> Crcs:
    plan = header.plan
    if plan.parity_start > file.size:
        message = f"a parity file of {file.size} bytes has no room for its table of {plan.table_bytes}"
        raise ArchiveError(Code.PARITY, message)
    starts = (PARITY_HEADER_BYTES, plan.parity_start + plan.parity_bytes)
    first, second = (file.read(start, plan.table_bytes, 4096) for start in starts)
    return unpack_table((first, second), header.table_sha256)
