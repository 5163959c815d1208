"""One suite for every stage: a new stage gets its tests by naming itself."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from framefold.pipeline import keepsake
from framefold.pipeline.draft import EngineWords
from framefold.pipeline.item import Item, unit_key
from framefold.pipeline.sameness import same
from framefold.pipeline.stage import Emit, Progress, Stage, StageContext
from framefold.pipeline.stage_commits import Left
from framefold.pipeline.stage_trial import Life, Trial

_PLAIN = "plain values, arrays and dataclasses of its own package"


def check_stage(
    stage_class: type[Stage],
    config: Mapping[str, Any],
    items: Sequence[Any] = (),
    *,
    sides: Mapping[str, Any] | None = None,
    context: StageContext | None = None,
    batches_alike: bool = True,
    resumable: bool = True,
    written: Callable[[], Any] | None = None,
) -> list[Any]:
    """Put a stage through a replica's life, several times, and return the payloads that it emitted.

    `config` holds the stage's own options as they stand in YAML; `items` are payloads or `Item`s, none for a
    source, `{name: payload}` each for a stage that joins; `sides` are the payloads of its side inputs. Checked:

    - options survive JSON, leave the engine's words alone and refuse unknown names; `close` needs no `setup`;
    - only declared ports and types come out, and a second replica emits the same;
    - `process_batch`, if the stage has its own, gives for all items at once what it gives for each alone
      (`batches_alike=False` for stages whose items are meant to affect one another);
    - durable stages: each output is the same after `packed`, a file, and `restored` in another replica;
    - stages that give `Progress.state`: another replica that goes on from it, read back from a file, emits the same
      and does not begin anew (`resumable=False` where results depend on time: then only that it can go on);
    - sinks that commit each item: it is there before `finish`, and the same items again leave the same files.
      `written` gives what they have left, if that is not in files under those options that are paths.

    AssertionError says what is wrong and how to mend it; what the stage raises comes through.
    """
    trial = Trial(
        stage_class=stage_class,
        options=_check_config(stage_class, config),
        items=[_enveloped(item, number) for number, item in enumerate(items)],
        sides=sides or {},
        context=context or StageContext(node="checked"),
    )
    stage_class(trial.options).close()
    trial.check_given()
    with tempfile.TemporaryDirectory(prefix="framefold-check-") as folder:
        files = _Files(trial, Path(folder))
        first, checkpoints = _check_lives(trial, files, written)
        _check_batch(trial, first, alike=batches_alike)
        _check_kept(trial, first, files)
        for checkpoint in checkpoints:
            _check_resumed(trial, first, checkpoint, files, compare=resumable)
    return [emit.payload for emit in first.emitted]


def _check_config(stage_class: type[Stage], config: Mapping[str, Any]) -> Any:
    model = stage_class.Config
    options = model.model_validate_json(json.dumps(config), strict=True)
    if not _survives(options, model.model_validate_json(options.model_dump_json(), strict=True)):
        raise AssertionError(
            f"{stage_class.__name__}.Config does not survive JSON: {options!r}; give its fields types that JSON knows"
        )
    taken = sorted(set(model.model_fields) & set(EngineWords.model_fields))
    if taken:
        raise AssertionError(f"{stage_class.__name__}.Config uses words of the engine: {', '.join(taken)}; rename them")
    try:
        model.model_validate_json(json.dumps({**config, "no_such_option": 1}), strict=True)
    except ValidationError:
        return options
    raise AssertionError(f"{stage_class.__name__}.Config accepts unknown options; derive it from Options")


def _survives(options: Any, again: Any) -> bool:
    """Whether they are equal, or at least written alike: defaults of a chosen codec may be written out."""
    written: dict[str, Any] = options.model_dump(mode="json")
    return bool(options == again or (written == again.model_dump(mode="json") and set(dict(options)) <= set(written)))


def _enveloped(item: Any, number: int) -> Item:
    if isinstance(item, Item):
        return item
    return Item(key=unit_key("checked", str(number)), label=f"item {number}", seq=(0, number), payload=item)


# Files of the kind that runs keep.


@dataclass(frozen=True)
class _Files:
    """A folder of keepsakes, read as an engine's worker reads them."""

    trial: Trial
    folder: Path

    def written(self, name: str, payload: Any, what: str) -> Path:
        """Write; AssertionError if it cannot be pickled."""
        path = self.folder / name
        try:
            keepsake.write(path, payload)
        except Exception as error:
            raise AssertionError(f"{self.trial.name}: {what} cannot be written: {error}; let it be {_PLAIN}") from error
        return path

    def read(self, path: Path, what: str) -> Any:
        """Read; AssertionError if that is not admitted."""
        package = self.trial.stage_class.__module__.partition(".")[0]
        try:
            return keepsake.read(path, packages={package})
        except keepsake.DamagedKeepsake as error:
            raise AssertionError(
                f"{self.trial.name}: {what} cannot be read back: {error}; let it be {_PLAIN}"
            ) from error


# Two lives.


