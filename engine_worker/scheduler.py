"""Which tokens the next step computes, in which KV slots, and who gives way when cells are short.

Pure: `plan()` says what to do, the engine does it and calls `commit()`; nothing here knows a
backend, a clock or a thread. See DESIGN.md for why it is shaped so.
"""

from collections import deque
from collections.abc import Iterator

from msgspec import Struct

from engine_worker.kv_transfer import Holding
from engine_worker.prefix_cache import PrefixCache
from engine_worker.sequence import Sequence
from gpufc.errors import OutOfCells
from gpufc.ids import RequestNo
from gpufc.protocol import Started


class Remove(Struct, frozen=True):
    """Forget the cells of a slot from position `start` on."""

    slot: int
    start: int


class Copy(Struct, frozen=True):
    """Let the empty slot `target` begin with `n_tokens` of `source`."""

    source: int
    target: int
    n_tokens: int


KvEdit = Remove | Copy


class Work(Struct, frozen=True):
    """Compute `count` pending tokens of a sequence; `output` when they reach the last known."""

    sequence: Sequence
    count: int
    output: bool


class Plan(Struct, frozen=True):
    """One step: first the edits, in their order, then all work in one batch."""

    edits: list[KvEdit]
    work: list[Work]
    started: list[Started]

    @property
    def n_tokens(self) -> int:
        return sum(work.count for work in self.work)

    @property
    def is_prefill(self) -> bool:
        """Whether any sequence computes more than its one next token."""
        return any(work.count > 1 for work in self.work)


