"""The run's folder: one run at a time, names that do not clash, and nothing is ever deleted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from framefold.pipeline.errors import UsageError
from framefold.pipeline.state_folder import StateFolder

HOLDER = """
import sys
from pathlib import Path
from framefold.pipeline.state_folder import StateFolder
with StateFolder(Path(sys.argv[1])).lock():
    print("held", flush=True)
    sys.stdin.read()
"""
KEY, OTHER = "0f" * 32, "1f" * 32


@contextmanager
def another_run(state: StateFolder) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds the lock until its input is closed."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, state.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def content(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_second_run_is_turned_away_and_told_by_whom(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "out" / "state")
    with another_run(state) as holder:
        with pytest.raises(UsageError, match=rf"out is in use by another run \(process {holder.pid}\).*run_dir=PATH"):
            state.lock()
        assert (tmp_path / "out" / "run.lock").read_text() == str(holder.pid), "the loser wrote into it"
        holder.communicate()
        with state.lock():
            assert (tmp_path / "out" / "run.lock").read_text() == str(os.getpid())


def test_a_run_that_was_killed_holds_nothing(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "state")
    with another_run(state) as holder:
        holder.send_signal(signal.SIGKILL)
        assert holder.wait() == -signal.SIGKILL
        with state.lock():
            pass


def test_the_lock_of_another_folder_does_not_matter(tmp_path: Path) -> None:
    with another_run(StateFolder(tmp_path / "a" / "state")), StateFolder(tmp_path / "b" / "state").lock() as file:
        assert not file.closed


def test_the_same_process_cannot_hold_it_twice(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "state")
    with state.lock(), pytest.raises(UsageError, match=rf"process {os.getpid()}"):
        state.lock()
    state.lock().close()


def test_a_folder_that_cannot_be_locked_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "run.lock").mkdir()
    with pytest.raises(UsageError, match=r"run\.lock cannot be locked: Is a directory.*--set run_dir=PATH"):
        StateFolder(tmp_path / "state").lock()
    with pytest.raises(UsageError, match="cannot be locked"):
        StateFolder(write(tmp_path / "file") / "state").lock()


def test_to_begin_anew_renames_and_never_deletes(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "state")
    assert state.set_apart() is None
    for number in (1, 2, 3):
        write(state.checkpoint("fit", KEY), f"run {number}")
        assert state.set_apart() == tmp_path / f"state.{number}"
        assert not state.root.exists()
    expected = {f"state.{number}/checkpoints/fit/{KEY}.pickle": f"run {number}" for number in (1, 2, 3)}
    assert content(tmp_path) == expected


def test_what_was_set_apart_is_never_written_over(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "state")
    write(tmp_path / "state.1" / "precious")
    write(tmp_path / "state.2", "a file of the user")
    write(state.checkpoint("fit", KEY), "new")
    assert state.set_apart() == tmp_path / "state.3"
    assert content(tmp_path) == {
        "state.1/precious": "x",
        "state.2": "a file of the user",
        f"state.3/checkpoints/fit/{KEY}.pickle": "new",
    }


def test_names_differ_by_node_work_and_number(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "state")
    kept = [
        state.kept(state.kept_name(node, key, number)) for node in "ab" for key in (KEY, OTHER) for number in (0, 1)
    ]
    checkpoints = [state.checkpoint(node, key) for node in "ab" for key in (KEY, OTHER)]
    assert len({*kept, *checkpoints, state.ledgers}) == 13
    assert state.kept_name("a", KEY, 1) == f"a/{KEY}.1.pickle"
    assert kept[0] == tmp_path / "state" / "kept" / "a" / f"{KEY}.0.pickle"
    assert not state.root.exists(), "a name was made, and with it a folder"


def test_checkpoints_are_found_by_their_work_and_drafts_are_not(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "state")
    assert state.checkpointed() == set()
    write(state.checkpoint("fit", KEY))
    write(state.checkpoint("prune", OTHER))
    write(state.checkpoint("fit", KEY).with_name(f".{'2f' * 32}.pickle"))
    write(state.checkpoint("fit", KEY).with_name(f".{'3f' * 32}.pickle.77.part"))
    write(state.kept(state.kept_name("fit", "4f" * 32, 0)))
    assert state.checkpointed() == {KEY, OTHER}


def test_size_counts_all_files(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "state")
    assert state.size_bytes() == 0
    write(state.checkpoint("fit", KEY), "12345")
    write(state.ledgers / "000001.jsonl", "123")
    write(tmp_path / "run.lock", "not in it")
    (state.root / "kept").mkdir()
    (state.root / "kept" / "gone").symlink_to(tmp_path / "nowhere")
    assert state.size_bytes() == 8
