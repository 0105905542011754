"""The new front's side of the relay: serves the old front's sequences as a worker would.

Each `Generate` becomes a sequence of this front's dispatch, which continues from the tokens that it
has and survives worker deaths. New tokens go back as `Step`s. Request numbers are the old front's
on the connection and this front's inside.
"""

import asyncio
import logging
import socket
from collections.abc import Mapping, Sequence
from typing import Protocol

from gpufc import wire
from gpufc.constraint import Constraint
from gpufc.errors import LinkError, RequestError
from gpufc.ids import Epoch, RequestNo
from gpufc.packed import packed
from gpufc.protocol import (
    Cancel,
    Delta,
    Detokenize,
    Detokenized,
    Embed,
    Embedded,
    Embedding,
    Finished,
    FinishReason,
    FromWorker,
    Generate,
    Prepare,
    Prepared,
    Prompt,
    Refused,
    Started,
    Step,
    TokenLogprobs,
    Tokens,
)
from supervisor.dispatch.embedding import EmbeddingRequest
from supervisor.dispatch.stream import ResponseStream
from supervisor.handover.frames import Frames

logger = logging.getLogger(__name__)


class RelayedQuestions(Protocol):
    """The relay's port to questions of which no sequence comes."""

    async def prepared(
        self,
        model: str,
        prompt: Prompt,
        reserve: int | None,
        constraint: Constraint | None = None,
        *,
        is_accepted: bool = False,
    ) -> Prepared:
        """A prompt's tokens and opening. Waits for a worker; raises `RequestError`."""
        ...

    async def detokenize(
        self, model: str, sequences: Sequence[Tokens], *, is_accepted: bool = False
    ) -> Sequence[bytes]:
        """The bytes of each token list. Waits for a worker; raises `RequestError`."""
        ...

    async def embed(
        self, request: EmbeddingRequest, *, is_accepted: bool = False
    ) -> list[Embedding]:
        """The results of the inputs. Waits for a worker; raises `RequestError`."""
        ...


class RelayedDispatch(Protocol):
    """The relay's port to dispatch. Dispatch never refuses these sequences for lack of room: the
    old front has accepted them."""

    @property
    def asking(self) -> RelayedQuestions: ...

    def resume(self, model: str, sequence: Generate) -> ResponseStream:
        """Run a sequence from the tokens that it has. Raises `RequestError`."""
        ...


class Relay:
    """Serves one old front until it has ended. In the event loop.

    Invariant: every `Generate` gets exactly one terminal message, unless the connection ends
    before.
    """

    def __init__(self, dispatch: RelayedDispatch, models: Mapping[Epoch, str]) -> None:
        """`models` maps the old front's epochs to models."""
        self.ended = asyncio.Event()
        self._dispatch = dispatch
        self._models = models
        self._frames: Frames | None = None
        self._sequences: dict[tuple[Epoch, RequestNo], Relayed] = {}
        self._changed: dict[Relayed, None] = {}
        self._questions: dict[tuple[Epoch, RequestNo], asyncio.Task[None]] = {}

    def __len__(self) -> int:
        """Number of the old front's sequences that run or wait here."""
        return len(self._sequences)

    async def open(self, sock: socket.socket) -> None:
        """Take the connected socket over and serve it."""
        self._frames = await Frames.over(sock, self._heard, self._gone)

    def close(self) -> None:
        """Send the queued messages, and end."""
        if self._frames is not None:
            self._flush()
            self._frames.close()

    # messages of the old front

    def _heard(self, data: bytes) -> None:
        message = wire.decode_to_worker(data)
        model = self._models.get(message.epoch)
        if model is None:
            raise LinkError(f"the old front used the unknown epoch {message.epoch}")
        match message:
            case Generate():
                self._generate(model, message)
            case Cancel(epoch, request):
                relayed = self._sequences.get((epoch, request))
                if relayed is not None:
                    relayed.stream.cancel()
                elif (question := self._questions.get((epoch, request))) is not None:
                    question.cancel()
            case Prepare() | Detokenize() | Embed():
                task = asyncio.create_task(self._ask(model, message))
                key = message.epoch, message.request
                self._questions[key] = task
                task.add_done_callback(lambda _: self._questions.pop(key, None))
            case _:
                raise LinkError(f"the old front sent an unexpected {type(message).__name__}")

    def _generate(self, model: str, message: Generate) -> None:
        try:
            stream = self._dispatch.resume(model, message)
        except RequestError as err:
            self._send(_refused(message, err))
            return
        relayed = Relayed(self, message, stream)
        self._sequences[message.epoch, message.request] = relayed
        stream.observe(relayed)

    async def _ask(self, model: str, message: Prepare | Detokenize | Embed) -> None:
        try:
            self._send(await self._answer(model, message))
        except RequestError as err:
            self._send(_refused(message, err))

    async def _answer(self, model: str, message: Prepare | Detokenize | Embed) -> FromWorker:
        epoch, request, dispatch = message.epoch, message.request, self._dispatch
        match message:
            case Prepare():
                found = await dispatch.asking.prepared(
                    model, message.prompt, message.reserve, message.constraint, is_accepted=True
                )
                return Prepared(epoch, request, packed(found.prompt_tokens), found.opening)
            case Detokenize():
                pieces = await dispatch.asking.detokenize(
                    model, message.sequences, is_accepted=True
                )
                return Detokenized(epoch, request, tuple(pieces))
            case Embed(inputs=inputs, truncate=truncate, dimensions=dimensions):
                asked = EmbeddingRequest(
                    model=model, inputs=inputs, truncate=truncate, dimensions=dimensions
                )
                vectors = await dispatch.asking.embed(asked, is_accepted=True)
                return Embedded(epoch, request, tuple(vectors))

    # progress of this front's sequences

    def changed(self, relayed: "Relayed") -> None:
        """A sequence has news. One turn of the loop makes one message, as an engine's step does."""
        if not self._changed:
            asyncio.get_running_loop().call_soon(self._flush)
        self._changed[relayed] = None

    def _flush(self) -> None:
        changed, self._changed = self._changed, {}
        steps: dict[Epoch, tuple[list[Delta], list[Started]]] = {}
        ends: list[FromWorker] = []
        for relayed in changed:
            deltas, started = steps.setdefault(relayed.epoch, ([], []))
            started += relayed.take_started()
            deltas += relayed.take_delta()
            ends += relayed.end()
            if relayed.is_over:
                self._sequences.pop((relayed.epoch, relayed.request), None)
        for epoch, (deltas, started) in steps.items():
            if deltas or started:
                self._send(Step(epoch, 0, tuple(deltas), tuple(started)))
        for end in ends:
            self._send(end)

    def _send(self, message: FromWorker) -> None:
        if self._frames is not None:
            self._frames.write(wire.encode(message))

    def _gone(self) -> None:
        """The old front has ended, and its clients' connections with it."""
        for relayed in list(self._sequences.values()):
            relayed.stream.cancel()
        for task in list(self._questions.values()):
            task.cancel()
        self._sequences.clear()
        self.ended.set()


