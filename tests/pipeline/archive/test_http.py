"""Archives on web servers: read in ranges from a real server that knows them, refused from servers that do not."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from framefold.pipeline.archive import ArchiveError, ArchiveReader, ArchiveWriter, Code
from framefold.pipeline.archive.folder import open_writer
from framefold.pipeline.archive.limits import TAIL
from framefold.pipeline.archive.stores import HttpStore, NotThere, open_file, open_store


class WebServer:
    """aiohttp, which answers ranges with 206, in a thread; `requests` are paths with the ranges asked for."""

    def __init__(self, folder: Path) -> None:
        self.requests: list[tuple[str, str | None]] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._runner, self.url = self._do(self._serve(folder))

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _serve(self, folder: Path) -> tuple[web.AppRunner, str]:
        app = web.Application(middlewares=[self._note])
        app.router.add_static("/", folder)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        return runner, f"http://{host}:{port}"

    @web.middleware
    async def _note(self, request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        self.requests.append((request.path, request.headers.get("Range")))
        return await handler(request)

    def close(self) -> None:
        self._do(self._runner.cleanup())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WebServer]:
    server = WebServer(tmp_path)
    yield server
    server.close()


@pytest.fixture
def serve() -> Iterator[Callable[[Any], str]]:
    """Starts a server of Python's own with a handler; its URL."""
    servers = []

    def start(handler: Any) -> str:
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,)).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def large(tmp_path: Path, clips: Any, manifest: Any) -> Path:
    """An archive of one file, well above the tail that opening reads."""
    with ArchiveWriter(tmp_path / "large.fold") as archive:
        clips.fill(archive, range(50))
        archive.add_attachment("ab" * 32, 300_000, 0, os.urandom(300_000))
        return archive.commit(manifest)


def test_opening_is_one_request_and_a_unit_one_more(server, large, clips):
    with ArchiveReader.open(f"{server.url}/large.fold") as reader:
        assert len(reader.units) == 50
        assert server.requests == [("/large.fold", f"bytes=-{TAIL}")]
        record = reader.read_unit(reader.units[7].id)
        assert (record.key, record.payload) == (clips.key(7), clips.payload(7))
        assert len(server.requests) == 2
        first, last = server.requests[1][1].removeprefix("bytes=").split("-")
        assert int(last) - int(first) + 1 == reader.units[7].disk_bytes
    assert large.stat().st_size > 400_000


def test_all_of_a_small_file_is_in_the_first_answer(server, small, read_all):
    wanted = read_all(small)
    server.requests.clear()
    with ArchiveReader.open(f"{server.url}/small.fold") as reader:
        units = [(unit, reader.read_unit(unit.id), reader.quality(unit.id)) for unit in reader.units]
        assert (reader.sources, reader.codecs, units, reader.manifest) == wanted
    assert server.requests == [("/small.fold", f"bytes=-{TAIL}")]


def test_the_folder_form_is_read_too(server, tmp_path, clips):
    clips.write(tmp_path / "x.fold", range(10), roll_bytes=6000)
    assert clips.found(f"{server.url}/x.fold/") == list(range(10))


def test_a_signature_behind_the_name_stays(server, small):
    file = open_file(f"{server.url}/small.fold?signature=a/b%2Fc=")
    assert file.size == small.stat().st_size
    assert server.requests[0][0] == "/small.fold"


def test_ranges(server, tmp_path):
    (tmp_path / "a").write_bytes(b"0123456789")
    store = HttpStore(server.url)
    assert store.read("a", 3, 4) == b"3456"
    assert store.read("a", 3, 0) == b""
    assert store.tail("a", 3) == (b"789", 10)
    assert store.tail("a", 1000) == (b"0123456789", 10)
    with pytest.raises(ArchiveError, match=r"F021 .*it answers with 2 bytes from 8, asked for 3 from 8"):
        store.read("a", 8, 3)
    with pytest.raises(ArchiveError, match=r"F021 .*it does not have bytes=10-12"):
        store.read("a", 10, 3)
    with pytest.raises(NotThere, match=r"F001 .*there is no b"):
        store.open("b")


