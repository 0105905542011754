"""The engine thread: take requests, plan, decode, sample, emit; again.

Everything that decides lives in `scheduler.py` and `sequence.py`; this is the loop that carries
it out on a backend. One thread runs it from the first to the last line.
"""

import logging
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

import numpy as np

from engine_worker import kv_transfer
from engine_worker.backend import Backend, Batch, Logits
from engine_worker.prefix_cache import PrefixCache
from engine_worker.progress import Progress
from engine_worker.sampling import Sampler
from engine_worker.scheduler import Copy, Plan, Remove, Scheduler
from engine_worker.sequence import Sequence
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
    Delta,
    EngineFailed,
    EnginePhase,
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

Emit = Callable[[FromWorker], None]

ToEngine = Generate | Cancel | ExportKv | ImportKv | Attach
"""The messages that are the engine thread's business."""


class Engine:
    """Owns the scheduler and the backend's KV cache; `inbox` is the only way in.

    Every `Generate` that is put into the inbox is answered by exactly one terminal message
    through `emit`, unless the process ends first.
    """

    def __init__(
        self, backend: Backend, emit: Emit, *, epoch: Epoch, max_running: int, batch_tokens: int
    ) -> None:
        facts = backend.facts
        self.inbox: SimpleQueue[ToEngine] = SimpleQueue()
        self.progress = Progress.at_start()
        self.scheduler = Scheduler(
            max_running=max_running,
            n_slots=facts.n_sequences,
            batch_tokens=batch_tokens,
            prefix_cache=PrefixCache(can_cut=facts.can_cut),
            takes_over=facts.unified and facts.can_cut,
        )
        self._backend = backend
        self._emit = emit
        self._epoch = epoch
        self._step = 0

    def run(self) -> None:
        """Serve until the process ends. Raises `DecodeFailed` when the backend is lost."""
        while True:
            self.take_requests()
            self.run_step()

    def take_requests(self) -> None:
        """Handle everything in the inbox; wait for something when there is nothing to do."""
        if not (self.scheduler.running or self.scheduler.waiting):
            self._note(EnginePhase.IDLE, 0)
            self._handle(self.inbox.get())
        while True:
            try:
                self._handle(self.inbox.get_nowait())
            except Empty:
                return

    def run_step(self) -> None:
        """Plan, decode, sample, and emit one `Step`, if there is anything to compute."""
        if not self.scheduler.running and not self.scheduler.waiting:
            return
        plan, logits, started = self._decode_what_fits()
        n_recomputed = self.scheduler.commit(plan)
        deltas = self._sample(plan, logits)
        self._emit(
            Step(
                self._epoch,
                self._step,
                tuple(deltas),
                tuple(started),
                n_recomputed=n_recomputed,
            )
        )

    def _decode_what_fits(self) -> tuple[Plan, Logits, list[Started]]:
        started: list[Started] = []
        while True:
            plan = self.scheduler.plan()
            started += plan.started
            self._step += 1
            phase = EnginePhase.PREFILL if plan.is_prefill else EnginePhase.DECODE
            self._note(phase, plan.n_tokens)
            try:
                return plan, self._decode(plan), started
            except OutOfCells:
                self._make_room()
            except DecodeFailed as err:
                requests = tuple(work.sequence.request for work in plan.work)
                self._emit(EngineFailed(self._epoch, str(err), requests))
                raise

    def _make_room(self) -> None:
        try:
            self.scheduler.make_room()
        except OutOfCells as err:
            (sequence,) = self.scheduler.running
            self.scheduler.finish(sequence)
            self._refuse(sequence.request, ContextLengthExceeded(str(err), param="prompt"))

    def _decode(self, plan: Plan) -> Logits:
        for edit in plan.edits:
            match edit:
                case Remove(slot, start):
                    self._backend.remove(slot, start)
                case Copy(source, target, n_tokens):
                    self._backend.copy_prefix(source, target, n_tokens)
        if not plan.work:
            return np.empty((0, self._backend.facts.n_vocab), np.float32)
        return self._backend.decode(_batch(plan))

    def _sample(self, plan: Plan, logits: Logits) -> list[Delta]:
        deltas = []
        row = 0
        for work in plan.work:
            if not work.output:
                continue
            sequence = work.sequence
            row += 1
            try:
                delta = sequence.accept(sequence.choose(logits[row - 1]))
            except RequestError as err:
                self.scheduler.finish(sequence)
                self._refuse(sequence.request, err)
                continue
            deltas.append(delta)
            if delta.finish is not None:
                self.scheduler.finish(sequence)
        return deltas

    def _refuse(self, request: RequestNo, err: RequestError) -> None:
        self._emit(Refused(self._epoch, request, err.code, err.message, err.param))

    def _handle(self, message: ToEngine) -> None:
        match message:
            case Generate():
                self._admit(message)
            case Cancel(_, request):
                self._cancel(request)
            case Attach():
                self._begin_anew(message.successor)
            case ExportKv() | ImportKv():
                self._emit(kv_transfer.move(message, self._backend, self.scheduler))

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
            self.scheduler.finish(sequence)
            self._emit(Finished(self._epoch, request, FinishReason.CANCELLED))

    def _begin_anew(self, epoch: Epoch) -> None:
        """Another front has taken over: what runs is nobody's, and its cells are prefixes."""
        for sequence in (*self.scheduler.running, *self.scheduler.waiting):
            self.scheduler.finish(sequence)
        self._epoch = epoch

    def _note(self, phase: EnginePhase, n_tokens: int) -> None:
        scheduler = self.scheduler
        self.progress = Progress(
            phase=phase,
            step=self._step,
            step_started=time.monotonic(),
            step_tokens=n_tokens,
            n_running=len(scheduler.running),
            n_waiting=len(scheduler.waiting),
            kv_cells_used=min(scheduler.n_cells_used, self._backend.facts.kv_cells),
        )


def _batch(plan: Plan) -> Batch:
    batch = Batch([], [], [], [])
    for work in plan.work:
        sequence = work.sequence
        start, stop = sequence.n_computed, sequence.n_computed + work.count
        batch.tokens += sequence.tokens[start:stop]
        batch.positions += range(start, stop)
        batch.sequences += [sequence.slot or 0] * work.count
        batch.outputs += [False] * work.count
        batch.outputs[-1] = work.output
    return batch
