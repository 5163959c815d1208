"""What is measured of decoded frames: always 8-bit pixels decoded from stored bytes, never a network in memory."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass

import numpy as np

from framefold.codecs.clip import Clip, Frames
from framefold.codecs.metrics import ms_ssim, psnr


@dataclass(frozen=True)
class Measured:
    """Distortion of one decoded clip against its original."""

    psnr_db: float
    """RGB, mean over frames of each frame's PSNR; 100 stands for identical frames."""
    ms_ssim: float
    frames_sha256: str
    """Of the decoded (T, 3, H, W) uint8 frames, to see later whether a decoder gives the same pixels."""
    frames_levels: str
    """Their `levels`, to tell the rounding of another machine from other frames."""

    def as_dict(self) -> dict[str, float | str]:
        """Plain JSON values."""
        return asdict(self)


def measure(decoded: Clip, original: Clip) -> Measured:
    """Compare frame by frame; ValueError where the shapes differ."""
    if decoded.frames.shape != original.frames.shape:
        raise ValueError(f"decoded frames are {decoded.frames.shape}, the original's are {original.frames.shape}")
    return Measured(
        psnr_db=round(min(psnr(decoded.frames, original.frames), 100.0), 4),
        ms_ssim=round(ms_ssim(decoded.frames, original.frames), 6),
        frames_sha256=hashlib.sha256(decoded.frames.tobytes()).hexdigest(),
        frames_levels=levels(decoded.frames),
    )


def levels(frames: Frames) -> str:
    """Mean level of the frames' quarters: 12 bytes as hex digits, for top left, top right, bottom left, bottom right.

    Each is red, green, blue, 0..255, rounded. `frames` are (T, 3, H, W) uint8; of one row or column the halves overlap.
    """
    high, wide = (max(1, -(-length // 2)) for length in frames.shape[2:])
    quarters = (
        part for rows in (frames[:, :, :high], frames[:, :, -high:]) for part in (rows[..., :wide], rows[..., -wide:])
    )
    means = np.array([quarter.mean(axis=(0, 2, 3), dtype=np.float64) for quarter in quarters])
    told: str = np.rint(means).astype(np.uint8).tobytes().hex()
    return told


def are_alike(first: str, second: str) -> bool:
    """Whether two `levels` differ by one step at most, as those of frames that are rounded otherwise do."""
    pair = (np.frombuffer(bytes.fromhex(text), np.uint8).astype(int) for text in (first, second))
    return bool(np.abs(np.subtract(*pair)).max() <= 1)
