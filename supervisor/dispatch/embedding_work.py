"""One request for embeddings on its way: its place, its pieces' turns, its account, its count."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

from gpufc.errors import Overloaded, RequestError
from gpufc.ids import Epoch, RequestNo
from gpufc.protocol import Embed, Embedding, FinishReason, ToWorker
from supervisor.dispatch import embedding
from supervisor.dispatch.embedding import Computed, EmbeddingRequest, Piece
from supervisor.dispatch.embedding_turns import EmbeddingTurns
from supervisor.dispatch.ledger import Ledger, Outcome
from supervisor.dispatch.request import Principal

Ask = Callable[[Callable[[Epoch, RequestNo], ToWorker]], Awaitable[Computed]]


class EmbeddingWork:
    """Used once, in the event loop. `ask` puts a question to a worker."""

    def __init__(
        self,
        request: EmbeddingRequest,
        principal: Principal | None,
        turns: EmbeddingTurns,
        ledger: Ledger,
        clock: Callable[[], float],
        numbers: Iterator[RequestNo],
        ask: Ask,
    ) -> None:
        self._request = request
        self._owner = principal.owner if principal else ""
        self._account = principal.account if principal else None
        self._turns = turns
        self._ledger = ledger
        self._clock = clock
        self._numbers = numbers
        self._ask = ask

    async def result(self, *, is_accepted: bool) -> list[Embedding]:
        """The results of all inputs. Raises `RequestError`; unless `is_accepted`, `Overloaded` for
        the lack of a place."""
        request, account, began = self._request, self._account, self._clock()
        if not is_accepted:
            self._require_place()
        if account is not None:
            account.require_room(1)
            account.open(1)
        self._turns.enter(self._owner)
        ledger, n_tokens = self._ledger.of(request.model), 0
        outcome, reason = Outcome.CANCELLED, FinishReason.STOP.value
        try:
            found = await embedding.compute(request.inputs, self._piece)
            n_tokens = sum(one.n_tokens for one in found)
            ledger.tokens.prompt += n_tokens
            outcome = Outcome.SUCCEEDED
            return found
        except RequestError as err:
            outcome, reason = embedding.outcome_of(err), err.code
            raise
        finally:
            self._turns.leave(self._owner)
            if account is not None:
                account.close(1, n_tokens, self._clock() - began)
            ledger.ended(outcome, self._clock() - began, reason)

    def _require_place(self) -> None:
        try:
            self._turns.require_room(self._owner)
        except Overloaded as err:
            self._ledger.rejected(err, self._request.model)
            raise

    async def _piece(self, piece: Piece) -> Computed:
        request = self._request

        def message(epoch: Epoch, no: RequestNo) -> Embed:
            return Embed(epoch, no, piece, request.truncate, request.dimensions)

        no, has_turn = next(self._numbers), asyncio.Event()
        self._turns.wait(no, self._owner, embedding.size_of(piece), has_turn.set)
        try:
            await has_turn.wait()
            return await self._ask(message)
        finally:
            self._turns.ended(no)
