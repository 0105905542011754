"""The prefix cache: which slot holds which tokens, and which holding is given up first. Pure.

A *holding* is a slot with cells for a list of tokens. It is *busy* while a running sequence owns
the slot, and *idle* while only the cache does. Prefixes can be copied from both kinds. The cache
decides; `slots` turns its decisions into edits.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import count

from msgspec import Struct

from engine_worker.kv.edits import Holding
from engine_worker.kv.radix_tree import RadixTree, Tokens

MIN_MATCH = 16
"""The shortest prefix that is copied or stays idle. Computing a shorter one again costs less than a
copy."""

KeepsPrefix = Callable[[int, int], bool]
"""Whether a sequence can go on after a slot's first tokens: see `Backend.keeps_prefix`."""


class Match(Struct, frozen=True):
    """The longest cached prefix of some tokens: the first `n_tokens` cells of `slot`."""

    slot: int
    n_tokens: int


class _Holding(Struct):
    """`used` is a number that grows with each use of any holding."""

    scope: str
    used: int
    idle: bool = False


class PrefixCache:
    """All holdings by slot, with their tokens in one radix tree for each scope.

    A prefix matches within its own `scope` only: response times would otherwise reveal one client's
    prompts to another. Without `can_cut` (recurrent models) only whole idle holdings match.
    """

    def __init__(
        self,
        *,
        can_cut: bool,
        keeps_prefix: KeepsPrefix = lambda _slot, _n_tokens: True,
        least_in_place: int = MIN_MATCH,
    ) -> None:
        """A sequence goes on in the idle slot that it takes over, without a copy, if the two have
        at least `least_in_place` first tokens in common."""
        self._can_cut = can_cut
        self._keeps_prefix = keeps_prefix
        self._least_in_place = least_in_place
        self._holdings: dict[int, _Holding] = {}
        self._trees: dict[str, RadixTree] = {}
        self._uses = count()

    def match(
        self, scope: str, tokens: Tokens, cells_of: Callable[[int], int] = lambda slot: slot
    ) -> Match | None:
        """The holding with the longest usable prefix of `tokens`, which counts as a use of it.

        At least one token is left to compute. Of equally long prefixes an idle holding goes before
        a busy one, since it can be continued without a copy. Of idle ones the shortest goes first.
        `cells_of` names the slot in which the backend has a slot's cells: edits may be pending.
        """
        tree = self._trees.get(scope)
        best = None if tree is None else self._best(tree, tokens[:-1], cells_of)
        if best is None or best.n_tokens < MIN_MATCH:
            return None
        self._touch(best.slot)
        return best

    def match_in(
        self,
        slot: int,
        scope: str,
        tokens: Tokens,
        cells_of: Callable[[int], int] = lambda slot: slot,
    ) -> Match | None:
        """The same for the idle holding of `slot` alone, from `least_in_place` tokens on, without
        counting as a use."""
        if self._holdings[slot].scope != scope:
            return None
        shared = self._tree(slot).n_shared(slot, tokens[:-1])
        is_usable = self._can_cut or shared == self.n_tokens(slot)
        if shared < self._least_in_place or not is_usable:
            return None
        return Match(slot, shared) if self._keeps_prefix(cells_of(slot), shared) else None

    def keeps(self, slot: int, n_tokens: int) -> bool:
        """Whether a sequence can go on after the first tokens of the backend's cells in `slot`."""
        return self._keeps_prefix(slot, n_tokens)

    def parting(self, scope: str, tokens: Tokens) -> int | None:
        """Where `tokens` part from the holdings with the longest common prefix, usable or not; None
        if one of these ends there."""
        tree = self._trees.get(scope)
        longest = None if tree is None else next(iter(tree.prefixes(tokens)), None)
        if longest is None or any(self.n_tokens(slot) == longest[0] for slot in longest[1]):
            return None
        return longest[0]

    def goes_on(self, slot: int) -> bool:
        """Whether other holdings begin with the whole of this slot's, and are longer."""
        length = self.n_tokens(slot)
        return any(self.n_tokens(other) > length for other in self._tree(slot).beyond(slot))

    def refresh(self, scope: str, tokens: Tokens, lengths: Iterable[int]) -> bool:
        """Count a use of the idle holdings of exactly the first tokens, of one of these lengths.
        False if there are none."""
        tree, wanted = self._trees.get(scope), set(lengths)
        ends = [] if tree is None else list(tree.ends_along(tokens))
        found = [
            slot for n_tokens, slot in ends if n_tokens in wanted and self._holdings[slot].idle
        ]
        for slot in found:
            self._touch(slot)
        return bool(found)

    def surplus(self, match: Match) -> int | None:
        """The tokens that a matched idle holding has beyond the match; None if it is busy."""
        if not self._holdings[match.slot].idle:
            return None
        return self.n_tokens(match.slot) - match.n_tokens

    def hold(self, slot: int, scope: str, tokens: Tokens) -> None:
        """Record that a running sequence's slot has cells for exactly `tokens`."""
        self.forget(slot)
        if tokens:
            self._holdings[slot] = _Holding(scope, next(self._uses))
            self._trees.setdefault(scope, RadixTree()).insert(slot, tokens)

    def extend(self, slot: int, tokens: Tokens) -> None:
        """Record that a holding of a running sequence has cells for `tokens` too, at its end.

        The cost grows with the new tokens alone; that of `hold` grows with all of them.
        """
        self._tree(slot).extend(slot, tokens)
        self._touch(slot)

    def n_tokens(self, slot: int) -> int:
        """The number of tokens in a slot's holding; 0 without one."""
        return self._tree(slot).length(slot) if slot in self._holdings else 0

    def move(self, source: int, target: int) -> None:
        """Record that the cells of `source` are in `target` now, a slot without a holding."""
        self._tree(source).move(source, target)
        self._holdings[target] = self._holdings.pop(source)

    def acquire(self, slot: int) -> None:
        """Mark a slot's holding, if any, as busy: a running sequence continues in it."""
        if slot in self._holdings:
            self._holdings[slot].idle = False

    def release(self, slot: int) -> bool:
        """Mark a slot's holding as idle. False, and no holding, if it is too short to match."""
        if self.n_tokens(slot) < MIN_MATCH:
            self.forget(slot)
            return False
        self._holdings[slot].idle = True
        self._touch(slot)
        return True

    def forget(self, slot: int) -> None:
        """Drop a slot's holding, if any: its cells are gone or belong to another sequence."""
        if slot not in self._holdings:
            return
        tree, held = self._tree(slot), self._holdings.pop(slot)
        tree.remove(slot)
        if not len(tree):
            del self._trees[held.scope]

    def redundant(self, slot: int) -> bool:
        """Whether another holding would serve every match of this slot's holding.

        Two equal holdings are both redundant until one of them is forgotten.
        """
        others = self._tree(slot).beyond(slot)
        if self._can_cut:
            return bool(others)
        length = self.n_tokens(slot)
        return any(
            self._holdings[other].idle and self.n_tokens(other) == length for other in others
        )

    def least_recently_used(self) -> int | None:
        """The idle slot to give up first: a redundant one, else the one unused for longest.

        None if no slot is idle.
        """
        idle = [slot for slot, held in self._holdings.items() if held.idle]
        return min(
            idle, key=lambda slot: (not self.redundant(slot), self._used(slot)), default=None
        )

    @property
    def n_idle_tokens(self) -> int:
        """The tokens of all idle holdings. A prefix that two of them share counts twice."""
        return sum(self.n_tokens(slot) for slot, held in self._holdings.items() if held.idle)

    def idle_holdings(self) -> list[Holding]:
        """All idle holdings, the most recently used first."""
        return [
            Holding(slot, self._holdings[slot].scope, tuple(self._tree(slot).tokens(slot)))
            for slot in reversed(self.idle_slots())
        ]

    def idle_slots(self) -> list[int]:
        """All idle slots, the least recently used first."""
        return sorted((slot for slot, held in self._holdings.items() if held.idle), key=self._used)

    def _best(
        self, tree: RadixTree, tokens: Tokens, cells_of: Callable[[int], int]
    ) -> Match | None:
        prefixes = tree.prefixes(tokens) if self._can_cut else self._whole_idle(tree, tokens)
        for n_tokens, slots in prefixes:
            usable = [slot for slot in slots if self._keeps_prefix(cells_of(slot), n_tokens)]
            if usable:
                return self._preferred(usable, n_tokens)
        return None

    def _whole_idle(self, tree: RadixTree, tokens: Tokens) -> Iterator[tuple[int, list[int]]]:
        """Idle holdings of which `tokens` begin with the whole, the longest first."""
        idle: dict[int, list[int]] = {}
        for n_tokens, slot in tree.ends_along(tokens):
            if self._holdings[slot].idle:
                idle.setdefault(n_tokens, []).append(slot)
        yield from reversed(idle.items())

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
