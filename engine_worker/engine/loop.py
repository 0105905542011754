"""The engine thread: take requests, compute a step, report it; again.

Carries the scheduler's plans out on a backend. One thread runs it from the first to the last line;
only `inbox`, `progress` and `breakers` are for other threads.
"""

import collections.abc
import logging
import time
from collections.abc import Callable
from itertools import zip_longest
from queue import Empty, SimpleQueue
from typing import NamedTuple

import numpy as np

from engine_worker.backend.port import Backend, Logits
from engine_worker.backend.profile import profile_of
from engine_worker.constraints.foreseen_masks import ForeseenMasks
from engine_worker.constraints.guide import Guide
from engine_worker.engine.admission import sequence_of
from engine_worker.engine.batching import batch_of
from engine_worker.engine.choosing import Choosing
from engine_worker.engine.drafting import Drafting
from engine_worker.engine.embedding import EmbeddingTurn
from engine_worker.engine.reporter import Emit, Reporter, StepCost, StepResult
from engine_worker.engine.scoring import MAX_PROMPT_ROWS, Scorer
from engine_worker.engine.step_ahead import StepAhead
from engine_worker.kv import edits, transfer
from engine_worker.prompts.embedding_inputs import Wanted
from engine_worker.sampling.batch import Pick
from engine_worker.sampling.samplers.breakers import BreakerStore
from engine_worker.scheduling.plan import Chunk, Decode, Plan
from engine_worker.scheduling.policies import max_jump, scheduler_for
from engine_worker.scheduling.step_costs import StepCosts
from engine_worker.speculation.drafter import Drafter
from engine_worker.speculation.policies import speculator_for
from engine_worker.text.sequence import Sequence
from gpufc.constraint import Constraint
from gpufc.errors import (
    ContextLengthExceeded,
    DecodeFailed,
    InvalidGrammar,
    OutOfCells,
    RequestError,
)
from gpufc.ids import Epoch, RequestNo
from gpufc.protocol import (
    Attach,
    Cancel,
    EnginePhase,
    EngineStatus,
    ExportKv,
    Generate,
    ImportKv,
    Started,
)


class StepRows(NamedTuple):
    """The rows of logits of one step, each with its pick and the token that was chosen."""

    logits: Logits
    picks: collections.abc.Sequence[Pick]
    chosen: list[int | RequestError]


logger = logging.getLogger(__name__)

ToEngine = Generate | Cancel | ExportKv | ImportKv | Attach | Wanted
"""The messages that are the engine thread's business. `Wanted` comes from a prepare thread."""


