"""A shared base end to end: fits begin from it, archives hold the difference and the base once, and decode alone."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framefold.codecs import fitting
from framefold.codecs.base import Codec, FitProgress
from framefold.codecs.clip import Clip, ImageBatch
from framefold.codecs.network import Bitstream, FittedNetwork
from framefold.codecs.quantizing.quantize import quantize
from framefold.codecs.stream import bitstream
from framefold.codecs.stream.bitstream import BitstreamError
from framefold.codecs.testing import make_clip, moving_shapes
from framefold.pipeline import keepsake, spec
from framefold.pipeline.archive import ArchiveReader, ArchiveWriter
from framefold.pipeline.errors import FramefoldError
from framefold.pipeline.item import Item
from framefold.pipeline.stage import Emit, Progress, Refused, Row, StageContext
from framefold.stages import archive_sink
from framefold.stages.archive_sink import ArchiveSink, ArchiveSinkConfig
from framefold.stages.archive_source import ArchiveSource
from framefold.stages.fit import Fit, FitConfig
from framefold.stages.fixity import Fixity, FixityConfig
from framefold.stages.reconstruct import Reconstruct
from framefold.stages.start import Start, load
from framefold.stages.streams import decoded, encoded

SIREN = {"name": "siren", "width": 8, "depth": 2}
GRID = {"name": "gridnerv", "width": 6, "strides": [2, 2]}
_ENCODED: dict[int, tuple[FittedNetwork, Bitstream]] = {}
"""By identity of the network, which is kept: coding takes longer than all else here."""


def picture(number: int) -> Clip:
    """Much the same each time."""
    frames = moving_shapes(40, 16, 24)[number : number + 1]
    return make_clip(frames, kind="image", name=f"{number}.png")


def stage(codec: dict[str, Any], steps: int = 25, **options: Any) -> Fit:
    config = {"codec": codec, "budget": {"steps": steps}, "learning_rate": 1e-3, **options}
    made = Fit(FitConfig.model_validate(config))
    made.setup(StageContext("fitted", seed=3))
    return made


def fitted(codec: dict[str, Any], clips: Sequence[Clip], **options: Any) -> list[FittedNetwork]:
    made, networks = stage(codec, **options), []
    for clip in clips:
        outputs = list(made.process(Item("k", "item", (0,), ImageBatch(pictures=(clip,)))))
        networks += [output for output in outputs if isinstance(output, FittedNetwork)]
    return networks


def coded(network: FittedNetwork) -> Bitstream:
    """At 8 bits."""
    if id(network) not in _ENCODED:
        _ENCODED[id(network)] = (network, encoded(quantize(network, bits=8, granularity="channel")))
    return _ENCODED[id(network)][1]


def archived(path: str | Path, networks: Sequence[FittedNetwork]) -> list[Row]:
    """Store them at 8 bits, and say what the sink says."""
    sink = ArchiveSink(ArchiveSinkConfig(path=path))
    sink.setup(StageContext("archive"))
    rows = []
    for network in networks:
        bits = coded(network)
        key = hashlib.sha256(network.span.label.encode() + bits.payload).hexdigest()
        rows += list(sink.process(Item(key, network.span.label, (0,), bits)))
    rows += list(sink.finish())
    sink.close()
    return [row for row in rows if isinstance(row, Row)]


def read(path: str | Path) -> list[Any]:
    return [
        output.payload if isinstance(output, Emit) else output
        for output in ArchiveSource(ArchiveSource.Config(path=path)).produce()
    ]


def bitstreams(outputs: Sequence[Any]) -> list[Bitstream]:
    return [output for output in outputs if isinstance(output, Bitstream)]


def is_exact(path: str | Path) -> list[bool]:
    """Whether each unit decodes to the frames that were recorded."""
    drawing, fixity = Reconstruct(None), Fixity(FixityConfig(path=path))
    drawing.setup(StageContext("frames"))
    fixity.setup(StageContext("fixity"))
    rows = []
    for bits in bitstreams(read(path)):
        (frames,) = drawing.process(Item("k", "item", (0,), decoded(bits)))
        rows += list(fixity.process(Item("k", "item", (0,), frames)))
    fixity.close()
    return [row.values["bit_exact"] for row in rows]


def damage(path: Path, at: bytes) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(at) + len(at) // 2] ^= 1
    path.write_bytes(data)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of one picture."""
    path = tmp_path_factory.mktemp("base") / "base.fold"
    archived(path, fitted(SIREN, [picture(0)], steps=150))
    return path


