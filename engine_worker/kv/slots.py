"""Which sequence has which KV slot and which prefix in it, and which idle slots go. Pure.

A *slot* is a KV sequence id. In one cache for all (`Slots`) it is only a name: any will do, and a
prefix is shared without a copy. With a KV stream each (`stream_slots`) its number matters.
Decisions become edits, in their order, for the step that is being planned.
"""

from collections.abc import Iterator

from engine_worker.kv.edits import CellPosition, Copy, Holding, KvEdit, Remove
from engine_worker.kv.prefix_cache import MIN_MATCH, Match, PrefixCache
from engine_worker.text.sequence import Sequence


class Slots:
    """Invariants: a slot is free, idle in the prefix cache, or owned by exactly one sequence; no
    more than `max_idle` stay idle. A sequence gets its slot here and loses it here.
    """

    def __init__(self, n_slots: int, *, max_idle: int, cache: PrefixCache) -> None:
        self.n_slots = n_slots
        # tokens of a prefix that are worth a copy, and worth waiting until another has computed it
        self.least_shared = MIN_MATCH
        self._max_idle = max_idle
        self._cache = cache
        self._free = set(range(n_slots))
        self._busy: dict[int, Sequence] = {}
        self._edits: list[KvEdit] = []

    def take_edits(self) -> list[KvEdit]:
        """All edits since the last call. The caller applies them in this order, in any case."""
        edits, self._edits = self._edits, []
        return edits

    # sequences

    def give(self, sequence: Sequence) -> None:
        """Give a slot to a sequence without one; it begins with the longest known prefix."""
        if not sequence.reuses_prefix and not self._busy:
            # idle cells change the order in which attention sums, and so the last bit
            for slot in self._cache.idle_slots():
                self.give_up(slot)
        self._place(sequence, self.match(sequence))
        self.remember(sequence)

    def match(self, sequence: Sequence) -> Match | None:
        """The longest prefix of a sequence that any slot has."""
        if not sequence.reuses_prefix:
            return None
        return self._cache.match(sequence.spec.scope, sequence.tokens, self._cells_of)

    def remember(self, sequence: Sequence) -> None:
        """Publish the cells that a running sequence has computed to the prefix cache."""
        slot, n_computed = sequence.slot, sequence.n_computed
        if slot is None or not sequence.reuses_prefix:
            return
        n_held = self._cache.n_tokens(slot)
        if 0 < n_held <= n_computed:
            self._cache.extend(slot, sequence.tokens[n_held:n_computed])
        else:
            self._cache.hold(slot, sequence.spec.scope, sequence.tokens[:n_computed])

    def cut(self, sequence: Sequence) -> None:
        """Forget the cells beyond a sequence's computed tokens: drafts that did not hold."""
        if sequence.slot is not None:
            self.cut_at(CellPosition(sequence.slot, sequence.n_computed))

    def step_back(self, sequence: Sequence, n_tokens: int) -> bool:
        """Forget the last cells of a running sequence, whose tokens are to be computed again.

        False, and nothing is forgotten, where it could not go on from there."""
        slot, n_left = sequence.slot, sequence.n_computed - n_tokens
        if slot is None or (n_left and not self._cache.keeps(self._cells_of(slot), n_left)):
            return False
        sequence.step_back(n_tokens)
        self.cut(sequence)
        self.remember(sequence)
        return True

    def cut_at(self, cell: CellPosition) -> None:
        """Forget a slot's cells from this one on."""
        self._edits.append(Remove(cell.slot, cell.position))

    def take_back(self, sequence: Sequence, *, keep: bool) -> None:
        """Take the slot of a sequence that runs no more. With `keep`, its cells stay as an idle
        prefix if they are long enough."""
        if sequence.slot is None:
            return
        slot = sequence.slot
        sequence.leave()
        del self._busy[slot]
        if not keep or not self._cache.release(slot):
            self.give_up(slot)
        while len(self._cache.idle_slots()) > self._max_idle and self._give_up_idle():
            pass

    def settle(self) -> None:
        """Called once for each plan, when all sequences that start in it have their slots."""

    def keeps_row(self, n_running: int) -> bool:
        """Whether one of `n_running` sequences that ends in this step leaves its row in the next
        one: its last token in its place."""
        return False

    # slots that no sequence owns

    def give_up(self, slot: int) -> None:
        """Free a slot that no sequence owns, and its cells."""
        self._cache.forget(slot)
        self._edits.append(Remove(slot, 0))
        self._free.add(slot)

    def give_up_something(self) -> bool:
        """Give up cells that no sequence owns, the least worth first. False if there are none."""
        return self._give_up_idle()

    def holdings(self) -> list[Holding]:
        """See `transfer.KvKeeper`."""
        running = [
            Holding(slot, seq.spec.scope, tuple(seq.tokens[: seq.n_computed]))
            for slot, seq in self._busy.items()
            if seq.reuses_prefix and seq.n_computed
        ]
        return running + self._cache.idle_holdings()

    def adopt(self, scope: str, tokens: tuple[int, ...]) -> int | None:
        """See `transfer.KvKeeper`."""
        if not self._free:
            return None
        slot = max(self._free)
        self._cache.hold(slot, scope, tokens)
        if not self._cache.release(slot):  # too short to be worth it
            return None
        self._take_free(slot)
        return slot

    def disown(self, slot: int) -> None:
        """See `transfer.KvKeeper`."""
        self._cache.forget(slot)
        self._free.add(slot)

    @property
    def n_cells_used(self) -> int:
        """Cells in use at most: a prefix that sequences share counts for each of them."""
        return sum(seq.n_computed for seq in self._busy.values()) + self._cache.n_idle_tokens

    def _give_up_idle(self) -> bool:
        slot = self._cache.least_recently_used()
        if slot is not None:
            self.give_up(slot)
        return slot is not None

    def _cells_of(self, slot: int) -> int:
        """The slot in which the backend has a slot's cells until the edits are applied."""
        for edit in reversed(self._edits):
            if isinstance(edit, Copy) and edit.target == slot:
                slot = edit.source
        return slot

    # decided by the layout

    def _place(self, sequence: Sequence, match: Match | None) -> None:
        """Choose a slot and begin it with the match."""
        if match is not None and self._continues(match, sequence):
            self._begin_in(match, sequence)
            return
        slot = self._lowest(match)
        found = match if match is not None else self._kept(slot, sequence)
        if found is not None and slot == found.slot:
            self._begin_in(found, sequence)
            return
        if slot not in self._free:
            self.give_up(slot)
        self._begin(slot, sequence, match)

    def _lowest(self, match: Match | None) -> int:
        """The lowest free slot, else the idle one that is worth least."""
        if self._free:
            return min(self._free)
        others = self._idle_but(match)
        if not others:
            return match.slot if match is not None else self._defect()
        return others[0]

    def _kept(self, slot: int, sequence: Sequence) -> Match | None:
        """The beginning of a slot's idle prefix that a sequence keeps if it takes the slot over."""
        if slot in self._free or not sequence.reuses_prefix:
            return None
        return self._cache.match_in(slot, sequence.spec.scope, sequence.tokens, self._cells_of)

    def _continues(self, match: Match, sequence: Sequence) -> bool:
        """Whether the slot is idle and holds the sequence's beginning and nothing else, such as
        the turns of a conversation before this one; the last token is computed again."""
        surplus = self._cache.surplus(match)
        return surplus is not None and surplus <= 1

    def _idle_but(self, match: Match | None) -> list[int]:
        kept = None if match is None else match.slot
        return [slot for slot in self._cache.idle_slots() if slot != kept]

    def _begin_in(self, match: Match, sequence: Sequence) -> None:
        """Go on in the idle slot of the match: no copy, and no second set of cells."""
        if self._cache.surplus(match):
            self._edits.append(Remove(match.slot, match.n_tokens))
        self._own(match.slot, sequence, match.n_tokens)

    def _begin(self, slot: int, sequence: Sequence, match: Match | None) -> None:
        """Begin in a free slot, with a copy of the match."""
        self._take_free(slot)
        if match is not None:
            self._edits.append(Copy(match.slot, slot, match.n_tokens))
        self._own(slot, sequence, 0 if match is None else match.n_tokens)

    def _take_free(self, slot: int) -> None:
        """A free slot gets cells."""
        self._free.remove(slot)

    def _own(self, slot: int, sequence: Sequence, n_computed: int) -> None:
        self._busy[slot] = sequence
        self._cache.acquire(slot)
        sequence.begin_in(slot, n_computed)

    def _defect(self) -> int:
        raise RuntimeError(f"more sequences than slots: {self.n_slots} have all an owner")


def gaps(slots: set[int]) -> Iterator[int]:
    """The numbers that are missing between the lowest and the highest."""
    if slots:
        yield from (slot for slot in range(min(slots), max(slots)) if slot not in slots)