def test_it_is_there_to_be_read(server, tmp_path):
    store = open_store(f"{server.url}/x")
    for action in (lambda: store.create("a", b"x"), lambda: store.delete("a"), lambda: open_writer(f"{server.url}/x/")):
        with pytest.raises(ArchiveError, match=r"F018 .*can be read, not written"):
            action()
    with pytest.raises(ArchiveError, match=r"F018 .*does not list"):
        list(store.list("data/shards/"))
    assert list(tmp_path.iterdir()) == []


def test_a_server_without_ranges_is_refused(serve, small):
    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    url = serve(partial(Handler, directory=small.parent))
    with pytest.raises(ArchiveError, match=r"F018 .*small.fold: the server answers 200 where a part was asked for"):
        ArchiveReader.open(f"{url}/small.fold")


def test_a_whole_file_is_not_read_where_a_part_was_asked_for(serve):
    sent, ended = [], threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(2**30))
            self.end_headers()
            with suppress(ConnectionError):
                sent.extend(self.wfile.write(bytes(2**20)) for _ in range(1024))
            ended.set()

        def log_message(self, *_: object) -> None:
            pass

    with pytest.raises(ArchiveError, match="the server answers 200"):
        open_file(f"{serve(Handler)}/x.fold")
    assert ended.wait(60)
    assert sum(sent) < 2**27


def answering(status: int, headers: dict[str, str], body: bytes) -> type[BaseHTTPRequestHandler]:
    """A handler that always answers so."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.mark.parametrize(
    ("status", "headers", "message"),
    [
        (206, {}, "an answer with Content-Range ''"),
        (206, {"Content-Range": "bytes 0-9/*"}, "an answer with Content-Range 'bytes 0-9/\\*'"),
        (206, {"Content-Range": "bytes 0-9"}, "an answer with Content-Range"),
        (206, {"Content-Range": "bytes 9-0/10"}, "an answer with bytes 9 to 0 of 10"),
        (206, {"Content-Range": "bytes 0-10/10"}, "an answer with bytes 0 to 10 of 10"),
        (206, {"Content-Range": f"bytes 0-{2**62}/{2**63}"}, "asked for 65536"),
        (206, {"Content-Range": f"bytes 0-{10**30}/{10**31}"}, "an answer with Content-Range"),
        (206, {"Content-Range": "bytes 0-4/10"}, "it answers with bytes 0 to 5 of 10"),
        (206, {"Content-Range": "bytes 0-9/10", "Content-Encoding": "gzip"}, "encoding 'gzip'"),
        (206, {"Content-Range": "bytes 0-19/20"}, "the connection ended after 10 of 20 bytes"),
        (206, {"Content-Range": "bytes 0-9/10", "Content-Length": "-1"}, None),
        (200, {}, "the server answers 200"),
        (204, {}, "the server answers 204"),
        (403, {}, "the server answers 403"),
        (500, {}, "the server answers 500"),
        (302, {"Location": "file:///etc/passwd"}, "the server answers 302"),
        (302, {"Location": "ftp://127.0.0.1/x"}, "the server answers 302"),
        (302, {"Location": "/x.fold"}, "the server answers 302"),
        (304, {}, "the server answers 304"),
    ],
)
def test_answers_that_make_no_sense_are_refused(serve, status, headers, message):
    url = serve(answering(status, headers, b"0123456789"))
    try:
        file = open_file(f"{url}/x.fold")
    except ArchiveError as error:
        assert error.code == Code.IO
        assert message is not None
        assert message.replace("\\", "") in error.message
    else:
        assert message is None
        assert file.read(0, 10) == b"0123456789"


def test_what_is_no_server_is_refused(serve):
    url = serve(answering(404, {}, b""))
    with pytest.raises(NotThere, match=r"F001"):
        open_file(f"{url}/x.fold")
    for place in ("http://127.0.0.1:1/x.fold", "http://[/x.fold", "http:///x.fold", "http://127.0.0.1:x/y.fold"):
        with pytest.raises(ArchiveError, match=r"F018|F001"):
            open_file(place)


def test_what_was_promised_and_does_not_come_is_not_waited_for_in_memory(serve):
    """A server may promise as much as was asked for, and no more is ever set aside."""
    url = serve(answering(206, {"Content-Range": f"bytes 0-{TAIL - 1}/{2**50}"}, b"x"))
    with pytest.raises(ArchiveError, match=r"F018"):
        open_file(f"{url}/x.fold")