@pytest.fixture(scope="module")
def others(base: Path) -> list[FittedNetwork]:
    return fitted(SIREN, [picture(1), picture(2)], start=str(base))


@pytest.fixture(scope="module")
def unrelated() -> FittedNetwork:
    return fitted(SIREN, [picture(9)])[0]


@pytest.fixture(scope="module")
def whole(others: list[FittedNetwork]) -> FittedNetwork:
    """The first of the others, as if it had no base."""
    return replace(others[0], parent=None)


@pytest.fixture(scope="module")
def base_stream(base: Path) -> bytes:
    (bits,) = bitstreams(read(base))
    assert bits.parent is None
    return bits.payload


@pytest.fixture
def networks(others: list[FittedNetwork], unrelated: FittedNetwork) -> list[FittedNetwork]:
    """Two on the base, one on none."""
    return [*others, unrelated]


@pytest.mark.parametrize("form", ["x.fold", "x/"])
def test_networks_are_stored_as_differences_to_one_that_is_stored_once(
    tmp_path: Path, networks: list[FittedNetwork], base_stream: bytes, whole: FittedNetwork, form: str
) -> None:
    path = f"{tmp_path}/{form}"
    rows = archived(path, networks)
    with ArchiveReader.open(path) as reader:
        assert {sha256: reader.read_attachment(sha256) for sha256 in reader.attachments} == {
            hashlib.sha256(base_stream).hexdigest(): base_stream
        }
    found = bitstreams(read(path))
    assert [bits.parent for bits in found] == [base_stream, base_stream, None]
    assert [len(bits.payload) for bits in found] == [row.values["bytes"] for row in rows[:3]]
    assert [bitstream.parent_of(bits.payload) for bits in found[:2]] == [hashlib.sha256(base_stream).hexdigest()] * 2
    assert len(found[0].payload) < 0.9 * len(coded(whole).payload)
    assert is_exact(path) == [True] * 3
    assert rows[3].label == "networks that others build on"
    assert len(base_stream) < rows[3].values["bytes"] < len(base_stream) + 120


def test_the_base_is_not_in_the_row_of_the_unit_that_came_with_it(
    tmp_path: Path, others: list[FittedNetwork], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_sink, "_PACKED_BYTES", 0)
    one, another = others
    networks = [one, replace(another, span=one.span, target=one.target)]
    for path in (tmp_path / "a.fold", f"{tmp_path}/a/"):
        rows = archived(path, networks)
        with ArchiveReader.open(path) as reader:
            sizes = [unit.disk_bytes for unit in reader.units]
            index = [entry for _, shard in reader.shards for entry in shard.index]
        documents = sum(entry.disk_bytes for entry in index if entry.kind in (b"Srce", b"Cdec"))
        brought = documents if isinstance(path, str) else 0  # by the first unit of a folder's shard
        assert [row.values["bytes"] for row in rows[:2]] == [sizes[0] + brought, sizes[1]]
        assert is_exact(path) == [True, True]