@dataclass(frozen=True)
class _Checkpoint:
    """A state of half-done work."""

    item: int
    """Its number."""
    fraction: float
    """How much was done."""
    path: Path


def _check_lives(trial: Trial, files: _Files, written: Callable[[], Any] | None) -> tuple[Life, Sequence[_Checkpoint]]:
    """Two replicas, one after the other, with the same outcome; the second one's states are kept now and then."""
    states, left = _States(), Left(trial, written)
    first = trial.live(states.count, left.before_finish)
    left.after(Left.FIRST)
    keeper = _Keeper(files, states)
    second = trial.live(keeper)
    left.after(Left.AGAIN)
    if not _alike(first.emitted, second.emitted):
        raise AssertionError(
            f"{trial.name}: a second replica emits something else for the same items; draw random numbers from "
            "context.seed, and use neither time nor the order of sets"
        )
    return first, keeper.checkpoints


class _States:
    """How many states each item has: taking every one of them could be dear."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()

    def count(self, number: int, progress: Progress) -> None:
        """One more, if it is one."""
        self.counts[number] += progress.state is not None


class _Keeper:
    """Writes the first, the middle and the last state of each item, when they come."""

    def __init__(self, files: _Files, states: _States) -> None:
        self._files, self._states, self._seen = files, states, _States()
        self.checkpoints: list[_Checkpoint] = []

    def __call__(self, number: int, progress: Progress) -> None:
        place, states = self._seen.counts[number], self._states.counts[number]
        self._seen.count(number, progress)
        if progress.state is not None and place in {0, states // 2, states - 1}:
            path = self._files.written(f"{number}.{place}.state", progress.state(), "what Progress.state gives")
            self.checkpoints.append(_Checkpoint(number, progress.fraction, path))


def _alike(some: Sequence[Emit], others: Sequence[Emit]) -> bool:
    return same([_plain(emit) for emit in some], [_plain(emit) for emit in others])


def _plain(emit: Emit) -> tuple[Any, ...]:
    return (emit.port, emit.identity, emit.label, emit.payload)


# What the engine does with some stages only.


def _check_batch(trial: Trial, first: Life, *, alike: bool) -> None:
    if not trial.batches or not trial.items:
        return
    with trial.replica() as stage:
        together = trial.batch(stage)
    if alike and not all(map(_alike, together, first.processed)):
        raise AssertionError(
            f"{trial.name}.process_batch gives something else for several items than for each alone; keep them apart, "
            "and yield each output with its item (batches_alike=False if they are meant to affect one another)"
        )
    if alike and trial.stage_class.process is not Stage.process:
        with trial.replica() as stage:
            alone = [trial.checked(stage.process(item)) for item in trial.items]
        if not all(map(_alike, alone, first.processed)):
            raise AssertionError(
                f"{trial.name}.process and process_batch give different things for one item; write one with the other"
            )


def _check_kept(trial: Trial, first: Life, files: _Files) -> None:
    """What the engine keeps of a durable stage: what it gives for an item, and at its end."""
    if not trial.stage_class.durable:
        return
    outputs = [(Item("", "", (), None), emit) for emit in first.finished]
    if not trial.stage_class.stateful:
        outputs += [(item, emit) for item, emits in zip(trial.items, first.processed, strict=True) for emit in emits]
    for number, (item, emit) in enumerate(outputs):
        with trial.replica() as stage:
            path = files.written(f"{number}.kept", stage.packed(emit.payload), "what `packed` gives")
        with trial.replica() as stage:
            restored = stage.restored(item, files.read(path, "what `packed` gives"))
        if not same(restored, emit.payload):
            raise AssertionError(
                f"{trial.name}: an output is another one after `packed` and `restored`; `packed` may leave out only "
                "what `restored` finds in the item"
            )


def _check_resumed(trial: Trial, first: Life, checkpoint: _Checkpoint, files: _Files, *, compare: bool) -> None:
    """A replica that is given the state instead of doing the first part of the work."""
    number, fractions = checkpoint.item, list[float]()

    def watch(_: int, progress: Progress) -> None:
        if progress.state is not None:
            fractions.append(progress.fraction)

    state = files.read(checkpoint.path, "what Progress.state gives")
    with trial.replica() as stage:
        for item in trial.items[:number] if trial.stage_class.stateful else ():
            trial.one(stage, item)
        emits = trial.one(stage, replace(trial.items[number], checkpoint=state), number, watch)
    if not compare:
        return
    at = f"its state at {checkpoint.fraction:.0%}"
    if not _alike(emits, first.processed[number]):
        raise AssertionError(
            f"{trial.name}: going on from {at} emits something else than uninterrupted work; put into Progress.state "
            "all that the rest depends on, and emit again what had been emitted (resumable=False if it depends on time)"
        )
    if fractions and fractions[0] < checkpoint.fraction:
        raise AssertionError(
            f"{trial.name} is given {at}, and then has done {fractions[0]:.0%}; take up item.checkpoint, and give "
            "no state before that"
        )
