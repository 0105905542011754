"""Which tokens the next step computes, and which sequence gives way when cells are short.

Pure. The engine asks for a `plan`, carries it out and calls `commit`; or, where the plan does not
fit into the cache, `make_room`, and asks again. Policies are objects that `policies` chooses: the
shape of a step, the turns of sequences, pauses of ready ones, the budget for prompts, the slots.
"""

from collections import deque
from collections.abc import Iterator
from itertools import islice

from engine_worker.kv.radix_tree import n_common
from engine_worker.kv.slots import Slots
from engine_worker.scheduling.pausing import Limits, Pausing
from engine_worker.scheduling.plan import Chunk, Decode, Decoding, Plan
from engine_worker.scheduling.prefill_budget import PrefillBudget
from engine_worker.scheduling.step_shape import StepShape
from engine_worker.scheduling.turns import Turns
from engine_worker.text.sequence import Sequence
from gpufc.errors import OutOfCells
from gpufc.ids import RequestNo
from gpufc.protocol import Started

AGEING = 32
"""Tokens by which a prompt counts as shorter for each step that it has waited, and for each place
by which a policy wants it earlier. So even the longest prompt is computed in the end."""


class Scheduler:
    """Waiting and running sequences.

    Invariants: a sequence runs if and only if it has a slot; `waiting` is in order of arrival, with
    preempted sequences in front; at most `max_running` run; one step computes at most
    `batch_tokens` tokens. `waiting`, `running` and `slots` are there to be read.
    """

    def __init__(
        self,
        *,
        max_running: int,
        batch_tokens: int,
        slots: Slots,
        shape: StepShape,
        pausing: Pausing,
        turns: Turns,
        budget: PrefillBudget,
    ) -> None:
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.slots = slots
        self.batch_tokens = batch_tokens
        self._max_running = max_running
        self._shape = shape
        self._pausing = pausing
        self._budget = budget
        self._turns = turns
        self._cells_short = False

    @property
    def is_idle(self) -> bool:
        """Whether there is no sequence."""
        return not (self.running or self.waiting)

    @property
    def scores_prompts(self) -> bool:
        """Whether a sequence needs rows of logits for its prompt."""
        return any(seq.scores_prompt for seq in self._all())

    def add(self, sequence: Sequence) -> None:
        """Let a new sequence wait for its turn."""
        self._look_for_prefix(sequence)
        self._pausing.arrived(sequence)
        self._turns.arrived(sequence)
        self.waiting.append(sequence)

    def find(self, request: RequestNo) -> Sequence | None:
        """The waiting or running sequence of a request."""
        return next((seq for seq in self._all() if seq.request == request), None)

    def decoding(self) -> list[Sequence]:
        """The sequences that compute one next token each, and may have guesses beside it."""
        self._turns.settle(self._startable())
        ready = self._ready()
        prompts = self._prompts(self._fed_singly(ready))
        going = self._pausing.going(ready, prompts)
        return ready if going is None else going

    def plan(self) -> Plan:
        """The next step. Its `work` is empty when there is nothing to do.

        Starts the waiting sequences whose first chunk is in it: they run from now on, have a slot,
        and their edits are in this plan and in no later one. No token counts as computed before
        `commit`, so the plan may be dropped, once its edits are applied, and asked for again.
        """
        self._turns.settle(self._startable())
        ready = self._ready()
        fed = self._fed_singly(ready)
        prompts = self._prompts(fed)
        going = self._pausing.going(ready, prompts)
        limits = Limits()
        if going is not None:
            fed, limits = self._fed_singly(going), self._pausing.limits(ready, prompts)
        decoding = self._shape.decoding(ready if going is None else going, fed)
        room = self._room(decoding, prompts, limits.tokens, is_burst=going is not None)
        chosen, started = self._start(prompts, room, limits.prompts, is_beside=bool(decoding.work))
        chunks = chosen if going is None else self._pausing.shortened(chosen, ready, prompts)
        chunks = self._shape.levelled(chunks, chosen)
        self.slots.settle()
        edits = self.slots.take_edits()
        return self._shape.plan(edits, decoding, chunks, started, len(prompts))

    def commit(self, plan: Plan) -> int:
        """The plan's tokens have cells. Returns how many of them had cells once before."""
        n_beside = plan.n_decoding or self._n_held_back()
        n_recomputed = sum([work.commit(self.slots) for work in plan.work])
        self._budget.spent(n_beside, plan.n_prefill, plan.n_prompts)
        self._pausing.computed(plan)
        self._turns.passed(plan, self._startable())
        if self.waiting and any([isinstance(w, Chunk) and w.is_last for w in plan.work]):
            for sequence in self._startable():
                self._look_for_prefix(sequence)
        return n_recomputed

    def verified(self, work: Decode | Chunk, n_held: int) -> None:
        """The first `n_held` guesses of committed work were right; the others are forgotten."""
        work.sequence.advance(n_held)
        if n_held < len(work.draft):
            self.slots.cut(work.sequence)

    def finish(self, sequence: Sequence) -> None:
        """A sequence has ended, for any reason. Its cells stay as a prefix while they may."""
        self._pausing.ended(sequence)
        self._turns.ended(sequence)
        if sequence.slot is None:
            self.waiting.remove(sequence)
            return
        self.running.remove(sequence)
        self._cells_short = False
        self.slots.remember(sequence)
        self.slots.take_back(sequence, keep=True)

    def preempt(self, sequence: Sequence) -> None:
        """Take a running sequence's cells away; it is replayed from its tokens when they fit."""
        if sequence.slot is None:
            return
        self.running.remove(sequence)
        self.slots.take_back(sequence, keep=False)
        sequence.n_shared = 0
        sequence.replay()
        self.waiting.appendleft(sequence)

    def make_room(self) -> None:
        """The last plan did not fit into the cache: give up something, then plan again.

        Guesses go first, then cells that no sequence owns, then the youngest running sequence, by
        the place that a policy gives it. Until some sequence has ended, no new one is started: else
        the preempted one would come straight back. Raises `OutOfCells` when a single sequence alone
        does not fit.
        """
        if any(seq.draft for seq in self.running):
            for seq in self.running:
                seq.draft = []
            return
        if self.slots.give_up_something():
            return
        if len(self.running) <= 1:
            raise OutOfCells("one sequence alone does not fit into the KV cache")
        self._cells_short = True
        self.preempt(max(self.running, key=_place))

    def _look_for_prefix(self, sequence: Sequence) -> None:
        """Note what a waiting sequence shares. It counts as a use of that prefix."""
        if sequence.slot is None:
            found = self.slots.match(sequence)
            sequence.n_shared = 0 if found is None else found.n_tokens

    def _ready(self) -> list[Sequence]:
        """Running sequences that compute what they gained in their last step."""
        return [seq for seq in self._turns.of(self.running) if seq.is_decoding]

    def _n_held_back(self) -> int:
        """Running streams whose turn it is not: they wait for the prompts of the step as well."""
        may = self._turns.of(self.running)
        if len(may) == len(self.running):
            return 0
        return sum([s.is_decoding for s in self.running]) - sum([s.is_decoding for s in may])

    def _fed_singly(self, ready: list[Sequence]) -> list[Sequence]:
        return self._shape.fed_singly(self._turns.of(self.running), ready)

    def _startable(self) -> Iterator[Sequence]:
        """The running sequences, and the waiting ones for which there is a place."""
        yield from self.running
        if not (self._cells_short and self.running):
            yield from islice(self.waiting, self._max_running - len(self.running))

    def _prompts(self, fed: list[Sequence]) -> list[Sequence]:
        """Sequences with more than one token to compute, without those that are `fed` singly, and
        waiting ones for which there is a place. The shortest first, less `AGEING` for each wait and
        each place that a policy puts it forward."""
        startable = self._turns.of(list(self._startable()))
        found = [s for s in startable if s.slot is None or not (s.is_decoding or s in fed)]
        return sorted(found, key=_length)

    def _room(
        self, decoding: Decoding, prompts: list[Sequence], most: int | None, *, is_burst: bool
    ) -> int:
        """Prompt tokens for the step, `most` of a burst. Replays are not paced: their clients see
        them stand still."""
        room = self._shape.room(self.batch_tokens, decoding)
        if most is not None:
            room = min(room, most)
        if any(seq.is_replay for seq in prompts):
            return room
        room = min(room, self._turns.most_tokens(self.batch_tokens))
        if is_burst and (decoding.n_ready or not decoding.work):
            return room
        return min(room, self._budget.allowance(len(decoding.work)))

    def _start(
        self, prompts: list[Sequence], budget: int, most_prompts: int | None, *, is_beside: bool
    ) -> tuple[list[Chunk], list[Started]]:
        """The chunks of a step; waiting sequences among them start. `is_beside`: streams run."""
        chunks: list[Chunk] = []
        started: list[Started] = []
        n_ending = 0
        for sequence in prompts:
            most = _most(sequence, budget) if is_beside else budget
            count = self._shape.next_chunk(sequence, chunks, most)
            if count and sequence.scores_prompt and _scores_any(chunks):
                count = 0  # the spare rows of logits are those of one prompt
            if n_ending == most_prompts:
                count = 0
            if not count or (sequence.slot is None and self._awaits_prefix(sequence)):
                sequence.n_steps_waited += 1
                continue
            if sequence.slot is None:
                started += self._run(sequence)
                # a known prefix may have left it less to compute
                count = self._shape.next_chunk(sequence, chunks, most)
            n_again = count - sequence.n_pending
            if n_again > 0 and not self.slots.step_back(sequence, n_again):
                count = sequence.n_pending
            if count:
                chunks.append(Chunk(sequence, count, is_last=count == sequence.n_pending))
                n_ending += chunks[-1].is_last
                budget -= count
        return chunks, started

    def _run(self, sequence: Sequence) -> list[Started]:
        self.waiting.remove(sequence)
        self.running.append(sequence)
        self.slots.give(sequence)
        if sequence.announced:
            return []
        sequence.announced = True
        return [Started(sequence.request, sequence.n_computed)]

    def _awaits_prefix(self, sequence: Sequence) -> bool:
        """Whether a running sequence is computing a prefix of this one. Of requests that come
        together with one system prompt the first computes it, and the others copy it."""
        if not sequence.reuses_prefix:
            return False
        least = self.slots.least_shared
        others = [seq for seq in self.running if not seq.is_decoding and seq.reuses_prefix]
        gains = [
            (n_common(seq.tokens, sequence.tokens), seq.n_computed)
            for seq in others
            if _share(sequence, seq, seq.n_computed + least)
        ]
        if not gains:
            return False
        found = self.slots.match(sequence)
        known = 0 if found is None else found.n_tokens
        return any(shared >= max(known, computed) + least for shared, computed in gains)

    def _all(self) -> Iterator[Sequence]:
        yield from self.running
        yield from self.waiting


