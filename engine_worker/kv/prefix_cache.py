"""Which KV sequences hold which tokens, for whom, and which of them may be given up.

Pure bookkeeping behind a small interface: it decides, the scheduler turns decisions into KV
edits. A *holding* is a KV sequence ("slot") with the tokens whose cells it has. It is *busy*
while a running sequence owns it and *idle* when only the cache does; both can be copied from.
"""

from collections.abc import Iterable
from itertools import count

from msgspec import Struct

from engine_worker.kv.edits import Holding
from engine_worker.kv.radix_tree import RadixTree, Tokens, n_common

MIN_MATCH = 16
"""Shorter prefixes are computed again: a copy, and a batch broken at another place, cost more."""


class Match(Struct, frozen=True):
    """The longest known prefix: `n_tokens` cells of `slot`."""

    slot: int
    n_tokens: int


class _Holding(Struct):
    """`used` counts up over all holdings: the smaller, the longer ago."""

    scope: str
    used: int
    idle: bool = False


class PrefixCache:
    """Holdings by slot; their tokens lie in one radix tree for each scope.

    `can_cut` false (recurrent models): a holding matches only as a whole. Prefixes are found
    within one `scope` only, since timing would tell one key's holder what another one asked.
    """

    def __init__(self, *, can_cut: bool) -> None:
        self._can_cut = can_cut
        self._holdings: dict[int, _Holding] = {}
        self._trees: dict[str, RadixTree] = {}
        self._uses = count()

    def match(self, scope: str, tokens: Tokens) -> Match | None:
        """The best holding to start `tokens` from; at least one token is left to compute.

        Of equally long prefixes the one of the idle holding that has least beyond it, which may
        be continued instead of copied; of a busy one if there is no other.
        """
        tree = self._trees.get(scope)
        best = None if tree is None else self._best(tree, tokens[:-1])
        if best is None or best.n_tokens < MIN_MATCH:
            return None
        self._touch(best.slot)
        return best

    def match_in(self, slot: int, scope: str, tokens: Tokens) -> Match | None:
        """The same in this slot alone, whose holding is not used by that."""
        if self._holdings[slot].scope != scope:
            return None
        shared = n_common(self._tree(slot).tokens(slot).tolist(), list(tokens[:-1]))
        return Match(slot, shared) if shared >= MIN_MATCH else None

    def surplus(self, match: Match) -> int | None:
        """How many tokens a matched idle holding has beyond the match; None for a busy one."""
        if not self._holdings[match.slot].idle:
            return None
        return self.n_tokens(match.slot) - match.n_tokens

    def hold(self, slot: int, scope: str, tokens: Tokens) -> None:
        """A running sequence's slot now has cells for exactly `tokens`."""
        self.forget(slot)
        if tokens:
            self._holdings[slot] = _Holding(scope, next(self._uses))
            self._trees.setdefault(scope, RadixTree()).insert(slot, tokens)

    def extend(self, slot: int, tokens: Tokens) -> None:
        """A held slot of a running sequence now has cells for these `tokens` too.

        What `hold` with all of them would do, at the cost of the new ones.
        """
        self._tree(slot).extend(slot, tokens)
        self._touch(slot)

    def n_tokens(self, slot: int) -> int:
        """How many tokens the holding of a slot has; 0 without one."""
        return self._tree(slot).length(slot) if slot in self._holdings else 0

    def move(self, source: int, target: int) -> None:
        """The cells of slot `source` are now in `target`, which must not have a holding."""
        self._tree(source).move(source, target)
        self._holdings[target] = self._holdings.pop(source)

    def acquire(self, slot: int) -> None:
        """A running sequence goes on in a slot, whose holding, if there is one, is busy now."""
        if slot in self._holdings:
            self._holdings[slot].idle = False

    def release(self, slot: int) -> bool:
        """The running sequence of a slot has ended. True if its cells are worth keeping."""
        if self.n_tokens(slot) < MIN_MATCH:
            self.forget(slot)
            return False
        self._holdings[slot].idle = True
        self._touch(slot)
        return True

    def forget(self, slot: int) -> None:
        """The slot's cells are gone, or now belong to another sequence."""
        if slot not in self._holdings:
            return
        tree, held = self._tree(slot), self._holdings.pop(slot)
        tree.remove(slot)
        if not len(tree):
            del self._trees[held.scope]

    def redundant(self, slot: int) -> bool:
        """Whether another holding would serve every match that this one does.

        Of two equal ones, both are until one is forgotten: ask again before the next goes.
        """
        others = self._tree(slot).beyond(slot)
        if self._can_cut:
            return bool(others)
        length = self.n_tokens(slot)
        return any(
            self._holdings[other].idle and self.n_tokens(other) == length for other in others
        )

    def least_recently_used(self) -> int | None:
        """The idle slot to give up first, or None when none is idle: redundant ones before the
        others, and of either the one whose last use is longest ago."""
        idle = [slot for slot, held in self._holdings.items() if held.idle]
        return min(
            idle, key=lambda slot: (not self.redundant(slot), self._used(slot)), default=None
        )

    @property
    def n_idle_tokens(self) -> int:
        """Tokens in idle holdings, a prefix that two of them share counted twice."""
        return sum(self.n_tokens(slot) for slot, held in self._holdings.items() if held.idle)

    def idle_holdings(self) -> list[Holding]:
        """All idle holdings, the latest used first."""
        return [
            Holding(slot, self._holdings[slot].scope, tuple(self._tree(slot).tokens(slot)))
            for slot in reversed(self.idle_slots())
        ]

    def idle_slots(self) -> list[int]:
        """All idle slots, the least recently used first."""
        return sorted((slot for slot, held in self._holdings.items() if held.idle), key=self._used)

    def _best(self, tree: RadixTree, tokens: Tokens) -> Match | None:
        if self._can_cut:
            n_tokens, slots = tree.longest(tokens)
            return self._preferred(slots, n_tokens)
        ends = [end for end in tree.ends_along(tokens) if self._holdings[end[1]].idle]
        if not ends:
            return None
        longest = ends[-1][0]
        return self._preferred((slot for n_tokens, slot in ends if n_tokens == longest), longest)

    def _preferred(self, slots: Iterable[int], n_tokens: int) -> Match | None:
        def rank(slot: int) -> tuple[bool, int, int]:
            idle = self._holdings[slot].idle
            return not idle, self.n_tokens(slot) if idle else 0, self._used(slot)

        slot = min(slots, key=rank, default=None)
        return None if slot is None else Match(slot, n_tokens)

    def _tree(self, slot: int) -> RadixTree:
        return self._trees[self._holdings[slot].scope]

    def _used(self, slot: int) -> int:
        return self._holdings[slot].used

    def _touch(self, slot: int) -> None:
        self._holdings[slot].used = next(self._uses)
