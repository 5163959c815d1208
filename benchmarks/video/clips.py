"""The clips that video is measured on, as uint8 RGB (T, 3, H, W).

V16: 16 frames of Big Buck Bunny, 320x180, PNGs in a folder. V132: the clip of the NeRV papers, 1280x720, means over
4x4 pixels. C128: a fixed camera, 768x432, means over 2x2. Without those files: the bundled clip, whose frames are
320x180 too, but have been through x264 once.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from framefold.codecs.clip import Clip, Frames
from framefold.stages.video_source import VideoSource

BUNDLED = Path(__file__).parents[2] / "examples" / "bunny.mp4"


@dataclass(frozen=True)
class Footage:
    """Frames under a name."""

    name: str
    frames: Frames
    source_bytes: int = 0
    """Of the whole file that they come from; 0 where there is none."""


@dataclass(frozen=True)
class _Film:
    """A clip that is the first `frames` of a film, each pixel the mean over `shrink` x `shrink`."""

    file: str
    frames: int
    shrink: int


FILMS = {"V132": _Film("bigbuckbunny.mp4", 132, 4), "C128": _Film("car-detection.mp4", 128, 2)}


def bundled(frames: int) -> Footage:
    """The first frames of the bundled clip, `bunnyN`."""
    return Footage(f"bunny{frames}", film_frames(BUNDLED, frames), BUNDLED.stat().st_size)


def pictures(folder: Path, frames: int) -> Footage:
    """The first PNGs of a folder, `VN`."""
    paths = sorted(folder.glob("*.png"))[:frames]
    if len(paths) < frames:
        raise SystemExit(f"{folder} has {len(paths)} PNG files; needed: {frames}, one per frame, in order of name")
    arrays = [np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1) for path in paths]
    return Footage(f"V{frames}", np.stack(arrays))


def film(name: str, folder: Path) -> Footage:
    """One of `FILMS`."""
    wanted = FILMS[name]
    path = folder / wanted.file
    if not path.exists():
        raise SystemExit(f"{name} needs {wanted.file} in {folder}")
    return Footage(name, box_mean(film_frames(path, wanted.frames), wanted.shrink), path.stat().st_size)


def film_frames(path: Path, frames: int | None = None) -> Frames:
    """The first frames of a file, or all, converted in the same way for every system."""
    source = VideoSource(VideoSource.Config(path=str(path), pixels="rgb"))
    clips = (out.payload for out in source.produce() if isinstance(out.payload, Clip))  # sound comes the same way
    return np.stack(list(islice((frame for clip in clips for frame in clip.frames), frames)))


def box_mean(frames: Frames, shrink: int) -> Frames:
    """(T, 3, H, W) -> (T, 3, H / shrink, W / shrink), rounded half up; ValueError if it does not divide them."""
    count, planes, height, width = frames.shape
    blocks = frames.reshape(count, planes, height // shrink, shrink, width // shrink, shrink)
    sums = blocks.sum((3, 5), dtype=np.uint32)
    return ((sums + shrink**2 // 2) // shrink**2).astype(np.uint8)


def write_pictures(frames: Frames, folder: Path) -> None:
    """Write each frame as a PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, frame in enumerate(frames):
        Image.fromarray(frame.transpose(1, 2, 0)).save(folder / f"f{i + 1:05d}.png")