def test_a_lost_base_costs_only_the_units_that_build_on_it(
    tmp_path: Path, networks: list[FittedNetwork], base_stream: bytes
) -> None:
    path = tmp_path / "x.fold"
    archived(path, networks)
    damage(path, base_stream)
    outputs = read(path)
    assert [bits.span.source.name for bits in bitstreams(outputs)] == ["9.png"]
    refused = [output for output in outputs if isinstance(output, Refused)]
    sha256 = hashlib.sha256(base_stream).hexdigest()
    assert len(refused) == 2
    for output in refused:
        assert (
            f"F010 chunk a000000: the network that it builds on, attachment {sha256}, cannot be read" in output.reason
        )
    assert is_exact(path) == [True]


def stored_by_hand(path: Path, network: FittedNetwork, needs: Sequence[bytes]) -> None:
    """A unit that needs what we say, and not what its stream says."""
    bits = coded(network)
    source = bits.span.source.model_dump(mode="json", exclude_defaults=True) | {"time_base": [1, 1]}
    with ArchiveWriter(path) as writer:
        place = {"source": writer.add_source(source), "codec": writer.add_codec(bits.codec, bits.config, needs=needs)}
        writer.add_unit(key="0" * 64, **place, first_frame=0, pts=[0], duration_ticks=1, payload=bits.payload)
        writer.commit({"generator": "test", "created": "2026-01-31T12:00:00Z"})


@pytest.mark.parametrize("forged", ["another", "none", "garbage", "two"])
def test_a_base_that_is_another_is_refused_by_name(
    tmp_path: Path, others: list[FittedNetwork], base_stream: bytes, whole: FittedNetwork, forged: str
) -> None:
    other = coded(whole).payload
    needs = {"another": [other], "none": [], "garbage": [b"garbage"], "two": [base_stream, other]}[forged]
    path = tmp_path / "x.fold"
    stored_by_hand(path, others[0], needs)
    (output,) = read(path)
    if forged == "two":
        assert isinstance(output, Refused)
        assert "it builds on 2 networks, one is known" in output.reason
        return
    with pytest.raises(BitstreamError) as failed:
        decoded(output)
    assert forged == "garbage" or hashlib.sha256(base_stream).hexdigest() in str(failed.value)


# --- the start


def test_a_fit_begins_where_the_start_is(base: Path, base_stream: bytes) -> None:
    (start,) = [load(Start(archive=str(base)), None)]
    assert start.parent is not None
    assert start.parent.payload == base_stream
    (near,) = fitted(SIREN, [picture(1)], start=str(base), steps=1)
    for name, tensor in near.tensors.items():
        assert np.abs(tensor - start.tensors[name]).max() < 2e-3  # one step of Adam at a rate of 1e-3
    assert near.parent is not None
    assert near.parent.payload == base_stream
    (again,) = fitted(SIREN, [picture(1)], start=str(base), steps=1)
    assert all(np.array_equal(again.tensors[name], tensor) for name, tensor in near.tensors.items())


def test_one_that_is_a_difference_itself_becomes_a_whole_stream(
    tmp_path: Path, others: list[FittedNetwork], base_stream: bytes
) -> None:
    path = tmp_path / "x.fold"
    archived(path, others)
    start = load(Start(archive=str(path), source="2.png"), None)
    assert start.parent is not None
    assert bitstream.parent_of(start.parent.payload) is None
    (bits,) = [bits for bits in bitstreams(read(path)) if bits.span.source.name == "2.png"]
    whole = bitstream.read_parent(start.parent.payload)
    for name, tensor in decoded(bits).tensors.items():
        assert np.array_equal(tensor.symbols, whole.tensors[name].symbols)
        assert np.array_equal(tensor.steps, whole.tensors[name].steps)
    (child,) = fitted(SIREN, [picture(3)], start={"archive": str(path), "source": "2.png"})
    archived(tmp_path / "y.fold", [child])
    assert is_exact(tmp_path / "y.fold") == [True]


