"""The shared test suite of codecs: a new codec gets its tests by naming itself.

```python
def test_codec():
    check_codec(MyCodec, [MyConfig(width=8), MyConfig(width=8, depth=3)])
```
Shipped with the package, so that codecs in other distributions can use it. Every check raises AssertionError
with a sentence that says what was promised.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from framefold.codecs.base import Codec, CodecConfig, FitProgress, FitSettings, FitState, Fitting
from framefold.codecs.clip import Clip, Frames, ImageBatch, Source, Span
from framefold.codecs.inr import NetworkCodec
from framefold.codecs.metrics import psnr
from framefold.codecs.network import FittedNetwork, FloatTensor
from framefold.codecs.pixel_format import GRAY_16, RGB, PixelFormat
from framefold.codecs.pruning.channels import sizes_of, without

VIDEO_SIZES = ((4, 32, 48), (3, 33, 47), (1, 17, 24))
"""(T, H, W): even, odd, and a single frame."""
PICTURE_SIZES = ((1, 32, 48), (1, 33, 47), (1, 1, 5))

PIXEL_FORMATS = (GRAY_16, PixelFormat(model="yuv", depth=10, chroma=(2, 2), alpha=True))
"""One channel of all depth, and four of which two are coarser."""

ResultT = TypeVar("ResultT")


def check_codec(
    codec_cls: type[Codec],
    configs: Sequence[CodecConfig],
    *,
    sizes: Sequence[tuple[int, int, int]] | None = None,
    steps: int = 12,
) -> None:
    """Check all that the pipeline relies on, for each configuration on each frame size.

    `sizes` are (T, H, W), by default even, odd and one-frame clips, or pictures for a codec of pictures; a short fit of
    frames of other pixel formats than 8-bit RGB comes last.
    `steps` is how long each of the fits (up to seven per configuration and size) lasts.
    """
    pictures = codec_cls.accepts is ImageBatch
    settings = FitSettings(steps=steps, seed=3)
    for config in configs:
        _check_config(codec_cls, config)
        for size in sizes or (PICTURE_SIZES if pictures else VIDEO_SIZES):
            clip = make_clip(moving_shapes(*size), kind="image" if pictures else "video")
            network = run_fit(codec_cls(config).fit(clip, settings))
            _check_network(codec_cls, clip, network)
            _check_decoding(codec_cls, network)
            _check_channels(codec_cls, network)
            _check_repeatable(codec_cls, config, clip, network, settings)
            _check_masks(codec_cls, network, settings)
            _check_resuming(partial(codec_cls(config).fit, clip), settings)
            _check_resuming(partial(codec_cls.from_config(network.config).finetune, network, {}), settings)
        for pixels in PIXEL_FORMATS:
            _check_pixels(codec_cls, config, pixels, settings)


def moving_shapes(frames: int, height: int, width: int) -> Frames:
    """(T, 3, H, W) uint8: a disc with a sharp edge that moves over a colour gradient and fine stripes."""
    t, y, x = np.meshgrid(*(np.linspace(0, 1, n) for n in (frames, height, width)), indexing="ij")
    disc = np.hypot(x - 0.2 - 0.6 * t, y - 0.5) < 0.25
    stripes = 0.1 * np.sin(40 * x + 8 * t)
    planes = (x + stripes, np.where(disc, 0.9, y), np.where(disc, 0.2, 0.5 + stripes))
    return np.stack([(255 * plane.clip(0, 1)).round().astype(np.uint8) for plane in planes], axis=1)


def make_clip(frames: Frames, *, kind: str = "video", name: str = "shapes", pixels: PixelFormat = RGB) -> Clip:
    """Make a clip of these frames (T, C, H, W), with a made-up source."""
    count, _, height, width = frames.shape
    size = {"size_bytes": 0, "width": width, "height": height}
    source = Source.model_validate({"name": name, "kind": kind, "sha256": "0" * 64, **size, "pixels": pixels})
    return Clip(span=Span(source=source, pts=tuple(range(count))), frames=frames)


def run_fit(fitting: Generator[FitProgress, None, ResultT]) -> ResultT:
    """Run a fit to its end and give what it returns."""
    while True:
        try:
            next(fitting)
        except StopIteration as end:
            result: ResultT = end.value
            return result


def _expect(promise: str, kept: object) -> None:
    if not kept:
        raise AssertionError(promise)


def _check_config(codec_cls: type[Codec], config: CodecConfig) -> None:
    plain = json.loads(json.dumps(config.model_dump(mode="json")))
    _expect(f"{config!r} survives JSON", codec_cls.from_config(plain).config == config)
    try:
        codec_cls.from_config({**plain, "no_such_option": 1})
    except ValueError:
        return
    raise AssertionError("an unknown option is refused with a ValueError")


def _check_network(codec_cls: type[Codec], clip: Clip, network: FittedNetwork) -> None:
    _expect(f"the network names its codec {codec_cls.name!r}", network.codec == codec_cls.name)
    _expect("the network covers the clip's span and keeps the clip as target", network.target is clip)
    _expect("the span is unchanged", network.span == clip.span)
    _expect("there is at least one tensor", network.tensors)
    for name, tensor in network.tensors.items():
        _expect(f"tensor {name} is float32", tensor.dtype == np.float32)
        _expect(f"tensor {name} is finite", np.isfinite(tensor).all())
    plain = json.loads(json.dumps(dict(network.config)))
    _expect("the stored configuration survives JSON", plain == network.config)
    _expect("the stored configuration leaves nothing open", None not in network.config.values())


def _check_pixels(codec_cls: type[Codec], config: CodecConfig, pixels: PixelFormat, settings: FitSettings) -> None:
    """Frames have as many channels and levels as their source says, and a shared sample is alike at all its pixels."""
    pictures = codec_cls.accepts is ImageBatch
    frames, height, width = (PICTURE_SIZES if pictures else VIDEO_SIZES)[1]
    grey = moving_shapes(frames, height, width)[:, :1].repeat(pixels.channels, 1)
    shapes: Frames = grey * pixels.dtype.type(pixels.peak // 255)
    clip = make_clip(shapes, kind="image" if pictures else "video", pixels=pixels)
    codec = codec_cls(config)
    drawn = codec.reconstruct(run_fit(codec.fit(clip, settings))).frames
    _expect(f"frames are {pixels.name}", (drawn.shape, drawn.dtype) == (clip.span.shape, pixels.dtype))
    _expect(f"no sample is above {pixels.peak}", drawn.max() <= pixels.peak)
    stored = pixels.spread([*pixels.stored(drawn)], height, width)
    _expect("pixels that share a sample have the same", np.array_equal(stored, drawn))


def _check_decoding(codec_cls: type[Codec], network: FittedNetwork) -> None:
    first = codec_cls.from_config(network.config).reconstruct(network)
    _expect("the decoded clip has the span's shape", first.frames.shape == network.span.shape)
    second = codec_cls.from_config(network.config).reconstruct(network)
    _expect("decoding twice gives the same frames", np.array_equal(first.frames, second.frames))
    stored = _stored(network)
    alone = codec_cls.from_config(stored.config).reconstruct(stored)
    _expect("codec name, configuration and tensors are enough", np.array_equal(first.frames, alone.frames))
    other = codec_cls().reconstruct(stored)
    _expect("the network's configuration rules, not the decoder's", np.array_equal(first.frames, other.frames))
    for wrong in _wrong_tensors(network.tensors):
        _expect("tensors that do not fit are refused with a ValueError", _refuses(codec_cls, network, wrong))


def _check_channels(codec_cls: type[Codec], network: FittedNetwork) -> None:
    """A codec need not name channels; if it does, a network without one of each must be one of its own."""
    codec = codec_cls.from_config(network.config)
    if not isinstance(codec, NetworkCodec):
        return
    config, module = codec.load(network)
    groups = codec.channel_groups(config, network.span.shape)
    kept = [np.arange(group.channels) >= min(1, group.channels - group.least) for group in groups]
    for group in groups:
        _expect(f"{group.layer} is a layer of the network", group.layer in dict(module.named_modules()))
    if groups:
        narrow = codec.narrowed(config, sizes_of(groups, kept)).model_dump(mode="json")
        tensors = without(network.tensors, groups, kept, [np.zeros(group.channels) for group in groups])
        smaller = _stored(replace(network, config=narrow), tensors)
        frames = codec.reconstruct(smaller).frames
        _expect("a network without some channels draws frames of the span's shape", frames.shape == network.span.shape)


def _stored(network: FittedNetwork, tensors: Mapping[str, FloatTensor] | None = None) -> FittedNetwork:
    """Give the network as an archive does: plain values, copied tensors, no pixels."""
    config: dict[str, Any] = json.loads(json.dumps(dict(network.config)))
    kept = {name: value.copy() for name, value in (tensors or network.tensors).items()}
    span = Span.model_validate_json(network.span.model_dump_json())
    return FittedNetwork(span=span, codec=network.codec, config=config, tensors=kept)


def _wrong_tensors(tensors: Mapping[str, FloatTensor]) -> list[dict[str, FloatTensor]]:
    """Missing, unknown, of the wrong shape, not finite."""
    name, value = next(iter(tensors.items()))
    others = {key: tensor for key, tensor in tensors.items() if key != name}
    return [
        others or {"no such tensor": value},
        {**tensors, "no such tensor": value},
        {**tensors, name: np.concatenate((value, value))},
        {**tensors, name: np.full_like(value, np.nan)},
    ]


def _refuses(codec_cls: type[Codec], network: FittedNetwork, tensors: Mapping[str, FloatTensor]) -> bool:
    try:
        codec_cls.from_config(network.config).reconstruct(_stored(network, tensors))
    except ValueError:
        return True
    return False


def _check_repeatable(
    codec_cls: type[Codec], config: CodecConfig, clip: Clip, network: FittedNetwork, settings: FitSettings
) -> None:
    again = run_fit(codec_cls(config).fit(clip, settings))
    _expect("the same seed and steps give the same tensor names", list(again.tensors) == list(network.tensors))
    same = all(np.array_equal(again.tensors[name], value) for name, value in network.tensors.items())
    _expect("the same seed and steps give the same tensors", same)


def _check_masks(codec_cls: type[Codec], network: FittedNetwork, settings: FitSettings) -> None:
    masks = {
        name: np.abs(value) > np.median(np.abs(value)) for name, value in network.tensors.items() if value.ndim > 1
    }
    tuned = run_fit(codec_cls.from_config(network.config).finetune(network, masks, settings))
    _expect("fine-tuning keeps the configuration", tuned.config == network.config)
    for name, mask in masks.items():
        _expect(f"fine-tuning holds the masked weights of {name} at zero", not tuned.tensors[name][~mask].any())
    moved = any(
        not np.array_equal(tuned.tensors[name], value * masks.get(name, True))
        for name, value in network.tensors.items()
    )
    _expect("fine-tuning changes the weights that may change", moved)


def _check_resuming(start: Callable[[FitSettings], Fitting], settings: FitSettings) -> None:
    """A codec need not give its state; one that does must go on from it, and the fit must leave it as it was."""
    states: list[FitState] = []
    whole = run_fit(_watched(start(settings), states))
    for state in (states[0], states[-1]) if states else ():
        _expect("a state is plain: containers, scalars, numpy arrays", _is_plain(state))
        again = run_fit(start(replace(settings, resume=state)))
        same = all(np.array_equal(again.tensors[name], value) for name, value in whole.tensors.items())
        _expect("a fit that goes on from a state ends like the uninterrupted one", same)
    if states:
        _expect("a state of another fit is refused with a ValueError", _refuses_state(start, settings))


def _watched(fitting: Fitting, states: list[FitState]) -> Fitting:
    """Collect the states of a fit."""
    while True:
        try:
            progress = next(fitting)
        except StopIteration as end:
            network: FittedNetwork = end.value
            return network
        if progress.state is not None:
            states.append(progress.state())
        yield progress


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(part) for key, part in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str | bytes | np.generic | np.ndarray)


def _refuses_state(start: Callable[[FitSettings], Fitting], settings: FitSettings) -> bool:
    try:
        run_fit(start(replace(settings, resume={"made by": "nobody"})))
    except ValueError:
        return True
    return False


def quality_of(codec: Codec, clip: Clip, settings: FitSettings) -> float:
    """PSNR in dB of the decoded frames after a fit."""
    return psnr(codec.reconstruct(run_fit(codec.fit(clip, settings))).frames, clip.frames, clip.pixels)
