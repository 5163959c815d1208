"""The engine beside Ray Data and cosmos-xenna: throughput, cost per item, memory and start-up, in one run.

    python benchmarks/engine.py [--only chain tiny memory many] [--quick] [--json FILE]

Every system runs the same chain of four nodes, source -> light -> slow -> sink, one worker each and two for
`slow`. Each item is noted by the node that works on it (`Marks`), and the processes are looked at from outside
(`Watch`), so no figure is a system's own statistics. Each row is a process of its own with a Ray of its own on
this machine, one after the other. Compare ratios within one run only.

Each peer lives in an environment of its own under out/bench-venv, made on first use with pip; where it cannot be
installed, or fails, its row says why.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

HERE = Path(__file__).resolve().parent
VENVS = HERE.parent / "out" / "bench-venv"
SLOW_REPLICAS = 2
SAMPLE_SECONDS = 0.2
PATIENCE_SECONDS = 150
"""A row that takes longer is ended, and says so."""


# What every system runs.


@dataclass(frozen=True)
class Job:
    """One chain."""

    items: int
    nbytes: int = 0
    """Size of each item, an array of uint8; 0: the item is its number."""
    slow_seconds: float = 0.0
    """How long `slow` sleeps over each item."""
    local: bool = False
    """In the driver's process, without Ray."""

    @classmethod
    def from_command_line(cls) -> tuple[Job, Path]:
        """The job and the folder for marks, as `execute` passes them to a row's process."""
        return cls(**json.loads(sys.argv[1])), Path(sys.argv[2])

    def make(self, number: int) -> Any:
        """Item `number`: (nbytes,) uint8 that begins with its number, or the number."""
        if not self.nbytes:
            return number
        import numpy as np  # noqa: PLC0415 - this file is imported by drivers, whose memory is measured

        item = np.full(self.nbytes, number % 251, np.uint8)
        item[:4].view(np.uint32)[0] = number
        return item


def number_of(item: Any) -> int:
    """The number that `Job.make` was given."""
    return item if isinstance(item, int) else int(item[:4].view("uint32")[0])