class Scheduler:
    """Waiting and running sequences and the slots between them.

    Invariants: a slot is free, idle in the prefix cache, or owned by exactly one running
    sequence; `waiting` is in order of arrival, with preempted sequences in front; at most
    `max_running` sequences run; one step computes at most `batch_tokens` tokens; no more slots
    stay idle than there are beyond `max_running`, which must not exceed `n_slots`.
    """

    def __init__(
        self,
        *,
        max_running: int,
        n_slots: int,
        batch_tokens: int,
        prefix_cache: PrefixCache,
        takes_over: bool = True,
    ) -> None:
        """`takes_over`: a sequence may run in the slot of the idle one that it continues. Not
        where running slots must be the lowest (a KV stream each)."""
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self._max_running = max_running
        self._batch_tokens = batch_tokens
        self._cache = prefix_cache
        self._free = list(range(n_slots))
        self._max_idle = max(0, n_slots - max_running)
        self._edits: list[KvEdit] = []
        self._cells_short = False
        self._takes_over = takes_over

    def add(self, sequence: Sequence) -> None:
        """Let a new sequence wait for its turn."""
        self.waiting.append(sequence)

    def find(self, request: RequestNo) -> Sequence | None:
        """The waiting or running sequence of a request."""
        return next((seq for seq in self._all() if seq.request == request), None)

    def plan(self) -> Plan:
        """The next step. Its `work` is empty when there is nothing to do.

        Running sequences' next tokens come first, then chunks of prompts in order of arrival, so
        that a long prompt delays running streams by one chunk at most.
        """
        self._start_waiting()
        budget = self._batch_tokens
        started: list[Started] = []
        work: list[Work] = []
        decoding = [seq for seq in self.running if seq.n_pending == 1]
        prefilling = [seq for seq in self.running if seq.n_pending > 1]
        for sequence in (*decoding, *prefilling):
            if budget == 0:
                break
            if sequence.n_computed == 0:
                # those that came together began before any of them was in the cache
                self._reuse(sequence)
            if not sequence.announced:
                sequence.announced = True
                started.append(Started(sequence.request, sequence.n_computed))
            count = sequence.next_chunk(budget)
            work.append(Work(sequence, count, output=count == sequence.n_pending))
            budget -= count
        edits, self._edits = self._edits, []
        return Plan(edits, work, started)

    def commit(self, plan: Plan) -> int:
        """The plan's work is computed. Returns how many of its tokens had been once before."""
        n_recomputed = 0
        for work in plan.work:
            sequence = work.sequence
            before = sequence.n_computed
            sequence.n_computed = before + work.count
            n_recomputed += max(0, min(sequence.n_ever_computed, sequence.n_computed) - before)
            sequence.n_ever_computed = max(sequence.n_ever_computed, sequence.n_computed)
            if work.count > 1:
                self._remember(sequence)
        return n_recomputed

    def finish(self, sequence: Sequence) -> None:
        """A sequence has ended, however it did. Its cells stay for others while they may."""
        if sequence.slot is None:
            self.waiting.remove(sequence)
            return
        self.running.remove(sequence)
        self._cells_short = False
        self._remember(sequence)
        slot, sequence.slot = sequence.slot, None
        if not self._cache.release(slot):
            self._give_up(slot)
        for surplus in self._cache.idle_slots()[: -self._max_idle or None]:
            self._give_up(surplus)

    def preempt(self, sequence: Sequence) -> None:
        """Take a running sequence's cells away; it is replayed from its tokens when they fit."""
        if sequence.slot is None:
            return
        self.running.remove(sequence)
        slot, sequence.slot = sequence.slot, None
        sequence.n_computed = 0
        self._give_up(slot)
        self.waiting.appendleft(sequence)

    def make_room(self) -> None:
        """The last plan did not fit into the cache: give up something, then plan again.

        Idle prefixes go first, then the youngest running sequence. Until some sequence has
        ended, nobody new is started, or the one that gave way would come straight back. Raises
        `OutOfCells` when a single sequence alone does not fit.
        """
        idle = self._cache.least_recently_used()
        if idle is not None:
            self._give_up(idle)
            return
        if len(self.running) <= 1:
            raise OutOfCells("one sequence alone does not fit into the KV cache")
        self._cells_short = True
        self.preempt(max(self.running, key=lambda sequence: sequence.request))

    def holdings(self) -> list[Holding]:
        """See `kv_transfer.KvKeeper`."""
        running = [
            Holding(seq.slot, seq.spec.scope, tuple(seq.tokens[: seq.n_computed]))
            for seq in self.running
            if seq.slot is not None and seq.reuses_prefix and seq.n_computed
        ]
        return running + self._cache.idle_holdings()

    def adopt(self, scope: str, tokens: tuple[int, ...]) -> int | None:
        """See `kv_transfer.KvKeeper`."""
        if not self._free:
            return None
        slot = max(self._free)
        self._free.remove(slot)
        self._cache.hold(slot, scope, tokens)
        if not self._cache.release(slot):  # too short to be worth it
            self._free.append(slot)
            return None
        return slot

    def disown(self, slot: int) -> None:
        """See `kv_transfer.KvKeeper`."""
        self._cache.forget(slot)
        self._free.append(slot)

    @property
    def n_cells_used(self) -> int:
        """Cells in use at most: a prefix that sequences share counts for each of them."""
        return sum(seq.n_computed for seq in self.running) + self._cache.n_idle_tokens

    def _all(self) -> Iterator[Sequence]:
        yield from self.running
        yield from self.waiting

    def _start_waiting(self) -> None:
        while self.waiting and len(self.running) < self._max_running:
            if self._cells_short and self.running:
                break
            sequence = self.waiting.popleft()
            self._assign_slot(sequence)
            self.running.append(sequence)

    def _reuse(self, sequence: Sequence) -> None:
        """Begin a sequence of which nothing is computed yet with the longest prefix there is."""
        if not sequence.reuses_prefix or sequence.slot is None:
            return
        match = self._cache.match(sequence.spec.scope, sequence.tokens)
        if match is not None:
            self._edits.append(Copy(match.slot, sequence.slot, match.n_tokens))
            sequence.n_computed = match.n_tokens

    def _assign_slot(self, sequence: Sequence) -> None:
        """Give a slot to a sequence, the lowest: running ids stay compact, idle ones drift up."""
        if not sequence.reuses_prefix and not self.running:
            # Cells lying about change the order in which attention sums, and so the last bit.
            for slot in self._cache.idle_slots():
                self._give_up(slot)
        if self._continue_idle(sequence):
            return
        if not self._free and (idle := self._cache.least_recently_used()) is not None:
            self._give_up(idle)
        sequence.slot = min(self._free)
        self._free.remove(sequence.slot)

    def _continue_idle(self, sequence: Sequence) -> bool:
        """Go on in the idle slot that holds this sequence's beginning and nothing else, such as
        the turns of a conversation before this one: no copy, and no second set of cells."""
        if not self._takes_over or not sequence.reuses_prefix:
            return False
        match = self._cache.match(sequence.spec.scope, sequence.tokens)
        surplus = None if match is None else self._cache.surplus(match)
        if match is None or surplus is None or surplus > 1:
            return False
        if surplus:  # the last token, which is computed again for its logits
            self._edits.append(Remove(match.slot, match.n_tokens))
        sequence.slot, sequence.n_computed = match.slot, match.n_tokens
        self._remember(sequence)
        return True

    def _give_up(self, slot: int) -> None:
        self._cache.forget(slot)
        self._edits.append(Remove(slot, 0))
        self._free.append(slot)

    def _remember(self, sequence: Sequence) -> None:
        if sequence.reuses_prefix and sequence.slot is not None:
            computed = sequence.tokens[: sequence.n_computed]
            self._cache.hold(sequence.slot, sequence.spec.scope, computed)
