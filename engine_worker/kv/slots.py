"""Which sequence has which KV slot, what it begins with, and which idle slots are given up. Pure.

A *slot* is a KV sequence id. In one cache for all (`Slots`) it is only a name: any will do, and a
prefix is shared without a copy. With a KV stream each (`stream_slots.py`) its number matters. What
is decided becomes edits, in order, for the step that is being planned.
"""

from collections.abc import Iterator

from engine_worker.kv.edits import CellPosition, Copy, Holding, KvEdit, Remove
from engine_worker.kv.placeholders import Lingering
from engine_worker.kv.prefix_cache import MIN_MATCH, Match, PrefixCache
from engine_worker.text.sequence import Sequence


class Slots:
    """Invariants: a slot is free, idle in the prefix cache, or owned by exactly one sequence; no
    more than `max_idle` stay idle. It alone, and the scheduler, move a sequence's `slot` and
    `n_computed`.
    """

    def __init__(self, n_slots: int, *, max_idle: int, cache: PrefixCache) -> None:
        self.n_slots = n_slots
        self._max_idle = max_idle
        self._cache = cache
        self._free = set(range(n_slots))
        self._busy: dict[int, Sequence] = {}
        self._edits: list[KvEdit] = []
        self.lingering = Lingering()
        """In slots that no sequence has."""
        self.least_shared = MIN_MATCH
        """Tokens of a prefix that are worth a copy, and waiting for who computes them."""

    def take_edits(self) -> list[KvEdit]:
        """What has to be done since the last call, in this order."""
        edits, self._edits = self._edits, []
        return edits

    # sequences

    def give(self, sequence: Sequence) -> None:
        """A slot for a sequence without one, which then begins with the longest prefix known."""
        if not sequence.reuses_prefix and not self._busy:
            # cells lying about change the order in which attention sums, and so the last bit
            for slot in self._cache.idle_slots():
                self.give_up(slot)
        self._place(sequence, self.match(sequence))
        self.remember(sequence)

    def match(self, sequence: Sequence) -> Match | None:
        """The longest prefix of a sequence that any slot has."""
        if not sequence.reuses_prefix:
            return None
        return self._cache.match(sequence.spec.scope, sequence.tokens)

    def remember(self, sequence: Sequence) -> None:
        """What a running sequence has computed by now may be shared."""
        slot, n_computed = sequence.slot, sequence.n_computed
        if slot is None or not sequence.reuses_prefix:
            return
        n_held = self._cache.n_tokens(slot)
        if 0 < n_held <= n_computed:
            self._cache.extend(slot, sequence.tokens[n_held:n_computed])
        else:
            self._cache.hold(slot, sequence.spec.scope, sequence.tokens[:n_computed])

    def cut(self, sequence: Sequence) -> None:
        """Forget the cells behind what a sequence has computed: drafts that did not hold."""
        if sequence.slot is not None:
            self.cut_at(CellPosition(sequence.slot, sequence.n_computed))

    def cut_at(self, place: CellPosition) -> None:
        """Forget a slot's cells from a position on."""
        self._edits.append(Remove(place.slot, place.position))

    def end_of(self, slot: int) -> CellPosition:
        """Behind what is in a slot that no sequence has."""
        return CellPosition(slot, self._cache.n_tokens(slot))

    def take_back(self, sequence: Sequence, *, keep: bool) -> None:
        """The slot of a sequence that does not run any more; `keep` its cells if they are worth
        it, as an idle prefix."""
        if sequence.slot is None:
            return
        slot, sequence.slot = sequence.slot, None
        del self._busy[slot]
        if not keep or not self._cache.release(slot):
            self.give_up(slot)
        while len(self._cache.idle_slots()) > self._max_idle and self.give_up_idle():
            pass

    def settle(self) -> None:
        """Called once for each step, after all that starts in it has its slot."""

    # idle ones

    def give_up(self, slot: int) -> None:
        """Free a slot that no sequence has, its cells too."""
        self._cache.forget(slot)
        self._edits.append(Remove(slot, 0))
        self._free.add(slot)

    def give_up_idle(self) -> bool:
        """Give up the idle slot that is least worth keeping. False if none is idle."""
        slot = self._cache.least_recently_used()
        if slot is not None:
            self.give_up(slot)
        return slot is not None

    def holdings(self) -> list[Holding]:
        """See `kv_transfer.KvKeeper`."""
        running = [
            Holding(slot, seq.spec.scope, tuple(seq.tokens[: seq.n_computed]))
            for slot, seq in self._busy.items()
            if seq.reuses_prefix and seq.n_computed
        ]
        return running + self._cache.idle_holdings()

    def adopt(self, scope: str, tokens: tuple[int, ...]) -> int | None:
        """See `kv_transfer.KvKeeper`."""
        if not self._free:
            return None
        slot = max(self._free)
        self._cache.hold(slot, scope, tokens)
        if not self._cache.release(slot):  # too short to be worth it
            return None
        self._free.remove(slot)
        self.lingering.drop(slot)
        return slot

    def disown(self, slot: int) -> None:
        """See `kv_transfer.KvKeeper`."""
        self._cache.forget(slot)
        self._free.add(slot)

    @property
    def n_cells_used(self) -> int:
        """Cells in use at most: a prefix that sequences share counts for each of them."""
        return sum(seq.n_computed for seq in self._busy.values()) + self._cache.n_idle_tokens

    @property
    def idle_and_free(self) -> tuple[list[int], list[int]]:
        """Slots that no sequence has: the least recently used idle ones first; free ones."""
        return self._cache.idle_slots(), sorted(self._free)

    # what a layout decides

    def _place(self, sequence: Sequence, match: Match | None) -> None:
        """Choose a slot and begin it with the match."""
        if match is not None and self._continues(match):
            self._begin_in(match, sequence)
            return
        slot = self._lowest(match)
        if match is not None and slot == match.slot:
            self._begin_in(match, sequence)
        else:
            self._begin(slot, sequence, match)

    def _lowest(self, match: Match | None) -> int:
        """The lowest free slot, else the idle one that is worth least."""
        if self._free:
            return min(self._free)
        others = self._idle_but(match)
        if not others:
            return match.slot if match is not None else self._defect()
        self.give_up(others[0])
        return others[0]

    def _continues(self, match: Match) -> bool:
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
        self._free.remove(slot)
        if match is not None:
            self._edits.append(Copy(match.slot, slot, match.n_tokens))
        self._own(slot, sequence, 0 if match is None else match.n_tokens)

    def _own(self, slot: int, sequence: Sequence, n_computed: int) -> None:
        self._busy[slot] = sequence
        self.lingering.drop(slot)
        self._cache.acquire(slot)
        sequence.slot, sequence.n_computed = slot, n_computed

    def _defect(self) -> int:
        raise RuntimeError(f"more sequences than slots: {self.n_slots} have all an owner")


def gaps(slots: set[int]) -> Iterator[int]:
    """The numbers that are missing between the lowest and the highest."""
    if slots:
        yield from (slot for slot in range(min(slots), max(slots)) if slot not in slots)
