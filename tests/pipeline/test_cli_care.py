"""The commands that take care of archives: seal, parity, repair, gc."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from framefold.pipeline import cli
from framefold.pipeline.archive import ArchiveReader, ArchiveWriter, parity, verify
from framefold.pipeline.archive.bag_check import check_bag
from framefold.pipeline.archive.folder import FolderWriter
from framefold.pipeline.cli import gc, repair, seal
from framefold.pipeline.cli import parity as parity_command

MANIFEST = {"generator": "framefold test", "created": "2026-01-31T12:00:00Z"}
SOURCE = {"name": "a.mp4", "kind": "video", "width": 32, "height": 18, "time_base": [1, 600]}


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """All commands of this file are commands, whatever else is."""
    names = [module.__name__.rpartition(".")[2] for module in (seal, parity_command, repair, gc)]
    monkeypatch.setattr(cli, "COMMANDS", tuple(dict.fromkeys((*cli.COMMANDS, *names))))


def fill(writer, first: int = 0) -> None:
    place = {"source": writer.add_source(SOURCE), "codec": writer.add_codec("nerv", {"size": "S"})}
    for number in range(first, first + 4):
        frames = {"first_frame": 24 * number, "pts": [25 * frame for frame in range(24 * number, 24 * number + 24)]}
        writer.add_unit(key=f"{number:064x}", **place, **frames, duration_ticks=25, payload=bytes([number]) * 5000)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "clip.fold"
    with ArchiveWriter(path) as writer:
        fill(writer)
        writer.commit(MANIFEST)
    return path


@pytest.fixture
def folder(tmp_path):
    for first in (0, 4):
        with FolderWriter(tmp_path / "all.fold") as writer:
            fill(writer, first)
            writer.commit(MANIFEST)
    return tmp_path / "all.fold"


def spoil(path: Path, at: int = 6000) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def shards_of(folder: Path) -> list[Path]:
    with ArchiveReader.open(folder) as reader:
        return [folder / "data" / "shards" / f"{name}.fold" for name, _ in reader.shards]


def run(capsys, *command: object, code: int = 0) -> str:
    assert cli.main([str(part) for part in command]) == code
    out, err = capsys.readouterr()
    assert err == ""
    return out


def run_json(capsys, *command: object, code: int = 0):
    return json.loads(run(capsys, *command, "--json", code=code))


def refused(capsys, *command: object, code: int = 1) -> str:
    assert cli.main([str(part) for part in command]) == code
    out, err = capsys.readouterr()
    assert out == ""
    return err


# seal


def test_seal_a_file(file, capsys):
    out = run(capsys, "seal", file)
    sealed = file.with_name("clip.sealed.fold")
    assert out.startswith(f"sealed: {sealed} is a BagIt bag of 7 files, ")
    assert "sha256sum --check manifest-sha256.txt" in out
    subprocess.run(["sha256sum", "--check", "--quiet", "manifest-sha256.txt"], cwd=sealed, check=True)
    assert check_bag(sealed) == ()
    assert file.exists()


def test_seal_with_parity_says_what_it_promises(file, tmp_path, capsys):
    out = run(capsys, "seal", file, tmp_path / "vault", "--parity")
    assert "guarantee: any 2 of every 22 blocks of " in out
    assert len(list((tmp_path / "vault" / "data" / "parity").iterdir())) == 1
    assert check_bag(tmp_path / "vault") == ()
    run(capsys, "seal", tmp_path / "vault", "--parity")
    assert check_bag(tmp_path / "vault") == ()


def test_seal_a_folder(folder, capsys):
    with FolderWriter(folder) as dead:
        fill(dead, 8)
    document = run_json(capsys, "seal", folder)
    assert document["sealed"] == str(folder)
    assert document["payload_bytes"] == sum(
        path.stat().st_size for path in (folder / "data").rglob("*") if path.is_file()
    )
    assert document["payload_files"] == len([path for path in (folder / "data").rglob("*") if path.is_file()])
    assert [len(name) for name in document["unfinished"]] == [len("0" * 32 + ".fold.open")]
    assert "`pipeline repair` takes them in" in run(capsys, "seal", folder)


def test_seal_refuses_damage_and_what_it_cannot_do(folder, file, capsys):
    spoil(shards_of(folder)[0])
    assert "F026" in refused(capsys, "seal", folder)
    assert "sealed in place: leave out" in refused(capsys, "seal", folder, "elsewhere", code=2)
    assert "copy the archive here" in refused(capsys, "seal", "s3://bucket/archive", code=2)
    assert "F001" in refused(capsys, "seal", file.with_name("missing.fold"))


# parity and repair


def test_parity_and_repair_of_a_file(file, capsys):
    data = file.read_bytes()
    out = run(capsys, "parity", file)
    assert out.startswith("1 parity file of ")
    assert "guarantee: any 2 of every 22 blocks of 1536 bytes may be lost or damaged, in the archive or in" in out
    assert "made, 1 kept" in run(capsys, "parity", file)
    file.write_bytes(data[:7000] + bytes(2000) + data[9000:])
    assert "no parity was made, for it is damaged" in refused(capsys, "parity", file)
    out = run(capsys, "repair", file)
    assert "is the archive as it was: healed by parity, 2,560 bytes of it" in out
    assert file.with_name("clip.repaired.fold").read_bytes() == data
    assert "is there already" in refused(capsys, "repair", file, code=2)


def test_parity_with_other_numbers(file, capsys):
    document = run_json(capsys, "parity", file, "--data-blocks", 5, "--parity-blocks", 3)
    (made,) = document["files"]
    assert (made["data_blocks"], made["parity_blocks"], made["is_new"]) == (5, 3, True)
    assert made["parity_bytes"] == Path(made["parity"]).stat().st_size
    assert made["guarantee"].startswith("any 3 of every 8 blocks of ")
    for wrong in ((0, 2), (20, 0), (200, 56)):
        command = ("parity", file, "--data-blocks", wrong[0], "--parity-blocks", wrong[1])
        assert "at most 255" in refused(capsys, *command, code=2)


def test_damaged_parity_is_made_anew(file, capsys):
    run(capsys, "parity", file)
    beside = parity.path_beside(file)
    whole = beside.read_bytes()
    for data in (whole[:-1], whole[:3000] + b"x" + whole[3001:], b"", whole + b"x"):
        beside.write_bytes(data)
        assert run_json(capsys, "parity", file)["files"][0]["is_new"]
        assert beside.read_bytes() == whole


def test_repair_tells_what_is_lost_and_leaves_with_3(file, capsys):
    spoil(file)
    out = run(capsys, "repair", file, code=3)
    assert "1 finding in " in out
    assert "lost: frames 24-47 of a.mp4 from 1.000 s to 2.000 s (u000003): its chunk is damaged or lost" in out
    assert "with 3 units, 72 frames; 1 thing lost" in out
    new = file.with_name("other.fold")
    document = run_json(capsys, "repair", file, "--output", new, code=3)
    assert (document["state"], document["output"]) == ("rebuilt", str(new))
    assert document["kept"] == {"units": 3, "frames": 72, "packet_blocks": 0, "attachments": 0}
    (loss,) = document["losses"]
    assert (loss["what"], loss["source"], loss["first_frame"], loss["items"]) == ("frames", "a.mp4", 24, 24)
    assert (loss["start_seconds"], loss["end_seconds"]) == (1.0, 2.0)
    assert [finding["code"] for finding in document["findings"]] == ["F010"]
    assert verify(new) == ()


def test_repair_of_the_footer_loses_nothing(file, capsys):
    data = file.read_bytes()
    file.write_bytes(data[:-30])
    out = run(capsys, "repair", file)
    assert "nothing is lost" in out
    assert file.with_name("clip.repaired.fold").read_bytes() == data


def test_repair_leaves_whole_archives_alone(file, folder, capsys):
    assert run(capsys, "repair", file) == f"ok: {file} is whole, and nothing was written\n"
    assert run(capsys, "repair", folder) == f"ok: {folder} is whole, and nothing was changed\n"
    assert run_json(capsys, "repair", file)["output"] is None
    assert run_json(capsys, "repair", folder)["state"] == "whole"


def test_repair_of_noise_fails(tmp_path, capsys):
    (tmp_path / "a.fold").write_bytes(bytes(1000))
    assert "F034" in refused(capsys, "repair", tmp_path / "a.fold")
    assert "F001" in refused(capsys, "repair", tmp_path / "b.fold")
    assert "copy the archive here" in refused(capsys, "repair", "https://host/a.fold", code=2)


def test_repair_of_a_folder(folder, capsys):
    run(capsys, "seal", folder)
    damaged, _ = shards_of(folder)
    spoil(damaged)
    commit = sorted((folder / "data" / "commits").iterdir())[-1]
    commit.write_bytes(commit.read_bytes()[:-1])
    out = run(capsys, "repair", folder, code=3)
    assert f"data/commits/{commit.name}.damaged: a commit that is damaged" in out
    assert f"{damaged.stem}: rebuilt, now " in out
    assert "lost: frames 24-47 of a.mp4" in out
    assert "`pipeline seal` it again" in out
    with FolderWriter(folder) as dead:
        fill(dead, 8)
    document = run_json(capsys, "repair", folder)
    assert [shard["state"] for shard in document["shards"]] == ["whole", "whole", "adopted"]
    assert (document["losses"], document["seal_again"], document["set_aside"]) == ([], True, [])
    with ArchiveReader.open(folder) as reader:
        assert reader.commit.number == document["commit"]
        assert len(reader.units) == 11
    run(capsys, "seal", folder)
    assert check_bag(folder) == ()
    assert "leave out --output and --parity" in refused(capsys, "repair", folder, "--output", "x", code=2)


def test_parity_in_a_folder_heals_in_place(folder, capsys):
    document = run_json(capsys, "parity", folder)
    assert [Path(one["parity"]).parent.name for one in document["files"]] == ["parity", "parity"]
    first, _ = shards_of(folder)
    data = first.read_bytes()
    first.write_bytes(data[:7000] + bytes(2000) + data[9000:])
    assert "F026" in refused(capsys, "parity", folder)
    assert f"{first.stem}: healed" in run(capsys, "repair", folder)
    assert first.read_bytes() == data


def test_many_losses_are_cut_short(tmp_path, capsys):
    path = tmp_path / "a.fold"
    with ArchiveWriter(path) as writer:
        codec = writer.add_codec("coin", {})
        for number in range(60):
            source = {"name": f"{number}.png", "kind": "image", "width": 1, "height": 1, "time_base": [1, 1]}
            writer.add_picture(source=source, codec=codec, key=f"{number:064x}", payload=b"x" * 100)
        writer.commit(MANIFEST)
    with ArchiveReader.open(path) as reader:
        ((_, shard),) = reader.shards
        at = shard.index[2].offset + 100
    spoil(path, at)
    out = run(capsys, "repair", path, code=3)
    assert "lost: picture 49.png (p000002.49): its pack is damaged\n" in out
    assert "lost: 10 more; --json lists them all" in out
    assert len(run_json(capsys, "repair", path, "--output", tmp_path / "b.fold", code=3)["losses"]) == 60


# gc


def test_gc_names_what_it_removes(folder, capsys):
    run(capsys, "seal", folder)
    orphan = folder / "data" / "shards" / f"{'0' * 64}.fold"
    orphan.write_bytes(b"orphan")
    os.utime(orphan, (0, 0))
    assert "1 file of 6 bytes would be removed" in run(capsys, "gc", folder, "--dry-run")
    assert orphan.exists()
    document = run_json(capsys, "gc", folder, "--older-than-days", 2)
    assert document == {
        "archive": str(folder),
        "dry_run": False,
        "older_than_days": 2.0,
        "removed": [{"name": f"data/shards/{orphan.name}", "bytes": 6}],
        "seal_again": True,
    }
    assert not orphan.exists()
    assert run(capsys, "gc", folder) == "0 files of 0 bytes were removed\n"
    assert "at least 1" in refused(capsys, "gc", folder, "--older-than-days", "0.5", code=2)
    assert "F002" in refused(capsys, "gc", folder / "data")