def test_a_shared_part_is_held_and_stored_without_the_rest_of_its_network(tmp_path: Path, base: Path) -> None:
    shared = ["layers.0.", "layers.1."]
    networks = fitted(SIREN, [picture(1)], start=str(base), start_tensors=shared, held_tensors=shared)
    archived(tmp_path / "x.fold", networks)
    (bits,) = bitstreams(read(tmp_path / "x.fold"))
    assert bits.parent is not None
    stored, parent = decoded(bits), bitstream.read_parent(bits.parent).tensors
    assert set(parent) == {name for name in stored.tensors if name.startswith("layers.")}
    assert all(np.array_equal(stored.tensors[name].symbols, tensor.symbols) for name, tensor in parent.items())
    assert len(bits.payload) < 100  # names, 32 bytes of SHA-256 and 27 weights; the others are 96
    assert is_exact(tmp_path / "x.fold") == [True]


@pytest.fixture
def two(tmp_path: Path, others: list[FittedNetwork], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with an archive of two pictures on one base."""
    monkeypatch.chdir(tmp_path)
    archived("two.fold", others)
    return tmp_path


FAULTS = [
    (SIREN, {"start": "nowhere.fold"}, "no archive at "),
    (SIREN, {"start": {"archive": "two.fold"}}, "holds 2 units (p000003.0, p000003.1); name one, as in start: "),
    (SIREN, {"start": {"archive": "two.fold", "unit": "u000009"}}, "there is no chunk 'u000009'"),
    (SIREN, {"start": {"archive": "two.fold", "source": "7.png"}}, "there is no source '7.png'"),
    (SIREN, {"start": {"archive": "two.fold", "source": "1.png", "frame": 3}}, "holds no such unit"),
    (GRID, {"start": {"archive": "two.fold", "unit": "p000003.0"}}, "of codec 'siren', this fit's codec is 'gridnerv'"),
]


@pytest.mark.parametrize(("codec", "options", "fault"), FAULTS)
def test_a_start_that_cannot_be_is_refused_before_the_run(two: Path, codec: Any, options: Any, fault: str) -> None:
    ((option, message),) = Fit.preflight(FitConfig.model_validate({"codec": codec, **options}))
    assert option == "start"
    assert fault in message


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"start": {"archive": "a.fold", "unit": "u000001", "frame": 3}}, "give either unit, or source and frame"),
        ({"held_tensors": ["blocks."]}, "go with start: give that too"),
        ({"start_sha256": "0" * 64}, "go with start: give that too"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: Any, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        FitConfig.model_validate({"codec": SIREN, **options})


def test_a_network_of_another_kind_is_refused_with_all_that_differs(base: Path) -> None:
    with pytest.raises(ValueError, match="width is 8 there and 9 here; give the codec the start's options"):
        fitted({**SIREN, "width": 9}, [picture(1)], start=str(base))
    with pytest.raises(ValueError, match=r"the start has no tensor called layer\.…; it has layers\.0\.weight"):
        fitted(SIREN, [picture(1)], start=str(base), start_tensors=["layer."])
    with pytest.raises(ValueError, match="all held"):
        fitted(SIREN, [picture(1)], start=str(base), held_tensors=["layers.", "head."])


def test_a_start_that_changed_since_the_run_began_is_refused(base: Path) -> None:
    with pytest.raises(FramefoldError, match=r"has the SHA-256 [0-9a-f]{64}, and not 0{64}: it was changed"):
        load(Start(archive=str(base)), "0" * 64)


class Forgetful(Codec):
    """A codec that knows nothing of starts."""

    name = "siren"

    def fit(self, clip: Clip, settings: Any) -> Any:
        yield FitProgress(fraction=1.0, step=1)
        return FittedNetwork(span=clip.span, codec=self.name, config={}, tensors={})

    def finetune(self, network: Any, masks: Any, settings: Any) -> Any:
        raise NotImplementedError

    def reconstruct(self, network: Any, *, device: str = "cpu") -> Clip:
        raise NotImplementedError


def test_a_codec_that_knows_no_starts_is_not_taken_for_one(base: Path) -> None:
    made = stage(SIREN, start=str(base))
    made._codec = Forgetful()
    with pytest.raises(FramefoldError, match="codec 'siren' cannot begin from a stored network"):
        list(made.process(Item("k", "item", (0,), ImageBatch(pictures=(picture(1),)))))


# --- keys and checkpoints


@pytest.fixture
def lineage(base: Path) -> Callable[..., str]:
    """What the keys of a fit's outputs begin with."""

    def lineage(**options: Any) -> str:
        nodes = {
            "pictures": {"stage": "image_source", "path": str(Path(__file__).parents[2] / "examples" / "images")},
            "fitted": {"stage": "fit", "inputs": ["pictures"], "codec": SIREN, **options},
            "symbols": {"stage": "quantize", "inputs": ["fitted"]},
            "bits": {"stage": "entropy_encode", "inputs": ["symbols"]},
            "archive": {"stage": "archive_sink", "inputs": ["bits"], "path": str(base.with_name("x.fold"))},
        }
        return spec.from_mapping("t", {"pipeline": "t", "stages": nodes}).graph["fitted"].lineage

    return lineage


def test_keys_depend_on_the_starts_content_and_not_on_its_place(
    tmp_path: Path, base: Path, others: list[FittedNetwork], lineage: Callable[..., str]
) -> None:
    (tmp_path / "moved.fold").write_bytes(base.read_bytes())
    archived(tmp_path / "others.fold", others[:1])
    here = lineage(start=str(base))
    assert lineage(start={"archive": str(tmp_path / "moved.fold"), "unit": "p000002.0"}) == here
    different = [lineage(), lineage(start=str(tmp_path / "others.fold"))]
    different += [lineage(start=str(base), **{name: ["layers.0."]}) for name in ("start_tensors", "held_tensors")]
    assert len({here, *different}) == 5


def test_without_a_start_the_options_are_those_that_old_keys_were_made_of() -> None:
    written = FitConfig.model_validate({"codec": SIREN}).model_dump(mode="json")
    assert not {name for name in written if name.startswith(("start", "held"))}


def test_workers_are_told_which_network_was_meant(base: Path, base_stream: bytes) -> None:
    config = FitConfig.model_validate({"codec": SIREN, "start": str(base)})
    sent = FitConfig.model_validate_json(config.model_dump_json(), strict=True)
    assert sent.start == config.start
    assert sent.start_sha256 == hashlib.sha256(base_stream).hexdigest()


def checkpoint(made: Fit, payload: Any, folder: Path) -> Any:
    """The checkpoint after some steps, through a file."""
    for seen, output in enumerate(made.process(Item("k", "item", (0,), payload))):
        if seen == 9 and isinstance(output, Progress) and output.state:
            keepsake.write(folder / "kept", output.state())
            return keepsake.read(folder / "kept")
    raise AssertionError("too few progresses")


def test_a_fit_is_gone_on_with_only_from_the_same_start(
    tmp_path: Path,
    base: Path,
    others: list[FittedNetwork],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(fitting, "SECONDS_BETWEEN_REPORTS", 0.0)
    made, payload = stage(SIREN, start=str(base)), ImageBatch(pictures=(picture(1),))
    kept = checkpoint(made, payload, tmp_path)
    outputs = list(made.process(Item("k", "item", (0,), payload, checkpoint=kept)))
    assert isinstance(outputs[0], Progress)
    assert outputs[0].fraction > 0
    network = outputs[-1]
    assert network.parent.sha256 == others[0].parent.sha256
    assert all(np.array_equal(network.tensors[name], tensor) for name, tensor in others[0].tensors.items())
    for options in ({}, {"start": str(base), "held_tensors": ["layers.0."]}):
        with caplog.at_level(logging.WARNING):
            outputs = list(stage(SIREN, **options).process(Item("k", "item", (0,), payload, checkpoint=kept)))
        assert outputs[0].fraction == 0
        assert "the half-done fit cannot be gone on with" in caplog.text
        caplog.clear()
