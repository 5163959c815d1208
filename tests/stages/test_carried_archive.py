"""A film with everything in it, through an archive and out again by the real commands: nothing is lost unsaid."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from framefold.codecs.clip import Clip, ColorTags, Source
from framefold.codecs.pixel_format import PixelFormat
from framefold.pipeline import cli, runner, spec
from framefold.pipeline.archive import ArchiveReader
from framefold.stages.video_source import VideoSource


def archived(film: Path, archive: str, folder: Path, **source: Any) -> None:
    stages = {
        "frames": {"stage": "video_source", "path": str(film), **source},
        "clips": {"stage": "segment", "inputs": ["frames"], "frames_per_clip": 12},
        "fitted": {"stage": "fit", "inputs": ["clips"], "codec": {"name": "nerv", "size": "S"}, "budget": {"steps": 2}},
        "symbols": {"stage": "quantize", "inputs": ["fitted"], "bits": 6},
        "bits": {"stage": "entropy_encode", "inputs": ["symbols"]},
        "archive": {"stage": "archive_sink", "inputs": ["bits", "frames.rest"], "path": archive},
    }
    checked = spec.from_mapping("rich", {"run_dir": str(folder / "run"), "stages": stages})
    assert runner.run(checked, Console(quiet=True), runner.Manner(local=True, report=False)).exit_code == 0


def described(path: Path) -> tuple[Source, list[int]]:
    """The source, and the times of its pictures in ticks."""
    outputs = (output.payload for output in VideoSource(VideoSource.Config(path=str(path))).produce())
    clips = [payload for payload in outputs if isinstance(payload, Clip)]
    return clips[0].span.source, [pts for clip in clips for pts in clip.span.pts]


def chapters(source: Source) -> list[Any]:
    """In seconds: each container counts them in ticks of its own."""
    pairs = ((one, Fraction(*one.time_base)) for one in source.carried.chapters)
    return [(one.start * base, one.end * base, one.metadata) for one, base in pairs]


def attached(source: Source) -> list[Any]:
    """Kind, name and content; of HDR numbers not the content, for each container has fractions of its own."""
    every = source.carried.attachments
    return sorted((one.kind, one.name, one.sha256 if one.kind != "side_data" else "") for one in every)


@pytest.fixture
def ways(tmp_path: Path, rich_video: Callable, capsys: Any) -> Callable[[str, str], tuple[Path, Path, str]]:
    """There and back: the film, what comes out of an archive of this name, and what the command says."""

    def go(name: str, suffix: str) -> tuple[Path, Path, str]:
        film, archive, decoded = rich_video(tmp_path / f"film{suffix}"), f"{tmp_path}/{name}", tmp_path / f"out{suffix}"
        archived(film, archive, tmp_path)
        assert cli.main(["verify", archive]) == 0
        capsys.readouterr()
        assert cli.main(["decode", archive, str(decoded)]) == 0
        return film, decoded, " ".join(capsys.readouterr().out.split())

    return go


@pytest.mark.parametrize(("name", "suffix"), [("film.fold", ".mkv"), ("film.fold", ".mp4"), ("films/", ".mkv")])
def test_a_film_with_everything_in_it_comes_back(
    ways: Callable, copied_packets: Callable, name: str, suffix: str
) -> None:
    film, decoded, said = ways(name, suffix)
    assert copied_packets(decoded) == copied_packets(film)
    (old, times), (new, new_times) = described(film), described(decoded)
    assert new_times == times
    assert new.time_base == old.time_base
    assert len({after - before for before, after in pairwise(times)}) > 2
    assert new.color == old.color == ColorTags(primaries=9, transfer=16, matrix=9, range=1)
    assert chapters(new) == chapters(old) != []
    for field in ("tracks", "disposition", "modified"):
        assert getattr(new.carried, field) == getattr(old.carried, field), field
    assert set(new.carried.metadata) >= {pair for pair in old.carried.metadata if pair[0] in ("title", "comment")}
    assert new.carried.pixel.display_matrix == old.carried.pixel.display_matrix != None  # noqa: E711 - a chain
    assert new.carried.pixel.aspect == old.carried.pixel.aspect == (4, 3)
    assert attached(new) == attached(old)
    assert old.carried.pixel.format == new.carried.pixel.format == "yuv420p10le"
    assert new.pixels == old.pixels == PixelFormat(model="yuv", depth=10, chroma=(2, 2))
    assert "not carried" not in said


def test_the_archive_names_all_of_it(tmp_path: Path, rich_video: Callable, capsys: Any) -> None:
    film, archive = rich_video(tmp_path / "film.mkv"), str(tmp_path / "film.fold")
    archived(film, archive, tmp_path)
    capsys.readouterr()
    assert cli.main(["info", archive, "--json"]) == 0
    (source,) = json.loads(capsys.readouterr().out)["sources"]
    assert source["sha256"] == hashlib.sha256(film.read_bytes()).hexdigest()
    assert [track["codec"] for track in source["tracks"]] == ["aac", "flac", "subrip", "ass"]
    with ArchiveReader.open(archive) as reader:
        document = reader.sources[0].document["carried"]
        named = {one["sha256"] for one in document["attachments"]}
        named |= {track["extradata"] for track in document["tracks"] if track.get("extradata")}
        assert named == reader.attachments.keys()
        packets = dict.fromkeys(range(4), 0)
        for block in reader.packet_blocks:
            packets[block.track] += block.packets
        assert packets == {place: track["packets"] for place, track in enumerate(document["tracks"])}


def test_a_kept_original_comes_back_byte_for_byte(tmp_path: Path, rich_video: Callable) -> None:
    film, archive = rich_video(tmp_path / "film.mp4"), str(tmp_path / "film.fold")
    archived(film, archive, tmp_path, keep_original=True)
    assert cli.main(["decode", archive, str(tmp_path / "originals"), "--originals"]) == 0
    back = tmp_path / "originals" / "film.mp4"
    assert back.read_bytes() == film.read_bytes()
    assert back.stat().st_mtime_ns == film.stat().st_mtime_ns
