"""The prepare threads: answer the front's questions about prompts and texts.

    worker's channel thread ── put, cancel ─▶ PrepareQueue ─▶ one thread for each lane ─▶ send

A question may not end the process or hold up others: long texts are tokenized in safe pieces, and
what is not safe goes to the thread with the tokenizer process.
"""

import logging
import threading
from collections.abc import Callable
from functools import partial

from engine_worker.backend.port import Backend
from engine_worker.disposable import Child
from engine_worker.prompts import templates
from engine_worker.prompts.apart import IDLE_S, TokenizerProcess
from engine_worker.prompts.embedding_inputs import RANK_TEMPLATE, EmbeddingInputs, Wanted
from engine_worker.prompts.preparer import PromptPreparer
from engine_worker.prompts.queue import Lane, PrepareQueue, Question, Task
from engine_worker.prompts.spelling import spelt
from engine_worker.prompts.template_process import TemplateRenderer
from engine_worker.prompts.tokenizer import NeedsApart, PrepareCancelled, Tokenizer
from gpufc.chat import ChatPrompt
from gpufc.config import Confinement, ModelConfig
from gpufc.constraint import Constraint
from gpufc.errors import EngineUnavailable, InvalidGrammar, InvalidRequest, RequestError
from gpufc.ids import Epoch, RequestNo
from gpufc.packed import packed
from gpufc.protocol import (
    Detokenize,
    Detokenized,
    Embed,
    FromWorker,
    Prepare,
    Prepared,
    PrepareStatus,
    Refused,
    Tokens,
)

logger = logging.getLogger(__name__)

STACK_BYTES = 64 << 20
"""Of a prepare thread: ten times what `pieces.MAX_PIECE_CHARS` needed in the worst case."""

WARM_UP_S = 2.0
"""After it has nothing to do for so long, the second lane starts its template process: not while
the streams of a worker that died wait for this one."""

MOST_WARM_UP_WAITS = 30
"""It waits so many times more while the engine computes. On few cores the start of a process takes
as much from the streams as three of their steps."""

OPENING_TOKENS = 16
"""Enough for the longest marker that a template opens a model's reasoning with."""

StartThread = Callable[[str, Callable[[], None]], None]


def _no_embeddings(_wanted: Wanted) -> None:
    raise InvalidRequest("embeddings are not served here", param="model")


def _no_constraints(constraint: Constraint) -> None:
    raise InvalidGrammar("constraints are not served here", param=constraint.param)


