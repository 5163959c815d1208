"""What a stage is: passive code with typed ports. Actors, queues, threads and retries are the engine's.

A replica's life: `__init__(config)`, then `setup(context)` once on its worker, then `receive(name, payload)` for
each side input, then `process(item)` for each item (or `produce()` once, for a source), then `finish()` once when
no more items will come, then `close()`. `close` is called whatever happened before, even if `setup` raised. The
same item may be processed again after a failure, so `process` must be safe to repeat. A stateful stage or a source
that is lost is made anew and sees everything from the start.

Three ways to fail: `Transient` (from `framefold.pipeline.errors`; also `ConnectionError` and `TimeoutError`) is tried
again after a while; any other exception sets the item aside at once, for the same code on the same item fails again;
a worker that dies is replaced and its item tried again.

`process`, `produce` and `finish` are generators: they yield payloads (or `Emit`s, to name a port or an
identity), `Progress` while something takes long, `Refused` for an input that has to be set aside, and `Row`
and `Hint` for what the user reads at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Literal

from pydantic import BaseModel

from framefold.pipeline.item import Item

PortType = type | UnionType
"""A payload class, or a union of them."""


class Options(BaseModel, frozen=True, extra="forbid"):
    """Base of every stage's `Config`: frozen, and unknown options are refused."""


@dataclass(frozen=True)
class Ports:
    """What a configured stage takes and gives."""

    accepts: PortType | None = None
    """None for a source."""
    emits: Mapping[str, PortType] = field(default_factory=dict)
    """Port name to type; the port that needs no name in YAML is called `out`; empty for a sink."""
    joins: Mapping[str, PortType] = field(default_factory=dict)
    """Instead of `accepts`: named inputs that are joined by item; the payload is `{name: payload}`."""
    sides: Mapping[str, PortType] = field(default_factory=dict)
    """Side inputs: each replica gets one payload of each before its first item."""

    @property
    def is_source(self) -> bool:
        """Takes nothing."""
        return self.accepts is None and not self.joins


@dataclass(frozen=True)
class StageContext:
    """Where a replica finds itself."""

    node: str
    replica: int = 0
    cpus: float = 1
    """Cores granted; torch is pinned to as many threads, rounded down, at least one."""
    gpus: float = 0
    seed: int = 0
    run_dir: Path = Path("out")
    """For anything a stage wants to leave beside the report."""


@dataclass(frozen=True)
class Emit:
    """One output, where a bare payload does not say enough."""

    payload: Any
    identity: str | None = None
    """Names the content, the same in every run; by default the parent item's key and the output's number."""
    label: str | None = None
    """For people; by default the payload's own label, or the parent's."""
    port: str = "out"


@dataclass(frozen=True)
class Progress:
    """How far the work on the current item is."""

    fraction: float
    """0..1."""
    values: Mapping[str, float] = field(default_factory=dict)
    """Shown beside the bar: `{"psnr_db": 28.1, "bits": 512000}`."""
    state: Callable[[], Any] | None = None
    """Gives what is needed to go on from here; called when a checkpoint is due. See `Item.checkpoint`."""


@dataclass(frozen=True)
class Refused:
    """An input that is set aside by name while the others go on."""

    label: str
    reason: str


@dataclass(frozen=True)
class Row:
    """One line of the run's result table."""

    label: str
    values: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)
    """Column name (with its unit) to value."""


@dataclass(frozen=True)
class Hint:
    """A command worth typing next."""

    command: str


Output = Any
"""What a stage may yield: a payload, or `Emit`, `Progress`, `Refused`, `Row`, `Hint`."""


class Stage:
    """Base class of all stages; the first line of the docstring is shown by `pipeline plugins`."""

    Config: ClassVar[type[Options]] = Options
    accepts: ClassVar[PortType | None] = None
    emits: ClassVar[Mapping[str, PortType]] = {}
    joins: ClassVar[Mapping[str, PortType]] = {}
    sides: ClassVar[Mapping[str, PortType]] = {}
    locators: ClassVar[frozenset[str]] = frozenset()
    """Options that say where content lies, not what it is: they do not enter unit keys."""
    shared: ClassVar[frozenset[str]] = frozenset()
    """Options that may also stand once at the top of a pipeline file, for every stage that shares them."""
    stateful: ClassVar[bool] = False
    """True: one replica only, and it sees the items in source order."""
    durable: ClassVar[bool] = False
    """True: outputs are dear, so they are kept in the run folder and a later run takes them from there."""
    commits: ClassVar[Literal["item", "end"]] = "end"
    """Of a sink. `item`: what `process` took is on disk when it returns, and no later run brings it again. `end`: only
    when `finish` has returned; if a replica is lost before, everything comes again."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @classmethod
    def ports(cls, config: Any) -> Ports:
        """The ports under this configuration; override where options change them."""
        return Ports(accepts=cls.accepts, emits=cls.emits, joins=cls.joins, sides=cls.sides)

    @classmethod
    def specialized(cls, config: Any) -> type[Stage]:
        """The class that does the work under this configuration, with the same `Config`.

        Override it where an option changes what `stateful` or `commits` say.
        """
        return cls

    @classmethod
    def preflight(cls, config: Any) -> Sequence[tuple[str, str]]:
        """Mistakes that only a look at the machine shows, as (option, message): a file that is missing."""
        return ()

    def setup(self, context: StageContext) -> None:
        """Load what is expensive, once per replica."""

    def receive(self, name: str, payload: Any) -> None:
        """Take the one payload of side input `name`; after `setup` and before the first item."""
        raise NotImplementedError(f"{type(self).__name__} does not take side inputs")

    def produce(self) -> Iterator[Output]:
        """Sources only: yield every payload."""
        raise NotImplementedError(f"{type(self).__name__} is not a source")

    def process(self, item: Item) -> Iterator[Output]:
        """Turn one item into none, one or many."""
        raise NotImplementedError(f"{type(self).__name__} does not take items")

    def process_batch(self, items: Sequence[Item]) -> Iterator[tuple[Item, Output]]:
        """Under `batch:`: turn several items into outputs, each with the item that it belongs to."""
        for item in items:
            for output in self.process(item):
                yield item, output

    def packed(self, payload: Any) -> Any:
        """What of an output is worth keeping on disk; what the input holds too can be left out."""
        return payload

    def restored(self, item: Item, kept: Any) -> Any:
        """The output again, from what `packed` gave and the input that it was made of."""
        return kept

    def finish(self) -> Iterator[Output]:
        """Hand out what was held back; nothing comes after."""
        return iter(())

    def close(self) -> None:
        """Let go of files and devices; must not raise, and may find `setup` half done."""


def types_of(port: PortType) -> tuple[type, ...]:
    """The classes of a port, one or several."""
    return port.__args__ if isinstance(port, UnionType) else (port,)
