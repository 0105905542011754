"""Placeholder rows. The slot of a finished sequence keeps being decoded, so that the shape of the
last pass, and with it the captured CUDA graph, stays the same.

For a device with all layers and a KV stream for each sequence. A gap that a sequence leaves between
running ones would also make two passes of one. Most slots are taken again soon. Until then one
token is computed over and over in the slot, and its cell is forgotten each time. Pure.
"""

import collections.abc
from typing import Self

from msgspec import Struct, structs

from engine_worker.backend.profile import Profile
from engine_worker.kv.edits import CellPosition, KvEdit
from engine_worker.kv.prefix_cache import PrefixCache
from engine_worker.kv.slots import Slots
from engine_worker.kv.stream_slots import StreamSlots
from engine_worker.scheduling.plan import Chunk, Decoding, Plan
from engine_worker.scheduling.step_shape import MakeSlots, Mixed
from engine_worker.text.sequence import Sequence
from engine_worker.tuning import H100, DeviceTuning
from gpufc.protocol import Started


class PlaceholderSlots(StreamSlots):
    """Stream slots, some of which no sequence owns and a placeholder row holds.

    Invariant: a held slot is free or idle; a sequence or a prefix that takes it ends the hold. All
    holds end at once when their rows have become too many, since each alone would be a change of
    shape, and with the last running sequence. `tuning.placeholders` has the running sequences from
    which on a row more costs no time, and the rows that take as long as one change of shape.
    """

    def __init__(
        self,
        n_slots: int,
        *,
        max_idle: int,
        cache: PrefixCache,
        least_copied: int = 0,
        tuning: DeviceTuning = H100,
    ) -> None:
        super().__init__(n_slots, max_idle=max_idle, cache=cache, least_copied=least_copied)
        self._pays = tuning.placeholders
        self._held: dict[int, list[int]] = {}  # by slot, the tokens of the sequence that had it
        self._n_rows = 0  # computed since the first of these holds began

    @property
    def held(self) -> collections.abc.Set[int]:
        """The slots that placeholder rows hold."""
        return self._held.keys()

    def placeholders(self, n_ready: int) -> list["Placeholder"]:
        """A row for every held slot, beside `n_ready` sequences; ends all holds where rows do not
        pay any more."""
        n_rows = self._n_rows + len(self._held)
        if n_ready < self._pays.least_rows or n_rows > self._pays.most_rows:
            self._end_holds()
        return [self._placeholder(slot, tokens) for slot, tokens in self._held.items()]

    @property
    def are_last(self) -> bool:
        """Whether the rows of the next step, behind those of one that is not computed yet, are too
        many."""
        return self._n_rows + 2 * len(self._held) > self._pays.most_rows

    def keeps_row(self, n_running: int) -> bool:
        n_rows = self._n_rows + 2 * len(self._held) + 1
        return self._pays.least_rows < n_running and n_rows <= self._pays.most_rows

    def computed(self, row: "Placeholder") -> None:
        """A step has computed a row: its cell is to be forgotten."""
        self._n_rows += 1
        self.cut_at(CellPosition(row.slot, row.position))

    def take_back(self, sequence: Sequence, *, keep: bool) -> None:
        """A sequence that has ended while it decoded leaves a placeholder row."""
        slot = sequence.slot
        super().take_back(sequence, keep=keep)
        if not keep or slot is None:
            return
        if not self._busy:
            self._end_holds()
        elif sequence.n_pending <= 1:
            self._held[slot] = sequence.tokens

    def give_up_something(self) -> bool:
        """Placeholder rows go before idle prefixes."""
        if self._held:
            self._end_holds()
            return True
        return super().give_up_something()

    def _placeholder(self, slot: int, tokens: list[int]) -> "Placeholder":
        position = self._cache.n_tokens(slot)
        # an end token is not among the sequence's own: the token before it is as good
        return Placeholder(self, slot, position, tokens[min(position, len(tokens) - 1)])

    def _end_holds(self) -> None:
        self._held.clear()
        self._n_rows = 0

    def _end_hold(self, slot: int) -> None:
        self._held.pop(slot, None)
        if not self._held:
            self._n_rows = 0

    # decided by the layout

    def _take_free(self, slot: int) -> None:
        self._end_hold(slot)
        super()._take_free(slot)

    def _own(self, slot: int, sequence: Sequence, n_computed: int) -> None:
        self._end_hold(slot)
        super()._own(slot, sequence, n_computed)

    def _in_use(self) -> set[int]:
        return super()._in_use() | self._held.keys()

    def _is_in_place(self, slot: int, candidates: list[int]) -> bool:
        return slot in self._held or super()._is_in_place(slot, candidates)

    def _candidates(self) -> list[int]:
        """Gaps without a row come first, since they cost a pass; of the ends those with a row."""
        found = super()._candidates()
        if not self._busy:
            return found
        is_gap = min(self._busy) < found[0] < max(self._busy)
        return [slot for slot in found if (slot in self._held) is not is_gap] or found


class Placeholder(Struct, frozen=True):
    """One token that is computed for the shape of the pass. No token is chosen from its row."""

    owner: PlaceholderSlots
    slot: int
    position: int
    token: int

    @property
    def n_tokens(self) -> int:
        return 1

    n_rows = n_tokens

    @property
    def next_position(self) -> int | None:
        return None if self.owner.are_last else self.position

    def tokens(self) -> list[int]:
        return [self.token]

    def commit(self, slots: Slots) -> int:
        self.owner.computed(self)
        return 0


class PlaceholderRows(Mixed):
    """The last pass has a row for every slot that is held, as long as it has no drafts."""

    def __init__(self, slots: PlaceholderSlots) -> None:
        self._slots = slots

    @classmethod
    def with_slots(
        cls, profile: Profile, cache: PrefixCache, _usual: MakeSlots
    ) -> tuple[Slots, Self]:
        slots = PlaceholderSlots(
            profile.n_slots,
            max_idle=profile.n_slots,
            cache=cache,
            least_copied=profile.least_copied,
            tuning=profile.tuning,
        )
        return slots, cls(slots)

    def room(self, batch_tokens: int, decoding: Decoding) -> int:
        room = super().room(batch_tokens, decoding)
        return room - len(self._slots.held) if _may_have_more(decoding) else room

    def plan(
        self,
        edits: list[KvEdit],
        decoding: Decoding,
        chunks: list[Chunk],
        started: list[Started],
        n_prompts: int,
    ) -> Plan:
        """Ends the holds if their rows do not pay any more."""
        if self._slots.held and _may_have_more(decoding):
            rows = self._slots.placeholders(decoding.n_ready)
            decoding = structs.replace(decoding, work=[*decoding.work, *rows])
        return super().plan(edits, decoding, chunks, started, n_prompts)


def _may_have_more(decoding: Decoding) -> bool:
    return decoding.n_ready > 0 and not decoding.n_drafted
