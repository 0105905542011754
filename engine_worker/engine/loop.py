"""The engine thread: take requests, plan, decode, sample, emit; again.

Everything that decides lives in `scheduler.py` and `sequence.py`; this is the loop that carries
it out on a backend. One thread runs it from the first to the last line.
"""

import logging
import time
from collections.abc import Callable, Iterable
from itertools import zip_longest
from queue import Empty, SimpleQueue

import numpy as np
from msgspec import Struct

from engine_worker.backend.port import Backend, Logits
from engine_worker.engine.batching import batch_of, picks
from engine_worker.kv import edits, transfer
from engine_worker.kv.stream_slots import slots_for
from engine_worker.sampling.batch import prepare, sampler_for
from engine_worker.sampling.sampler import Sampler
from engine_worker.scheduling.plan import Plan, Work
from engine_worker.scheduling.scheduler import Scheduler
from engine_worker.scheduling.step_costs import StepCosts
from engine_worker.speculation.drafter import Drafter, DraftRequest
from engine_worker.speculation.per_step import Speculation
from engine_worker.speculation.per_stretch import SteadySpeculation
from engine_worker.text.sequence import Sequence
from gpufc.errors import (
    ContextLengthExceeded,
    DecodeFailed,
    InvalidRequest,
    OutOfCells,
    RequestError,
)
from gpufc.ids import Epoch, RequestNo
from gpufc.protocol import (
    Attach,
    Cancel,
    EngineFailed,
    EnginePhase,
    EngineStatus,
    ExportKv,
    Finished,
    FinishReason,
    FromWorker,
    Generate,
    ImportKv,
    Refused,
    Started,
    Step,
)

logger = logging.getLogger(__name__)

MAX_SPECULATING = 4
"""Streams up to which guesses are verified. More of them keep the machine busy by themselves, and
where each has a KV stream, drafts of different lengths take a forward pass each."""

Emit = Callable[[FromWorker], None]

ToEngine = Generate | Cancel | ExportKv | ImportKv | Attach
"""The messages that are the engine thread's business."""


class Untold(Struct, frozen=True):
    """What a step has brought and nobody has been told yet.

    Computing `n_tokens` took `computing_s`, choosing from `n_outputs` rows `sampling_s`.
    """

    step: int
    gained: list[Sequence]
    started: list[Started]
    n_recomputed: int
    n_tokens: int
    computing_s: float
    n_outputs: int
    sampling_s: float


