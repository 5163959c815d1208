"""What a written file does not hold of its original: found by reading it again, and said item by item.

Only what the original says is looked for. What a container adds of itself (a colour matrix that had none, "und" for
a language) is no loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from av.stream import Disposition

from framefold.codecs.carried import Carried, Chapter, PixelTags, Track
from framefold.codecs.clip import ColorTags, Source
from framefold.stages.media_belongings import Belongings, belongings
from framefold.stages.media_decode import decode_pictures
from framefold.stages.media_hdr import LIGHT, MASTERING, Hdr, hdr_of
from framefold.stages.media_mux import NO_FILES, Loss, disposition_of, track_label
from framefold.stages.media_planes import format_of
from framefold.stages.media_probe import VideoProbe
from framefold.stages.media_spool import Rest
from framefold.stages.media_tags import CODING_ONLY, CONTAINER_ONLY, FILE_ONLY, Tags, titled

_UNSPECIFIED = {"primaries": 2, "transfer": 2, "matrix": 2, "range": 0}
_ONE_TICK = Fraction(1, 500)
"""Seconds by which a chapter may be displaced; containers round to milliseconds."""
_PROGRESSIVE = 1
_MPEG_AUDIO = {"mp1", "mp2", "mp3"}
"""MP4 has one name for the three; a decoder finds out."""


@dataclass(frozen=True)
class Written:
    """A file that was just written, as a reader finds it."""

    name: str
    """Of the container."""
    belongings: Belongings
    color: ColorTags

    @classmethod
    def read(cls, path: Path) -> Written:
        """Open a file, describe it and decode its first picture."""
        with path.open("rb") as file:
            found = belongings(file, {})
            picture = next(decode_pictures(file, VideoProbe(Fraction(1), None)))
        if picture.look:
            found.see(picture.look)
        return cls("Matroska" if "matroska" in found.carried.container else "MP4", found, picture.color)


def losses(source: Source, rest: Rest | None, written: Written, tracks: Sequence[Track]) -> Iterator[Loss]:
    """Yield what `written` lacks, beside whole tracks, files and times, of which the writer knows itself.

    `tracks` are those of the source that went into it, in its order.
    """
    before, after = source.carried, written.belongings.carried
    yield from _of_samples(source, after.pixel, written.name)
    yield from _of_pixels(before.pixel, after.pixel, written.name)
    yield from _of_color(source, written)
    yield from _of_side_data(before, rest, written)
    yield from _of_files(before, rest, written)
    yield from _of_tags("metadata of the file", before.metadata, after.metadata, written.name)
    yield from _of_tags("metadata of the pictures", before.track_metadata, after.track_metadata, written.name)
    yield from _of_disposition("the pictures", before.disposition, after.disposition, written.name)
    yield from _of_chapters(before.chapters, after.chapters, written.name)
    for track, found in zip(tracks, after.tracks, strict=False):
        yield from _of_track(track, found, rest, written)
    for track in tracks[len(after.tracks) :]:
        yield Loss(track_label(track), f"{written.name} was given it, but does not show it")


def _of_samples(source: Source, after: PixelTags, name: str) -> Iterator[Loss]:
    before, coded, shown = source.carried.pixel, source.pixels, format_of(after.format)
    if before.bits > coded.depth:
        lost = f"{before.bits} bits ({before.format}); pictures are coded at {coded.depth} bits per channel"
        yield Loss("bit depth", lost)
    if coded.depth > max(8, after.bits):
        yield Loss("bit depth", f"{name} was given {after.bits} of {coded.depth} bits")
    if shown and coded.chroma == shown.chroma != (1, 1) and before.chroma_location != after.chroma_location:
        yield Loss("chroma location", f"{name} was not given {before.chroma_location}")
    if coded.alpha and not (shown and shown.alpha):
        yield Loss("alpha channel", f"{name} was not given it, for H.264 has none; .mkv keeps it")


def _of_pixels(before: PixelTags, after: PixelTags, name: str) -> Iterator[Loss]:
    if before.aspect != after.aspect:
        width, height = before.aspect
        yield Loss("pixel aspect", f"{name} was not given {width}:{height}")
    if before.field_order > _PROGRESSIVE and before.field_order != after.field_order:
        yield Loss("field order", f"{name} holds whole pictures; the original is interlaced ({before.field_order})")
    if before.display_matrix and not _alike(before.display_matrix, after.display_matrix or ()):
        yield Loss("display matrix", f"{name} cannot hold {before.display_matrix}")


def _alike(a: Sequence[int], b: Sequence[int]) -> bool:
    """Whether matrices are the same but for rounding in the last of 16 or 30 bits."""
    return len(a) == len(b) and all(abs(x - y) <= 2 for x, y in zip(a, b, strict=True))


def _of_color(source: Source, written: Written) -> Iterator[Loss]:
    before = source.color
    lost = [
        f"{field} {value}"
        for field, nothing in _UNSPECIFIED.items()
        if (value := getattr(before, field)) not in (nothing, getattr(written.color, field))
    ]
    if lost:
        is_rgb = written.name == "Matroska" and source.pixels.model == "rgb"
        why = "pictures are stored as full-range RGB in it" if is_rgb else "it takes no such tag"
        yield Loss("colour tags", f"{', '.join(lost)} (ISO/IEC 23091-2) are not in {written.name}: {why}")


def _of_side_data(before: Carried, rest: Rest | None, written: Written) -> Iterator[Loss]:
    """HDR metadata by its numbers, all other by its bytes."""
    refs = [ref for ref in before.attachments if ref.kind == "side_data"]
    old = {ref.name: (rest.attachment(ref.sha256) if rest else None) or b"" for ref in refs}
    new = {
        ref.name: written.belongings.attachments[ref.sha256]
        for ref in written.belongings.refs
        if ref.kind == "side_data"
    }
    hdr, got = hdr_of(old), hdr_of(new)
    known = {MASTERING: _same(hdr, got, "primaries", "luminance"), LIGHT: hdr.light == got.light}
    for name, data in old.items():
        if not data or not (known[name] if name in known else new.get(name) == data):
            yield Loss(f"side data {name}", f"it stays in the archive; {written.name} was not given it")


def _of_files(before: Carried, rest: Rest | None, written: Written) -> Iterator[Loss]:
    """Fonts, covers and the like that came whole; of others the writer has said so."""
    for ref in before.attachments:
        is_file = ref.kind not in NO_FILES and ref.size_bytes and (written.name == "Matroska" or ref.kind == "cover")
        came = is_file and rest and rest.attachment(ref.sha256)
        if came and ref.sha256 not in written.belongings.attachments:
            yield Loss(f"{ref.kind} {ref.name}".strip(), f"{written.name} holds other bytes in its place")


def _same(a: Hdr, b: Hdr, *names: str) -> bool:
    """Whether numbers agree to a millionth: Matroska stores them as decimals, H.264 in steps."""
    pairs = [(getattr(a, name) or (), getattr(b, name) or ()) for name in names]
    return all(
        len(old) == len(new) and all(abs(x - y) <= 1e-6 * max(1, x) for x, y in zip(old, new, strict=True))
        for old, new in pairs
    )


def _of_tags(place: str, before: Tags, after: Tags, name: str) -> Iterator[Loss]:
    had = {key.casefold(): value for key, value in titled(before).items()}
    has = {key.casefold(): value for key, value in titled(after).items()}
    lost = [key for key, value in had.items() if not _is_of_the_file(key) and has.get(key) != value and value]
    if lost:
        yield Loss(f"{place}: {', '.join(lost)}", f"{name} has no place for it")


def _is_of_the_file(key: str) -> bool:
    """Whether metadata speaks of the original file itself, and would be false or is written anew in another."""
    return key in CONTAINER_ONLY | FILE_ONLY or key.startswith(CODING_ONLY)


def _of_disposition(whose: str, before: int, after: int, name: str) -> Iterator[Loss]:
    lost = disposition_of(before) & ~after
    if lost:
        flags = [flag.name or str(flag.value) for flag in Disposition(lost)]
        yield Loss(f"disposition of {whose}: {', '.join(flags)}", f"{name} has no place for it")


def _of_chapters(before: Sequence[Chapter], after: Sequence[Chapter], name: str) -> Iterator[Loss]:
    if len(before) != len(after):
        yield Loss("chapters", f"{name} holds {len(after)} of {len(before)}")
        return
    for number, (old, new) in enumerate(zip(before, after, strict=True)):
        if any(abs(x - y) > _ONE_TICK for x, y in zip(_times(old), _times(new), strict=True)):
            yield Loss(f"times of chapter {number}", f"{name} holds others")
        yield from _of_tags(f"metadata of chapter {number}", old.metadata, new.metadata, name)


def _times(chapter: Chapter) -> tuple[Fraction, Fraction]:
    base = Fraction(*chapter.time_base)
    return chapter.start * base, chapter.end * base


def _of_track(track: Track, found: Track, rest: Rest | None, written: Written) -> Iterator[Loss]:
    label, name = track_label(track), written.name
    if track.codec != found.codec and not {track.codec, found.codec} <= _MPEG_AUDIO:
        yield Loss(label, f"it became {found.codec} in {name}")
    yield from _of_tags(f"metadata of {label}", track.metadata, found.metadata, name)
    yield from _of_disposition(label, track.disposition, found.disposition, name)
    before = rest.attachment(track.extradata) if rest and track.extradata else None
    after = written.belongings.attachments.get(found.extradata or "")
    if before and before != after:
        yield Loss(f"decoder header of {label}", f"{name} writes its own")
    if track.codec == "aac" and before is None and after:
        yield Loss(f"ADTS headers of {label}", f"{name} stores the same sound without them")


def losses_to_pictures(source: Source) -> Iterator[Loss]:
    """Yield, as one item, what a folder of PNGs does not hold of a source that has more than pictures."""
    carried = source.carried
    files = [f"{ref.kind} {ref.name}".strip() for ref in carried.attachments if ref.kind not in NO_FILES]
    present = {
        "chapters": bool(carried.chapters),
        "metadata": bool(carried.metadata),
        "alpha channel": source.pixels.alpha,
        "bit depth": source.pixels.depth > 8,
        "pixel aspect": carried.pixel.aspect != (1, 1),
        "display matrix": carried.pixel.display_matrix is not None,
    }
    items = [*map(track_label, carried.tracks), *files, *(name for name, there in present.items() if there)]
    if carried != Carried():
        yield Loss(f"{source.name}: {', '.join([*items, 'times and colour tags'])}", "PNGs hold pixels alone")
