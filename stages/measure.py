"""What is measured of decoded frames: always 8-bit pixels decoded from stored bytes, never a network in memory."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass

from framefold.codecs.clip import Clip
from framefold.codecs.metrics import ms_ssim, psnr


@dataclass(frozen=True)
class Measured:
    """Distortion of one decoded clip against its original."""

    psnr_db: float
    """RGB, mean over frames of each frame's PSNR; 100 stands for identical frames."""
    ms_ssim: float
    frames_sha256: str
    """Of the decoded (T, 3, H, W) uint8 frames, to see later whether a decoder gives the same pixels."""

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
    )