class Marks:
    """Notes of one worker: which item, and from when to when; one file each, whole after every line."""

    def __init__(self, folder: Path, node: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._file = os.open(folder / f"{node}.{os.getpid()}.marks", flags, 0o644)

    def __call__(self, number: int, since: float) -> None:
        """The work on item `number` ends now; `since` is a `time.monotonic()`."""
        os.write(self._file, f"{number} {since:.6f} {time.monotonic():.6f}\n".encode())


# What is measured.


@dataclass(frozen=True)
class Mark:
    """One item at one node; seconds of the machine's monotonic clock."""

    number: int
    began: float
    ended: float


def read_marks(folder: Path, node: str) -> list[Mark]:
    """All workers' notes, in the order in which items were done."""
    lines = [line.split() for path in folder.glob(f"{node}.*.marks") for line in path.read_text().splitlines()]
    return sorted((Mark(int(n), float(a), float(b)) for n, a, b in lines), key=lambda mark: mark.ended)


@dataclass
class Watch:
    """A row's processes, seen from outside every 0.2 s until its driver ends."""

    driver: int
    driver_mb: list[tuple[float, float]] = field(default_factory=list)
    """(monotonic seconds, resident set of the driver in MB)."""
    workers_mb: float = 0.0
    """Most private memory of all workers together."""
    store_mb: float = 0.0
    """Most shared memory that the object store has touched; pages count until Ray ends, freed or not."""

    def __enter__(self) -> Self:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            with contextlib.suppress(OSError):  # processes come and go
                self._look()

    def _look(self) -> None:
        self.driver_mb.append((time.monotonic(), _memory_mb(self.driver, "VmRSS")))
        family = list(_family(self.driver))
        workers = (pid for pid, command in family if command.startswith(b"ray::"))
        self.workers_mb = max(self.workers_mb, sum(_memory_mb(pid, "RssAnon") for pid in workers))
        stores = (pid for pid, command in family if b"/raylet/raylet\0" in command)
        self.store_mb = max(self.store_mb, sum(_touched_mb(pid) for pid in stores))

    def driver_at(self, moment: float) -> float:
        """MB of the driver at this moment."""
        return min(self.driver_mb, key=lambda sample: abs(sample[0] - moment))[1]


def _family(root: int) -> Iterator[tuple[int, bytes]]:
    """Every process that descends from `root`, with its command line."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    for pid in parents:
        ancestor = pid
        while ancestor != root and ancestor in parents:
            ancestor = parents[ancestor]
        if ancestor == root != pid:
            with contextlib.suppress(OSError):
                yield pid, Path(f"/proc/{pid}/cmdline").read_bytes()


def _memory_mb(pid: int, name: str) -> float:
    """A line of /proc/PID/status in MB; 0 for a process that is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024 / 1e6


def _touched_mb(raylet: int) -> float:
    """Pages in use of the object store's file, which has no name any more but is still open in the raylet."""
    for link in Path(f"/proc/{raylet}/fd").iterdir():
        with contextlib.suppress(OSError):
            if link.readlink().name.startswith("plasma"):
                return link.stat().st_blocks * 512 / 1e6
    return 0.0


@dataclass(frozen=True)
class Row:
    """What one system did with one job."""

    part: str
    system: str
    items: int
    failed: str = ""
    """Why there are no figures."""
    whole_s: float = 0.0
    """From the command to the end of its process."""
    first_item_s: float = 0.0
    """From the command to the first item at the sink."""
    flow_s: float = 0.0
    """From the first item entering to the last one leaving."""
    ideal_s: float = 0.0
    """The slow stage's sleeping, divided by its replicas."""
    busy_share: float = 0.0
    """Of the slow stage's replicas, between its first and its last call."""
    ms_per_item: float = 0.0
    """Between the first and the last item at the sink."""
    ms_first_tenth: float = 0.0
    ms_last_tenth: float = 0.0
    store_mb: float = 0.0
    driver_mb: float = 0.0
    driver_mb_at: tuple[float, ...] = ()
    """When 10, 50 and 100 % of the items were at the sink."""
    workers_mb: float = 0.0


def figures(job: Job, folder: Path, watch: Watch, times: tuple[float, float]) -> dict[str, Any]:
    """The figures of a run between `times`; ValueError if items were lost or doubled."""
    source, slow, sink = (read_marks(folder, node) for node in ("source", "slow", "sink"))
    if sorted(mark.number for mark in sink) != list(range(job.items)):
        raise ValueError(f"{len(sink)} items at the sink, {len({mark.number for mark in sink})} different ones")
    ends = [mark.ended for mark in sink]
    span = max(mark.ended for mark in slow) - min(mark.began for mark in slow)
    tenth = job.items // 10
    return {
        "whole_s": times[1] - times[0],
        "first_item_s": ends[0] - times[0],
        "flow_s": ends[-1] - min(mark.began for mark in source),
        "ideal_s": job.items * job.slow_seconds / SLOW_REPLICAS,
        "busy_share": sum(mark.ended - mark.began for mark in slow) / (SLOW_REPLICAS * span),
        "ms_per_item": 1e3 * (ends[-1] - ends[0]) / (job.items - 1),
        "ms_first_tenth": 1e3 * (ends[tenth] - ends[0]) / tenth,
        "ms_last_tenth": 1e3 * (ends[-1] - ends[-1 - tenth]) / tenth,
        "store_mb": watch.store_mb,
        "driver_mb": max(mb for _, mb in watch.driver_mb),
        "driver_mb_at": tuple(watch.driver_at(ends[int(share * job.items) - 1]) for share in (0.1, 0.5, 1.0)),
        "workers_mb": watch.workers_mb,
    }


# Who is measured, with what.

TABLES = {
    "chain": "200 items of 8 MB; `slow` sleeps 50 ms over each",
    "tiny": "2,000 numbers; nobody sleeps",
    "memory": "items of 8 MB, ten times more of them; nobody sleeps",
    "many": "numbers, many of them; nobody sleeps",
}
OWN_BLOCKS = "Ray Data, blocks of its choice"


def jobs(part: str, share: float) -> list[tuple[str, Job]]:
    """Who does what in a part, with a share of the items."""
    everybody = ("framefold", "Ray Data", "cosmos-xenna")
    megabytes, hundred = 8_000_000, int(100 * share)
    return {
        "chain": [(system, Job(2 * hundred, megabytes, 0.05)) for system in everybody],
        "tiny": [(system, Job(20 * hundred)) for system in (*everybody, OWN_BLOCKS)],
        "memory": [("framefold", Job(2 * hundred, megabytes)), ("framefold", Job(20 * hundred, megabytes))],
        "many": [
            ("framefold --local", Job(1000 * hundred, local=True)),
            ("framefold", Job(200 * hundred)),
        ],
    }[part]


def command(system: str) -> list[str]:
    """What starts a row of this system; the job and the folder come after it."""
    if system.startswith("framefold"):
        return [sys.executable, "-c", "import engine_stages; engine_stages.main()"]
    script = "engine_xenna.py" if system == "cosmos-xenna" else "engine_ray_data.py"
    return [str(peer_python(system)), str(HERE / script)]


def peer_python(system: str) -> Path:
    """The interpreter of a peer's own environment."""
    return VENVS / ("xenna" if system == "cosmos-xenna" else "ray-data") / "bin" / "python"


def prepare(system: str) -> str:
    """Install what the system needs, Ray and numpy as here; returns why that failed."""
    if system.startswith("framefold"):
        return ""
    ray, numpy = (importlib.metadata.version(name) for name in ("ray", "numpy"))
    # xenna imports tqdm without declaring it
    needs = ["cosmos-xenna", "tqdm", f"ray=={ray}"] if system == "cosmos-xenna" else [f"ray[data]=={ray}", "pandas"]
    python = peer_python(system)
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", python.parent.parent], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"numpy=={numpy}"]
    done = subprocess.run([*pip, *needs], capture_output=True, text=True, check=False)
    return f"could not be installed: {_last_line(done.stderr)}" if done.returncode else ""


def execute(part: str, system: str, job: Job) -> Row:
    """Run one row in a process of its own."""
    if failed := prepare(system):
        return Row(part, system, job.items, failed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        extra = ["--own-blocks"] if system == OWN_BLOCKS else []
        whole = [*command(system), json.dumps(asdict(job)), name, *extra]
        began = time.monotonic()
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(whole, env=_environment(), stdout=log, stderr=log, cwd=folder)
        with Watch(process.pid) as watch:
            code = _patiently(process)
            ended = time.monotonic()
        try:
            if code:
                raise ValueError(f"exit code {code}" if code > 0 else f"ended after {PATIENCE_SECONDS} s")
            return Row(part, system, job.items, **figures(job, folder, watch, (began, ended)))
        except (ValueError, IndexError) as error:
            return Row(part, system, job.items, f"{error}: {_last_line((folder / 'log').read_text())}")


def _environment() -> Mapping[str, str]:
    paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def _patiently(process: subprocess.Popen[bytes]) -> int:
    """The exit code, or -1 for a process that took too long: it is asked to end, then ended."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(PATIENCE_SECONDS)
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(20)
    process.kill()
    process.wait()
    return -1


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "without a word")[:200]


# What is shown.

Columns = dict[str, Callable[[Row], str]]
COLUMNS: dict[str, Columns] = {
    "chain": {
        "whole run s": lambda row: f"{row.whole_s:.1f}",
        "first item s": lambda row: f"{row.first_item_s:.1f}",
        "first in to last out s": lambda row: f"{row.flow_s:.2f}",
        "ideal s": lambda row: f"{row.ideal_s:.2f}",
        "slow busy": lambda row: f"{row.busy_share:.0%}",
    },
    "tiny": {
        "ms per item": lambda row: f"{row.ms_per_item:.2f}",
        "first item s": lambda row: f"{row.first_item_s:.1f}",
    },
    "memory": {"ms per item": lambda row: f"{row.ms_per_item:.2f}"},
    "many": {
        "ms per item": lambda row: f"{row.ms_per_item:.2f}",
        "first tenth": lambda row: f"{row.ms_first_tenth:.2f}",
        "last tenth": lambda row: f"{row.ms_last_tenth:.2f}",
        "driver MB at 10, 50, 100 %": lambda row: " / ".join(f"{mb:.0f}" for mb in row.driver_mb_at),
    },
}
MEMORY: Columns = {
    "object store MB": lambda row: f"{row.store_mb:.0f}",
    "driver MB": lambda row: f"{row.driver_mb:.0f}",
    "workers' private MB": lambda row: f"{row.workers_mb:.0f}",
}


def table(part: str, rows: Sequence[Row]) -> str:
    """Markdown."""
    columns = COLUMNS[part] | MEMORY
    head = "| system | items | " + " | ".join(columns) + " |"
    lines = [
        f"| {row.system} | {row.items:,} | "
        + (row.failed + " |" if row.failed else " | ".join(shown(row) for shown in columns.values()) + " |")
        for row in rows
    ]
    return "\n".join([f"### {part}: {TABLES[part]}", "", head, "|---" * (len(columns) + 2) + "|", *lines, ""])


def verdicts(rows: Sequence[Row]) -> str:
    """The targets that these rows can tell of, met or missed."""
    part = {name: [row for row in rows if row.part == name and not row.failed] for name in TABLES}
    tiny = {row.system: row.ms_per_item for row in part["tiny"]}
    lines = [f"slow busy {row.busy_share:.0%}, at least 90 %" for row in part["chain"] if row.system == "framefold"]
    if "framefold" in tiny:
        lines.append(f"{tiny['framefold']:.2f} ms per number, at most 5")
    if {"framefold", "Ray Data"} <= tiny.keys():
        lines.append(f"{tiny['framefold'] / tiny['Ray Data']:.0%} of Ray Data's, at most 20 %")
    if len(part["memory"]) == 2:
        few, many = part["memory"]
        pairs = {"object store": "store_mb", "driver": "driver_mb", "workers": "workers_mb"}
        grown = (f"{name} {getattr(many, key) / getattr(few, key) - 1:+.0%}" for name, key in pairs.items())
        lines.append(f"ten times more items: {', '.join(grown)}; at most +10 %")
    lines += [
        f"{row.system}, {row.items:,} numbers: driver {row.driver_mb_at[2] / row.driver_mb_at[0] - 1:+.0%} from 10 to "
        f"100 % of them, cost per item {row.ms_last_tenth / row.ms_first_tenth - 1:+.0%} from first to last tenth"
        for row in part["many"]
    ]
    return "\n".join(f"- {line}" for line in lines)


def versions() -> str:
    """Of everything that takes part."""
    ours = f"Python {platform.python_version()}, Ray {importlib.metadata.version('ray')}"
    python = peer_python("cosmos-xenna")
    if not python.exists():
        return ours
    ask = "import importlib.metadata as m; print(m.version('cosmos-xenna'))"
    answer = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=False)
    return f"{ours}, cosmos-xenna {answer.stdout.strip() or 'not installed'}"


def main() -> None:
    """Print the tables; `--json` also writes one line per row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(TABLES), default=list(TABLES), help="parts to run")
    parser.add_argument("--quick", action="store_true", help="a tenth of the items: to try the script, not to quote")
    parser.add_argument("--json", type=Path, help="append the rows here")
    args = parser.parse_args()
    stamp = datetime.now(UTC).isoformat(timespec="minutes")
    print(f"{stamp}, {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before\n", flush=True)
    rows: list[Row] = []
    for part in args.only:
        done = [execute(part, system, job) for system, job in jobs(part, 0.1 if args.quick else 1.0)]
        print(table(part, done), flush=True)
        rows += done
    print(verdicts(rows), versions(), sep="\n\n")
    if args.json:
        with args.json.open("a") as file:
            file.writelines(json.dumps({"at": stamp, **asdict(row)}) + "\n" for row in rows)


if __name__ == "__main__":
    main()
