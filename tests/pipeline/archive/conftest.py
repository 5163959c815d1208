"""A small archive with every chunk type in it, the same bytes each time; clips to fill others with; a server of S3."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from http.client import HTTPConnection
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit
from zlib import crc32

import pytest

from framefold.pipeline.archive import (
    ArchiveError,
    ArchiveReader,
    ArchiveWriter,
    Code,
    CopiedPacket,
    PacketBlock,
    ShardReader,
)
from framefold.pipeline.archive.files import InputFile
from framefold.pipeline.archive.folder import FolderWriter
from framefold.pipeline.archive.records import HEADER_BYTES, UNIT
from framefold.pipeline.archive.scan import Gap, scan
from framefold.pipeline.archive.unit import UnitHead

MANIFEST = {"generator": "framefold test", "created": "2026-01-31T12:00:00Z", "run": {"seed": 0}}


def _source(name: str, **changes: Any) -> dict[str, Any]:
    document = {
        "name": name,
        "kind": "video",
        "sha256": "ab" * 32,
        "width": 32,
        "height": 18,
        "time_base": [1, 600],
    }
    return document | changes


def _fill(writer: ArchiveWriter) -> list[str]:
    video = writer.add_source(_source("a.mp4"))
    image = writer.add_source(_source("b.png", kind="image", time_base=[1, 1]))
    nerv = writer.add_codec("nerv", {"size": "S", "rates": [1, 2.5, None]})
    coin = writer.add_codec("coin", {})
    ids = []
    for number in range(2):
        pts = [25 * frame for frame in range(24 * number, 24 * number + 24)]
        key = f"{number:064x}"
        unit = {"key": key, "source": video, "codec": nerv, "first_frame": 24 * number, "pts": pts}
        ids.append(writer.add_unit(**unit, duration_ticks=25, payload=bytes(range(50 + number))))
        writer.add_quality(ids[-1], {"psnr_db": 30.5 + number, "ms_ssim": 0.95, "frames_sha256": "cd" * 32})
    picture = {"key": "f" * 64, "source": image, "codec": coin, "first_frame": 0, "pts": [0]}
    return [*ids, writer.add_unit(**picture, duration_ticks=1, payload=b"picture")]


@pytest.fixture
def source() -> Callable[..., dict[str, Any]]:
    return _source


@pytest.fixture
def manifest() -> dict[str, Any]:
    return dict(MANIFEST)


@pytest.fixture
def fill() -> Callable[[ArchiveWriter], list[str]]:
    """Adds two sources, two codecs and three units to a writer; their ids."""
    return _fill


@pytest.fixture
def write_small() -> Callable[[Path], Path]:
    """Writes the small archive to a path."""

    def write(path: Path) -> Path:
        with ArchiveWriter(path, archive_id=bytes(range(16))) as writer:
            _fill(writer)
            return writer.commit(MANIFEST)

    return write


@pytest.fixture
def small(tmp_path: Path, write_small: Callable[[Path], Path]) -> Path:
    return write_small(tmp_path / "small.fold")


@pytest.fixture
def read_all() -> Callable[[Path], Any]:
    """Reads everything that a reader can be asked for, as plain values."""

    def read(path: Path) -> Any:
        with ArchiveReader.open(path) as reader:
            units = [(unit, reader.read_unit(unit.id), reader.quality(unit.id)) for unit in reader.units]
            return reader.sources, reader.codecs, units, reader.manifest

    return read


class Clips:
    """Units made from their numbers: the same bytes whenever one comes again."""

    def key(self, number: int) -> str:
        return hashlib.sha256(b"unit %d" % number).hexdigest()

    def payload(self, number: int) -> bytes:
        return hashlib.sha256(b"payload %d" % number).digest() * (1 + number % 4 * 40)

    def measured(self, number: int) -> dict[str, Any]:
        return {"psnr_db": 20 + number / 8, "frames_sha256": self.key(-number)}

    def add(self, writer: Any, numbers: Iterable[int]) -> Iterator[int]:
        """Adds each with its measurement; yields its number when the writer has acknowledged it."""
        for number in numbers:
            with writer.all_or_nothing():
                unit = writer.add_unit(
                    key=self.key(number),
                    source=writer.add_source(_source(f"clip{number % 3}.mp4")),
                    codec=writer.add_codec("nerv", {"size": "S"}),
                    first_frame=number,
                    pts=[25 * number],
                    duration_ticks=25,
                    payload=self.payload(number),
                )
                writer.add_quality(unit, self.measured(number))
            yield number

    def fill(self, writer: Any, numbers: Iterable[int]) -> None:
        for _ in self.add(writer, numbers):
            pass

    def write(self, place: Any, numbers: Iterable[int], **options: Any) -> Any:
        """Fills an archive in the folder form and commits it."""
        with FolderWriter(place, **options) as writer:
            self.fill(writer, numbers)
            return writer.commit(MANIFEST)

    def found(self, place: Any) -> list[int]:
        """The numbers of all units, in order, each read and held against what was written."""
        with ArchiveReader.open(place) as reader:
            assert reader.problems == ()
            records = [reader.read_unit(unit.id) for unit in reader.units]
            qualities = [reader.quality(unit.id) for unit in reader.units]
        numbers = [record.first_frame for record in records]
        assert [record.key for record in records] == [self.key(number) for number in numbers]
        assert [record.payload for record in records] == [self.payload(number) for number in numbers]
        assert qualities == [self.measured(number) for number in numbers]
        return sorted(numbers)

    def left_open(self, place: Path) -> set[int]:
        """The numbers of all units that are whole in open shards, each held against what was written."""
        return {number for path in (place / "open").glob("*.fold.open") for number in self._whole(path)}

    def _whole(self, path: Path) -> Iterator[int]:
        with InputFile.open(path) as file:
            for piece in scan(file, end=file.size) if file.size else ():
                if not isinstance(piece, Gap) and piece.error is None and piece.header.kind == UNIT:
                    payload = file.read(piece.offset + HEADER_BYTES, piece.header.payload_bytes)
                    head, start = UnitHead.unpack(payload)
                    assert (head.key, payload[start:]) == (self.key(head.first_frame), self.payload(head.first_frame))
                    yield head.first_frame


@pytest.fixture
def clips() -> Clips:
    return Clips()


SERVE_S3 = """
import sys
from threading import Lock
from moto.moto_server.werkzeug_app import DomainDispatcherApplication as Application
from moto.server import ThreadedMotoServer

