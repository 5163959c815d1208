"""The archive beside ZIP, Zarr and MCAP, and what its own parts cost.

    python benchmarks/archive.py [--only compare opening framing parity folder] [--quick] [--json FILE] [--folder DIR]

`compare`: every system stores the same payloads, without compression, with its checksums on. Each row is the median
of several rounds; in each round every system writes, then reads, in processes of its own, and another one goes first.
That each system notices a changed bit is tried, not assumed. The page cache is warm, but for `cold`, where the file's
pages are dropped before (a virtual machine's host may still have them). MB are 10^6 bytes. Compare ratios within one
run only.

The other tables are of framefold alone. Reads are the process's own system calls. Needs some 1.1 GB of disk.

Each peer lives in an environment of its own under out/bench-venv, made on first use with pip; where it cannot be
installed, or fails, its row says why.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from archive_peers import SYSTEMS, Framefold, Job, Reads, evict, flush, remove, repeated, seconds_of, warm

from framefold.codecs.carried import Carried, PixelTags
from framefold.codecs.clip import ColorTags, Source
from framefold.pipeline.archive import ArchiveReader, ArchiveWriter, parity
from framefold.pipeline.archive.folder import FolderWriter
from framefold.pipeline.archive.records import COPY, ENTRY_BYTES, HEADER_BYTES, PACK, UNIT

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "out"
VENVS = OUT / "bench-venv"
PEERS = {"zarr": ["zarr==3.1.6"], "mcap": ["mcap==1.6.0"]}
PATIENCE_SECONDS = 600
"""A process that takes longer is ended, and its row says so."""
MANIFEST = {"generator": "benchmark", "created": "2026-01-01T00:00:00Z"}

Row = dict[str, Any]
Columns = Mapping[str, str]
"""Heading to format; both may name the row's fields."""


# Beside others.


def compare(folder: Path, *, quick: bool) -> list[Row]:
    """One chunk of 64 MiB, 10^3 of 64 KiB, 10^5 of 4 KiB."""
    jobs = [(5, Job(1, 2**26)), (5, Job(1000, 2**16)), (3, Job(100_000, 2**12))]
    if quick:
        jobs = [(1, Job(1, 2**26, 0.3)), (1, Job(1000, 2**16, 0.3)), (1, Job(5000, 2**12, 0.3))]
    names = {name: prepare(name) for name in SYSTEMS}
    return [row for rounds, job in jobs for row in _compared(folder, job, rounds, names)]


def _compared(folder: Path, job: Job, rounds: int, names: Mapping[str, str]) -> Iterator[Row]:
    found: dict[str, list[Row]] = {name: [] for name in names}
    failed = dict(names)
    for number in range(rounds):
        order = list(names)[number % len(names) :] + list(names)[: number % len(names)]
        for name in order:
            if not failed[name]:
                try:
                    found[name].append(_one_round(folder / f"of-{name}", name, job, flip=not number))
                except ValueError as error:
                    failed[name] = str(error)
    for name, rows in found.items():
        figures = {key: statistics.median(row[key] for row in rows) for key in rows[0]} if rows else {}
        why = {"failed": failed[name]} if failed[name] else {}
        yield {"system": name, "chunks": job.count, "size": job.size, "rounds": len(rows), **figures, **why}


def _one_round(path: Path, name: str, job: Job, *, flip: bool) -> Row:
    tasks = ["write", "write_safely", "read", *(["flip"] if flip else [])]
    try:
        figures = [_task(path, name, task, job) for task in tasks]
    finally:
        remove(path)
    return {key: value for part in figures for key, value in part.items()}


