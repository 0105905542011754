"""Which KV sequences hold which tokens, for whom, and which of them may be given up.

Pure bookkeeping behind a small interface: it decides, the scheduler turns decisions into KV
edits. A *holding* is a KV sequence ("slot") with the tokens whose cells it has. It is *busy*
while a running sequence owns it and *idle* when only the cache does; both can be copied from.
"""

from collections import OrderedDict
from collections.abc import Sequence as Tokens

from msgspec import Struct

from engine_worker.kv_transfer import Holding

MIN_MATCH = 16
"""Shorter prefixes are computed again: a copy, and a batch broken at another place, cost more."""


class Match(Struct, frozen=True):
    """The longest known prefix: `n_tokens` cells of `slot`."""

    slot: int
    n_tokens: int


class _Holding(Struct):
    scope: str
    tokens: list[int]
    idle: bool


class PrefixCache:
    """Holdings by slot, the least recently used first.

    `can_cut` false (recurrent models): a holding matches only as a whole. Prefixes are found
    within one `scope` only, since timing would tell one key's holder what another one asked.
    """

    def __init__(self, *, can_cut: bool) -> None:
        self._can_cut = can_cut
        self._holdings: OrderedDict[int, _Holding] = OrderedDict()

    def match(self, scope: str, tokens: Tokens[int]) -> Match | None:
        """The best holding to start `tokens` from; at least one token is left to compute."""
        best: Match | None = None
        for slot, holding in self._holdings.items():
            if holding.scope != scope:
                continue
            n_tokens = common_prefix(holding.tokens, tokens)
            n_tokens = min(n_tokens, len(tokens) - 1)
            whole = holding.idle and n_tokens == len(holding.tokens)
            if not self._can_cut and not whole:
                continue
            if n_tokens >= MIN_MATCH and (best is None or n_tokens > best.n_tokens):
                best = Match(slot, n_tokens)
        if best is not None:
            self._holdings.move_to_end(best.slot)
        return best

    def surplus(self, match: Match) -> int | None:
        """How many tokens a matched idle holding has beyond the match; None for a busy one."""
        holding = self._holdings[match.slot]
        return len(holding.tokens) - match.n_tokens if holding.idle else None

    def hold(self, slot: int, scope: str, tokens: Tokens[int]) -> None:
        """A running sequence's slot now has cells for exactly `tokens`."""
        self._holdings[slot] = _Holding(scope, list(tokens), idle=False)
        self._holdings.move_to_end(slot)

    def release(self, slot: int) -> bool:
        """The running sequence of a slot has ended. True if its cells are worth keeping."""
        holding = self._holdings.get(slot)
        if holding is None or len(holding.tokens) < MIN_MATCH:
            self._holdings.pop(slot, None)
            return False
        holding.idle = True
        self._holdings.move_to_end(slot)
        return True

    def move(self, source: int, target: int) -> None:
        """What slot `source` held is now in `target`, which held nothing."""
        holding = self._holdings.pop(source, None)
        if holding is not None:
            self._holdings[target] = holding

    def n_tokens(self, slot: int) -> int:
        """How many tokens a slot holds."""
        holding = self._holdings.get(slot)
        return 0 if holding is None else len(holding.tokens)

    def forget(self, slot: int) -> None:
        """The slot's cells are gone, or now belong to another sequence."""
        self._holdings.pop(slot, None)

    def least_recently_used(self) -> int | None:
        """The idle slot to give up first, or None when none is idle."""
        return next((slot for slot, held in self._holdings.items() if held.idle), None)

    @property
    def n_idle_tokens(self) -> int:
        """Tokens in idle holdings, a prefix that two of them share counted twice."""
        return sum(len(held.tokens) for held in self._holdings.values() if held.idle)

    def idle_holdings(self) -> list[Holding]:
        """All idle holdings, the latest used first."""
        return [
            Holding(slot, held.scope, tuple(held.tokens))
            for slot, held in reversed(self._holdings.items())
            if held.idle
        ]

    def idle_slots(self) -> list[int]:
        """All idle slots, the least recently used first."""
        return [slot for slot, held in self._holdings.items() if held.idle]


def common_prefix(left: list[int], right: Tokens[int]) -> int:
    """Length of the common prefix, by bisection over slice comparisons, which run in C."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == list(right[low:middle]):
            low = middle
        else:
            high = middle - 1
    return low
