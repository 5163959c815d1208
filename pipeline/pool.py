"""The replicas of a run: which there are, which are up, and how they come and go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

from framefold.pipeline.events import Died
from framefold.pipeline.executor import Executor
from framefold.pipeline.graph import Node
from framefold.pipeline.notices import Listener, ReplicaGone, ReplicaReady, ReplicaStarted
from framefold.pipeline.shape import Replica
from framefold.pipeline.worker import Blueprint

MAX_FAILED_STARTS = 3
"""Workers of one replica that may die in a row before one is ready."""


class Pool:
    """Starts and ends replicas on an executor, and tells of it."""

    def __init__(
        self,
        nodes: Mapping[str, Node],
        executor: Executor,
        tell: Listener,
        blueprint_of: Callable[[Node, int], Blueprint],
    ) -> None:
        self._nodes, self._executor, self._tell, self._blueprint_of = nodes, executor, tell, blueprint_of
        self.blueprints: dict[Replica, Blueprint] = {}
        """Of every replica there is, up or not."""
        self.up: set[Replica] = set()
        self._failed_starts: Counter[Replica] = Counter()

    def start(self, replicas: Sequence[Replica]) -> None:
        """Ask for replicas; each answers when it is up."""
        blueprints = {replica: self._blueprint_of(self._nodes[replica[0]], replica[1]) for replica in replicas}
        self.blueprints |= blueprints
        for replica in replicas:
            self._tell(ReplicaStarted(*replica))
        self._executor.start(blueprints)

    def restart(self, replica: Replica) -> None:
        """Replace a replica, dead or alive."""
        self.up.discard(replica)
        self._tell(ReplicaStarted(*replica))
        self._executor.restart(replica)

    def came_up(self, replica: Replica) -> None:
        """It has answered."""
        self.up.add(replica)
        self._failed_starts[replica] = 0
        self._tell(ReplicaReady(*replica))

    def died(self, replica: Replica, event: Died) -> None:
        """It is gone."""
        self.up.discard(replica)
        self._tell(ReplicaGone(*replica, event.cause, event.message))

    def start_again(self, replica: Replica) -> bool:
        """After it died while starting: once more, unless it did so too often; then False."""
        self._failed_starts[replica] += 1
        if self._failed_starts[replica] >= MAX_FAILED_STARTS:
            return False
        self.restart(replica)
        return True

    def let_go(self, replica: Replica) -> None:
        """It has made its last call."""
        self._executor.release(replica)
        self.up.discard(replica)
        del self.blueprints[replica]
        self._tell(ReplicaGone(*replica))

    def begin_anew(self, unfinished: Collection[Replica]) -> list[Replica]:
        """A new generation: whatever holds something starts anew. Returns the replicas that stay as they are."""
        stay = [one for one in self.blueprints if one in self.up and one not in unfinished and not self._holds(one[0])]
        self._executor.resume_work(stay)
        for replica in list(self.blueprints):
            waited_for = replica not in self.up and replica not in unfinished and self._executor.is_starting(replica)
            if replica not in stay and not waited_for:
                self.restart(replica)
        return stay

    def is_singular(self, name: str) -> bool:
        """Whether a replica of the node holds something that is lost with it."""
        node = self._nodes[name]
        uncommitted = node.is_sink and node.stage_class.commits == "end"
        return node.is_source or node.stage_class.stateful or uncommitted

    def nodes_down(self) -> list[str]:
        """Nodes that wait for a worker."""
        return sorted({replica[0] for replica in self.blueprints if replica not in self.up})

    def _holds(self, name: str) -> bool:
        return self.is_singular(name) or bool(self._nodes[name].sides)