answer, one_at_a_time = Application.__call__, Lock()

def answer_alone(*request):
    with one_at_a_time:  # S3 creates a name once; moto looks and then creates, and two threads may both have looked
        return list(answer(*request))

Application.__call__ = answer_alone
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(*server.get_host_and_port(), flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """URL of a real server that speaks S3, on loopback, without any bucket."""
    command = [sys.executable, "-c", SERVE_S3]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **pipes, text=True) as process:
        assert process.stdout is not None
        host, port = process.stdout.readline().split()
        yield f"http://{host}:{port}"
        process.kill()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of a new empty bucket; the environment says how to reach it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    bucket = f"bucket-{os.urandom(8).hex()}"
    connection = HTTPConnection(urlsplit(s3_server).netloc)
    connection.request("PUT", f"/{bucket}")
    assert connection.getresponse().status == 200
    connection.close()
    return f"s3://{bucket}/archives"


class Pieces:
    """A file taken apart by the specification's tables, to be put together again with every checksum right."""

    HEADER, ENTRY = struct.Struct("<8s4sHHIIIIqqIII"), struct.Struct("<QIIqqI4sII32s")
    FIELDS = ("stream", "t0", "duration", "items", "first_item", "codec")

    def __init__(self, data: bytes) -> None:
        """`data` is a whole file."""
        self.file_header = data[:64]
        index, length = struct.unpack_from("<QQ", data, len(data) - 64)
        self.chunks: list[tuple[bytes, bytes, dict[str, int]]] = []
        for row in self.ENTRY.iter_unpack(data[index + 64 : index + 64 + length]):
            offset, size, stream, t0, duration, items, kind, first_item, codec, _ = row
            fields = dict(zip(self.FIELDS, (stream, t0, duration, items, first_item, codec), strict=True))
            self.chunks.append((kind, data[offset + 64 : offset + 64 + size], fields))

    def insert(self, place: int, kind: bytes, payload: bytes, **fields: int) -> None:
        """Put another chunk before chunk `place`; numbers that others name are not corrected."""
        self.chunks.insert(place, (kind, payload, dict.fromkeys(self.FIELDS, 0) | fields))

    def join(self) -> bytes:
        """The file."""
        data, entries = self.file_header, b""
        for number, (kind, payload, said) in enumerate(self.chunks):
            raw = self._chunk(number, kind, payload, said)
            where = (len(data), len(payload), said["stream"], said["t0"], said["duration"], said["items"], kind)
            entries += self.ENTRY.pack(*where, said["first_item"], said["codec"], hashlib.sha256(raw).digest())
            data += raw + bytes(-len(raw) % 8)
        raw = self._chunk(len(self.chunks), b"Indx", entries, dict.fromkeys(self.FIELDS, 0))
        place = struct.pack("<QQQ", len(data), len(entries), len(self.chunks)) + hashlib.sha256(raw).digest()
        return data + raw + place + struct.pack("<I", crc32(place)) + b"FLCE"

    def _chunk(self, number: int, kind: bytes, payload: bytes, said: dict[str, int]) -> bytes:
        start = (b"\xf1FLC\r\n\x1a\n", kind, 1, 0, said["stream"], crc32(self.file_header[32:48]), len(payload))
        head = self.HEADER.pack(
            *start, number, said["t0"], said["duration"], said["items"], len(payload), crc32(payload)
        )
        return head + struct.pack("<I", crc32(head)) + payload


