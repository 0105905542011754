"""Slots where each has a KV stream of its own. Pure.

llama.cpp computes sequences with *consecutive* ids in one forward pass; each gap among the ids that
run costs another pass, in every step. A copy between streams may move a whole stream, which takes
as long as a few such passes. So a sequence starts in a gap, else in a place beside the running
ones; a gap that stays is closed after some steps; an idle prefix in the way moves to a slot where
no sequence runs. A short prefix that is computed faster than it is copied is reused only in its own
slot.
"""

from engine_worker.kv.edits import Copy
from engine_worker.kv.prefix_cache import MIN_MATCH, Match, PrefixCache
from engine_worker.kv.slots import Slots, gaps
from engine_worker.text.sequence import Sequence

PATIENCE = 4
"""Steps for which a gap is left open. Often a sequence starts in it meanwhile, without a copy."""

MOVED = 4
"""An idle prefix must be so many times worth a copy to be moved: most are not asked for again."""


class StreamSlots(Slots):
    """See `Slots`. Invariant: after `PATIENCE` calls of `settle`, running slots have no gaps."""

    def __init__(
        self, n_slots: int, *, max_idle: int, cache: PrefixCache, least_copied: int = 0
    ) -> None:
        """Prefixes of fewer than `least_copied` tokens are not copied. An idle prefix is moved out
        of the way if it has `MOVED` times as many, and given up otherwise."""
        super().__init__(n_slots, max_idle=max_idle, cache=cache)
        self.least_shared = max(self.least_shared, least_copied)
        self._least_moved = MOVED * least_copied
        self._n_steps_apart = 0

    def settle(self) -> None:
        """Close gaps in which no sequence has started."""
        if not any(gaps(self._in_use())):
            self._n_steps_apart = 0
            return
        self._n_steps_apart += 1
        if self._n_steps_apart >= PATIENCE:
            self._close_up()
            self._n_steps_apart = 0

    def _place(self, sequence: Sequence, match: Match | None) -> None:
        candidates = self._candidates()
        continues = match is not None and self._continues(match, sequence)
        if match is not None and continues and self._is_in_place(match.slot, candidates):
            self._begin_in(match, sequence)
            return
        long = match if match is not None and match.n_tokens >= self.least_shared else None
        slot = self._best(candidates, long)
        if long is not None and slot == long.slot:
            self._begin_in(long, sequence)  # no other place: the rest of the prefix is lost
            return
        kept = None if self._is_moved(slot, long) else self._kept(slot, sequence)
        if kept is not None and not self._is_copied_over(long, kept):
            self._begin_in(kept, sequence)
            return
        self._vacate(slot, long)
        self._begin(slot, sequence, long)
        if long is not None and continues:  # the new sequence begins with all of it
            self.give_up(long.slot)

    def _is_copied_over(self, long: Match | None, kept: Match) -> bool:
        """Whether a match that is worth a copy, in another slot, goes before the beginning that the
        slot itself would keep."""
        if long is None or kept.n_tokens < MIN_MATCH:
            return long is not None
        return long.n_tokens - kept.n_tokens >= self.least_shared

    def _is_moved(self, slot: int, copied: Match | None) -> bool:
        """Whether an idle prefix goes to another slot when a sequence takes this one: a free one,
        or that of a prefix worth less. `copied`, in another slot, stays where it is."""
        if self._cache.n_tokens(slot) < self._least_moved:
            return False
        return bool(self._free) or self._idle_but(copied)[0] != slot

    def _in_use(self) -> set[int]:
        """The slots that take part in every step."""
        return set(self._busy)

    def _is_in_place(self, slot: int, candidates: list[int]) -> bool:
        """Whether a sequence can go on in this idle slot without another pass."""
        return slot in candidates

    def _candidates(self) -> list[int]:
        """The slots in which a sequence can start without another pass: gaps, else the places at
        both ends of the running ones."""
        busy = set(self._busy)
        if not busy:
            return list(range(self.n_slots))
        ends = [end for end in (max(busy) + 1, min(busy) - 1) if 0 <= end < self.n_slots]
        return list(gaps(busy)) or ends or self._defects()

    def _best(self, candidates: list[int], match: Match | None = None) -> int:
        """A free slot; else the idle one that is worth least, and the match's own slot last."""
        rank = {slot: at for at, slot in enumerate(self._cache.idle_slots(), start=1)}
        if match is not None and match.slot in rank:
            rank[match.slot] = self.n_slots + 1
        return min(candidates, key=lambda slot: (rank.get(slot, 0), slot))

    def _vacate(self, slot: int, match: Match | None = None) -> None:
        """Free a slot. Its prefix moves, or is given up."""
        if slot in self._free:
            return
        if not self._is_moved(slot, match):
            self.give_up(slot)
            return
        if not self._free:
            self.give_up(self._idle_but(match)[0])
        target = max(self._free)
        self._edits.append(Copy(slot, target, self._cache.n_tokens(slot)))
        self._cache.move(slot, target)
        self._take_free(target)
        self.give_up(slot)

    def _close_up(self) -> None:
        """Move the sequences outside of the window where most run into its free places."""
        window = self._window()
        outside = sorted(slot for slot in self._busy if slot not in window)
        holes = [slot for slot in window if slot not in self._busy]
        for source, target in zip(outside, holes, strict=True):
            self._vacate(target)
            self._move(source, target)

    def _window(self) -> range:
        """The consecutive slots in which most sequences run already, and fewest are idle."""
        n_busy = len(self._busy)
        windows = (range(at, at + n_busy) for at in range(self.n_slots - n_busy + 1))
        return max(
            windows,
            key=lambda window: (
                sum(slot in self._busy for slot in window),
                sum(slot in self._free for slot in window),
            ),
        )

    def _move(self, source: int, target: int) -> None:
        sequence = self._busy.pop(source)
        self._edits.append(Copy(source, target, sequence.n_computed))
        if self._cache.n_tokens(source):
            self._cache.move(source, target)
        self._take_free(target)
        self._own(target, sequence, sequence.n_computed)
        self.give_up(source)

    def _defects(self) -> list[int]:
        return [self._defect()]
