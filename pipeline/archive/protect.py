"""Give every file of an archive a parity file: beside it, or in the folder form under `data/parity/`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from framefold.pipeline.archive import parity
from framefold.pipeline.archive.chain import Chain
from framefold.pipeline.archive.errors import ArchiveError, Code
from framefold.pipeline.archive.layout import shard_name
from framefold.pipeline.archive.newcomer import sha256_of
from framefold.pipeline.archive.parity_layout import DATA_BLOCKS, PARITY_BLOCKS, Plan
from framefold.pipeline.archive.stores import LocalStore
from framefold.pipeline.archive.verify import verify


@dataclass(frozen=True, kw_only=True)
class Protection:
    """One file and its parity."""

    path: Path
    parity: Path
    plan: Plan
    is_new: bool
    """Whether it was made now; else it was there and whole."""

    @property
    def parity_bytes(self) -> int:
        """Of the parity file."""
        return self.plan.parity_file_bytes


def protect(
    archive: Path, *, data_blocks: int = DATA_BLOCKS, parity_blocks: int = PARITY_BLOCKS
) -> tuple[Protection, ...]:
    """Make the parity files that are missing, damaged, or of other numbers of blocks.

    A damaged archive is refused with what is wrong: its parity would keep the damage.
    """
    numbers = {"data_blocks": data_blocks, "parity_blocks": parity_blocks}
    if not archive.is_dir():
        beside = parity.path_beside(archive)
        return (_protected(archive, beside, lambda: _check_file(archive), **numbers),)
    store = LocalStore(archive)
    chain = Chain(store)
    commit = chain.refresh()
    if commit is None:
        raise ArchiveError(Code.NOT_AN_ARCHIVE, "there is no archive in the folder form", archive=str(archive))
    store.have_folder(archive / parity.FOLDER)
    made = []
    for record in commit.shards:
        path, beside = store.path(shard_name(record.sha256)), parity.path_for(archive, record.sha256)
        made.append(_protected(path, beside, _sha256_check(path, record.sha256), **numbers))
    return tuple(made)


def _protected(
    path: Path, beside: Path, check: Callable[[], None], *, data_blocks: int, parity_blocks: int
) -> Protection:
    check()
    wanted = Plan.of(path.stat().st_size, data_blocks=data_blocks, parity_blocks=parity_blocks)
    is_new = not _is_whole(path, beside, wanted)
    if is_new:
        parity.create(path, beside, plan=wanted)
    return Protection(path=path, parity=beside, plan=wanted, is_new=is_new)


def _is_whole(path: Path, beside: Path, wanted: Plan) -> bool:
    """Whether there is such a parity file of this very file, without any damage."""
    with suppress(ArchiveError):
        damage = parity.damage(path, beside)
        is_right = parity.read_header(beside).plan == wanted and not damage.ranges and not damage.parity_bytes
        return is_right and beside.stat().st_size == wanted.parity_file_bytes
    return False


def _check_file(path: Path) -> None:
    for finding in verify(path):
        _refuse(path, finding.code, finding.message)


def _sha256_check(path: Path, sha256: str) -> Callable[[], None]:
    def check() -> None:
        try:
            found = sha256_of(path)
        except FileNotFoundError as error:
            raise ArchiveError(Code.SHARD_MISSING, "the shard is not there", archive=str(path)) from error
        except OSError as error:
            raise ArchiveError(Code.IO, f"cannot read the shard: {error}", archive=str(path)) from error
        if found != sha256:
            _refuse(path, Code.SHARD_DIGEST, f"its bytes have the SHA-256 {found}")

    return check


def _refuse(path: Path, code: Code, message: str) -> None:
    raise ArchiveError(code, f"no parity was made, for it is damaged: {message}", archive=str(path))
