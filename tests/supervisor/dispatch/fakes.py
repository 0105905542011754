"""A fleet and its workers without processes: scripted, in the test's own event loop."""

import asyncio
import itertools
import struct
from collections import Counter
from collections.abc import Callable, Iterable

from msgspec import structs

from gpufc.chat import ChatPrompt
from gpufc.config import Replay
from gpufc.facts import ModelFacts
from gpufc.ids import Epoch, RequestId, RequestNo, WorkerName
from gpufc.packed import packed
from gpufc.protocol import (
    Cancel,
    Delta,
    Detokenize,
    Detokenized,
    Embed,
    Embedded,
    Embedding,
    EmbeddingInput,
    Finished,
    FinishReason,
    Generate,
    InfillPrompt,
    Logprob,
    LogprobsWanted,
    PairPrompt,
    Prepare,
    Prepared,
    Prompt,
    Refused,
    Started,
    Step,
    TextPrompt,
    TokenLogprobs,
    Tokens,
    ToWorker,
)
from gpufc.sampling import SamplingFields, SamplingParams
from supervisor.answers.parser import NewParser, PlainText
from supervisor.dispatch.dispatcher import Dispatcher
from supervisor.dispatch.request import GenerationRequest, Reading
from supervisor.dispatch.stream import ResponseStream
from supervisor.fleet.exit_reason import ExitReason, Reason
from supervisor.fleet.names import ServedNames
from supervisor.fleet.port import (
    Condition,
    ConditionStatus,
    SpareStatus,
    WorkerMessage,
    WorkerStatus,
)
from supervisor.fleet.states import WorkerState
from tests.fakes.facts import model_facts

MODEL = "fake-model"
N_CTX = 4096
N_VOCAB = 1000
N_TOKENS = 5
KILLED = ExitReason(signal=9, reason=Reason.KILLED, at=0.0)

OK = Condition(ConditionStatus.OK, "", 0.0)
LOADING = Condition(ConditionStatus.LOADING, "loading", 2.0)
FAILED = Condition(ConditionStatus.FAILED, "it does not load", 60.0)


def tokens_of(prompt: Prompt) -> Tokens:
    """One token for each byte, or the tokens themselves."""
    if isinstance(prompt, TextPrompt):
        return tuple(prompt.text.encode()) or (1,)
    if isinstance(prompt, InfillPrompt):
        return tuple(f"{prompt.prefix}_{prompt.suffix}".encode())
    if isinstance(prompt, ChatPrompt):
        text = "".join(f"<{message.role}>{message.content}" for message in prompt.messages)
        return tuple(text.encode())
    return prompt.tokens


def piece(spec: Generate, position: int) -> str:
    """The fake model's text: prompt, choice and position, so that no mix-up goes unseen."""
    return f"[{sum(spec.prompt_tokens)}.{spec.choice}.{position}]"


def logprobs_of(spec: Generate, position: int) -> TokenLogprobs:
    """The fake model's log probability of a token: different for each choice and position."""
    text = piece(spec, position)
    token = Logprob(position, text.encode(), -0.125 * (1 + position + 8 * (spec.choice % 3)))
    n_top = spec.logprobs.n_top if spec.logprobs else 0
    others = [Logprob(500 + rank, b"<%d>" % rank, -1.0 - rank) for rank in range(n_top)]
    return TokenLogprobs(token, tuple(others), len(text))


def prompt_logprobs_of(spec: Generate) -> tuple[TokenLogprobs, ...]:
    """Those of a prompt of one token for each byte."""
    return tuple(
        TokenLogprobs(Logprob(token, bytes((token,)), -0.5 if at else None), (), 1)
        for at, token in enumerate(spec.prompt_tokens)
    )


def text_of(prompt: str, n_tokens: int = N_TOKENS, choice: int = 0) -> str:
    """The whole answer to a text prompt."""
    total = sum(tokens_of(TextPrompt(prompt)))
    return "".join(f"[{total}.{choice}.{position}]" for position in range(n_tokens))