def _place(sequence: Sequence) -> tuple[int, int]:
    """A sequence's place among all: its number, shifted as the policy wants."""
    later = sequence.spec.batching.later
    return sequence.request + later, later


def _length(sequence: Sequence) -> int:
    """A prompt's length, by which the shortest is first."""
    waited = sequence.n_steps_waited - sequence.spec.batching.later
    return sequence.n_pending - AGEING * waited


def _most(sequence: Sequence, budget: int) -> int:
    """Tokens of a prompt that a step may compute beside running streams. A policy does not hold up
    an answer that has begun, nor change the chunks of an exact replay."""
    most = sequence.spec.batching.chunk_tokens
    return budget if most is None or sequence.has_begun or sequence.exact else min(budget, most)


def _scores_any(chunks: list[Chunk]) -> bool:
    return any(chunk.sequence.scores_prompt for chunk in chunks)


def _share(sequence: Sequence, other: Sequence, n_tokens: int) -> bool:
    """Whether both begin with the same `n_tokens`, for the same scope. `n_common` takes much longer
    than this comparison, and most pairs do not need it."""
    mine = sequence.tokens[:n_tokens]
    return (
        len(mine) == n_tokens
        and mine == other.tokens[:n_tokens]
        and sequence.spec.scope == other.spec.scope
    )
