"""Repair a damaged archive of one file: bit for bit by its parity, or else a new file of all that is whole."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from framefold.pipeline.archive import parity
from framefold.pipeline.archive.chunks import read_file_header
from framefold.pipeline.archive.commits import generator, now
from framefold.pipeline.archive.disk import DISK
from framefold.pipeline.archive.documents import Document
from framefold.pipeline.archive.errors import ArchiveError, Code
from framefold.pipeline.archive.fresh import Fresh, fresh_file
from framefold.pipeline.archive.losses import Loss
from framefold.pipeline.archive.output import Output
from framefold.pipeline.archive.rebuilder import Rebuilder
from framefold.pipeline.archive.records import FileHeader
from framefold.pipeline.archive.remains import Remains
from framefold.pipeline.archive.salvage import Kept, Salvage
from framefold.pipeline.archive.verify import Finding, verify
from framefold.pipeline.archive.verify_folder import verify_archive
from framefold.pipeline.archive.worn import WornFile

WHOLE, HEALED, REBUILT = "whole", "healed", "rebuilt"


@dataclass(frozen=True, kw_only=True)
class Repair:
    """What became of one file."""

    state: str
    """`whole`: nothing was wrong. `healed`: it is bit for bit as it was. `rebuilt`: a new file holds what was whole."""
    findings: tuple[Finding, ...] = ()
    """What was wrong."""
    healed_bytes: int = 0
    """Given back by parity, in whole pieces."""
    kept: Kept | None = None
    """What is in the new file, if it was rebuilt."""
    losses: tuple[Loss, ...] = field(default=(), repr=False)


def output_beside(path: Path) -> Path:
    """What a repaired archive is called: `clip.repaired.fold`."""
    return path.with_name(f"{path.name.removesuffix('.fold')}.repaired.fold")


def repair_file(path: Path, output: Path, *, beside: Path | None = None) -> Repair:
    """Write a whole archive to `output`, which must not exist, unless nothing is wrong with `path`.

    The new archive is verified before it takes its name, and the damaged one stays as it is. `beside` is the parity
    file to use; by default the one beside the archive, if there is one. `ArchiveError` if nothing can be saved.
    """
    findings = findings_of(path)
    if not findings:
        return Repair(state=WHOLE)
    protection = beside or next(filter(Path.exists, (parity.path_beside(path),)), None)
    healed = _healed(path, protection, output) if protection else None
    if healed is not None:
        return Repair(state=HEALED, findings=findings, healed_bytes=healed.file_bytes)
    with mended(path, protection, output.parent) as source, fresh_file(output) as out:
        kept, losses = rebuild(source, out)
        check(out)
    return Repair(state=REBUILT, findings=findings, kept=kept, losses=losses)


def findings_of(path: Path) -> tuple[Finding, ...]:
    """What is wrong with a file, at a second look too; a medium that cannot be read is a finding."""
    try:
        return tuple(verify_archive(path).findings)
    except ArchiveError as error:
        if error.code != Code.IO:
            raise
        return (Finding.of(error),)


def rebuild(
    source: Path, out: Fresh, *, archive_id: bytes | None = None, is_unfinished: bool = False
) -> tuple[Kept, tuple[Loss, ...]]:
    """Write all that is whole of a damaged file into a new one; what that is, and what is lost.

    If nothing is lost, it is the old file again as far as can be told; else it is another shard, and its manifest says
    so. F034 if nothing is whole. `archive_id` if that is known; the file's own is taken by default.
    """
    with WornFile.open(source) as file:
        remains = Remains(file)
        if not remains.whole:
            raise ArchiveError(Code.LOST, "not one whole chunk was found", archive=str(source))
        salvage, manifest = _write(remains, out, _new_header(remains.header, archive_id), is_unfinished=is_unfinished)
        if not salvage.losses and manifest and remains.header and archive_id in (None, remains.header.archive_id):
            salvage, _ = _write(remains, out, remains.header)
    return salvage.kept, tuple(salvage.losses)


def _write(
    remains: Remains, out: Fresh, header: FileHeader, *, is_unfinished: bool = False
) -> tuple[Salvage, Document]:
    """Write the whole file, with its own manifest or a new one; what was saved, and the manifest that was found."""
    writer = Rebuilder(Output(out.fd, str(out.part), DISK), header, str(out.part))
    salvage = Salvage(remains, writer)
    manifest = salvage.run(is_unfinished=is_unfinished)
    is_same = header == remains.header
    writer.finish(manifest if is_same else _signed(manifest, len(salvage.losses)))
    return salvage, manifest


def _signed(manifest: Document, losses: int) -> Document:
    """The manifest, which says when and by what the file was repaired."""
    before = manifest.get("repairs")
    this = {"generator": generator(), "created": now(), "losses": losses}
    base = manifest or {"generator": generator(), "created": now()}
    return {**base, "repairs": [*(before if isinstance(before, list) else []), this]}


def check(out: Fresh) -> None:
    """Verify a new file before it takes its name."""
    for finding in verify(out.part, is_alone=False):
        message = f"what was rebuilt cannot be verified, please report this: {finding.message}"
        raise ArchiveError(finding.code, message, archive=str(out.part), chunk=finding.chunk)


def _new_header(old: FileHeader | None, archive_id: bytes | None) -> FileHeader:
    """Of a new file of the same archive."""
    chosen = archive_id or (old.archive_id if old else os.urandom(16))
    shard_id = hashlib.sha256((old.shard_id if old else os.urandom(16)) + b"repaired").digest()[:16]
    return FileHeader(archive_id=chosen, shard_id=shard_id)


def _healed(path: Path, protection: Path, output: Path) -> parity.Damage | None:
    """What parity gave back; None if too much is lost for it."""
    try:
        damage = parity.heal(path, protection, output)
    except ArchiveError as error:
        if error.code != Code.PARITY:
            raise
        return None
    if _is_other(path, output) or verify(output):
        DISK.unlink(output)
        return None
    return damage


def _is_other(path: Path, healed: Path) -> bool:
    """Whether the parity was of another archive, that had this name before: its header tells."""
    headers = []
    for each in (path, healed):
        with suppress(ArchiveError), WornFile.open(each) as file:
            headers.append(read_file_header(file))
    return len(headers) == 2 and headers[0] != headers[1]


@contextmanager
def mended(path: Path, protection: Path | None, folder: Path) -> Iterator[Path]:
    """Give the damaged file, or a copy in the folder in which parity has mended what it could."""
    if protection is None:
        yield path
        return
    with tempfile.TemporaryDirectory(dir=folder, prefix=".repair-") as scratch:
        copy = Path(scratch) / "mended"
        try:
            damage = parity.heal_in_part(path, protection, copy)
            is_ours = 2 * damage.file_bytes < copy.stat().st_size
        except ArchiveError as error:
            if error.code == Code.IO:
                raise
            is_ours = False
        yield copy if is_ours else path  # parity of another file would only do harm
