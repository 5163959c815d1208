"""What is done stays known: over runs, torn lines, flipped bytes and the death of the writer."""

from __future__ import annotations

import contextlib
import json
import math
import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefold.pipeline.events import Hinted, Kept, Produced, Reported, SetAside
from framefold.pipeline.ledger import Done, Ledger

KEYS = [f"{number:064x}" for number in range(4)]
OUTPUTS = (
    Produced("out", "id-0", "clip 0", 2**40, 1.5, kept=Kept("fit/ab.0.pickle", "0" * 64), handle=object()),
    Produced("odd", None, None, 0, 0.0, index=3),
)
SAID = (
    SetAside("näme\udcff\n.mp4", 'it "broke"'),
    Reported("clip 0", {"psnr_db": math.inf, "bits": 7, "codec": "nerv", "ok": True, "none": None}),
    Hinted("cat 'a b'"),
)


@contextlib.contextmanager
def ledger(folder: Path) -> Iterator[Ledger]:
    opened = Ledger(folder)
    try:
        yield opened
    finally:
        opened.close()


def add(one: Ledger, key: str, count: int = 1) -> None:
    outputs = [Produced("out", f"{key[-1]}.{number}", None, number, 0.0) for number in range(count)]
    one.add(key, "node", "label", outputs, [Hinted(key)])


def known(folder: Path) -> dict[str, Done]:
    """All that a new run would find done."""
    with ledger(folder) as one:
        found = {key: one.done(key) for key in KEYS if key in one}
        assert len(one) == len(found), "it knows keys that nobody wrote"
    return {key: done for key, done in found.items() if done is not None}


def without_handles(outputs: tuple[Produced, ...]) -> tuple[Produced, ...]:
    return tuple(Produced(**{**vars(output), "handle": None}) for output in outputs)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, dict[str, Done]]:
    """The file of one run, and what it says."""
    folder = tmp_path_factory.mktemp("whole")
    with ledger(folder) as one:
        for count, key in enumerate(KEYS):
            add(one, key, count)
    return (folder / "000001.jsonl").read_bytes(), known(folder)


def test_outputs_and_sayings_come_back_without_their_handles(tmp_path: Path) -> None:
    with ledger(tmp_path) as one:
        one.add(KEYS[0], "fit", "clip 0", OUTPUTS, SAID)
        assert one.done(KEYS[0]) == Done(without_handles(OUTPUTS), SAID)
        assert one.done(KEYS[1]) is None
        assert (KEYS[0] in one, KEYS[1] in one, len(one), one.written) == (True, False, 1, 1)
    assert known(tmp_path) == {KEYS[0]: Done(without_handles(OUTPUTS), SAID)}


def test_work_without_outputs_is_done_too(tmp_path: Path) -> None:
    with ledger(tmp_path) as one:
        one.add(KEYS[0], "sink", "clip 0", ())
    assert known(tmp_path) == {KEYS[0]: Done()}


def test_a_run_that_does_nothing_leaves_no_file(tmp_path: Path) -> None:
    with ledger(tmp_path / "new" / "ledger"):
        pass
    assert list((tmp_path / "new" / "ledger").iterdir()) == []


def test_each_run_has_a_file_of_its_own_and_knows_all_before(tmp_path: Path) -> None:
    for key in KEYS:
        with ledger(tmp_path) as one:
            add(one, key)
            assert one.written == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{number:06}.jsonl" for number in range(1, 5)]
    assert set(known(tmp_path)) == set(KEYS)


def test_runs_are_counted_in_numbers_and_other_files_are_left_alone(tmp_path: Path) -> None:
    for name in ("999999.jsonl", "1000000.jsonl", "copy of 000001.jsonl", "notes.txt"):
        (tmp_path / name).write_text("nothing to see\n")
    with ledger(tmp_path) as one:
        add(one, KEYS[0])
    assert (tmp_path / "1000001.jsonl").exists()
    assert set(known(tmp_path)) == {KEYS[0]}


def test_the_last_line_about_a_key_counts(tmp_path: Path) -> None:
    with ledger(tmp_path) as one:
        add(one, KEYS[0], 1)
        add(one, KEYS[0], 3)
        assert len(one.done(KEYS[0]).outputs) == 3  # type: ignore[union-attr]
    assert len(known(tmp_path)[KEYS[0]].outputs) == 3
    with ledger(tmp_path) as one:
        add(one, KEYS[0], 2)
    assert len(known(tmp_path)[KEYS[0]].outputs) == 2


def test_what_is_forgotten_stays_so_until_it_is_done_again(tmp_path: Path) -> None:
    with ledger(tmp_path) as one:
        add(one, KEYS[0])
        add(one, KEYS[1])
        one.forget(KEYS[0])
        one.forget(KEYS[2])  # never known
        assert one.done(KEYS[0]) is None
    assert set(known(tmp_path)) == {KEYS[1]}
    with ledger(tmp_path) as one:
        add(one, KEYS[0])
    assert set(known(tmp_path)) == {KEYS[0], KEYS[1]}