class Relayed:
    """One of the old front's sequences. Implements `dispatch.stream.StreamObserver`."""

    def __init__(self, relay: Relay, asked: Generate, stream: ResponseStream) -> None:
        self.epoch = asked.epoch
        self.request = asked.request
        self.stream = stream
        self.is_over = False
        self._relay = relay
        (self._log,) = stream.logs
        self._n_tokens = len(asked.tokens)
        self._n_texts = len(self._log.texts)
        self._n_logprobs = len(self._log.logprobs)
        self._prompt_is_told = bool(asked.tokens)
        self._has_started = False

    def gained(self, index: int) -> None:
        self._relay.changed(self)

    def ended(self) -> None:
        self._relay.changed(self)

    def take_started(self) -> list[Started]:
        """Whether the sequence has left the queue; true once."""
        if self._has_started or self._log.n_cached is None:
            return []
        self._has_started = True
        return [Started(self.request, self._log.n_cached)]

    def take_delta(self) -> list[Delta]:
        """Tokens and text since the last call. Tokens without text may wait for their text."""
        log, finish = self._log, self._log.finish
        position = self._n_tokens
        tokens, text = tuple(log.tokens[position:]), "".join(log.texts[self._n_texts :])
        self._n_tokens, self._n_texts = len(log.tokens), len(log.texts)
        if self.is_over or finish is FinishReason.CANCELLED:
            finish = None
        if finish is not None:
            self.is_over = True
        if not tokens and not text and finish is None:
            return []
        logprobs, of_prompt = self._take_logprobs()
        return [
            Delta(
                *(self.request, position, tokens, text, finish),
                *(log.by_end_token, log.stopped_by, logprobs, of_prompt, log.sampler_state),
            )
        ]

    def _take_logprobs(self) -> tuple[tuple[TokenLogprobs, ...], tuple[TokenLogprobs, ...]]:
        start, self._n_logprobs = self._n_logprobs, len(self._log.logprobs)
        of_prompt = () if self._prompt_is_told else self._log.prompt_logprobs
        self._prompt_is_told = True
        return tuple(self._log.logprobs[start:]), of_prompt

    def end(self) -> list[FromWorker]:
        """The terminal message of a sequence that ends without finishing."""
        if self.is_over:
            return []
        if self.stream.error is not None:
            self.is_over = True
            return [_refused(self, self.stream.error)]
        if self.stream.cancelled:
            self.is_over = True
            return [Finished(self.epoch, self.request, FinishReason.CANCELLED)]
        return []


class _Asked(Protocol):
    @property
    def epoch(self) -> Epoch: ...
    @property
    def request(self) -> RequestNo: ...


def _refused(asked: _Asked, error: RequestError) -> Refused:
    return Refused(asked.epoch, asked.request, error.code, error.message, error.param)
