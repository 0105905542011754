"""Which hosts to start and to end: what is wanted against what Ray runs. Pure.

A host is a slot with a name, and a node has one host at most. A node on which a host was lost gets
none for a while, for Ray may take a dead node for a living one. A lost node that is the only choice
waits for a moment, and longer after each further loss.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet

from msgspec import Struct

SHUN_S = 60.0
"""So long a node gets no host after one was lost there, if another node could have it."""

LONE_S = 1.0
"""The same for a node that is the only choice, after its first loss. It doubles with each loss."""

FORGET_S = 600.0
"""A node without a loss for so long begins anew."""


class Start(Struct, frozen=True):
    """Have Ray run the slot's host, on none of these nodes."""

    slot: int
    avoid: frozenset[str]


class End(Struct, frozen=True):
    """Have the slot's host ended: it is not wanted any more."""

    slot: int


class _Lost(Struct, frozen=True):
    """A node's last loss of a host. It is the `n`-th one in a row."""

    at: float
    n: int

    @property
    def lone_until(self) -> float:
        return self.at + min(SHUN_S, LONE_S * 2.0 ** min(self.n - 1, 16))


class Plan:
    """The slots and the nodes that have lost hosts. `now` is monotonic seconds.

    Invariant: a slot is in `_nodes` from `Start` until `lost` or `End`; its node is empty until it
    runs.
    """

    def __init__(self, found: Mapping[int, str]) -> None:
        """`found` are hosts that run already, with their nodes: those of a placer before."""
        self._nodes = dict(found)
        self._lost: dict[str, _Lost] = {}

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
            before = self._lost.get(node)
            self._lost[node] = _Lost(now, 1 if before is None else before.n + 1)

    def shunned(self, now: float) -> frozenset[str]:
        """The nodes that get no host now, if others could."""
        self._lost = {node: one for node, one in self._lost.items() if one.at + FORGET_S > now}
        return frozenset(node for node, one in self._lost.items() if one.at + SHUN_S > now)

    def _lone(self, now: float) -> frozenset[str]:
        """Those of them that get none even if no other one could."""
        return frozenset(node for node, one in self._lost.items() if one.lone_until > now)

    def steps(
        self, n_hosts: int, now: float, able: Callable[[], AbstractSet[str]]
    ) -> Iterator[Start | End]:
        """What to do now. Slots beyond `n_hosts` end; missing ones start, one node each.

        `able` tells which nodes live and have what a host needs. It is asked only if that
        matters."""
        for slot in sorted(self._nodes, reverse=True):
            if slot >= n_hosts:
                del self._nodes[slot]
                yield End(slot)
        if "" in self._nodes.values():
            return  # one after the other: each one's node is avoided by the next
        missing = next((one for one in range(n_hosts) if one not in self._nodes), None)
        if missing is None:
            return
        avoid = self._avoided(now, able)
        if avoid is not None:
            self._nodes[missing] = ""
            yield Start(missing, avoid)

    def _avoided(self, now: float, able: Callable[[], AbstractSet[str]]) -> frozenset[str] | None:
        """The nodes that the next host is not started on; None: it waits."""
        taken, shunned = frozenset(filter(None, self._nodes.values())), self.shunned(now)
        if not shunned - taken:
            return taken
        others = able() - taken
        if others - shunned:
            return taken | shunned
        lone = self._lone(now)
        return None if lone and not others - lone else taken | lone


def listed(nodes: Iterable[str]) -> str:
    """Ray's label selector for none of these nodes."""
    return f"!in({','.join(sorted(nodes))})"