def embedding_of(facts: ModelFacts, asked: Embed, given: EmbeddingInput) -> Embedding:
    """The fake model's vector: the number of the input's tokens, then the fingerprint's bytes. A
    pair's score grows with the length of its document."""
    if isinstance(given, PairPrompt):
        return Embedding(struct.pack("<f", len(given.document) / 100), len(given.document))
    n_tokens = len(tokens_of(given))
    numbers = [float(n_tokens), *map(float, facts.fingerprint.encode())]
    kept = numbers[: asked.dimensions]
    return Embedding(struct.pack(f"<{len(kept)}f", *kept), n_tokens)


class FakeWorker:
    """A ready worker. Prepares at once; generates `n_at_once` tokens for each sequence with every
    `step`.

    With `auto`, steps follow each other by themselves as long as there is something to do.
    """

    def __init__(
        self,
        fleet: "FakeFleet",
        epoch: int,
        *,
        auto: bool = True,
        line: int = 1,
        fingerprint: str = "abc123",
    ) -> None:
        self.line = line
        self.n_drained = 0
        self.n_deaths_explained = 0
        self.name = WorkerName("default-0")
        self.epoch = Epoch(epoch)
        self.model = MODEL
        self.machine: str | None = None
        self.facts = model_facts(
            fingerprint=fingerprint, n_ctx=N_CTX, n_ctx_train=N_CTX, n_vocab=N_VOCAB
        )
        self.auto = auto
        self.answers_prepare = self.answers_embed = True
        self.n_tokens = N_TOKENS
        self.n_at_once = 1
        self.n_cached = 0
        self.sent: list[ToWorker] = []
        self.active: dict[RequestNo, tuple[Generate, int]] = {}
        self.most_active = 0
        self._fleet = fleet
        self._fresh: list[Generate] = []
        self._stepping = False
        self._steps = itertools.count(1)
        self.lost = False

    def drained(self) -> None:
        self.n_drained += 1

    def explain_deaths(self, count: int) -> None:
        self.n_deaths_explained += count

    def send(self, message: ToWorker) -> None:
        if self.lost:
            return
        self.sent.append(message)
        asyncio.get_running_loop().call_soon(self._handle, message)

    def tell(self, message: WorkerMessage) -> None:
        if not self.lost:
            self._fleet.dispatcher.worker_message(self, message)

    def _handle(self, message: ToWorker) -> None:
        match message:
            case Prepare() if self.answers_prepare:
                self._prepare(message)
            case Generate():
                self.active[message.request] = (message, len(message.tokens))
                self.most_active = max(self.most_active, len(self.active))
                self._fresh.append(message)
                self.go()
            case Cancel(_, request):
                if self.active.pop(request, None) is not None:
                    self.tell(Finished(self.epoch, request, FinishReason.CANCELLED))
            case Detokenize(_, request, sequences):
                self.tell(Detokenized(self.epoch, request, tuple(map(bytes, sequences))))
            case Embed() if self.answers_embed:
                found = tuple(embedding_of(self.facts, message, one) for one in message.inputs)
                self.tell(Embedded(self.epoch, message.request, found))
            case _:
                pass

    def _prepare(self, message: Prepare) -> None:
        tokens = tokens_of(message.prompt)
        if message.reserve is not None and len(tokens) >= N_CTX:
            code = "context_length_exceeded"
            self.tell(Refused(self.epoch, message.request, code, "too long", "prompt"))
        else:
            self.tell(Prepared(self.epoch, message.request, packed(tokens)))

    def go(self) -> None:
        """Begin to step by itself, if it is that kind of worker."""
        if self.auto and not self._stepping:
            self._stepping = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        self._stepping = False
        if self.active and self.auto:
            self.step()
            self.go()

    def step(self) -> None:
        """One token for everything that is active."""
        deltas = [self._delta(no, *self.active[no]) for no in list(self.active)]
        started = tuple(Started(spec.request, self.n_cached) for spec in self._fresh)
        self._fresh.clear()
        self.tell(Step(self.epoch, next(self._steps), tuple(deltas), started))

    def _delta(self, no: RequestNo, spec: Generate, position: int) -> Delta:
        limit = self.n_tokens if spec.max_tokens is None else min(spec.max_tokens, self.n_tokens)
        end = min(position + self.n_at_once, limit)
        self.active[no] = (spec, end)
        finish = None
        if end == spec.max_tokens:
            finish = FinishReason.LENGTH
        elif end == self.n_tokens:
            finish = FinishReason.STOP
        if finish:
            del self.active[no]
        positions = range(position, end)
        text = "".join(piece(spec, at) for at in positions)
        delta = Delta(no, position, tuple(positions), text, finish)
        if spec.logprobs is None:
            return delta
        return structs.replace(
            delta,
            logprobs=tuple(logprobs_of(spec, at) for at in positions),
            prompt_logprobs=()
            if position or not spec.logprobs.prompt
            else prompt_logprobs_of(spec),
        )

    def die(self, reason: ExitReason = KILLED) -> None:
        self.lost = True
        self._fleet.dispatcher.worker_lost(self, reason)


