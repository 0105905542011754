"""The placer's work: have as many hosts run as are wanted, and say what runs. In one thread."""

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from supervisor.placer.messages import HostRow, Placed
from supervisor.placer.plan import End, Plan, Start

logger = logging.getLogger(__name__)


class NotPlaced(Exception):
    """A host could not be started, or Ray cannot be reached. The text is for people."""


class Cluster(Protocol):
    """The part of Ray that is used (`ray_cluster.RayCluster`). Calls may take a while."""

    def start(
        self, slot: int, join: str, resources: Mapping[str, float], avoid: frozenset[str]
    ) -> str:
        """Have a host run on none of these nodes. Its node. Raises `NotPlaced`."""
        ...

    def end(self, slot: int) -> None:
        """End the slot's host, if there is one. Raises `NotPlaced`."""
        ...

    def nodes(self, resources: Mapping[str, float]) -> frozenset[str]:
        """The nodes that live and have these resources, in use or not. Empty if Ray does not
        tell."""
        ...

    def ended(self) -> Mapping[int, str]:
        """The slots whose host has ended since the last call, and why. Does not wait."""
        ...


class Placing:
    """`join` gets an invitation for one host; `tell` is told what runs, when that changes."""

    def __init__(
        self,
        cluster: Cluster,
        found: Mapping[int, str],
        join: Callable[[], str],
        tell: Callable[[Placed], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster = cluster
        self._plan = Plan(found)
        self._join = join
        self._tell = tell
        self._clock = clock
        self._told: Placed | None = None
        self._details: dict[int, str] = {}
        self._say("")

    def look(self, n_hosts: int, resources: Mapping[str, float]) -> None:
        """One round: note what has ended, start and end what is to be."""
        for slot, why in self._cluster.ended().items():
            logger.warning("host_ended slot=%d node=%s: %s", slot, self._plan.nodes.get(slot), why)
            self._details[slot] = why
            self._plan.lost(slot, self._clock())
        trouble = ""
        able = partial(self._cluster.nodes, resources)
        for step in self._plan.steps(n_hosts, self._clock(), able):
            try:
                self._do(step, resources)
            except NotPlaced as err:
                trouble = str(err)
                logger.warning("not_placed: %s", err)
                if isinstance(step, Start):
                    self._plan.lost(step.slot, self._clock())
        self._say(trouble)

    def _do(self, step: Start | End, resources: Mapping[str, float]) -> None:
        match step:
            case End(slot):
                self._cluster.end(slot)
            case Start(slot, avoid):
                node = self._cluster.start(slot, self._join(), resources, avoid)
                logger.info("host_placed slot=%d node=%s", slot, node)
                self._details.pop(slot, None)
                self._plan.placed(slot, node)

    def _say(self, trouble: str) -> None:
        rows = [
            HostRow(slot, node, self._details.get(slot, "")[:1000])
            for slot, node in sorted(self._plan.nodes.items())
        ]
        now = Placed(tuple(rows), trouble[:1000])
        if now != self._told:
            self._told = now
            self._tell(now)
