"""One row of `archive.py`: a container writes chunks to a file, or reads them back; needs only that container.

Each system stores the same byte strings and gives them back by their number. What it checks when it reads is in
`checks`; `flip` proves it with one changed bit.
"""

# Each process has only its own system to import; the payloads are no secrets.
# ruff: noqa: PLC0415, S311

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import statistics
import sys
import time
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

POOL_BYTES = 2**20
"""Payloads are cut from so many random bytes, each from another place."""
SHARD_CHUNKS = 1000
"""Inner chunks of a Zarr shard."""
COLD_OPENS = 15


@dataclass(frozen=True)
class Job:
    """How many payloads of which size; the same in every process."""

    count: int
    size: int
    seconds: float = 2.0
    """How long openings and seeks are repeated."""

    def payloads(self) -> list[bytes]:
        """All of them, different ones, that no compression makes smaller."""
        cut = self._cutter()
        return [cut(number) for number in range(self.count)]

    def _cutter(self) -> Callable[[int], bytes]:
        pool = random.Random(0).randbytes(POOL_BYTES + min(self.size, POOL_BYTES))
        times = -(-self.size // POOL_BYTES)

        def cut(number: int) -> bytes:
            start = number * 4099 % POOL_BYTES
            return (pool[start : start + min(self.size, POOL_BYTES)] * times)[: self.size]

        return cut


class Handle(ABC):
    """An open archive."""

    @abstractmethod
    def read(self, number: int) -> bytes:
        """One payload."""

    @abstractmethod
    def read_all(self) -> Iterator[int]:
        """Read every payload, in the quickest way there is; how many bytes each time."""

    @abstractmethod
    def close(self) -> None:
        """Let go of it."""


class System(ABC):
    """A container."""

    checks: ClassVar[str]

    @abstractmethod
    def write(self, path: Path, payloads: Sequence[bytes]) -> None:
        """Write an archive, into the system's memory."""

    @abstractmethod
    def open(self, path: Path) -> Handle:
        """Open an archive to be read."""

    def write_safely(self, path: Path, payloads: Sequence[bytes]) -> None:
        """Write an archive, onto the medium."""
        self.write(path, payloads)
        flush(path)


# The systems.


class Framefold(System):
    """One file, by its own writer and reader; each payload a unit of one frame."""

    checks = "CRC-32 of header and payload, SHA-256 of both, the index's SHA-256"

    def write(self, path: Path, payloads: Sequence[bytes]) -> None:
        """As `ArchiveWriter`, but nothing waits for the medium."""
        from framefold.pipeline.archive.disk import Disk
        from framefold.pipeline.archive.output import OutputFile
        from framefold.pipeline.archive.records import FileHeader
        from framefold.pipeline.archive.shard_writer import ShardWriter

        class Hasty(Disk):
            def sync(self, fd: int) -> None:
                """Not now."""

        file = OutputFile(path, disk=Hasty())
        writer = ShardWriter(file, FileHeader.first_of(bytes(16)), str(path))
        self._add(writer, payloads)
        file.publish(writer.finish(self.MANIFEST))
        file.close()

    def write_safely(self, path: Path, payloads: Sequence[bytes]) -> None:
        """The writer that everybody uses."""
        from framefold.pipeline.archive import ArchiveWriter

        with ArchiveWriter(path) as writer:
            self._add(writer, payloads)
            writer.commit(self.MANIFEST)

    def open(self, path: Path) -> Handle:
        """As everybody does."""
        from framefold.pipeline.archive import ArchiveReader

        return _Framefold(ArchiveReader.open(path))

    MANIFEST: ClassVar = {"generator": "benchmark", "created": "2026-01-01T00:00:00Z"}

    def _add(self, writer: Any, payloads: Sequence[bytes]) -> None:
        document = {"name": "a.mp4", "kind": "video", "width": 16, "height": 16, "time_base": [1, 25]}
        source, codec = writer.add_source(document), writer.add_codec("bytes", {})
        for number, payload in enumerate(payloads):
            key = hashlib.sha256(number.to_bytes(8, "little")).hexdigest()
            place = {"source": source, "codec": codec, "first_frame": number, "pts": (number,), "duration_ticks": 1}
            writer.add_unit(key=key, payload=payload, **place)


class _Framefold(Handle):
    FIRST = 2  # after one source and one codec

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def read(self, number: int) -> bytes:
        return self._reader.read_unit(f"u{number + self.FIRST:06d}").payload

    def read_all(self) -> Iterator[int]:
        return (len(self._reader.read_unit(unit.id).payload) for unit in self._reader.units)

    def close(self) -> None:
        self._reader.close()


class Zip(System):
    """Python's zipfile, members stored as they are."""

    checks = "CRC-32 of each member; none of the directory"

    def write(self, path: Path, payloads: Sequence[bytes]) -> None:
        """One member for each payload."""
        with zipfile.ZipFile(path, "w") as file:
            for number, payload in enumerate(payloads):
                file.writestr(f"{number:08d}", payload)

    def open(self, path: Path) -> Handle:
        """Reads the whole directory."""
        return _Zip(zipfile.ZipFile(path))


class _Zip(Handle):
    def __init__(self, file: zipfile.ZipFile) -> None:
        self._file = file

    def read(self, number: int) -> bytes:
        return self._file.read(f"{number:08d}")

    def read_all(self) -> Iterator[int]:
        return (len(self._file.read(name)) for name in self._file.namelist())

    def close(self) -> None:
        self._file.close()


class Zarr(System):
    """zarr-python: one array of bytes, an inner chunk for each payload, so all must be of one size."""

    checks = "CRC-32C of each inner chunk and of the shard's index; a shard that is gone reads as zeros"

    def write(self, path: Path, payloads: Sequence[bytes]) -> None:
        """Whole shards, so that none is read and written again."""
        import numpy as np
        import zarr
        from zarr.codecs import Crc32cCodec

        size, per_shard = len(payloads[0]), min(len(payloads), SHARD_CHUNKS)
        array = zarr.create_array(
            path,
            shape=(size * len(payloads),),
            chunks=(size,),
            shards=(size * per_shard,),
            dtype="u1",
            filters=None,
            compressors=[Crc32cCodec()],
            fill_value=0,
            attributes={"count": len(payloads)},
        )
        for start in range(0, len(payloads), per_shard):
            shard = b"".join(payloads[start : start + per_shard])
            array[start * size : start * size + len(shard)] = np.frombuffer(shard, np.uint8)

    def open(self, path: Path) -> Handle:
        """Reads `zarr.json`; a shard's index is read with each of its chunks."""
        import zarr

        return _Zarr(zarr.open_array(path, mode="r"))


class _Zarr(Handle):
    def __init__(self, array: Any) -> None:
        self._array, self._size, self._shard = array, array.chunks[0], array.shards[0]

    def read(self, number: int) -> bytes:
        return self._array[number * self._size : (number + 1) * self._size].tobytes()

    def read_all(self) -> Iterator[int]:
        return (self._array[at : at + self._shard].nbytes for at in range(0, self._array.shape[0], self._shard))

    def close(self) -> None:
        """Nothing is held open."""


class Mcap(System):
    """The mcap package: messages in chunks of 1 MiB (its own choice), not compressed."""

    checks = "CRC-32 of each chunk that is read (validate_crcs=True); none of the summary"

    def write(self, path: Path, payloads: Sequence[bytes]) -> None:
        """A message for each payload, its number as time."""
        from mcap.writer import CompressionType, Writer

        with path.open("wb") as file:
            writer = Writer(file, compression=CompressionType.NONE)
            writer.start()
            channel = writer.register_channel("bytes", "raw", writer.register_schema("bytes", "", b""))
            for number, payload in enumerate(payloads):
                writer.add_message(channel, number, payload, number)
            writer.finish()

    def open(self, path: Path) -> Handle:
        """With the summary, which it would else read with the first message."""
        from mcap.reader import make_reader

        file = path.open("rb")
        reader = make_reader(file, validate_crcs=True)
        reader.get_summary()
        return _Mcap(file, reader)


class _Mcap(Handle):
    def __init__(self, file: Any, reader: Any) -> None:
        self._file, self._reader = file, reader

    def read(self, number: int) -> bytes:
        found = self._reader.iter_messages(starting_at=number, ending_before=number + 1)
        return next(found)[2].data

    def read_all(self) -> Iterator[int]:
        return (len(message.data) for _, _, message in self._reader.iter_messages(log_time_order=False))

    def close(self) -> None:
        self._file.close()


SYSTEMS: dict[str, type[System]] = {"framefold": Framefold, "zip": Zip, "zarr": Zarr, "mcap": Mcap}


# What is measured; `archive.py` uses these for its other tables too.


@dataclass(frozen=True)
class Reads:
    """What the system was asked for."""

    calls: int
    bytes: int

    @classmethod
    def of(cls, work: Callable[[], object]) -> Reads:
        """Count this process's read calls during `work`."""
        began = cls._so_far()
        work()
        ended = cls._so_far()
        own = cls._so_far()  # the counter's own file is read, too
        calls, size = (2 * now - before - after for before, now, after in zip(began, ended, own, strict=True))
        return cls(calls, size)

    @staticmethod
    def _so_far() -> tuple[int, int]:
        with open("/proc/self/io", "rb", buffering=0) as file:  # noqa: PTH123 - one call, whatever its length
            values = dict(line.split(b": ") for line in file.read(4096).splitlines())
        return int(values[b"syscr"]), int(values[b"rchar"])


def files_of(path: Path) -> list[Path]:
    """The archive's files."""
    return [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]


def flush(path: Path) -> None:
    """Wait until the archive is on the medium, names and all."""
    folders = {file.parent for file in files_of(path)}
    for one in (*files_of(path), *folders):
        fd = os.open(one, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)


def evict(path: Path) -> None:
    """Make the system forget the archive's bytes; they must be on the medium."""
    for file in files_of(path):
        fd = os.open(file, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def warm(path: Path) -> None:
    """Have all of the archive's bytes in memory."""
    for file in files_of(path):
        with file.open("rb") as source:
            while source.read(2**22):
                pass


def remove(path: Path) -> None:
    """Remove a file or a folder."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def seconds_of(work: Callable[[], object]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def repeated(work: Callable[[], float], seconds: float, *, least: int = 5, most: int = 2000) -> list[float]:
    """Seconds that `work` says it took, again and again for so long."""
    until, took = time.perf_counter() + seconds, list[float]()
    while len(took) < least or (len(took) < most and time.perf_counter() < until):
        took.append(work())
    return took


def p99(values: Sequence[float]) -> float:
    """What 99 of 100 do not exceed."""
    return sorted(values)[-1 - len(values) // 100]


def write(system: System, job: Job, path: Path) -> dict[str, float]:
    """Write the archive into the system's memory, and remove it."""
    took = _written(system.write, job, path)
    remove(path)
    return {"write_mb_s": job.count * job.size / took / 1e6}


def write_safely(system: System, job: Job, path: Path) -> dict[str, float]:
    """Write the archive onto the medium, and leave it."""
    took = _written(system.write_safely, job, path)
    total, size = job.count * job.size, sum(file.stat().st_size for file in files_of(path))
    return {"flushed_mb_s": total / took / 1e6, "overhead_bytes": (size - total) / job.count}


def _written(work: Callable[[Path, Sequence[bytes]], None], job: Job, path: Path) -> float:
    payloads = job.payloads()
    work(path, [bytes(16), bytes(16)])  # imports
    remove(path)
    return seconds_of(lambda: work(path, payloads))


def read(system: System, job: Job, path: Path) -> dict[str, float]:
    """Read it all, open it often, read chunks at random; then the same from the medium."""
    warm(path)
    dice, payloads = random.Random(1), job.payloads()

    def read_one(handle: Handle) -> float:
        number = dice.randrange(job.count)
        began = time.perf_counter()
        data = handle.read(number)
        took = time.perf_counter() - began
        if data != payloads[number]:
            raise ValueError(f"chunk {number} is not what was written")
        return took

    def open_one() -> float:
        began = time.perf_counter()
        handle = system.open(path)
        took = time.perf_counter() - began
        handle.close()
        return took

    def open_and_read() -> float:
        began = time.perf_counter()
        with contextlib.closing(system.open(path)) as handle:
            opened = time.perf_counter() - began
            return opened + read_one(handle)

    open_one()  # imports
    handle = system.open(path)
    began = time.perf_counter()
    got = sum(handle.read_all())
    read_all = time.perf_counter() - began
    if got != job.count * job.size:
        raise ValueError(f"{got} bytes read of {job.count * job.size}")
    opens, seeks = repeated(open_one, job.seconds), repeated(lambda: read_one(handle), job.seconds)
    opened, sought = Reads.of(open_one), Reads.of(lambda: read_one(handle))
    handle.close()
    first = repeated(open_and_read, job.seconds, most=COLD_OPENS)
    cold = repeated(lambda: evict(path) or open_and_read(), job.seconds, most=COLD_OPENS)
    return {
        "read_mb_s": got / read_all / 1e6,
        "open_ms": 1e3 * statistics.median(opens),
        "open_calls": opened.calls,
        "open_bytes": opened.bytes,
        "seek_ms": 1e3 * statistics.median(seeks),
        "seek_p99_ms": 1e3 * p99(seeks),
        "seek_calls": sought.calls,
        "seek_bytes": sought.bytes,
        "first_ms": 1e3 * statistics.median(first),
        "cold_ms": 1e3 * statistics.median(cold),
    }


def flip(system: System, job: Job, path: Path) -> dict[str, float]:
    """Change one bit in the middle of the largest file; ValueError if nobody notices."""
    largest = max(files_of(path), key=lambda file: file.stat().st_size)
    with largest.open("r+b") as file:
        file.seek(largest.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    try:
        with contextlib.closing(system.open(path)) as handle:
            sum(handle.read_all())
    except Exception:  # whatever each system calls it
        return {}
    raise ValueError("a changed bit was not noticed")


TASKS = {"write": write, "write_safely": write_safely, "read": read, "flip": flip}


def main() -> None:
    """Do one task: SYSTEM TASK JOB PATH; the figures go out as one line of JSON."""
    name, task, job, path = sys.argv[1:]
    print(json.dumps(TASKS[task](SYSTEMS[name](), Job(**json.loads(job)), Path(path))))


if __name__ == "__main__":
    main()
