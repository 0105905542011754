"""Which hosts to start and to end: what is wanted against what Ray runs. Pure.

A host is a slot with a name. Nodes on which a host was lost get none for a while, for Ray may take
a dead node for a living one, and a node has one host at most.
"""

from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct

SHUN_S = 60.0
"""So long a node gets no host after one was lost there."""


class Start(Struct, frozen=True):
    """Have Ray run the slot's host, on none of these nodes."""

    slot: int
    avoid: frozenset[str]


class End(Struct, frozen=True):
    """Have the slot's host ended: it is not wanted any more."""

    slot: int


class Plan:
    """The slots and the shunned nodes. `now` is monotonic seconds.

    Invariant: a slot is in `_nodes` from `Start` until `lost` or `End`; its node is empty until it
    runs.
    """

    def __init__(self, found: Mapping[int, str]) -> None:
        """`found` are hosts that run already, with their nodes: those of a placer before."""
        self._nodes = dict(found)
        self._shunned: dict[str, float] = {}

    @property
    def nodes(self) -> Mapping[int, str]:
        """Each slot's node."""
        return self._nodes

    def placed(self, slot: int, node: str) -> None:
        """The slot's host runs on this node."""
        if slot in self._nodes:
            self._nodes[slot] = node

    def lost(self, slot: int, now: float) -> None:
        """The slot's host has ended, or its node is gone."""
        node = self._nodes.pop(slot, "")
        if node:
            self._shunned[node] = now + SHUN_S

    def shunned(self, now: float) -> frozenset[str]:
        """The nodes that get no host now."""
        self._shunned = {node: until for node, until in self._shunned.items() if until > now}
        return frozenset(self._shunned)

    def steps(self, n_hosts: int, now: float) -> Iterator[Start | End]:
        """What to do now. Slots beyond `n_hosts` end; missing ones start, one node each."""
        for slot in sorted(self._nodes, reverse=True):
            if slot >= n_hosts:
                del self._nodes[slot]
                yield End(slot)
        avoid = self.shunned(now) | frozenset(filter(None, self._nodes.values()))
        if "" in self._nodes.values():
            return  # one after the other: each one's node is avoided by the next
        for slot in range(n_hosts):
            if slot not in self._nodes:
                self._nodes[slot] = ""
                yield Start(slot, avoid)
                return


def listed(nodes: Iterable[str]) -> str:
    """Ray's label selector for none of these nodes."""
    return f"!in({','.join(sorted(nodes))})"
