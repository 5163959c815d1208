"""What is done, line by line, so that the next run need not do it again.

Each run appends to a file of its own, so no line is ever written into what another writer left torn. A line is
the CRC-32 of the rest in eight hex digits, a space, and a JSON object; a line that does not match is as if it
had never been written, and so is one of a later version that says more than is understood here: its work is done
again. The number of an item's outputs is in its line, so an item counts as done only with all of them.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from framefold.pipeline.events import Hinted, Kept, Produced, Reported, SetAside

Saying = SetAside | Reported | Hinted
_SAYINGS: Mapping[str, type[Saying]] = {"refused": SetAside, "row": Reported, "hint": Hinted}
_KINDS = {kind: name for name, kind in _SAYINGS.items()}
_FIELDS = {"done", "node", "label", "outputs", "said"}


@dataclass(frozen=True)
class Done:
    """What came of some work."""

    outputs: tuple[Produced, ...] = ()
    said: tuple[Saying, ...] = ()


class Ledger:
    """The lines of all runs so far, and a new file for this one."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        files = {int(path.stem): path for path in folder.glob("*.jsonl") if path.stem.isdecimal()}
        self._done: dict[bytes, tuple[Path, int]] = {}
        for number in sorted(files):
            for place, line in _lines(files[number]):
                self._note(files[number], place, line)
        self._path = folder / f"{max(files, default=0) + 1:06}.jsonl"
        self._file: IO[bytes] | None = None
        self.written = 0

    def __len__(self) -> int:
        return len(self._done)

    def __contains__(self, work_key: str) -> bool:
        return _key(work_key) in self._done

    def done(self, work_key: str) -> Done | None:
        """What came of work that is done; None if it is not."""
        found = self._done.get(_key(work_key))
        if found is None:
            return None
        with found[0].open("rb") as file:
            file.seek(found[1])
            line = _parsed(file.readline())
        return _done(line) if line is not None else None

    def add(
        self, work_key: str, node: str, label: str, outputs: Sequence[Produced], said: Sequence[Saying] = ()
    ) -> None:
        """Note that work is done, on disk before this returns."""
        entries = [asdict(replace(output, handle=None)) for output in outputs]
        sayings = [[_KINDS[type(event)], asdict(event)] for event in said]
        self._append({"done": work_key, "node": node, "label": label, "outputs": entries, "said": sayings})

    def forget(self, work_key: str) -> None:
        """What was kept turned out to be damaged: the work has to be done again."""
        self._append({"undone": work_key})

    def close(self) -> None:
        """Close this run's file."""
        if self._file is not None:
            self._file.close()

    def _append(self, line: Mapping[str, Any]) -> None:
        if self._file is None:
            self._file = self._path.open("xb")
        place = self._file.tell()
        body = json.dumps(line, separators=(",", ":"), ensure_ascii=True).encode()
        self._file.write(b"%08x %s\n" % (zlib.crc32(body), body))
        self._file.flush()
        os.fdatasync(self._file.fileno())
        self.written += 1
        self._note(self._path, place, line)

    def _note(self, path: Path, place: int, line: Mapping[str, Any]) -> None:
        if "done" in line:
            self._done[_key(line["done"])] = (path, place)
        else:
            self._done.pop(_key(line["undone"]), None)


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Every sound line that is understood, with its place in the file."""
    place = 0
    with path.open("rb") as file:
        for raw in file:
            line = _parsed(raw)
            if line is not None and _is_understood(line):
                yield place, line
            place += len(raw)


def _parsed(raw: bytes) -> Any:
    """What a line says; None if it is not as it was written."""
    head, _, body = raw.removesuffix(b"\n").partition(b" ")
    if not raw.endswith(b"\n") or head != b"%08x" % zlib.crc32(body):
        return None
    try:
        return json.loads(body)
    except ValueError:
        return None


def _is_understood(line: Any) -> bool:
    try:
        if line.keys() == {"undone"}:
            return bool(_key(line["undone"]))
        return line.keys() == _FIELDS and bool(_key(line["done"]) and _done(line))
    except (AttributeError, KeyError, TypeError, ValueError):
        return False


def _key(work_key: str) -> bytes:
    return bytes.fromhex(work_key)


def _done(line: Mapping[str, Any]) -> Done:
    return Done(
        tuple(_output(entry) for entry in line["outputs"]),
        tuple(_SAYINGS[kind](**fields) for kind, fields in line["said"]),
    )


def _output(entry: Mapping[str, Any]) -> Produced:
    kept = entry["kept"]
    return Produced(**{**entry, "kept": Kept(**kept) if kept else None})