class Engine:
    """Owns the scheduler and the backend's KV cache; `inbox` is the only way in. Another thread
    looks for the `breakers` of a sequence before it comes in.

    Every `Generate` and `Wanted` that is put into the inbox is answered by exactly one terminal
    message through `emit`, unless the process ends first. No answer follows to a cancelled
    `Wanted`.
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
        guide: Callable[[Constraint], Guide] | None = None,
    ) -> None:
        """Without a `drafter`, no token is guessed ahead. Without `guide`, which returns the guide
        of a compiled constraint, constraints are refused."""
        facts, costs = backend.facts, StepCosts()
        n_spare = facts.max_outputs - max_running
        self._max_prompt_rows = max(1, min(MAX_PROMPT_ROWS, n_spare))
        profile = profile_of(facts)
        self.inbox: SimpleQueue[ToEngine] = SimpleQueue()
        self.progress = EngineStatus(step_started=time.monotonic())
        self.scheduler = scheduler_for(
            profile,
            max_running=max_running,
            batch_tokens=batch_tokens,
            costs=costs,
            keeps_prefix=backend.keeps_prefix,
            is_control=lambda token: not backend.piece(token),
        )
        self._backend = backend
        self._reporter = Reporter(emit, epoch, costs, may_hold=profile.overlaps)
        self._drafting = Drafting(
            speculator_for(profile.drafting, drafter, costs, steps_ahead=profile.steps_ahead),
            self.scheduler,
            self._reporter,
            n_ctx=facts.n_ctx,
            n_spare_outputs=n_spare,
            max_prompt_rows=self._max_prompt_rows,
        )
        self._embedding = EmbeddingTurn(backend, self._reporter, costs, on_device=profile.on_device)
        self._guide = guide
        self._choosing = Choosing(backend, ForeseenMasks(backend))
        self._ahead = StepAhead(backend, self.scheduler, profile, self._is_quiet)
        self._max_jump = max_jump(profile, max_running=max_running, batch_tokens=batch_tokens)
        self._scorer = Scorer(backend)
        self.breakers = BreakerStore(backend, facts.n_vocab)
        self._step = 0
        self._n_cells_used = 0  # after the last step: to count them would delay the next one

    def run(self) -> None:
        """Serve until the process ends. Raises `DecodeFailed` when the backend is lost."""
        while True:
            self.take_requests()
            plan = self.run_step()
            self.run_embedder(plan)

    def take_requests(self) -> None:
        """Handle everything in the inbox, unless the next step has begun; wait for a message when
        there is nothing to do."""
        if self.scheduler.is_idle:
            self._ahead.undo()
        elif self._ahead.began_at is not None:
            return
        if self.scheduler.is_idle and self._embedding.is_idle:
            self._count_cells()
            self._note(EnginePhase.IDLE, 0)
            self._handle(self.inbox.get())
        while True:
            try:
                self._handle(self.inbox.get_nowait())
            except Empty:
                return

    def run_step(self) -> Plan | None:
        """Draft, plan, begin, mask, report the step before, prepare, wait, choose, begin ahead,
        accept, foresee.

        A device computes from `begin` to `wait`; the verbs between them run meanwhile. Returns what
        was computed, if anything was.
        """
        if self.scheduler.is_idle:
            return None
        self._drafting.before_step()
        plan, started, began = self._begin_what_fits()
        self._choosing.begin(plan)
        self._reporter.flush()
        self._drafting.beside_step()
        n_recomputed = self._commit(plan)
        rows, computed, chosen_s = self._choose(plan)
        lost = self._ahead.begin(rows.chosen)
        accepting = time.monotonic()
        gained = self._accept_all(plan, rows)
        self._choosing.foresee(gained)
        chosen_s += time.monotonic() - accepting
        cost = StepCost(plan.n_tokens, computed - began, len(rows.logits), chosen_s)
        result = StepResult(self._step, gained, started, n_recomputed, cost)
        self._reporter.add(result, more=bool(self.scheduler.running))
        if lost is not None:  # in a step of the same requests
            self._reporter.failed(plan.requests, lost)
            raise lost
        return plan

    def _choose(self, plan: Plan) -> tuple[StepRows, float, float]:
        """Wait for the plan's rows and choose their tokens. Also returns when the rows were
        computed, in monotonic seconds, and the seconds of the choice."""
        prepared = self._choosing.prepare(plan)
        try:
            logits = self._wait_for(plan)
            computed = time.monotonic()
            chosen = self._choosing.choose(logits, prepared)
        except DecodeFailed as err:
            self._reporter.failed(plan.requests, err)
            raise
        return StepRows(logits, prepared.picks, chosen), computed, time.monotonic() - computed

    def run_embedder(self, step: Plan | None) -> None:
        """The embedder's pass after a step."""
        n_decoding, n_prefill = (step.n_decoding, step.n_prefill) if step else (0, 0)
        self._embedding.run(n_decoding, n_prefill, self._note_pass)

    def _note_pass(self, n_tokens: int) -> None:
        self._step += 1
        self._note(EnginePhase.PREFILL, n_tokens)

    def _begin_what_fits(self) -> tuple[Plan, list[Started], float]:
        """Begin the first plan that fits into the cache. Returns it, the starts of all, and when
        its computation began, in monotonic seconds."""
        started: list[Started] = []
        while True:
            plan = self.scheduler.plan()
            started += plan.started
            self._step += 1
            phase = EnginePhase.PREFILL if plan.is_prefill else EnginePhase.DECODE
            self._note(phase, plan.n_tokens)
            try:
                return plan, started, self._begin(plan)
            except OutOfCells:
                self._make_room()
            except DecodeFailed as err:
                self._reporter.failed(plan.requests, err)
                raise

    def _begin(self, plan: Plan) -> float:
        batch, began = batch_of(plan), self._ahead.began_at
        if began is None or not self._ahead.has_begun(plan.edits, batch):
            began = time.monotonic()
            edits.apply(plan.edits, self._backend)
            if plan.work:
                self._backend.begin(batch)
        self._ahead.foresee(plan, batch)
        return began

    def _is_quiet(self) -> bool:
        """Whether the next step has no work but that of the sequences that run."""
        return self.inbox.empty() and self._embedding.is_idle and self._drafting.is_quiet

    def _make_room(self) -> None:
        try:
            self.scheduler.make_room()
        except OutOfCells as err:
            (sequence,) = self.scheduler.running
            self._finish(sequence)
            refusal = ContextLengthExceeded(str(err), param="prompt")
            self._reporter.refused(sequence.request, refusal)

    def _commit(self, plan: Plan) -> int:
        n_recomputed = self.scheduler.commit(plan)
        self._count_cells()
        return n_recomputed

    def _wait_for(self, plan: Plan) -> Logits:
        if not plan.work:
            return np.empty((0, self._backend.facts.n_vocab), np.float32)
        return self._backend.logits()

    def _accept_all(self, plan: Plan, rows: StepRows) -> list[Sequence]:
        """Let sequences take their next tokens. Returns the sequences that gained any."""
        gained = []
        row = 0
        for work in plan.work:
            n_rows, first = work.n_rows, row
            row += n_rows
            if isinstance(work, Chunk):
                if work.sequence.scores_prompt:
                    self._score_prompt(work, rows.logits[first:row])
                if not work.is_last:
                    continue
                first = row - 1  # the rows before it are those of the prompt's own tokens
            if isinstance(work, (Decode, Chunk)) and self._accept(work, rows, first):
                gained.append(work.sequence)
        return gained

    def _score_prompt(self, work: Chunk, logits: Logits) -> None:
        sequence = work.sequence
        if sequence.prompt_logprobs is not None and sequence.spec.logprobs is not None:
            scored = self._scorer.prompt(sequence.spec.logprobs, work, logits)
            sequence.prompt_logprobs.add(scored)

    def _accept(self, work: Decode | Chunk, rows: StepRows, first: int) -> bool:
        """Take tokens as long as the guesses before them were right. False if the sequence is
        refused."""
        sequence, draft = work.sequence, work.draft
        wanted = sequence.spec.logprobs
        if wanted is not None and wanted.prompt and sequence.is_full():
            self._finish(sequence)
            return True
        scored = None
        ended, n_held = False, 0
        for token, guess in zip_longest(rows.chosen[first : first + 1 + len(draft)], draft):
            if isinstance(token, RequestError):
                return self._refuse(work, n_held, token)
            if wanted is not None:
                row = first + n_held
                scored = self._scorer.generated(wanted, rows.logits[row], rows.picks[row], token)
            try:
                ended = sequence.accept(token, scored)
            except InvalidGrammar as err:
                return self._refuse(work, n_held, err)
            if ended or token != guess:
                break
            n_held += 1
        if draft:
            sequence.draft = []
            self.scheduler.verified(work, n_held)
        try:
            ended = ended or sequence.jump()
        except InvalidGrammar as err:
            return self._refuse(work, 0, err)
        if ended:
            self._finish(sequence)
        return True

    def _refuse(self, work: Decode | Chunk, n_held: int, err: RequestError) -> bool:
        self.scheduler.verified(work, n_held)
        self._finish(work.sequence)
        self._reporter.refused(work.sequence.request, err)
        return False

    def _finish(self, sequence: Sequence) -> None:
        logger.debug(
            "sequence_ended request=%s choice=%d tokens=%d",
            *(sequence.spec.request_id, sequence.spec.choice, sequence.n_generated),
        )
        self.scheduler.finish(sequence)
        self._drafting.forget(sequence)

    def _handle(self, message: ToEngine) -> None:
        self._reporter.flush()
        match message:
            case Generate():
                self._admit(message)
            case Wanted():
                self._embedding.add(message)
            case Cancel(_, request):
                self._cancel(request)
            case Attach():
                self._begin_anew(message.successor)
            case ExportKv() | ImportKv():
                self._reporter.send(transfer.move(message, self._backend, self.scheduler.slots))

    def _admit(self, spec: Generate) -> None:
        logger.debug(
            "sequence_arrived request=%s choice=%d prompt_tokens=%d tokens=%d",
            *(spec.request_id, spec.choice, len(spec.prompt_tokens), len(spec.tokens)),
        )
        try:
            sequence = sequence_of(
                spec,
                self._backend,
                self._guide_of(spec),
                max_jump=self._max_jump,
                max_prompt_rows=self._max_prompt_rows,
                tails=self.breakers.tails,
            )
        except RequestError as err:
            self._reporter.refused(spec.request, err)
            return
        ended = sequence.nothing_to_generate()
        if ended is None:
            self.scheduler.add(sequence)
        else:
            self._reporter.nothing_to_do(self._step, ended)

    def _guide_of(self, spec: Generate) -> Guide | None:
        if spec.constraint is None:
            return None
        if self._guide is None:
            raise InvalidGrammar("this engine knows no constraints", param=spec.constraint.param)
        return self._guide(spec.constraint)

    def _cancel(self, request: RequestNo) -> None:
        sequence = self.scheduler.find(request)
        if sequence is None:
            self._embedding.remove(request)
            return
        self._finish(sequence)
        self._reporter.cancelled(request)

    def _begin_anew(self, epoch: Epoch) -> None:
        """Another front has taken over: no client waits for the sequences that there are, and
        their cells become prefixes."""
        for sequence in (*self.scheduler.running, *self.scheduler.waiting):
            self._finish(sequence)
        self._embedding.remove()
        self._reporter.begin_epoch(epoch)

    def _count_cells(self) -> None:
        used = self.scheduler.slots.n_cells_used
        self._n_cells_used = min(used, self._backend.facts.kv_cells)

    def _note(self, phase: EnginePhase, n_tokens: int) -> None:
        self.progress = EngineStatus(
            phase=phase,
            step=self._step,
            step_started=time.monotonic(),
            step_tokens=n_tokens,
            n_running=len(self.scheduler.running),
            n_waiting=len(self.scheduler.waiting),
            kv_cells_used=self._n_cells_used,
            n_threads=self._backend.n_threads,
        )