@pytest.fixture(scope="session")
def pieces() -> type[Pieces]:
    return Pieces


@pytest.fixture(scope="session")
def fold_reader() -> ModuleType:
    """The second reader, as a module."""
    spec = spec_from_file_location("fold_reader", Path(__file__).parents[3] / "tools" / "fold_reader.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _packets(part: int) -> PacketBlock:
    packets = (
        CopiedPacket(
            data=b"first", pts=-1024, dts=None, duration=1024, flags=1, side_data=(("skip_samples", b"1234"),)
        ),
        CopiedPacket(data=b"", pts=None, dts=None),
        CopiedPacket(data=bytes(range(part + 40)), pts=1024 * part, dts=1024 * part - 7, duration=0, flags=0),
    )
    return PacketBlock(key=hashlib.sha256(b"packets %d" % part).hexdigest(), track=1, part=part, packets=packets)


def _fill_rich(writer: ArchiveWriter) -> None:
    """All that can be in an archive of version 1.1, but for what only a forger adds."""
    _fill(writer)
    for number in range(5):
        measured = {"psnr_db": 30 + number, "frames_sha256": "ef" * 32} if number % 2 else None
        source = _source(f"p/{number % 3}.png", kind="image", time_base=[1, 1])
        picture = {"key": f"{number + 16:064x}", "payload": bytes(range(number, 30)), "measured": measured}
        writer.add_picture(source=source, codec=number % 2, **picture)
        if number == 2:
            writer.close_pack()
    for part in range(2):
        writer.add_packets(0, _packets(part))
    profile, font = b"a colour profile", bytes(range(256)) * 14
    writer.add_attachment(hashlib.sha256(profile).hexdigest(), len(profile), 0, profile)
    for start in range(0, len(font), 1500):
        writer.add_attachment(hashlib.sha256(font).hexdigest(), len(font), start, font[start : start + 1500])
    writer.add_attachment(hashlib.sha256(b"").hexdigest(), 0, 0, b"")


@pytest.fixture
def rich(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive with every chunk type of version 1.1 in it, a measurement of a packed unit and an unknown type."""
    monkeypatch.setattr("framefold.pipeline.archive.shard_writer.TAIL", 0)  # small as it is, it gets a copy
    path = tmp_path / "rich.fold"
    with ArchiveWriter(path, archive_id=bytes(range(16))) as writer:
        _fill_rich(writer)
        writer.commit(MANIFEST)
    apart = Pieces(path.read_bytes())
    pack = next(number for number, (kind, *_) in enumerate(apart.chunks) if kind == b"Pack")
    measured = json.dumps({"measured": {"psnr_db": 44.5}, "unit": f"p{pack:06d}.1"}, separators=(",", ":"))
    apart.insert(len(apart.chunks) - 2, b"qual", measured.encode(), stream=3, first_item=pack)
    apart.insert(len(apart.chunks) - 2, b"zoom", b"of a later version", stream=7, items=9)
    path.write_bytes(apart.join())
    return path


class Bytes:
    """A file in memory."""

    path = "memory.fold"

    def __init__(self, data: bytes | bytearray) -> None:
        self.data, self.size = data, len(data)

    def read(self, offset: int, length: int) -> bytes:
        if offset + length > self.size:
            raise ArchiveError(Code.CUT, "the file ends early", archive=self.path)
        return bytes(self.data[offset : offset + length])

    def close(self) -> None:
        pass


@pytest.fixture(scope="session")
def in_memory() -> type[Bytes]:
    return Bytes


@pytest.fixture(scope="session")
def read_everything() -> Callable[[Any], Any]:
    """Reads everything of version 1.1 that a reader can be asked for, as plain values, from an open file."""

    def read(file: Any) -> Any:
        reader = ShardReader(file)
        units = [(unit, reader.read_unit(unit.id), reader.quality(unit.id)) for unit in reader.units]
        packets = [(block, reader.read_packets(block.id)) for block in reader.packet_blocks]
        attached = {sha256: reader.read_attachment(sha256) for sha256 in reader.attachments}
        for error in (*reader.problems, *reader.attachment_damage):
            raise error
        facts = (reader.sources, reader.codecs, reader.manifest, reader.header.archive_id, dict(reader.keys))
        return units, packets, attached, facts

    return read
