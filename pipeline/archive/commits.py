"""Which shards count: the JSON of a commit, checked field by field."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, ClassVar, Self

from framefold.pipeline.archive.contents import checked_manifest
from framefold.pipeline.archive.documents import Document, pack_document, unpack_document
from framefold.pipeline.archive.errors import ArchiveError, Code
from framefold.pipeline.archive.layout import commit_name
from framefold.pipeline.archive.limits import MAX_COMMITS, MAX_TICK

FORMAT = "framefold-commit"


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """One shard that counts."""

    sha256: str
    """Of its bytes, 64 lower-case hex digits: its name."""
    bytes: int
    index_sha256: str
    """As in its footer, 64 lower-case hex digits."""
    units: int
    more: Document = field(default_factory=dict, repr=False)
    """Fields that a later version added."""

    FIELDS: ClassVar[Sequence[str]] = ("sha256", "bytes", "index_sha256", "units")

    @classmethod
    def of(cls, document: Any) -> Self:
        """Check one entry of the list `shards`."""
        own = _own(document, cls.FIELDS, "shard")
        _check_hex(own, "sha256", 64)
        _check_hex(own, "index_sha256", 64)
        _check_count(own, "bytes", 1, MAX_TICK)
        _check_count(own, "units", 0, MAX_TICK)
        return cls(**own, more=_rest(document, cls.FIELDS))

    def document(self) -> Document:
        """As JSON."""
        return {**self.more, **{name: getattr(self, name) for name in self.FIELDS}}


@dataclass(frozen=True, kw_only=True)
class Retired:
    """A shard that counted once and does no more."""

    sha256: str
    reason: str

    @classmethod
    def of(cls, document: Any) -> Self:
        """Check one entry of the list `retired`."""
        own = _own(document, ("sha256", "reason"), "retired shard")
        _check_hex(own, "sha256", 64)
        if not isinstance(own["reason"], str):
            raise ArchiveError(Code.COMMIT, f"retired.reason is {own['reason']!r:.80}; a text is needed")
        return cls(**own)


@dataclass(frozen=True, kw_only=True)
class Commit:
    """All shards of an archive, as of one moment."""

    number: int
    """1, 2, 3, …"""
    parent: str | None
    """SHA-256 of the file of the commit before, 64 lower-case hex digits; None for number 1."""
    archive_id: bytes
    """16 bytes, as in the header of every shard; 32 hex digits in the file."""
    created: str
    """UTC, ISO 8601."""
    generator: str
    shards: tuple[ShardRecord, ...] = ()
    """Earliest commit first; where two hold the same key, the first counts."""
    retired: tuple[Retired, ...] = ()
    more: Document = field(default_factory=dict, repr=False)
    """Fields that a later version added."""

    FIELDS: ClassVar[Sequence[str]] = (
        *("format", "version", "requires", "sha256"),
        *("number", "parent", "archive_id", "created", "generator", "shards", "retired"),
    )

    @property
    def name(self) -> str:
        """Name of its file."""
        return commit_name(self.number)

    @property
    def size_bytes(self) -> int:
        """Of all its shards."""
        return sum(shard.bytes for shard in self.shards)

    def pack(self) -> bytes:
        """Return its file's bytes; F014 if there is no room for so many shards."""
        own = {name: getattr(self, name) for name in ("number", "parent", "created", "generator")}
        own["archive_id"] = self.archive_id.hex()
        lists = {
            "shards": [shard.document() for shard in self.shards],
            "retired": [{"sha256": shard.sha256, "reason": shard.reason} for shard in self.retired],
        }
        document = {**self.more, "format": FORMAT, "version": 1, "requires": [], **own, **lists}
        return pack_document({**document, "sha256": _sha256(document)})

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Read and check; F023 if it is not as specified, F003 if it needs a later version."""
        try:
            document = unpack_document(data)
        except ArchiveError as error:
            raise ArchiveError(Code.COMMIT, error.message) from error
        own = _own(document, cls.FIELDS, "commit")
        if own.pop("sha256") != _sha256(_rest(document, ("sha256",))):
            raise ArchiveError(Code.COMMIT, "the commit's SHA-256 is another than it says")
        _check_supported(own.pop("format"), own.pop("version"), own.pop("requires"))
        _check_count(own, "number", 1, MAX_COMMITS)
        _check_hex(own, "archive_id", 32)
        _check_parent(own)
        _check_manifest(own)
        shards, retired = _list(own, "shards", ShardRecord.of), _list(own, "retired", Retired.of)
        _check_distinct([shard.sha256 for shard in (*shards, *retired)])
        own |= {"archive_id": bytes.fromhex(own["archive_id"]), "shards": shards, "retired": retired}
        return cls(**own, more=_rest(document, cls.FIELDS))


def now() -> str:
    """The time as commits and manifests have it."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def generator() -> str:
    """What this program is called in commits and manifests."""
    return f"framefold {version('framefold')}"


def _sha256(document: Document) -> str:
    return hashlib.sha256(pack_document(document)).hexdigest()


def _own(document: Any, names: Sequence[str], what: str) -> dict[str, Any]:
    missing = [name for name in names if name not in document] if isinstance(document, dict) else list(names)
    if missing:
        raise ArchiveError(Code.COMMIT, f"a {what} without {', '.join(missing)}")
    return {name: document[name] for name in names}


def _rest(document: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in names}


def _check_hex(own: Mapping[str, Any], name: str, digits: int) -> None:
    value = own[name]
    if not isinstance(value, str) or not re.fullmatch(f"[0-9a-f]{{{digits}}}", value):
        raise ArchiveError(Code.COMMIT, f"{name} is {value!r:.80}; {digits} lower-case hex digits are needed")


def _check_count(own: Mapping[str, Any], name: str, low: int, high: int) -> None:
    value = own[name]
    if type(value) is not int or not low <= value <= high:
        raise ArchiveError(Code.COMMIT, f"{name} is {value!r:.80}; an integer from {low} to {high} is needed")


def _check_parent(own: Mapping[str, Any]) -> None:
    if own["number"] > 1:
        _check_hex(own, "parent", 64)
    elif own["parent"] is not None:
        raise ArchiveError(Code.COMMIT, f"parent of the first commit is {own['parent']!r:.80}; null is needed")


def _check_manifest(own: Mapping[str, Any]) -> None:
    try:
        checked_manifest(own)
    except ArchiveError as error:
        raise ArchiveError(Code.COMMIT, error.message) from error


def _check_supported(form: Any, number: Any, requires: Any) -> None:
    if form != FORMAT:
        raise ArchiveError(Code.COMMIT, f"format is {form!r:.80}; {FORMAT!r} is needed")
    if type(number) is not int or number < 1 or not isinstance(requires, list):
        raise ArchiveError(Code.COMMIT, f"version {number!r:.80} that requires {requires!r:.80}; an integer and a list")
    if number != 1 or requires:
        raise ArchiveError(Code.UNSUPPORTED, f"a commit of version {number} that requires {requires!r:.200}; 1 and []")


def _list(own: Mapping[str, Any], name: str, build: Callable[[Any], Any]) -> tuple[Any, ...]:
    value = own[name]
    if not isinstance(value, list):
        raise ArchiveError(Code.COMMIT, f"{name} is {value!r:.80}; a list is needed")
    return tuple(map(build, value))


def _check_distinct(names: Sequence[str]) -> None:
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ArchiveError(Code.COMMIT, f"shard {twice} is listed twice")
