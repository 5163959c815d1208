"""What is measured of decoded frames: always samples decoded from stored bytes, never a network in memory."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass

import numpy as np

from framefold.codecs.clip import Clip, Frames
from framefold.codecs.metrics import ms_ssim, psnr
from framefold.codecs.pixel_format import RGB, PixelFormat


@dataclass(frozen=True)
class Measured:
    """Distortion of one decoded clip against its original."""

    psnr_db: float
    """Of stored samples, mean over frames of each frame's PSNR; 100 stands for identical frames."""
    ms_ssim: float
    frames_sha256: str
    """`sha256_of` the decoded frames, to see later whether a decoder gives the same pixels."""
    frames_levels: str
    """Their `levels`, to tell the rounding of another machine from other frames."""

    def as_dict(self) -> dict[str, float | str]:
        """Plain JSON values."""
        return asdict(self)


def measure(decoded: Clip, original: Clip) -> Measured:
    """Compare frame by frame; ValueError where the shapes or pixel formats differ."""
    if (decoded.frames.shape, decoded.pixels) != (original.frames.shape, original.pixels):
        here, there = (f"{clip.pixels.name} {clip.frames.shape}" for clip in (decoded, original))
        raise ValueError(f"decoded frames are {here}, the original's are {there}")
    pixels = decoded.pixels
    return Measured(
        psnr_db=round(min(psnr(decoded.frames, original.frames, pixels), 100.0), 4),
        ms_ssim=round(ms_ssim(decoded.frames, original.frames, pixels), 6),
        frames_sha256=sha256_of(decoded.frames),
        frames_levels=levels(decoded.frames, pixels),
    )


def sha256_of(frames: Frames) -> str:
    """SHA-256 in hex of frames (T, C, H, W): one byte a sample, or two, the lower first; every channel at full size."""
    return hashlib.sha256(frames.astype(frames.dtype.newbyteorder("<"), copy=False).tobytes()).hexdigest()


def levels(frames: Frames, pixels: PixelFormat = RGB) -> str:
    """Mean level of the frames' quarters: 4 C bytes as hex digits, for top left, top right, bottom left, bottom right.

    Each has one for each channel, 0 to 255 for the largest sample, rounded. `frames` are (T, C, H, W); of one row or
    column the halves overlap.
    """
    high, wide = (max(1, -(-length // 2)) for length in frames.shape[2:])
    quarters = (
        part for rows in (frames[:, :, :high], frames[:, :, -high:]) for part in (rows[..., :wide], rows[..., -wide:])
    )
    means = np.array([quarter.mean(axis=(0, 2, 3), dtype=np.float64) for quarter in quarters])
    told: str = np.rint(means * (255 / pixels.peak)).astype(np.uint8).tobytes().hex()
    return told


def are_alike(first: str, second: str) -> bool:
    """Whether two `levels` differ by one step at most, as those of frames that are rounded otherwise do."""
    if len(first) != len(second):
        return False
    pair = (np.frombuffer(bytes.fromhex(text), np.uint8).astype(int) for text in (first, second))
    return bool(np.abs(np.subtract(*pair)).max() <= 1)