class Engine:
    """Owns the scheduler and the backend's KV cache; `inbox` is the only way in.

    Every `Generate` that is put into the inbox is answered by exactly one terminal message
    through `emit`, unless the process ends first.
    """

    def __init__(
        self,
        backend: Backend,
        emit: Emit,
        *,
        epoch: Epoch,
        max_running: int,
        batch_tokens: int,
        drafter: Drafter | None = None,
    ) -> None:
        """Without a `drafter`, nothing is guessed ahead."""
        facts = backend.facts
        costs = StepCosts()
        self.inbox: SimpleQueue[ToEngine] = SimpleQueue()
        self.progress = EngineStatus(step_started=time.monotonic())
        self.scheduler = Scheduler(
            max_running=max_running,
            batch_tokens=batch_tokens,
            slots=slots_for(facts, max_running),
            costs=costs,
            in_passes=facts.asynchronous and not facts.unified,
            in_one_shape=facts.wholly_on_device and facts.can_cut and not facts.unified,
        )
        self._backend = backend
        self._costs = costs
        self._speculation: Speculation | SteadySpeculation | None = None
        if drafter and facts.can_cut:
            make = SteadySpeculation if facts.wholly_on_device else Speculation
            self._speculation = make(drafter, costs)
        self._n_spare_outputs = facts.max_outputs - max_running
        self._sampler = sampler_for(backend)
        self._emit = emit
        self._epoch = epoch
        self._step = 0
        self._n_cells_used = 0
        """After the last step: to count them would take time before each."""
        self._untold: Untold | None = None

    def run(self) -> None:
        """Serve until the process ends. Raises `DecodeFailed` when the backend is lost."""
        while True:
            self.take_requests()
            self.run_step()

    def take_requests(self) -> None:
        """Handle everything in the inbox; wait for something when there is nothing to do."""
        if not (self.scheduler.running or self.scheduler.waiting):
            self._count_cells()
            self._note(EnginePhase.IDLE, 0)
            self._handle(self.inbox.get())
        while True:
            try:
                self._handle(self.inbox.get_nowait())
            except Empty:
                return

    def run_step(self) -> None:
        """Plan, compute, sample, and emit one `Step`, if there is anything to compute.

        What a device computes on its own leaves time to say what the step before has brought;
        where the computing takes this very thread, that would come a whole step late.
        """
        if not self.scheduler.running and not self.scheduler.waiting:
            return
        speculation = self._speculation
        is_quiet = speculation is None or speculation.is_quiet
        if not is_quiet:
            self._give_drafts()
        began = time.monotonic()
        started: list[Started] = []
        plan = self._begin_what_fits(started)
        self._tell()
        if is_quiet:
            self._guesses()  # only to see whether they would have been right
        n_recomputed = self.scheduler.commit(plan)
        self._count_cells()
        wanted = [work for work in plan.work if work.n_rows]
        prepared = prepare([pick for work in wanted for pick in picks(work)])
        try:
            logits = self._wait_for(plan)
            computed = time.monotonic()
            chosen = self._sampler.choose(logits, prepared)
        except DecodeFailed as err:
            self._fail(plan.sequences, err)
            raise
        gained = self._take(wanted, chosen)
        self._untold = Untold(
            self._step,
            gained,
            started,
            n_recomputed,
            n_tokens=plan.n_tokens,
            computing_s=computed - began,
            n_outputs=len(logits),
            sampling_s=time.monotonic() - computed,
        )
        if not self._backend.facts.asynchronous or not self.scheduler.running:
            self._tell()

    def _give_drafts(self) -> None:
        for sequence in self.scheduler.running:
            sequence.draft = []  # what waited may have one still
        left = min(self._n_spare_outputs, self.scheduler.batch_tokens - len(self.scheduler.running))
        for sequence, draft in self._guesses():
            sequence.draft = draft[:left]
            left -= len(sequence.draft)

    def _guesses(self) -> list[tuple[Sequence, list[int]]]:
        """Drafts for those that decode. Not for those whose numerics must not depend on it."""
        if self._speculation is None:
            return []
        decoding = self.scheduler.decoding()
        if len(decoding) > MAX_SPECULATING:
            self._speculation.pause()
            return []
        left = min(self._n_spare_outputs, self.scheduler.batch_tokens - len(decoding))
        guessed = [seq for seq in decoding if seq.reuses_prefix]
        try:
            drafts = self._speculation.draft_all(
                [DraftRequest(seq.request, seq.tokens, self._limit(seq, left)) for seq in guessed],
                n_decoding=len(decoding),
            )
        except DecodeFailed as err:  # a model that guesses
            self._fail(guessed, err)
            raise
        return list(zip(guessed, drafts, strict=True))

    def _limit(self, sequence: Sequence, left: int) -> int:
        """The longest draft. On a device a shorter one at the end costs more than to compute what
        is beyond it."""
        facts = self._backend.facts
        room = facts.n_ctx - len(sequence.tokens) if facts.wholly_on_device else sequence.room
        return min(room - 1, left)

    def _begin_what_fits(self, started: list[Started]) -> Plan:
        while True:
            plan = self.scheduler.plan()
            started += plan.started
            self._step += 1
            phase = EnginePhase.PREFILL if plan.is_prefill else EnginePhase.DECODE
            self._note(phase, plan.n_tokens)
            try:
                self._begin(plan)
                return plan
            except OutOfCells:
                self._make_room()
            except DecodeFailed as err:
                self._fail(plan.sequences, err)
                raise

    def _wait_for(self, plan: Plan) -> Logits:
        if not plan.work:
            return np.empty((0, self._backend.facts.n_vocab), np.float32)
        return self._backend.logits()

    def _fail(self, computed: Iterable[Sequence], err: DecodeFailed) -> None:
        self._tell()
        requests = tuple(sorted(sequence.request for sequence in computed))
        logger.error("decode_failed reason=%s", err)  # who is told may end this process at once
        self._emit(EngineFailed(self._epoch, str(err), requests))

    def _make_room(self) -> None:
        try:
            self.scheduler.make_room()
        except OutOfCells as err:
            (sequence,) = self.scheduler.running
            self._finish(sequence)
            self._refuse(sequence.request, ContextLengthExceeded(str(err), param="prompt"))

    def _begin(self, plan: Plan) -> None:
        edits.apply(plan.edits, self._backend)
        if plan.work:
            self._backend.begin(batch_of(plan))

    def _take(self, wanted: list[Work], chosen: list[int | RequestError]) -> list[Sequence]:
        """Let sequences take their next tokens. Returns those that have gained something."""
        gained = []
        row = 0
        for work in wanted:
            answers = chosen[row : row + work.n_rows]
            row += work.n_rows
            if work.output and self._accept(work, answers):
                gained.append(work.sequence)
        return gained

    def _accept(self, work: Work, chosen: list[int | RequestError]) -> bool:
        """Take tokens as long as the guesses before them were right."""
        sequence, ended, n_held = work.sequence, False, 0
        for token, guess in zip_longest(chosen, work.draft):
            if isinstance(token, RequestError):
                self.scheduler.verified(work, n_held)
                self._finish(sequence)
                self._refuse(sequence.request, token)
                return False
            ended = sequence.accept(token)
            if ended or token != guess:
                break
            n_held += 1
        if work.draft:
            sequence.draft = []
            self.scheduler.verified(work, n_held)
        if ended:
            self._finish(sequence)
        return True

    def _finish(self, sequence: Sequence) -> None:
        self.scheduler.finish(sequence)
        if self._speculation is not None:
            self._speculation.forget(sequence.request)

    def _tell(self) -> None:
        """Emit what the last step has brought, and learn what it cost, unless that is done."""
        untold, self._untold = self._untold, None
        if untold is None:
            return
        if untold.n_tokens:
            self._costs.computed(untold.n_tokens, untold.computing_s)
        if untold.n_outputs:
            self._costs.sampled(untold.n_outputs, untold.sampling_s)
        deltas = tuple(sequence.delta() for sequence in untold.gained)
        self._emit(
            Step(
                self._epoch,
                untold.step,
                deltas,
                tuple(untold.started),
                n_recomputed=untold.n_recomputed,
            )
        )

    def _refuse(self, request: RequestNo, err: RequestError) -> None:
        self._emit(Refused(self._epoch, request, err.code, err.message, err.param))

    def _handle(self, message: ToEngine) -> None:
        self._tell()  # whatever is answered comes after it
        match message:
            case Generate():
                self._admit(message)
            case Cancel(_, request):
                self._cancel(request)
            case Attach():
                self._begin_anew(message.successor)
            case ExportKv() | ImportKv():
                self._emit(transfer.move(message, self._backend, self.scheduler.slots))

    def _admit(self, spec: Generate) -> None:
        try:
            sequence = self._make_sequence(spec)
        except RequestError as err:
            self._refuse(spec.request, err)
            return
        ended = sequence.nothing_to_generate()
        if ended is None:
            self.scheduler.add(sequence)
        else:
            self._emit(Step(self._epoch, self._step, (ended,), (Started(spec.request, 0),)))

    def _make_sequence(self, spec: Generate) -> Sequence:
        """Check once more what the front has checked: answer rather than raise or crash."""
        facts = self._backend.facts
        known = len(spec.prompt_tokens) + len(spec.tokens)
        if known > facts.n_ctx:
            raise ContextLengthExceeded(
                f"{known} tokens do not fit into the context of {facts.n_ctx}", param="prompt"
            )
        tokens = (*spec.prompt_tokens, *spec.tokens)
        if min(tokens) < 0 or max(tokens) >= facts.n_vocab:
            raise InvalidRequest("a token id is outside the model's vocabulary", param="prompt")
        if any(not 0 <= token < facts.n_vocab for token, _ in spec.sampling.logit_bias):
            raise InvalidRequest("a token id is outside the vocabulary", param="logit_bias")
        sampler = Sampler(spec.sampling, facts.n_vocab, self._backend.end_tokens)
        return Sequence(
            spec,
            sampler=sampler,
            piece=self._backend.piece,
            is_end=self._backend.is_end,
            n_ctx=facts.n_ctx,
        )

    def _cancel(self, request: RequestNo) -> None:
        sequence = self.scheduler.find(request)
        if sequence is not None:
            self._finish(sequence)
            self._emit(Finished(self._epoch, request, FinishReason.CANCELLED))

    def _begin_anew(self, epoch: Epoch) -> None:
        """Another front has taken over: what runs is nobody's, and its cells are prefixes."""
        for sequence in (*self.scheduler.running, *self.scheduler.waiting):
            self._finish(sequence)
        self._epoch = epoch

    def _count_cells(self) -> None:
        used = self.scheduler.slots.n_cells_used
        self._n_cells_used = min(used, self._backend.facts.kv_cells)

    def _note(self, phase: EnginePhase, n_tokens: int) -> None:
        scheduler = self.scheduler
        self.progress = EngineStatus(
            phase=phase,
            step=self._step,
            step_started=time.monotonic(),
            step_tokens=n_tokens,
            n_running=len(scheduler.running),
            n_waiting=len(scheduler.waiting),
            kv_cells_used=self._n_cells_used,
        )
