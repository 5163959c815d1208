"""fit: overfit a network to each clip or picture."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from framefold.codecs.base import FitProgress, FitSettings, FitState, Fitting, Loss, RateSettings, RateTuning
from framefold.codecs.clip import Clip, ImageBatch
from framefold.codecs.network import FittedNetwork, SymbolTensors
from framefold.codecs.rate.fit_and_tune import FitAndTune
from framefold.codecs.rate.fit_to_target import fit_to
from framefold.codecs.rate.targets import RateTarget
from framefold.codecs.warm_start import WarmStart
from framefold.pipeline.errors import FramefoldError
from framefold.pipeline.item import Item
from framefold.pipeline.keepsake import DamagedKeepsake
from framefold.pipeline.stage import Options, Output, Ports, Progress, Stage, StageContext
from framefold.stages.budget import Budget, progress_of, reported, resumed, settings_of
from framefold.stages.codec_choice import CodecChoice
from framefold.stages.start import Start, fault_of, load, sha256_of

Fitted = FittedNetwork | SymbolTensors
STATE_VERSION = 1

_log = logging.getLogger(__name__)


def _is_none(value: object) -> bool:
    """Options that older versions had not are written down where they are used: keys of units depend on them all."""
    return value is None


_Names = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]


class RateAware(BaseModel, frozen=True, extra="forbid"):
    """How a fit becomes rate-aware."""

    share: float = Field(
        default=0.3,
        gt=0,
        lt=1,
        description="of the budget, its last part, for tuning with bits; codec pyramid has them in its loss all along",
    )
    bit_price: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        exclude_if=_is_none,
        description="by what one more bit per pixel has to better the mean squared error (8-bit levels, squared); "
        "where there is no target",
    )


class FitConfig(Options, frozen=True):
    """Options of `fit`."""

    codec: CodecChoice = Field(description="{name: nerv, …}: a codec and its own options")
    budget: Budget | None = Field(default=None, description="{steps: n} or {seconds: n}; else the codec's default")
    target: RateTarget | None = Field(
        default=None,
        description="of each clip's or picture's stream: {bpp: x} or {bytes: n} choose the size; {psnr_db: x} stops "
        "early (0.5 dB above, for rounding), else tries larger sizes, each with the whole budget",
    )
    choose_size: bool | None = Field(
        default=None,
        exclude_if=_is_none,
        description="whether the target chooses the size; by default unless the codec states one",
    )
    rate: RateAware | None = Field(
        default=None,
        exclude_if=_is_none,
        description="{share: x}: the bits of the weights join the loss, and integers come out, for entropy_encode",
    )
    learning_rate: float | None = Field(default=None, gt=0, le=1, description="else tuned by the codec")
    loss: Loss | None = Field(default=None, description="else the codec's")
    start: Start | None = Field(
        default=None,
        exclude_if=_is_none,
        description="base.fold, or {archive: base.fold, unit: u000002}: begin there and store the difference",
    )
    start_sha256: str | None = Field(
        default=None,
        exclude_if=_is_none,
        pattern="^[0-9a-f]{64}$",
        description="what the start's stream must have; by default what it has",
    )
    start_tensors: _Names | None = Field(
        default=None, exclude_if=_is_none, description="[blocks.]: only tensors whose names begin so; else all"
    )
    held_tensors: _Names | None = Field(
        default=None, exclude_if=_is_none, description="[blocks.]: of these, the ones that stay as they are; else none"
    )

    @model_validator(mode="after")
    def _goes_with_a_start(self) -> Self:
        if self.start is None and (self.start_sha256 or self.start_tensors or self.held_tensors):
            raise ValueError("start_sha256, start_tensors and held_tensors go with start: give that too")
        return self

    @model_serializer(mode="wrap")
    def _with_what_the_start_is(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Keys of units depend on what is written here: on the start's content, and not on where it lies."""
        written: dict[str, Any] = write(self)
        if self.start and self.start_sha256 is None and (sha256 := sha256_of(self.start)):
            written["start_sha256"] = sha256
        if self.chooses_size:
            written["choose_size"] = True
        return written

    @property
    def chooses_size(self) -> bool:
        """Whether the size follows from the target: told here as long as it is known what was stated and what not."""
        if self.target is None or self.target.kind == "bits_per_weight" or self.start:
            return False
        return not self.codec.build().states_size if self.choose_size is None else self.choose_size


