"""quality: compare decoded pictures with the originals, frame by frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import Field

from framefold.codecs.clip import Clip, ImageBatch, join
from framefold.codecs.pixel_format import RGB
from framefold.pipeline.errors import FramefoldError
from framefold.pipeline.item import Item
from framefold.pipeline.stage import Emit, Options, Output, Refused, Row, Stage, StageContext
from framefold.stages.fit import clips_of
from framefold.stages.image_source import ImageSource
from framefold.stages.measure import measure
from framefold.stages.video_source import VideoSource


class QualityConfig(Options, frozen=True):
    """Options of `quality`."""

    against: str | list[str] = Field(description="the originals: a file, folder, glob or list, as at ingest")


class Quality(Stage):
    """Measure decoded clips and pictures against their originals."""

    Config = QualityConfig
    config: QualityConfig
    accepts = Clip | ImageBatch
    stateful = True

    @classmethod
    def preflight(cls, config: QualityConfig) -> Sequence[tuple[str, str]]:
        """The originals must be there."""
        videos = VideoSource.preflight(VideoSource.Config(path=config.against))
        pictures = ImageSource.preflight(ImageSource.Config(path=config.against))
        return [("against", message) for _, message in videos] if videos and pictures else []

    def setup(self, context: StageContext) -> None:
        """Nothing is read before the first decoded clip says what it is."""
        self._originals: dict[tuple[str, bool], _Originals] = {}

    def process(self, item: Item) -> Iterator[Output]:
        """Frames are compared by number, times exactly."""
        for decoded in clips_of(item.payload):
            original = self._original_of(decoded)
            measured = measure(decoded, original)
            same_times = decoded.span.pts == original.span.pts
            yield Row(
                decoded.span.label,
                {
                    "frames": decoded.span.frame_count,
                    "psnr_db": measured.psnr_db,
                    "ms_ssim": measured.ms_ssim,
                    "same_times": same_times,
                    "same_original": decoded.span.source.sha256 == original.span.source.sha256,
                },
            )

    def _original_of(self, decoded: Clip) -> Clip:
        kind, as_rgb = decoded.span.source.kind, decoded.pixels == RGB
        if (kind, as_rgb) not in self._originals:
            self._originals[kind, as_rgb] = _Originals(kind, self.config.against, as_rgb=as_rgb)
        return self._originals[kind, as_rgb].take(decoded)


class _Originals:
    """The originals of one kind, read alongside the decoded clips: once, if those come in the same order."""

    def __init__(self, kind: str, path: str | list[str], *, as_rgb: bool) -> None:
        """`as_rgb`: what was coded as 8-bit RGB is compared with that, whatever the file holds."""
        source = VideoSource if kind == "video" else ImageSource
        self._path = path
        self._source = source(source.Config(path=path, pixels="rgb" if as_rgb else "source"))
        self._refused: dict[str, str] = {}
        self._seen: set[str] = set()  # names and SHA-256 of the originals
        self._seen_all = False
        self._rewind()

    def take(self, decoded: Clip) -> Clip:
        """The original frames of exactly the decoded span; FramefoldError where the originals lack some.

        What is not ahead may lie behind: another order, or a second attempt at the same clip.
        """
        if self._seen_all and not self._seen.intersection(_names(decoded)):
            raise self._lacks(decoded)
        clip = self._ahead(decoded)
        if clip is None:
            self._rewind()
            clip = self._ahead(decoded)
        if clip is None:
            raise self._lacks(decoded)
        return clip

    def _rewind(self) -> None:
        self._stream = self._clips()
        self._rest: list[Clip] = []

    def _lacks(self, decoded: Clip) -> FramefoldError:
        refused = "".join(f"; {label} was refused: {reason}" for label, reason in self._refused.items())
        return FramefoldError(f"{decoded.span.label} is not whole among the originals at {self._path}{refused}")

    def _ahead(self, decoded: Clip) -> Clip | None:
        span, parts, missing = decoded.span, [], decoded.span.frame_count
        while missing:
            clip = self._rest.pop() if self._rest else next(self._stream, None)
            if clip is None:
                return None
            first = span.first_frame + span.frame_count - missing
            part = _cut(clip, first, missing) if _same_source(clip, decoded) else None
            if part is None:
                continue
            parts.append(part)
            missing -= part.span.frame_count
            self._keep_tail(clip, first + part.span.frame_count)
        return join(parts)

    def _keep_tail(self, clip: Clip, stop: int) -> None:
        tail = _cut(clip, stop, clip.span.frame_count)
        if tail is not None:
            self._rest.append(tail)

    def _clips(self) -> Iterator[Clip]:
        for output in self._source.produce():
            if isinstance(output, Refused):
                self._refused[output.label] = output.reason
                continue
            if isinstance(output, Emit) and output.port != "out":
                continue
            for clip in clips_of(output.payload if isinstance(output, Emit) else output):
                self._seen |= _names(clip)
                yield clip
        self._seen_all = True


def _names(clip: Clip) -> set[str]:
    return {clip.span.source.name, clip.span.source.sha256}


def _same_source(clip: Clip, decoded: Clip) -> bool:
    return bool(_names(clip) & _names(decoded))


def _cut(clip: Clip, first: int, count: int) -> Clip | None:
    """The part of `clip` from source frame `first` on, at most `count` frames; None where there is none."""
    start = first - clip.span.first_frame
    stop = min(start + count, clip.span.frame_count)
    if start < 0 or start >= stop:
        return None
    return clip.part(start, stop)