class PromptService:
    """Answers questions in threads of its own. `put`, `cancel` and `status` are for any thread.

    Every question is answered once, by `Prepared`, `Detokenized` or `Refused`, or passed on to
    `embed`, unless it is cancelled.
    """

    def __init__(
        self,
        backend: Backend,
        config: ModelConfig,
        send: Callable[[FromWorker], None],
        compile_constraint: Callable[[Constraint], None] = _no_constraints,
        embed: Callable[[Wanted], None] = _no_embeddings,
    ) -> None:
        """`compile_constraint` raises `InvalidGrammar` for one that cannot be enforced. `embed`
        takes the inputs of an `Embed` as tokens, and sees to its answer.

        Raises `ModelLoadError` if the configured chat template does not exist."""
        self._backend, self._config, self._send = backend, config, send
        self._compile, self._embed = compile_constraint, embed
        self._queue = PrepareQueue()
        own = backend.facts.chat_template
        self.template = templates.chosen(config.chat_template, own, backend.template)
        self._names = backend.special_tokens().names
        self._tokenizer = Tokenizer(backend)
        self.template_error = ""

    def try_template(self, child: Child | None) -> None:
        """Find out whether the chat template can be used. `child` is a template process that
        waits; its thread must live as long as this process."""
        renderer = self._renderer()
        try:
            renderer.start(child)
        except EngineUnavailable as err:
            logger.warning("template_not_tried reason=%s", err)
        except RequestError as err:
            logger.warning("template_refused reason=%s", err)
            self.template_error = err.message
        self._first_renderer = renderer

    def start(self, start_thread: StartThread, is_idle: Callable[[], bool]) -> None:
        """Start a thread for each lane. `is_idle` tells that the engine computes nothing."""
        self._is_idle = is_idle
        before = threading.stack_size(STACK_BYTES)
        try:
            for lane in Lane:
                start_thread(f"prepare-{lane.value}", partial(self._serve, lane))
        finally:
            threading.stack_size(before)

    def put(self, question: Question) -> None:
        """Take a question in; it is refused at once if too many wait."""
        try:
            self._queue.put(question)
        except RequestError as err:
            self._send(_refused(question, err))

    def cancel(self, epoch: Epoch, request: RequestNo) -> bool:
        """Drop a question, also one that is being answered. False if there is none."""
        return self._queue.cancel(epoch, request)

    def status(self) -> PrepareStatus:
        """The record for a heartbeat."""
        return self._queue.status()

    def _renderer(self) -> TemplateRenderer:
        confined = self._config.confinement is not Confinement.OFF
        return TemplateRenderer(self.template, self._names, confined=confined)

    def _serve(self, lane: Lane) -> None:
        apart = self._apart() if lane is Lane.APART else None
        renderer = self._first_renderer if lane is Lane.SHORT else self._renderer()
        renderer.error = self._first_renderer.error
        preparer = PromptPreparer(
            self._backend.facts,
            self._tokenizer,
            renderer,
            apart,
            special_tokens_in_content=self._config.special_tokens_in_content,
        )
        inputs = EmbeddingInputs(
            self._backend.facts, self._tokenizer, self._backend.template(RANK_TEMPLATE), apart
        )
        helps = False
        n_waits = 0
        while True:
            task = self._queue.take(lane, _patience_s(lane, helps), helps=helps)
            if task is None:
                n_waits += 1
                if apart is not None:
                    apart.close_if_idle()
                elif self._is_idle() or n_waits > MOST_WARM_UP_WAITS:
                    self._warm_up(renderer)
                    helps = True
                continue
            try:
                answer = self._answer(task, preparer, inputs)
            except NeedsApart:
                self._queue.move(task, Lane.APART)
                continue
            except PrepareCancelled:
                answer = None
            except RequestError as err:
                answer = _refused(task.question, err)
            self._queue.done(task)
            if answer is not None and not task.is_cancelled:
                self._send(answer)

    def _warm_up(self, renderer: TemplateRenderer) -> None:
        """Start a template process ahead of the first question that needs it."""
        try:
            renderer.start()
        except RequestError as err:
            logger.warning("template_process_not_started reason=%s", err)

    def _apart(self) -> TokenizerProcess | None:
        module, path = self._backend.tokenizer_module, self._config.model_path
        return TokenizerProcess(module, path) if module and path else None

    def _opening(self, tokens: Tokens) -> str:
        """The text of a prompt's last tokens, from which the answer goes on."""
        spelling = self._backend.spelling
        return b"".join(map(spelling, tokens[-OPENING_TOKENS:])).decode(errors="replace")

    def _answer(
        self, task: Task, preparer: PromptPreparer, inputs: EmbeddingInputs
    ) -> FromWorker | None:
        match task.question:
            case Embed() as wanted:
                self._embed(_with_tokens(wanted, inputs, task.cancelled))
                return None
            case Prepare(epoch, request, prompt, reserve, constraint):
                tokens = preparer.prepare(prompt, reserve, task.cancelled)
                if constraint is not None:
                    self._compile(constraint)
                opening = self._opening(tokens) if isinstance(prompt, ChatPrompt) else ""
                return Prepared(epoch, request, packed(tokens), opening)
            case Detokenize(epoch, request, sequences):
                spelling, n_vocab = self._backend.spelling, self._backend.facts.n_vocab
                return Detokenized(
                    epoch, request, spelt(sequences, spelling, n_vocab, task.require_wanted)
                )


def _with_tokens(wanted: Embed, inputs: EmbeddingInputs, cancelled: Callable[[], bool]) -> Wanted:
    inputs.require_possible(wanted)
    tokens = [
        inputs.tokens(one, truncate=wanted.truncate, cancelled=cancelled) for one in wanted.inputs
    ]
    return Wanted(wanted.epoch, wanted.request, tuple(tokens), wanted.dimensions)


def _patience_s(lane: Lane, helps: bool) -> float | None:
    """How long a lane's thread waits for a question before it looks after its processes."""
    match lane:
        case Lane.APART:
            return IDLE_S
        case Lane.ANY if not helps:
            return WARM_UP_S
        case _:
            return None


def _refused(question: Question, err: RequestError) -> Refused:
    return Refused(question.epoch, question.request, err.code, err.message, err.param)
