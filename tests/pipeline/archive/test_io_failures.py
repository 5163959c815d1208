"""Every system call of a writer fails once: the old archive or the new one is there, and trying again works."""

from __future__ import annotations

import errno
import os

import pytest

from framefold.pipeline.archive import ArchiveError, ArchiveWriter, Code, verify


class Trouble:
    """Counts the calls that change files, and lets `count` of them, from call `at` on, fail as `how` says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, how: str, *, count: int = 1) -> None:
        self.calls, self.at, self.how, self.count = 0, at, how, count
        self.real = {name: getattr(os, name) for name in ("pwrite", "ftruncate", "fsync", "replace", "open")}
        for name in self.real:
            monkeypatch.setattr(os, name, self.failing(name))

    def failing(self, name: str):
        def call(*args, **options):
            self.calls += 1
            if self.at <= self.calls < self.at + self.count:
                return self.fail(name, *args, **options)
            return self.real[name](*args, **options)

        return call

    def fail(self, name: str, *args, **options):
        if self.how == "short" and name == "pwrite":
            fd, data, offset = args
            return self.real[name](fd, data[: max(len(data) // 2, 1)], offset)
        if self.how == "torn" and name == "pwrite":
            fd, data, offset = args
            self.real[name](fd, data[: len(data) // 2], offset)
        raise OSError(getattr(errno, self.how, errno.EIO), "made to fail")


def finish(writer: ArchiveWriter, steps, still_old) -> int:
    """Take each step, once more if it failed; how many failed."""
    failed = 0
    with writer:
        for step in steps:
            try:
                step(writer)
            except ArchiveError as error:
                failed += 1
                assert error.code == Code.IO
                if still_old():  # else the new archive has its name, and only the flush of the folder is missing
                    step(writer)
    return failed


@pytest.mark.parametrize("how", ["ENOSPC", "EIO", "torn"])
def test_after_any_failed_call_the_same_archive_can_be_finished(small, fill, manifest, monkeypatch, how):
    """The caller repeats each method that failed, as a retried item does."""
    wanted, old, failed = small.read_bytes(), b"the archive that was there", 0
    steps = (fill, lambda writer: writer.commit(manifest))
    for at in range(1, 100):
        small.write_bytes(old)
        with monkeypatch.context() as patch:
            trouble = Trouble(patch, at, how)
            try:
                writer = ArchiveWriter(small, archive_id=bytes(range(16)))
            except ArchiveError as error:
                assert error.code == Code.IO
                assert [path.read_bytes() for path in small.parent.iterdir()] == [old], at
                continue
            failed += finish(writer, steps, lambda: small.read_bytes() == old)
        assert small.read_bytes() == wanted, at
        assert list(small.parent.iterdir()) == [small], at
        if trouble.calls < at:
            break
    assert trouble.calls < at
    assert failed > 12


def test_short_writes_are_gone_on_with(tmp_path, small, write_small, monkeypatch):
    wanted = small.read_bytes()
    for at in range(1, 100):
        with monkeypatch.context() as patch:
            trouble = Trouble(patch, at, "short")
            try:
                write_small(tmp_path / "a.fold")
            except ArchiveError as error:
                assert error.code == Code.IO  # calls other than writes cannot be short; they fail
            else:
                assert (tmp_path / "a.fold").read_bytes() == wanted, at
        if trouble.calls < at:
            break
    assert trouble.calls < at


def test_giving_up_after_a_failure_leaves_the_old_archive_alone(small, fill, manifest, monkeypatch):
    old = small.read_bytes()
    for at in range(1, 14):
        with monkeypatch.context() as patch:
            Trouble(patch, at, "ENOSPC")
            with pytest.raises(ArchiveError, match="F018"), ArchiveWriter(small) as writer:
                fill(writer)
                writer.commit(manifest)
        assert small.read_bytes() == old, at
        assert list(small.parent.iterdir()) == [small], at
    assert verify(small) == ()


def test_a_medium_that_fails_on_reading_is_reported(small, monkeypatch):
    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, "made to fail")

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(ArchiveError, match="F018"):
        verify(small)


def test_reads_in_small_pieces_are_put_together(small, monkeypatch, read_all):
    wanted, real = read_all(small), os.pread
    monkeypatch.setattr(os, "pread", lambda fd, length, offset: real(fd, min(length, 7), offset))
    assert read_all(small) == wanted


def test_leaving_without_commit_leaves_nothing(tmp_path, fill):
    with ArchiveWriter(tmp_path / "a.fold") as writer:
        fill(writer)
    assert list(tmp_path.iterdir()) == []
    writer.abort()


def test_a_path_that_cannot_be_written_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path, tmp_path / "file" / "a.fold", tmp_path / ("x" * 300), tmp_path / "a\0b"):
        with pytest.raises(ArchiveError, match="F018"):
            ArchiveWriter(path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("count", [1, 2], ids=["write fails", "write and cut fail"])
def test_the_rest_of_a_failed_write_does_not_get_into_the_archive(tmp_path, source, manifest, monkeypatch, count):
    with ArchiveWriter(tmp_path / "a.fold") as writer:
        part = next(tmp_path.iterdir())
        with monkeypatch.context() as patch:
            Trouble(patch, 1, "torn", count=count)
            with pytest.raises(ArchiveError, match="F018"):
                writer.add_source(source("a" * 1000))
        assert (part.stat().st_size == writer.size_bytes) == (count == 1)
        writer.commit(manifest)
    assert verify(tmp_path / "a.fold") == ()