class Fit(Stage):
    """Overfit a neural network to each clip or picture.

    The state of half-done work is `{version, done, fit}`: the networks of the item's first pictures, without
    pixels, and the codec's state of the fit of the next one.
    """

    Config = FitConfig
    config: FitConfig
    accepts = Clip | ImageBatch
    emits = {"out": FittedNetwork}
    locators = frozenset({"start"})
    shared = frozenset({"target"})
    durable = True

    @classmethod
    def ports(cls, config: FitConfig) -> Ports:
        """What the chosen codec takes; a rate-aware fit gives integers."""
        emits = cls.emits if config.rate is None else {"out": SymbolTensors}
        return Ports(accepts=config.codec.codec_class.accepts, emits=emits)

    @classmethod
    def preflight(cls, config: FitConfig) -> Sequence[tuple[str, str]]:
        """The start must be there, and of the same codec."""
        fault = fault_of(config.start, config.codec.name) if config.start else None
        return [("start", fault)] if fault else []

    def setup(self, context: StageContext) -> None:
        """Build the codec, read the start, and fix seed and device."""
        self._codec = self.config.codec.build()
        self._settings = settings_of(
            self.config.budget,
            context,
            learning_rate=self.config.learning_rate,
            loss=self.config.loss,
            start=self._start(),
        )

    def _start(self) -> WarmStart | None:
        config = self.config
        if config.start is None:
            return None
        taken = config.start_tensors or ("",)
        network = load(config.start, config.start_sha256, taken)
        return WarmStart(network=network, taken=taken, held=config.held_tensors or ())

    def process(self, item: Item) -> Iterator[Output]:
        """One network per clip, one per picture of a batch; those that a checkpoint holds are not fitted again."""
        clips = clips_of(item.payload)
        done, state = half_done(item, clips)
        for network in done:
            yield self.restored(item, network)
        for clip in clips[len(done) :]:
            told = partial(_told, tuple(done), len(clips))
            fitting = resumed(self._fit_of(clip), self._settings, state, clip.span.label)
            network = self._checked((yield from reported(fitting, told)))
            yield network
            state = None
            done.append(self.packed(network))

    def _fit_of(self, clip: Clip) -> Callable[[FitSettings], Fitting | RateTuning]:
        fit = partial(fit_to, self._codec, self.config.target, clip, choose_size=self.config.chooses_size)
        if self.config.rate is None:
            return fit
        rate = RateSettings(target=self.config.target, bit_price=self.config.rate.bit_price)
        in_two_parts = FitAndTune(codec=self._codec, fit=fit, clip=clip, rate=rate, share=self.config.rate.share)
        return lambda settings: self._codec.fit_for_rate(clip, rate, settings) or in_two_parts.run(settings)

    def _checked(self, network: Fitted) -> Fitted:
        if self._settings.start and network.parent is None:
            raise FramefoldError(f"codec {network.codec!r} cannot begin from a stored network; leave `start` away")
        return network

    def packed(self, payload: Fitted) -> Fitted:
        """The network without its pixels: the input has them."""
        return replace(payload, target=None)

    def restored(self, item: Item, kept: Fitted) -> Fitted:
        """The network with its pixels; DamagedKeepsake if the input has none of its span."""
        for clip in clips_of(item.payload):
            if clip.span == kept.span:
                return replace(kept, target=clip)
        raise DamagedKeepsake(f"{item.label} holds no {kept.span.label}, to which a kept network was fitted")


def clips_of(payload: Clip | ImageBatch) -> Sequence[Clip]:
    """What is fitted one by one: the clip itself, or each picture as a one-frame clip."""
    return (payload,) if isinstance(payload, Clip) else payload.pictures


def half_done(item: Item, clips: Sequence[Clip]) -> tuple[list[Fitted], FitState | None]:
    """What the item's checkpoint holds: networks of its first clips, and the state of the next one's fit.

    Nothing, with a warning, if it was made for other clips.
    """
    match item.checkpoint:
        case None:
            return [], None
        case {"version": version, "done": [*done], "fit": state} if version == STATE_VERSION and _are_of(done, clips):
            return done, state
    _log.warning("%s: its checkpoint is of another version or of other clips; the fit begins anew", item.label)
    return [], None


def _are_of(networks: Sequence[Any], clips: Sequence[Clip]) -> bool:
    spans = [network.span if isinstance(network, Fitted) else None for network in networks]
    return len(spans) < len(clips) and spans == [clip.span for clip in clips[: len(spans)]]


def _told(done: Sequence[Fitted], count: int, step: FitProgress) -> Progress:
    """Progress of one picture's fit as that of the item."""
    progress = progress_of(step)
    state = partial(_state, done, step) if done or step.state else None
    return replace(progress, fraction=(len(done) + progress.fraction) / count, state=state)


def _state(done: Sequence[Fitted], step: FitProgress) -> dict[str, Any]:
    return {"version": STATE_VERSION, "done": list(done), "fit": step.state() if step.state else None}
