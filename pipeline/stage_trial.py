"""The lives of a stage's replicas under `check_stage`: everything that comes out is recorded, and checked at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from framefold.pipeline.findings import listed
from framefold.pipeline.item import Item
from framefold.pipeline.stage import (
    Emit,
    Hint,
    Ports,
    PortType,
    Progress,
    Refused,
    Row,
    Stage,
    StageContext,
    types_of,
)

Watch = Callable[[int, Progress], None]
"""Hears of progress: the item's number, and what the stage gave."""


@dataclass
class Life:
    """What one replica gave."""

    produced: list[Emit] = field(default_factory=list)
    processed: list[list[Emit]] = field(default_factory=list)
    """For each item."""
    finished: list[Emit] = field(default_factory=list)

    @property
    def emitted(self) -> list[Emit]:
        """All of it, in order."""
        return [*self.produced, *(emit for emits in self.processed for emit in emits), *self.finished]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A stage with its options, its items, and what each replica of it is given."""

    stage_class: type[Stage]
    options: Any
    items: Sequence[Item]
    sides: Mapping[str, Any]
    context: StageContext

    @property
    def name(self) -> str:
        """The stage's."""
        return self.stage_class.__name__

    @property
    def ports(self) -> Ports:
        """Under these options."""
        return self.stage_class.ports(self.options)

    @property
    def batches(self) -> bool:
        """Whether the stage has a way of its own with several items."""
        return self.stage_class.process_batch is not Stage.process_batch

    def check_given(self) -> None:
        """Whether the test gives the stage what it takes."""
        ports = self.ports
        if ports.joins and ports.accepts is not None:
            raise AssertionError(f"{self.name} both accepts items and joins them; declare one of the two")
        if ports.is_source and self.items:
            raise AssertionError(f"{self.name} is a source and takes no items; leave them out, or declare `accepts`")
        for item in self.items:
            given = item.payload if ports.joins else {"": item.payload}
            self._check_names(f"{item.label} as a payload", given, ports.joins or {"": ports.accepts or object})
        self._check_names("sides", self.sides, ports.sides)
        if ports.sides and self.stage_class.receive is Stage.receive:
            raise AssertionError(f"{self.name} declares side inputs; write `receive`, which takes them")

    def _check_names(self, what: str, given: Any, kinds: Mapping[str, PortType]) -> None:
        if not isinstance(given, Mapping) or set(given) != set(kinds):
            got = f"{{{', '.join(given)}}}" if isinstance(given, Mapping) else type(given).__name__
            raise AssertionError(f"{self.name} needs {what} by the names {listed(sorted(kinds))}, got {got}")
        for name, payload in given.items():
            if not isinstance(payload, types := types_of(kinds[name])):
                allowed = " or ".join(kind.__name__ for kind in types)
                raise AssertionError(f"{self.name} takes {allowed} as {name or 'item'}, got {type(payload).__name__}")

    @contextmanager
    def replica(self) -> Iterator[Stage]:
        """A stage that is set up and has its side inputs; closed in the end."""
        stage = self.stage_class(self.options)
        try:
            stage.setup(self.context)
            for name, payload in self.sides.items():
                stage.receive(name, payload)
            yield stage
        finally:
            stage.close()

    def live(self, watch: Watch | None = None, before_finish: Callable[[], None] = lambda: None) -> Life:
        """A whole life, each item by itself."""
        life = Life()
        with self.replica() as stage:
            life.produced = self.checked(stage.produce()) if self.ports.is_source else []
            life.processed = [self.one(stage, item, number, watch) for number, item in enumerate(self.items)]
            before_finish()
            life.finished = self.checked(stage.finish())
        return life

    def one(self, stage: Stage, item: Item, number: int = 0, watch: Watch | None = None) -> list[Emit]:
        """One item, in the way in which the engine hands it over."""
        if self.batches:
            pairs = self._iterable(stage.process_batch([item]))
            return self.checked((output for _, output in pairs), number, watch)
        return self.checked(stage.process(item), number, watch)

    def batch(self, stage: Stage) -> list[list[Emit]]:
        """All items at once; what belongs to each."""
        outputs = defaultdict[str, list[Any]](list)
        for item, output in self._iterable(stage.process_batch(self.items)):
            outputs[item.key].append(output)
        if set(outputs) - {item.key for item in self.items}:
            raise AssertionError(
                f"{self.name}.process_batch gives outputs with items that it was not given; yield (item, output) with "
                "the item of the batch that the output belongs to"
            )
        return [self.checked(outputs[item.key]) for item in self.items]

    def checked(self, outputs: Any, number: int = 0, watch: Watch | None = None) -> list[Emit]:
        """The outputs as `Emit`s, without what does not travel on; ports, types and progress checked."""
        emits = []
        for output in self._iterable(outputs):
            if isinstance(output, Progress):
                self._check_fraction(output)
                if watch is not None:
                    watch(number, output)
            elif not isinstance(output, Refused | Row | Hint):
                emits.append(self._checked_emit(output if isinstance(output, Emit) else Emit(output)))
        return emits

    def _iterable(self, outputs: Any) -> Iterable[Any]:
        """What a method gave; one that yields nothing may well return None."""
        if outputs is not None and not isinstance(outputs, Iterable):
            raise AssertionError(f"{self.name} returns {type(outputs).__name__}; let it yield what it gives")
        return () if outputs is None else outputs

    def _check_fraction(self, progress: Progress) -> None:
        if not 0 <= progress.fraction <= 1:
            raise AssertionError(
                f"{self.name} reports a progress of {progress.fraction}, not within 0..1; divide by all there is to do"
            )

    def _checked_emit(self, emit: Emit) -> Emit:
        declared, given = self.ports.emits, type(emit.payload).__name__
        if emit.port not in declared:
            raise AssertionError(
                f"{self.name} emits on {emit.port!r}, which is none of its ports; its ports are "
                f"{listed(sorted(declared))}: declare it in `emits`, or name another with Emit(payload, port=…)"
            )
        if not isinstance(emit.payload, types_of(declared[emit.port])):
            raise AssertionError(
                f"{self.name} emits {given} on {emit.port!r}, which it declares otherwise; change one of the two"
            )
        return emit
