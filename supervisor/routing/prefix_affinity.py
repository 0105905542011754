"""The strategy `prefix_affinity`: conversations return to the worker that has them cached."""

from collections import OrderedDict
from collections.abc import Iterator

from gpufc.ids import Epoch
from supervisor.routing.least_outstanding import least_for
from supervisor.routing.loads import Load, Loads
from supervisor.routing.port import Arrival

MAX_PREFIXES = 65_536
"""Hashes that are remembered; the ones used the longest ago go first."""

MAX_HOLDERS = 4
"""Workers remembered for one hash, the latest. A system prompt that all share says nothing."""

GUARD_SHARE = 0.25
"""A worker may have so much more of its capacity in use than the least busy one has."""


class PrefixAffinity:
    """The worker that was sent the longest prefix of the prompt, unless it is much busier.

    The load guard: a worker that has more sequences than the least busy one, by `GUARD_SHARE` of
    its capacity and at least one, is passed over. Then the next shorter prefix counts; at last the
    least busy worker gets the sequence, and a copy of the prefix with it.

    What a worker has cached is not known here, only what it was sent: an engine may have dropped it
    meanwhile. That costs a prefill, as on any other worker. Entries of a worker that is gone are
    passed over, and go when newer ones push them out.
    """

    def __init__(self, max_prefixes: int = MAX_PREFIXES) -> None:
        self._max_prefixes = max_prefixes
        self._holders: OrderedDict[int, tuple[Epoch, ...]] = OrderedDict()

    def choose(self, arrival: Arrival, loads: Loads) -> Epoch | None:
        least = loads.least()
        if least is None:
            return None
        floor = loads[least].n_sequences
        passed_over: tuple[Epoch, ...] = ()
        for block in reversed(arrival.prefix):
            holders = self._holders.get(block)
            if holders is None or holders == passed_over:
                continue
            fit = [one for one in holders if one in loads and _within_guard(loads[one], floor)]
            if fit:
                return min(fit, key=lambda one: _rank(loads[one]))
            passed_over = holders
        return least_for(arrival, loads)

    def sent(self, arrival: Arrival, worker: Epoch) -> None:
        holders = self._holders
        for block in _landmarks(arrival.prefix):  # the first block is the last to be forgotten
            known = holders.get(block, ())
            if not known or known[0] != worker:
                others = tuple(one for one in known if one != worker)
                holders[block] = (worker, *others[: MAX_HOLDERS - 1])
            holders.move_to_end(block)
        while len(holders) > self._max_prefixes:
            holders.popitem(last=False)


def _landmarks(prefix: tuple[int, ...]) -> Iterator[int]:
    """The hashes to remember, the longest prefix first: the whole prompt, which the conversation's
    next turn begins with, and then each at most three quarters as long, for other branches."""
    n = len(prefix)
    while n:
        yield prefix[n - 1]
        n = 3 * n // 4


def _rank(load: Load) -> tuple[int, int, bool]:
    return load.n_sequences, load.n_prefill, load.is_far


def _within_guard(load: Load, floor: int) -> bool:
    return load.has_room and load.n_sequences - floor <= max(1, int(GUARD_SHARE * load.capacity))