def test_a_new_run_goes_on_after_a_torn_line(tmp_path: Path, whole: tuple[bytes, dict[str, Done]]) -> None:
    data, done = whole
    (tmp_path / "000001.jsonl").write_bytes(data[:-5])
    with ledger(tmp_path) as one:
        assert set(KEYS[:3]) == {key for key in KEYS if key in one}
        add(one, KEYS[3], 3)
    assert known(tmp_path) == done


def test_a_file_torn_at_any_byte_gives_the_whole_lines_before(
    tmp_path: Path, whole: tuple[bytes, dict[str, Done]]
) -> None:
    data, done = whole
    for length in range(len(data) + 1):
        (tmp_path / "000001.jsonl").write_bytes(data[:length])
        lines = data[:length].count(b"\n")
        assert known(tmp_path) == {key: done[key] for key in KEYS[:lines]}


def test_a_flipped_bit_at_any_place_costs_the_lines_that_it_touches(
    tmp_path: Path, whole: tuple[bytes, dict[str, Done]]
) -> None:
    data, done = whole
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        (tmp_path / "000001.jsonl").write_bytes(changed)
        line = data[:place].count(b"\n")
        touched = {line, line + 1} if data[place : place + 1] == b"\n" else {line}
        assert known(tmp_path) == {key: done[key] for index, key in enumerate(KEYS) if index not in touched}


@given(st.data())
def test_no_damage_brings_up_what_was_not_written(
    tmp_path_factory: pytest.TempPathFactory, whole: tuple[bytes, dict[str, Done]], data: st.DataObject
) -> None:
    content, done = whole
    start = data.draw(st.integers(0, len(content)))
    stop = data.draw(st.integers(start, min(len(content), start + 40)))
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "000001.jsonl").write_bytes(content[:start] + data.draw(st.binary(max_size=40)) + content[stop:])
    assert known(folder).items() <= done.items()


def line_of(document: Any) -> bytes:
    body = json.dumps(document).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


PLAIN: Mapping[str, Any] = {"done": KEYS[0], "node": "n", "label": "l", "outputs": [], "said": []}
OUTPUT = {"port": "out", "identity": "i", "label": "l", "nbytes": 1, "seconds": 0.5, "index": 0, "kept": None}


@pytest.mark.parametrize(
    "document",
    [
        {**PLAIN, "machine": "m1"},
        {**PLAIN, "outputs": [{**OUTPUT, "handle": None, "compressed": True}]},
        {**PLAIN, "outputs": [{"port": "out"}]},
        {**PLAIN, "outputs": [{**OUTPUT, "kept": {"file": "f", "sha256": "0", "codec": "zstd"}}]},
        {**PLAIN, "outputs": None},
        {**PLAIN, "said": [["sung", {"label": "l"}]]},
        {**PLAIN, "said": [["hint", {"command": "ls", "colour": "red"}]]},
        {**PLAIN, "done": "no hex"},
        {**PLAIN, "done": 5},
        {name: value for name, value in PLAIN.items() if name != "said"},
        {"undone": KEYS[0], "why": "a new field"},
        {"undone": None},
        {"postponed": KEYS[0]},
        {},
        [],
        "text",
        None,
    ],
    ids=str,
)
def test_what_a_later_version_says_is_left_alone(tmp_path: Path, document: Any) -> None:
    (tmp_path / "000001.jsonl").write_bytes(line_of({**PLAIN, "done": KEYS[1]}) + line_of(document) + line_of(PLAIN))
    assert known(tmp_path) == {KEYS[1]: Done(), KEYS[0]: Done()}
    (tmp_path / "000001.jsonl").write_bytes(line_of(document))
    assert known(tmp_path) == {}


def test_a_file_that_was_changed_while_the_run_lives_is_not_trusted(tmp_path: Path) -> None:
    with ledger(tmp_path) as one:
        add(one, KEYS[0])
        data = (tmp_path / "000001.jsonl").read_bytes()
        (tmp_path / "000001.jsonl").write_bytes(data.replace(b"label", b"babel"))
        assert one.done(KEYS[0]) is None


WRITER = """
import sys
from pathlib import Path
from framefold.pipeline.events import Produced
from framefold.pipeline.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
number = 0
while True:
    ledger.add(f"{number:064x}", "node", "label " * 50, [Produced("out", str(number), None, number, 0.0)])
    print(number, flush=True)
    number += 1
"""


@pytest.mark.parametrize("lines", [1, 150])
def test_what_was_acknowledged_survives_a_kill(tmp_path: Path, lines: int) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        for _ in range(lines):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        acknowledged = lines + writer.stdout.read().count(b"\n")
        assert writer.wait() == -signal.SIGKILL
    with ledger(tmp_path) as one:
        assert acknowledged <= len(one) <= acknowledged + 1
        for number in range(acknowledged):
            done = one.done(f"{number:064x}")
            assert done is not None
            assert [output.identity for output in done.outputs] == [str(number)]
        add(one, KEYS[0], 2)
        assert len(one.done(KEYS[0]).outputs) == 2  # type: ignore[union-attr]
