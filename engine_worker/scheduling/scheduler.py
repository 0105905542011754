"""Which tokens the next step computes, and who gives way when cells are short.

Pure: `plan()` says what to do, the engine does it and calls `commit()`; nothing here knows a
backend, a clock or a thread. See DESIGN.md for why it is shaped so.
"""

from collections import deque
from collections.abc import Iterator

from msgspec import structs

from engine_worker.kv.radix_tree import n_common
from engine_worker.kv.slots import Slots
from engine_worker.scheduling import arrivals, equal_chunks
from engine_worker.scheduling.plan import Plan, Work
from engine_worker.scheduling.prefill_budget import Pace
from engine_worker.scheduling.step_costs import StepCosts
from engine_worker.text.sequence import Sequence
from gpufc.errors import OutOfCells
from gpufc.ids import RequestNo
from gpufc.protocol import Started

AGEING = 32
"""Tokens by which a prompt counts as shorter for each step that it has waited: no prompt is so long
that shorter ones get in before it for ever."""

BURST_BATCHES = 32
"""Batches of others' prompts for which who could go on waits at most."""


class Scheduler:
    """Waiting and running sequences.

    Invariants: a sequence runs if and only if it has a slot; `waiting` is in order of arrival, with
    preempted sequences in front; at most `max_running` run; one step computes at most
    `batch_tokens` tokens. With `in_passes`, chunks of like prompts are equally long: see
    `equal_chunks`. With `in_one_shape`, every running sequence has one token in a last pass, which
    is of one shape for as long as others take the places of those that end: see `lingering`.
    """

    def __init__(
        self,
        *,
        max_running: int,
        batch_tokens: int,
        slots: Slots,
        costs: StepCosts,
        in_passes: bool = False,
        in_one_shape: bool = False,
    ) -> None:
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.slots = slots
        self._pace = Pace(batch_tokens, costs)
        self._max_running = max_running
        self._in_passes = in_passes
        self._in_one_shape = in_one_shape
        self.batch_tokens = batch_tokens
        self._cells_short = False
        self._n_steps = 0
        self._n_held = 0
        """Prompt tokens computed while somebody could have gone on, and nobody did."""

    def add(self, sequence: Sequence) -> None:
        """Let a new sequence wait for its turn."""
        sequence.arrived_at = self._n_steps
        self.waiting.append(sequence)

    def find(self, request: RequestNo) -> Sequence | None:
        """The waiting or running sequence of a request."""
        return next((seq for seq in self._all() if seq.request == request), None)

    def decoding(self) -> list[Sequence]:
        """Those that will compute one next token each, and may have guesses beside it."""
        ready = self._ready()
        return [] if self._is_burst(ready, self._prompts(self._fed_singly(ready))) else ready

    def _ready(self) -> list[Sequence]:
        return [seq for seq in self.running if len(seq.tokens) == seq.n_computed + 1]

    def plan(self) -> Plan:
        """The next step. Its `work` is empty when there is nothing to do.

        Every running sequence's next token is in it, unless they wait for others of a burst (see
        `arrivals.py`). Chunks of prompts come beside, as many as the pace allows, the shortest
        first.
        """
        decoding = self._ready()
        single = self._fed_singly(decoding)
        prompts = self._prompts(single)
        is_burst = self._is_burst(decoding, prompts)
        if is_burst:
            decoding, single = [], [seq for seq in single if seq.exact]
        work = [Work(seq, 1, output=True, draft=tuple(seq.draft)) for seq in decoding]
        padding = self._in_one_shape
        work += [Work(seq, 1, output=False, padding=padding) for seq in single]
        n_drafted = sum(len(item.draft) for item in work)
        n_lingering = len(self.slots.lingering) if decoding and not n_drafted else 0
        room = self.batch_tokens - len(work) - n_lingering - n_drafted
        if not any(seq.is_replay for seq in prompts):
            room = min(room, self._pace.allowance(len(work)))
        chunks, started = self._prefill(prompts, room)
        counts = [chunk.count for chunk in chunks]
        if is_burst:
            chunks = self._together(chunks, prompts)
        if self._in_passes:
            chunks = equal_chunks.levelled(chunks, counts)
        has_exact = any(chunk.sequence.exact for chunk in chunks)
        in_one_pass = self._in_one_shape and bool(work) and not (n_drafted or has_exact)
        if in_one_pass:
            chunks = [structs.replace(chunk, padding=not chunk.output) for chunk in chunks]
        self.slots.settle()
        if n_lingering:
            work += self._lingering(len(decoding))
        return Plan(
            self.slots.take_edits(),
            self._ordered(work, chunks),
            started,
            n_decoding=len(work),
            n_drafted=n_drafted,
            n_prefill=sum(item.count for item in chunks),
            n_prompts=len(prompts),
            in_one_pass=in_one_pass,
        )

    def _lingering(self, n_decoding: int) -> list[Work]:
        found = self.slots.lingering.beside(n_decoding)
        return [
            Work(sequence, 1, output=False, padding=True, lingers=self.slots.end_of(slot))
            for slot, sequence in found.items()
        ]

    def _is_burst(self, ready: list[Sequence], prompts: list[Sequence]) -> bool:
        may_wait = self._n_held < BURST_BATCHES * self.batch_tokens
        return may_wait and bool(prompts) and arrivals.is_burst(ready, prompts)

    def _together(self, chunks: list[Work], prompts: list[Sequence]) -> list[Work]:
        """Of a burst, who is done with its prompt leaves the last token while others are not."""
        left = {chunk.sequence.request: chunk.n_left for chunk in chunks}
        others = [seq for seq in prompts if left.get(seq.request, seq.n_pending)]
        return [
            structs.replace(chunk, count=chunk.count - 1, output=False)
            if chunk.output
            and chunk.count > 1
            and arrivals.stops_before_its_first_token(chunk.sequence)
            and arrivals.has_mates(chunk.sequence, others)
            else chunk
            for chunk in chunks
        ]

    def _prefill(self, prompts: list[Sequence], budget: int) -> tuple[list[Work], list[Started]]:
        chunks: list[Work] = []
        started: list[Started] = []
        for sequence in prompts:
            count = self._next_chunk(sequence, chunks, budget)
            if not count or (sequence.slot is None and self._awaits_prefix(sequence)):
                sequence.n_steps_waited += 1
                continue
            if sequence.slot is None:
                started += self._start(sequence)
                count = self._next_chunk(sequence, chunks, budget)  # it may know a beginning
            if count:
                chunks.append(Work(sequence, count, output=count == sequence.n_pending))
                budget -= count
        return chunks, started

    def _next_chunk(self, sequence: Sequence, chunks: list[Work], budget: int) -> int:
        """The tokens that a step computes of one more prompt; 0: none."""
        if budget <= 0:
            return 0
        if not (self._in_passes and chunks):
            return sequence.next_chunk(budget)
        if sequence.exact or chunks[0].sequence.exact:
            return 0  # an exact one's passes must be the same the next time
        counts = dict.fromkeys(chunk.count for chunk in chunks)
        return equal_chunks.next_chunk(sequence.n_pending, counts, budget)

    def _fed_singly(self, ready: list[Sequence]) -> list[Sequence]:
        """Of those that have more to compute than their next token: who does so token by token, in
        passes that others take anyway. Tails only where somebody is ready to go on."""
        if not self._in_passes or len(ready) == len(self.running):
            return []
        return [
            seq
            for seq in self.running
            if arrivals.is_fed_singly(seq) or (ready and equal_chunks.is_tail(seq))
        ]

    def _prompts(self, single: list[Sequence]) -> list[Sequence]:
        """Whose prompt is not computed yet, the first to come first; without `single` ones."""
        found = [seq for seq in self.running if seq.n_pending > 1 and seq not in single]
        if not (self._cells_short and self.running):
            n_places = self._max_running - len(self.running)
            found += [seq for seq, _ in zip(self.waiting, range(n_places), strict=False)]
        return sorted(found, key=lambda seq: seq.n_pending - AGEING * seq.n_steps_waited)

    def _start(self, sequence: Sequence) -> list[Started]:
        self.waiting.remove(sequence)
        self.running.append(sequence)
        self.slots.give(sequence)
        if sequence.announced:
            return []
        sequence.announced = True
        return [Started(sequence.request, sequence.n_computed)]

    def _awaits_prefix(self, sequence: Sequence) -> bool:
        """Whether somebody is just computing what this sequence begins with: of those that come
        together with one system prompt the first computes it, the others copy it."""
        if not sequence.reuses_prefix:
            return False
        least = self.slots.least_shared
        others = [seq for seq in self.running if seq.n_pending > 1 and seq.reuses_prefix]
        gains = [
            (n_common(seq.tokens, sequence.tokens), seq.n_computed)
            for seq in others
            if self._shares(sequence, seq, seq.n_computed + least)
        ]
        if not gains:
            return False
        found = self.slots.match(sequence)
        known = 0 if found is None else found.n_tokens
        return any(shared >= max(known, computed) + least for shared, computed in gains)

    def _shares(self, sequence: Sequence, other: Sequence, n_tokens: int) -> bool:
        """Whether both begin with the same `n_tokens`, for the same scope. To find out how many are
        the same takes much longer, and of most nobody wants to know."""
        mine = sequence.tokens[:n_tokens]
        return (
            len(mine) == n_tokens
            and mine == other.tokens[:n_tokens]
            and sequence.spec.scope == other.spec.scope
        )

    def commit(self, plan: Plan) -> int:
        """The plan's work is computed. Returns how many of its tokens had been once before."""
        self._pace.spent(plan.n_decoding, plan.n_prefill, plan.n_prompts)
        may_go_on = bool(self._ready()) and not plan.n_decoding
        self._n_held = self._n_held + plan.n_prefill if may_go_on else 0
        self._n_steps += 1
        n_recomputed = 0
        for work in plan.work:
            sequence = work.sequence
            if work.lingers is not None:
                self.slots.lingering.computed()
                self.slots.cut_at(work.lingers)
                continue
            before = sequence.n_computed
            sequence.n_computed = before + work.count
            if sequence.n_pending <= 1 and not sequence.ready_at:
                sequence.ready_at = self._n_steps
            n_recomputed += max(0, min(sequence.n_ever_computed, sequence.n_computed) - before)
            sequence.n_ever_computed = max(sequence.n_ever_computed, sequence.n_computed)
            if work.count > 1 or not work.output:
                self.slots.remember(sequence)
        return n_recomputed

    def verified(self, work: Work, n_held: int) -> None:
        """Of a committed work's draft the first `n_held` were right; what follows is forgotten."""
        sequence = work.sequence
        sequence.n_computed += n_held
        sequence.n_ever_computed = max(sequence.n_ever_computed, sequence.n_computed)
        if n_held < len(work.draft):
            self.slots.cut(sequence)

    def finish(self, sequence: Sequence) -> None:
        """A sequence has ended, however it did. Its cells stay for others while they may."""
        if sequence.slot is None:
            self.waiting.remove(sequence)
            return
        slot = sequence.slot
        self.running.remove(sequence)
        self._cells_short = False
        self.slots.remember(sequence)
        self.slots.take_back(sequence, keep=True)
        if not self.running:
            self.slots.lingering.clear()
        elif self._in_one_shape and sequence.n_pending <= 1:
            self.slots.lingering.add(slot, sequence)

    def preempt(self, sequence: Sequence) -> None:
        """Take a running sequence's cells away; it is replayed from its tokens when they fit."""
        if sequence.slot is None:
            return
        self.running.remove(sequence)
        self.slots.take_back(sequence, keep=False)
        sequence.n_computed = 0
        sequence.draft = []
        self.waiting.appendleft(sequence)

    def make_room(self) -> None:
        """The last plan did not fit into the cache: give up something, then plan again.

        Guesses go first, then those that linger, idle prefixes, and the youngest running sequence.
        Until some sequence has ended, nobody new is started, or the one that gave way would come
        straight back. Raises `OutOfCells` when a single sequence alone does not fit.
        """
        if any(seq.draft for seq in self.running):
            for seq in self.running:
                seq.draft = []
            return
        if self.slots.lingering:
            self.slots.lingering.clear()
            return
        if self.slots.give_up_idle():
            return
        if len(self.running) <= 1:
            raise OutOfCells("one sequence alone does not fit into the KV cache")
        self._cells_short = True
        self.preempt(max(self.running, key=lambda sequence: sequence.request))

    def _ordered(self, decoding: list[Work], chunks: list[Work]) -> list[Work]:
        """In the order of slots, which those with a KV stream each need to be computed in one pass.

        Prompts alone in the opposite one, unless they are equally long: then each is a pass of its
        own. In one with its neighbours all would get as far as the shortest, and what is left of
        each would be another pass.
        """
        apart = not decoding and not self._in_passes
        return sorted(decoding + chunks, key=lambda item: item.start.slot, reverse=apart)

    def _all(self) -> Iterator[Sequence]:
        yield from self.running
        yield from self.waiting