def _task(path: Path, name: str, task: str, job: Job) -> Row:
    command = [str(_python(name)), str(HERE / "archive_peers.py"), name, task, json.dumps(asdict(job)), str(path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"{task}: ended after {PATIENCE_SECONDS} s") from None
    if done.returncode:
        raise ValueError(f"{task}: {_last_line(done.stderr)}")
    figures: Row = json.loads(done.stdout.splitlines()[-1])
    return figures


def prepare(name: str) -> str:
    """Install what the system needs; returns why that failed."""
    if name not in PEERS:
        return ""
    if not _python(name).exists():
        subprocess.run([sys.executable, "-m", "venv", VENVS / name], check=True)
    pip = [str(_python(name)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    numpy = f"numpy=={importlib.metadata.version('numpy')}"
    done = subprocess.run([*pip, *PEERS[name], numpy], capture_output=True, text=True, check=False)
    return f"could not be installed: {_last_line(done.stderr)}" if done.returncode else ""


def _python(name: str) -> Path:
    return VENVS / name / "bin" / "python" if name in PEERS else Path(sys.executable)


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "without a word")[:200]


# What opening costs.


def opening(folder: Path, *, quick: bool) -> list[Row]:
    """The same count of chunks, small and large; more chunks; how many one read opens."""
    sizes, counts = (2**10, 2**16, 2**20), (500, 1000)
    jobs = [Job(count, size) for count in counts for size in sizes if not (quick and count * size > 2**27)]
    more = [Job(count, 2**10) for count in ((5000,) if quick else (10_000, 100_000))]
    return [_opened(folder / "opened.fold", job, seconds=0.3 if quick else 2.0) for job in (*jobs, *more)]


def _opened(path: Path, job: Job, seconds: float) -> Row:
    Framefold().write(path, _Lazily(job))
    flush(path)
    warm(path)
    with ArchiveReader.open(path) as reader:
        first = reader.units[0].id
        sought = Reads.of(lambda: reader.read_unit(first))
        index = len(reader.shards[0][1].index) * ENTRY_BYTES
    opened = Reads.of(lambda: _open_and_close(path))
    times = repeated(lambda: seconds_of(lambda: _open_and_close(path)), seconds)
    cold = repeated(lambda: evict(path) or seconds_of(lambda: _open_and_close(path)), seconds, most=20)
    size = path.stat().st_size
    path.unlink()
    return {
        "chunks": job.count,
        "size": job.size,
        "archive_bytes": size,
        "index_bytes": index,
        "open_calls": opened.calls,
        "open_bytes": opened.bytes,
        "open_ms": 1e3 * statistics.median(times),
        "cold_open_ms": 1e3 * statistics.median(cold),
        "seek_calls": sought.calls,
        "seek_bytes": sought.bytes,
    }


class _Lazily:
    """Payloads of a job, made one by one: a gigabyte of them needs no memory."""

    def __init__(self, job: Job) -> None:
        self._count, self._payload = job.count, Job(1, job.size).payloads()[0]

    def __iter__(self) -> Iterator[bytes]:
        return (number.to_bytes(8, "little") + self._payload[8:] for number in range(self._count))


def _open_and_close(path: Path) -> None:
    ArchiveReader.open(path).close()


def opened_by_one_read(folder: Path) -> int:
    """The largest count of units for which opening is one read."""
    low, high, path = 100, 2000, folder / "one.fold"
    while high - low > 1:
        count = (low + high) // 2
        Framefold().write(path, _Lazily(Job(count, 256)))
        calls = Reads.of(lambda: _open_and_close(path)).calls
        low, high = (count, high) if calls == 1 else (low, count)
    path.unlink()
    return low


# What is not payload.


def framing(folder: Path, *, quick: bool) -> list[Row]:
    """Bytes of chunks of their own, then of small pictures in packs."""
    count = 200 if quick else 1000
    alone = [_alone(folder / "alone.fold", count, size) for size in (2**12, 2**12 + 1, 2**16)]
    return [*alone, *(_pictures(folder / "pictures.fold", count, kib * 2**10) for kib in (1, 3, 5, 10))]


def _alone(path: Path, count: int, size: int) -> Row:
    Framefold().write(path, _Lazily(Job(count, size)))
    parts = _anatomy(path)
    path.unlink()
    return {"kind": "chunks", "count": count, "size": size, **parts}


def _pictures(path: Path, count: int, size: int) -> Row:
    dice, payload = random.Random(size), Job(count, size).payloads()  # noqa: S311 - no secrets
    with ArchiveWriter(path) as writer:
        codec = writer.add_codec("coin", {"width": 28, "layers": 8})
        write = seconds_of(lambda: [_add_picture(writer, codec, dice, number, payload) for number in range(count)])
        writer.commit(MANIFEST)
    with ArchiveReader.open(path) as reader:
        read = seconds_of(lambda: [reader.read_unit(unit.id) for unit in reader.units])
        middle = reader.units[count // 2].id
    with ArchiveReader.open(path) as reader:
        sought = Reads.of(lambda: reader.read_unit(middle))
    parts = _anatomy(path)
    path.unlink()
    times = {"write_s": write, "read_s": read, "seek_calls": sought.calls, "seek_bytes": sought.bytes}
    return {"kind": "pictures", "count": count, "size": size, **parts, **times}


def _add_picture(writer: ArchiveWriter, codec: int, dice: random.Random, number: int, payload: list[bytes]) -> None:
    """As archive_sink does, with a source document as image_source makes it."""
    document = {**_source(dice, number).model_dump(mode="json", exclude_defaults=True), "time_base": [1, 1]}
    measured = {
        "psnr_db": round(dice.uniform(28, 40), 4),
        "ms_ssim": round(dice.uniform(0.9, 1), 6),
        "frames_sha256": dice.randbytes(32).hex(),
        "encode_seconds": round(dice.uniform(5, 60), 3),
    }
    key = dice.randbytes(32).hex()
    writer.add_picture(source=document, codec=codec, key=key, payload=payload[number], measured=measured)


def _source(dice: random.Random, number: int) -> Source:
    width, height = dice.choice(((640, 480), (480, 640), (500, 375), (512, 512)))
    modified = f"{dice.randrange(1_600_000_000, 1_700_000_000)}.{dice.randrange(10**9):09d}"
    pixel = PixelTags(format="RGB")
    return Source(
        name=f"photos/IMG_{number:05d}.jpg",
        kind="image",
        sha256=dice.randbytes(32).hex(),
        size_bytes=dice.randrange(30_000, 200_000),
        width=width,
        height=height,
        color=ColorTags(range=2),
        carried=Carried(modified=modified, pixel=pixel, container="JPEG"),
    )


def _anatomy(path: Path) -> dict[str, int]:
    """Where a file's bytes are: framing, documents and tables, the copy, units' heads, the codecs' own."""
    with ArchiveReader.open(path) as reader:
        index = reader.shards[0][1].index
        bytes_of, own = Counter[bytes](), Counter[bytes]()
        for entry in index:
            bytes_of[entry.kind] += entry.payload_bytes
            own[entry.kind] += entry.disk_bytes - entry.payload_bytes  # header and padding
        heads = 72 * len(index.numbers(UNIT))
    codecs = bytes_of.pop(PACK, 0) + bytes_of.pop(UNIT, 0) - heads
    copy = bytes_of.pop(COPY, 0)
    framing = own.total() + len(index) * ENTRY_BYTES + 3 * HEADER_BYTES  # of file, index and footer
    documents = bytes_of.total()
    size = path.stat().st_size
    if framing + documents + copy + heads + codecs != size:
        raise AssertionError(f"{size} bytes are not all accounted for")
    parts = {"framing": framing, "documents": documents, "copy": copy, "heads": heads, "codecs": codecs}
    return {"bytes": size, "chunk_bytes": own[UNIT], **parts}


# Parity.


def parity_speed(folder: Path, *, quick: bool) -> list[Row]:
    """Make, check and heal, one row for each damage."""
    size = 2**24 if quick else 2**28
    path, healed = folder / "parity.bin", folder / "healed.bin"
    made = path.with_name(path.name + ".parity")
    data = Job(1, size).payloads()[0]
    path.write_bytes(data)
    create = min(seconds_of(lambda: parity.create(path)) for _ in range(3))
    check = min(seconds_of(lambda: parity.damage(path, made)) for _ in range(3))
    rows = []
    plan = parity.read_header(made).plan
    most = plan.parity_blocks * plan.groups * plan.block_bytes
    for what, start, length in (
        ("a sector", size // 3, 512),
        ("5 % in one place", 0, size // 20),
        ("all it can", 0, most),
    ):
        with path.open("r+b") as file:
            file.seek(start)
            file.write(bytes(length))
        heal = seconds_of(lambda: parity.heal(path, made, healed, replace=True))
        if healed.read_bytes() != data:
            raise AssertionError("what was healed is not what was damaged")
        healed.replace(path)
        rows.append(
            {
                "size": size,
                "parity_bytes": made.stat().st_size,
                "create_mb_s": size / create / 1e6,
                "check_mb_s": size / check / 1e6,
                "damage": what,
                "heal_mb_s": size / heal / 1e6,
            }
        )
    remove(path)
    remove(made)
    return rows


# The folder form.


def folder_speed(folder: Path, *, quick: bool) -> list[Row]:
    """Write with and without a flush for each chunk; then open archives of more and more shards."""
    count = 100 if quick else 1000
    written = [_written(folder / "many", Job(count, 2**16), sync=sync) for sync in (True, False)]
    shards = (1, 10) if quick else (1, 10, 100)
    return [*written, *(_opened_folder(folder / "many", number) for number in shards)]


def _written(path: Path, job: Job, *, sync: bool) -> Row:
    payloads = job.payloads()
    with FolderWriter(path, sync=sync) as writer:
        write = seconds_of(lambda: _add_units(writer, payloads))
        commit = seconds_of(writer.roll)
        _add_units(writer, [b"one more"])
        small = seconds_of(writer.roll)
        writer.commit(MANIFEST)
    remove(path)
    total = job.count * job.size
    return {
        "kind": "write",
        "flush": "each chunk" if sync else "each shard",
        "chunks": job.count,
        "size": job.size,
        "write_mb_s": total / write / 1e6,
        "chunk_ms": 1e3 * write / job.count,
        "commit_ms": 1e3 * commit,
        "commit_small_ms": 1e3 * small,
    }


def _add_units(writer: FolderWriter, payloads: Sequence[bytes]) -> None:
    document = {"name": "a.mp4", "kind": "video", "width": 16, "height": 16, "time_base": [1, 25]}
    source, codec = writer.add_source(document), writer.add_codec("bytes", {})
    for number, payload in enumerate(payloads):
        place = {"source": source, "codec": codec, "first_frame": number, "pts": (number,), "duration_ticks": 1}
        writer.add_unit(key=os.urandom(32).hex(), payload=payload, **place)


def _opened_folder(path: Path, shards: int) -> Row:
    payloads = Job(10, 2**15).payloads()
    commits = []
    with FolderWriter(path) as writer:
        for _ in range(shards):
            _add_units(writer, payloads)
            commits.append(seconds_of(writer.roll))
        writer.commit(MANIFEST)
    with ArchiveReader.open(path) as reader:
        unit = reader.units[0].id
        sought = Reads.of(lambda: reader.read_unit(unit))
    opened = Reads.of(lambda: _open_and_close(path))
    times = repeated(lambda: seconds_of(lambda: _open_and_close(path)), 1.0)
    again = repeated(lambda: seconds_of(lambda: FolderWriter(path).suspend()), 1.0)
    remove(path)
    return {
        "kind": "open",
        "shards": shards,
        "open_ms": 1e3 * statistics.median(times),
        "open_calls": opened.calls,
        "open_bytes": opened.bytes,
        "seek_calls": sought.calls,
        "commit_ms": 1e3 * statistics.median(commits),
        "begin_ms": 1e3 * statistics.median(again),
    }


# What is shown.

COMPARED: Columns = {
    "system": "{system}",
    "write MB/s": "{write_mb_s:.0f}",
    "flushed": "{flushed_mb_s:.0f}",
    "read MB/s": "{read_mb_s:.0f}",
    "open ms": "{open_ms:.2f}",
    "reads, kB": "{open_calls:.0f}, {open_kb:.0f}",
    "seek ms": "{seek_ms:.3f}",
    "p99": "{seek_p99_ms:.3f}",
    "reads, kB of a seek": "{seek_calls:.0f}, {seek_kb:.0f}",
    "open and one chunk ms": "{first_ms:.2f}",
    "cold": "{cold_ms:.2f}",
    "bytes beside each payload": "{overhead_bytes:,.0f}",
}
OPENED: Columns = {
    "chunks": "{chunks:,}",
    "each": "{each}",
    "archive MB": "{archive_mb:,.1f}",
    "index kB": "{index_kb:,.0f}",
    "open ms": "{open_ms:.2f}",
    "cold": "{cold_open_ms:.2f}",
    "reads": "{open_calls}",
    "kB": "{open_kb:,.0f}",
    "reads of a seek": "{seek_calls}",
}
ALONE: Columns = {
    "payload": "{each}",
    "header and padding": "{header:.0f}",
    "index entry": "{entry}",
    "together": "{together:.0f}",
    "head (key, times)": "{head}",
    "copy of the key": "{copied:.1f}",
}
PICTURES: Columns = {
    "each": "{each}",
    "file bytes": "{bytes:,}",
    "codecs' bytes": "{codecs:,}",
    "tables and documents": "{documents:,}",
    "framing": "{frames:,}",
    "framing %": "{framing_percent:.2f}",
    "all but the codecs' %": "{outside_percent:.1f}",
    "bytes a picture": "{beside:.0f}",
    "pictures/s written": "{written_s:,.0f}",
    "read": "{read_again_s:,.0f}",
    "reads, kB of the first seek": "{seek_calls}, {seek_kb:,.0f}",
}
PARITY: Columns = {
    "file MB": "{mb:.0f}",
    "parity %": "{percent:.1f}",
    "create MB/s": "{create_mb_s:.0f}",
    "check MB/s": "{check_mb_s:.0f}",
    "lost": "{damage}",
    "heal MB/s": "{heal_mb_s:.0f}",
}
WRITTEN: Columns = {
    "flushed": "{flush}",
    "chunks": "{chunks:,} of {each}",
    "write MB/s": "{write_mb_s:.0f}",
    "ms a chunk": "{chunk_ms:.2f}",
    "commit of them ms": "{commit_ms:.0f}",
    "commit of one small chunk ms": "{commit_small_ms:.1f}",
}
SHARDS: Columns = {
    "shards": "{shards}",
    "open ms": "{open_ms:.2f}",
    "reads": "{open_calls}",
    "kB": "{open_kb:,.0f}",
    "reads of a seek": "{seek_calls}",
    "commit ms": "{commit_ms:.1f}",
    "begin to write again ms": "{begin_ms:.1f}",
}


def table(columns: Columns, rows: Sequence[Row]) -> str:
    """Markdown; a row that failed says why."""
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for row in rows:
        whole = row | _derived(row)
        if "failed" in row:
            lines.append(f"| {row['system']} | {row['failed']} |")
        else:
            lines.append(f"| {' | '.join(text.format(**whole) for text in columns.values())} |")
    return "\n".join(lines) + "\n"


def _derived(row: Row) -> Row:
    """Figures that follow from others."""
    more: Row = {f"{key[:-5]}kb": value / 1e3 for key, value in row.items() if key.endswith("bytes")}
    if "size" in row:
        size = row["size"]
        more["each"] = next(f"{size // 2**n} {name}" for n, name in _UNITS if size % 2**n == 0)
        more["mb"], more["percent"] = size / 1e6, 100 * row.get("parity_bytes", 0) / size
    if "archive_bytes" in row:
        more["archive_mb"] = row["archive_bytes"] / 1e6
    return more | (_per_chunk(row) if "framing" in row else {})


_UNITS = ((20, "MiB"), (10, "KiB"), (0, "bytes"))


def _per_chunk(row: Row) -> Row:
    count = row["count"]
    framing = row["framing"] + row["copy"]
    header = row["chunk_bytes"] / count
    return {
        "header": header,
        "entry": ENTRY_BYTES,
        "together": header + ENTRY_BYTES,
        "head": row["heads"] // count,
        "copied": row["copy"] / count,
        "frames": framing,
        "framing_percent": 100 * framing / row["bytes"],
        "outside_percent": 100 * (1 - row["codecs"] / row["bytes"]),
        "beside": (row["bytes"] - row["codecs"]) / count,
        "written_s": count / row.get("write_s", 1),
        "read_again_s": count / row.get("read_s", 1),
    }


def show_compared(rows: Sequence[Row]) -> Iterator[str]:
    """A table for each count of chunks."""
    for size in dict.fromkeys(row["size"] for row in rows):
        those = [row for row in rows if row["size"] == size]
        count = those[0]["chunks"]
        each = _derived({"size": size})["each"]
        yield f"### {count:,} chunk{'s' * (count > 1)} of {each}, median of {those[0]['rounds']} rounds\n"
        yield table(COMPARED, those)
    yield "Checked when reading:\n"
    yield "\n".join(f"- {name}: {system.checks}" for name, system in SYSTEMS.items()) + "\n"


def show_opening(rows: Sequence[Row]) -> Iterator[str]:
    """One table, and whether opening grows with the archive's data."""
    yield "### What opening costs\n"
    yield table(OPENED, rows)
    for count in dict.fromkeys(row["chunks"] for row in rows):
        small, *_, large = [row for row in rows if row["chunks"] == count] * 2
        if small is not large:
            times = large["archive_bytes"] / small["archive_bytes"], large["open_ms"] / small["open_ms"]
            yield f"- {count:,} chunks, {times[0]:.0f} times the bytes: {times[1]:.2f} times as long to open"
    yield ""


def show_framing(rows: Sequence[Row]) -> Iterator[str]:
    """Chunks, then pictures."""
    yield "### Bytes of a chunk beside its payload (at most 160 together)\n"
    yield table(ALONE, [row for row in rows if row["kind"] == "chunks"])
    pictures = [row for row in rows if row["kind"] == "pictures"]
    yield f"### Archives of {pictures[0]['count']:,} small pictures, each with its source and what was measured\n"
    yield table(PICTURES, pictures)
    most = max(_per_chunk(row)["framing_percent"] for row in pictures)
    yield f"- framing at most {most:.2f} % of an archive of small pictures; 1 % is allowed\n"


def show_parity(rows: Sequence[Row]) -> Iterator[str]:
    """One table."""
    yield "### Parity\n"
    yield table(PARITY, rows)


def show_folder(rows: Sequence[Row]) -> Iterator[str]:
    """Written, then opened."""
    yield "### The folder form: writing\n"
    yield table(WRITTEN, [row for row in rows if row["kind"] == "write"])
    yield "### The folder form: opening, 10 chunks of 32 KiB a shard, one commit for each\n"
    yield table(SHARDS, [row for row in rows if row["kind"] == "open"])


Measured = Callable[..., list[Row]]
Shown = Callable[[Sequence[Row]], Iterator[str]]
PARTS: dict[str, tuple[Measured, Shown]] = {
    "compare": (compare, show_compared),
    "opening": (opening, show_opening),
    "framing": (framing, show_framing),
    "parity": (parity_speed, show_parity),
    "folder": (folder_speed, show_folder),
}


def main() -> None:
    """Print the tables; `--json` also writes one line per row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), help="parts to run")
    parser.add_argument("--quick", action="store_true", help="less of everything: to try the script, not to quote")
    parser.add_argument("--json", type=Path, help="append the rows here")
    parser.add_argument("--folder", type=Path, default=OUT, help="where files are written: which disk is measured")
    args = parser.parse_args()
    stamp = datetime.now(UTC).isoformat(timespec="minutes")
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before"
    versions = f"Python {platform.python_version()}, {', '.join(wanted[0] for wanted in PEERS.values())}"
    print(f"`python {' '.join(sys.argv)}`, {stamp}, {machine}. {versions}.\n", flush=True)
    args.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="bench-archive-") as name:
        for part in args.only:
            measure, show = PARTS[part]
            rows = measure(Path(name), quick=args.quick)
            print(*show(rows), sep="\n", flush=True)
            if part == "opening":
                print(f"One read opens up to {opened_by_one_read(Path(name))} chunks.\n", flush=True)
            if args.json:
                with args.json.open("a") as file:
                    file.writelines(json.dumps({"at": stamp, "part": part, **row}) + "\n" for row in rows)


if __name__ == "__main__":
    main()