class FakeFleet:
    """One model. `worker` is the current one, if any."""

    def __init__(self, *, replicas: int = 1) -> None:
        self.dispatcher: Dispatcher
        self.names = ServedNames({MODEL: {"default"}})
        self.status = LOADING
        self.state = WorkerState.READY
        self.replicas = replicas
        self.defaults = SamplingFields()
        self.adapter_names: tuple[str, ...] = ()
        self.restarts_total: Counter[Reason] = Counter()
        self._epochs = itertools.count(1)

    def start_worker(
        self,
        *,
        auto: bool = True,
        line: int = 1,
        fingerprint: str = "abc123",
        tried: bool = True,
        name: str = "default-0",
    ) -> FakeWorker:
        """`tried`: it has just passed its trial, as after every crash."""
        self.status = OK
        epoch = next(self._epochs)
        worker = FakeWorker(self, epoch, auto=auto, line=line, fingerprint=fingerprint)
        worker.name = WorkerName(name)
        if tried:
            self.dispatcher.engine_proven(worker)
        self.dispatcher.worker_ready(worker)
        return worker

    def change(self, condition: Condition) -> None:
        self.status = condition
        self.dispatcher.condition_changed()

    def condition(self, model: str | None = None) -> Condition:
        return self.status

    def models(self) -> list[str]:
        return [MODEL]

    def resolve(self, name: str | None) -> str:
        return self.names.resolve(name)

    def shown(self, name: str | None) -> str:
        return self.names.shown(name)

    def replay(self, model: str) -> Replay:
        return Replay.FAST

    def sampling(self, model: str) -> SamplingFields:
        return self.defaults

    def adapters(self, model: str) -> tuple[str, ...]:
        return self.adapter_names

    def spares(self) -> list[SpareStatus]:
        return []

    def workers(self) -> list[WorkerStatus]:
        return [worker_status(f"default-{i}", self.state) for i in range(self.replicas)]


def worker_status(name: str, state: WorkerState = WorkerState.READY) -> WorkerStatus:
    return WorkerStatus(
        name=WorkerName(name),
        pid=1,
        epoch=Epoch(1),
        state=state,
        detail="",
        model=MODEL,
        model_path=None,
        restarts=0,
        last_exit=KILLED,
        rss_bytes=0,
        loading_fraction=1.0,
        loaded_in_s=0.1,
        last_step_at=None,
        last_heartbeat_at=None,
        facts=model_facts(fingerprint="abc123", n_ctx=N_CTX),
        engine=None,
    )


def request(
    *prompts: str,
    n: int = 1,
    max_tokens: int | None = None,
    name: str = "r",
    parser: NewParser = PlainText,
    stop: tuple[str, ...] = (),
    logprobs: LogprobsWanted | None = None,
) -> GenerationRequest:
    """A request for texts."""
    return GenerationRequest(
        id=RequestId(name),
        model=MODEL,
        prompts=tuple(map(TextPrompt, prompts or ("hello",))),
        sampling=SamplingParams(seed=1),
        created=0,
        n=n,
        max_tokens=max_tokens,
        stop=stop,
        logprobs=logprobs,
        reading=lambda _opening: Reading(parser),
    )


async def whole_texts(stream: ResponseStream) -> list[str]:
    """The text of each choice, once all are finished."""
    return [choice.text for choice in await stream.complete()]


async def until(condition: Callable[[], object], timeout_s: float = 60.0) -> None:
    """Let the loop run until something is so."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - any object's state, which has no event
            await asyncio.sleep(0)


def generates(messages: Iterable[ToWorker]) -> list[Generate]:
    return [message for message in messages if isinstance(message, Generate)]
