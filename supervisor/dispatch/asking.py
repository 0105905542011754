"""Questions to any ready worker: prompts to tokenize, tokens to spell, inputs to embed.

No sequence comes of them. They are counted and bounded here, and wait in the model's group.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Protocol

from gpufc.constraint import Constraint
from gpufc.errors import InternalError, Overloaded
from gpufc.ids import Epoch, RequestNo
from gpufc.protocol import (
    Detokenize,
    Detokenized,
    Embedded,
    Embedding,
    Prepare,
    Prepared,
    Prompt,
    ToWorker,
)
from supervisor.dispatch import spelling
from supervisor.dispatch.embedding import Computed, EmbeddingRequest
from supervisor.dispatch.embedding_work import EmbeddingWork
from supervisor.dispatch.group import ModelGroup
from supervisor.dispatch.ledger import Ledger
from supervisor.dispatch.question import Answer, Question
from supervisor.dispatch.request import Principal

MAX_QUESTIONS = 1024
"""Questions (prompts to prepare, tokens to spell) that may be open at once for one model."""


class Ports(Protocol):
    """What the dispatcher knows of a model."""

    def group(self, model: str) -> ModelGroup:
        """Its sequences and workers."""
        ...

    def require_service(self, model: str, *, is_accepted: bool = False) -> None:
        """Raises `RequestError` unless the model is served."""
        ...

    def require_worker(self, model: str, group: ModelGroup) -> None:
        """Have the model loaded if it is not."""
        ...

    def embedded(self, model: str, group: ModelGroup) -> None:
        """A request for embeddings has ended."""
        ...


class Asking:
    """In the event loop."""

    def __init__(
        self,
        numbers: Iterator[RequestNo],
        clock: Callable[[], float],
        ledger: Ledger,
        ports: Ports,
    ) -> None:
        self._numbers = numbers
        self._clock = clock
        self._ledger = ledger
        self._ports = ports

    async def prepare(self, model: str, prompt: Prompt, reserve: int | None = 0) -> Sequence[int]:
        """The token ids of a prompt; `reserve` as in `Prepare`. Waits for a worker; raises
        `RequestError`."""
        return (await self.prepared(model, prompt, reserve)).prompt_tokens

    async def prepared(
        self,
        model: str,
        prompt: Prompt,
        reserve: int | None,
        constraint: Constraint | None = None,
        *,
        is_accepted: bool = False,
    ) -> Prepared:
        """As `prepare`, with all that the worker says of the prompt. A constraint that cannot be
        enforced raises `InvalidGrammar`.

        `is_accepted`: it is a part of what another front has accepted, and needs no room. A drain
        does not refuse it."""
        answer = await self._ask(
            model,
            lambda epoch, no: Prepare(epoch, no, prompt, reserve, constraint),
            is_accepted=is_accepted,
        )
        if isinstance(answer, Prepared):
            return answer
        raise InternalError("The engine answered a different question")

    async def detokenize(
        self, model: str, sequences: Iterable[Sequence[int]], *, is_accepted: bool = False
    ) -> list[bytes]:
        """The bytes of each token list; `is_accepted` as in `prepared`. Waits for a worker; raises
        `RequestError`.

        Many tokens are asked for in several messages: none holds the loop for long."""
        texts: list[bytes] = []
        for indices, parts in spelling.in_messages(sequences):
            answer = await self._ask(
                model, partial(Detokenize, sequences=parts), is_accepted=is_accepted
            )
            if not isinstance(answer, Detokenized):
                raise InternalError("The engine answered a different question")
            spelling.joined(indices, answer.pieces, texts)
        return texts

    async def embed(
        self,
        request: EmbeddingRequest,
        principal: Principal | None = None,
        *,
        is_accepted: bool = False,
    ) -> list[Embedding]:
        """The results of a request's inputs, in their order. Waits for a worker; raises
        `RequestError`. When the call is cancelled, the engine drops the rest.

        `is_accepted`: it is a part of what another front has accepted, and needs no room."""
        self._ports.require_service(request.model, is_accepted=is_accepted)
        group = self._ports.group(request.model)

        async def ask(message: Callable[[Epoch, RequestNo], ToWorker]) -> Computed:
            answer, fingerprint = await self._put(request.model, group, message, is_computed=True)
            if isinstance(answer, Embedded):
                return Computed(answer.embeddings, fingerprint)
            raise InternalError("The engine answered a different question")

        work = EmbeddingWork(
            request, principal, group.embedding, self._ledger, self._clock, self._numbers, ask
        )
        try:
            return await work.result(is_accepted=is_accepted)
        finally:
            self._ports.embedded(request.model, group)

    async def _ask(
        self,
        model: str,
        message: Callable[[Epoch, RequestNo], ToWorker],
        *,
        is_accepted: bool = False,
    ) -> Answer:
        self._ports.require_service(model, is_accepted=is_accepted)
        group = self._ports.group(model)
        if len(group.questions) >= MAX_QUESTIONS and not is_accepted:
            raise Overloaded("Too many questions are waiting for the engine", retry_after_s=1.0)
        answer, _ = await self._put(model, group, message)
        return answer

    async def _put(
        self,
        model: str,
        group: ModelGroup,
        message: Callable[[Epoch, RequestNo], ToWorker],
        *,
        is_computed: bool = False,
    ) -> tuple[Answer, str | None]:
        """The answer, and the fingerprint of the worker that has given it."""
        no = next(self._numbers)
        future: asyncio.Future[tuple[Answer, str | None]]
        future = asyncio.get_running_loop().create_future()

        def answered(answer: Answer) -> None:
            if not future.done():  # the worker may be gone when the future is read
                future.set_result((answer, group.fingerprint(answer.epoch)))

        group.questions.add(
            Question(
                no,
                lambda epoch: message(epoch, no),
                answered=answered,
                failed=lambda error: None if future.done() else future.set_exception(error),
                since=self._clock(),
                is_computed=is_computed,
            )
        )
        group.pump()
        self._ports.require_worker(model, group)
        try:
            return await future
        finally:
            group.questions.drop(no)
            if is_computed:
                group.pump()  # a sequence may have waited for it
