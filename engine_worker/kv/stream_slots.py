"""Slots where each has a KV stream of its own. Pure.

llama.cpp computes sequences with *consecutive* ids in one forward pass; each gap among those that
run costs another pass, in every step. A copy between streams moves a whole stream: the price of
a few such passes. Hence: what starts takes a gap, else a place beside those that run; a gap that
stays is closed after some steps; idle prefixes make way by moving to where nobody runs. On a device
a short prefix is computed sooner than copied; then it is reused only where it lies.
"""

from engine_worker.kv.edits import Copy
from engine_worker.kv.prefix_cache import Match, PrefixCache
from engine_worker.kv.slots import Slots, gaps
from engine_worker.text.sequence import Sequence
from gpufc.facts import ModelFacts

PATIENCE = 4
"""Steps for which a gap is borne. Often somebody starts meanwhile and fills it for nothing."""

_COPY_S = 50e-6
_TOKEN_S = 9e-6
_PARAMETER_S = 1.1e-14
"""One H100: what a layer's copy takes, and of a prompt's token what any model takes and what each
parameter does beside it. Where the device is slower, copies are worth more than this says."""

MOVED = 4
"""An idle prefix must be so many times worth a copy to make way: most are not asked for again."""


def least_copied(n_layers: int, n_params: int) -> int:
    """Tokens of a prefix that a device copies to another stream sooner than it computes them."""
    return round(n_layers * _COPY_S / (_TOKEN_S + n_params * _PARAMETER_S))


def slots_for(facts: ModelFacts, max_running: int) -> Slots:
    """The slots of a model as it was loaded, of which `max_running` at most are owned at once."""
    cache = PrefixCache(can_cut=facts.can_cut)
    if facts.unified or not facts.can_cut:
        max_idle = max(0, facts.n_sequences - max_running)
        return Slots(facts.n_sequences, max_idle=max_idle, cache=cache)
    # idle cells of another stream slow nobody down
    return StreamSlots(
        facts.n_sequences,
        max_idle=facts.n_sequences,
        cache=cache,
        least_copied=least_copied(facts.n_layers, facts.n_params) if facts.asynchronous else 0,
    )


class StreamSlots(Slots):
    """See `Slots`. Running slots are kept together."""

    def __init__(
        self, n_slots: int, *, max_idle: int, cache: PrefixCache, least_copied: int = 0
    ) -> None:
        """Of fewer than `least_copied` tokens no copy is made. An idle prefix must have more to
        make way, or is given up: see `MOVED`."""
        super().__init__(n_slots, max_idle=max_idle, cache=cache)
        self.least_shared = max(self.least_shared, least_copied)
        self._least_moved = MOVED * least_copied
        self._n_steps_apart = 0

    def settle(self) -> None:
        """Close gaps that nobody has filled."""
        if not any(gaps(self._busy.keys() | self.lingering.slots)):
            self._n_steps_apart = 0
            return
        self._n_steps_apart += 1
        if self._n_steps_apart >= PATIENCE:
            self._close_up()
            self._n_steps_apart = 0

    def _place(self, sequence: Sequence, match: Match | None) -> None:
        candidates = self._candidates()
        continues = match is not None and self._continues(match)
        if match is not None and continues and match.slot in (*candidates, *self.lingering.slots):
            self._begin_in(match, sequence)
            return
        is_long = match is not None and match.n_tokens >= self.least_shared
        slot = self._best(candidates, match if is_long else None)
        if match is not None and is_long and slot == match.slot:
            self._begin_in(match, sequence)  # no other place: what is beyond it is lost
            return
        if match is not None:
            kept = self._kept(slot, sequence)
            n_kept = 0 if kept is None else kept.n_tokens
            if match.n_tokens - n_kept < self.least_shared:
                match = kept
            if kept is not None and match == kept:
                self._begin_in(kept, sequence)
                return
        self._vacate(slot, match)
        self._begin(slot, sequence, match)
        if match is not None and continues:  # it is the beginning of what now runs
            self.give_up(match.slot)

    def _kept(self, slot: int, sequence: Sequence) -> Match | None:
        """What is idle in the slot, and not worth moving, may begin as the sequence does, too."""
        if slot in self._free or self._cache.n_tokens(slot) >= self._least_moved:
            return None
        return self._cache.match_in(slot, sequence.spec.scope, sequence.tokens)

    def _candidates(self) -> list[int]:
        """Where a sequence can start without another pass: gaps, those first where nobody lingers,
        else the places at both ends, those first where somebody does."""
        busy = set(self._busy)
        if not busy:
            return list(range(self.n_slots))
        ends = [end for end in (max(busy) + 1, min(busy) - 1) if 0 <= end < self.n_slots]
        lingering, inner = self.lingering.slots, list(gaps(busy))
        open_gaps = [slot for slot in inner if slot not in lingering]
        held_ends = [slot for slot in ends if slot in lingering]
        return open_gaps or inner or held_ends or ends or self._defects()

    def _best(self, candidates: list[int], match: Match | None = None) -> int:
        """A free one; else the idle one that is worth least, the match's own the last."""
        rank = {slot: at for at, slot in enumerate(self._cache.idle_slots(), start=1)}
        if match is not None and match.slot in rank:
            rank[match.slot] = self.n_slots + 1
        return min(candidates, key=lambda slot: (rank.get(slot, 0), slot))

    def _vacate(self, slot: int, match: Match | None = None) -> None:
        """Free a slot. What it holds moves to a free place, else to that of what is worth less."""
        if slot in self._free:
            return
        if self._cache.n_tokens(slot) < self._least_moved:
            self.give_up(slot)
            return
        if not self._free:
            worth_least = self._idle_but(match)[0]
            self.give_up(worth_least)
            if worth_least == slot:
                return
        target = max(self._free)
        self._edits.append(Copy(slot, target, self._cache.n_tokens(slot)))
        self._cache.move(slot, target)
        self._free.remove(target)
        self.lingering.drop(target)
        self.give_up(slot)

    def _close_up(self) -> None:
        """Move those outside of the window where most run into its holes."""
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
        self._free.remove(target)
        self._own(target, sequence, sequence.n_computed)
        self.give_up(source)

    def _defects(self) -> list[int]:
        return [self._defect()]
