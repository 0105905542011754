"""Durable requests of other fronts as this front's own: running ones, and finished ones."""

import itertools
from collections.abc import Callable

from gpufc.errors import Overloaded, RequestError, from_wire
from gpufc.ids import RequestNo
from gpufc.protocol import TextPrompt
from supervisor.cells.records import Finished, Life, Opened
from supervisor.cells.state import Known
from supervisor.dispatch.dispatcher import Dispatcher
from supervisor.dispatch.durable import DurableKey, DurableRequest
from supervisor.dispatch.durable_store import DurableRequests
from supervisor.dispatch.port import ServedFleet
from supervisor.dispatch.request import Account, Principal, ReadingOf, Scope, plain
from supervisor.dispatch.stream import ResponseStream
from supervisor.dispatch.stream_log import logs_of

AccountOf = Callable[[str], Account | None]

AGAIN_S = 5.0
"""When a client of a request that does not fit may ask again."""

ANY_TEXT = "a"
"""For a question that waits for the model. A model without a first token refuses an empty text."""

MOST_UNASKED = 4
"""A request has run in at most so many fronts before its client has to ask for the next one."""


def no_account(_principal: str) -> None:
    """For a front without keys."""


class Reviving:
    """In the event loop. Nothing waits here, so nothing changes while a request is revived."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        fleet: ServedFleet,
        durable: DurableRequests,
        account_of: AccountOf,
    ) -> None:
        self._dispatcher = dispatcher
        self._fleet = fleet
        self._durable = durable
        self._account_of = account_of

    def require_room(self, life: Life) -> None:
        """Check that the request fits beside the durable ones here. Raises `RequestError`."""
        accepted = life.opened.accepted
        n_sequences = len(accepted.prompts) * accepted.n
        opened = life.opened
        self._durable.require_room(opened.principal, opened.n_bytes, n_sequences)
        self._dispatcher.require_durable_share(self._fleet.resolve(accepted.model))

    def must_load(self, life: Life, known: Known) -> bool:
        """Whether only loading the model tells if it is the one that has begun the request."""
        model = self._fleet.resolve(life.opened.accepted.model)
        return known.fingerprint is not None and self._dispatcher.facts(model) is None

    async def load(self, life: Life) -> None:
        """Have the model loaded. Raises `RequestError`."""
        model = self._fleet.resolve(life.opened.accepted.model)
        await self._dispatcher.asking.prepare(model, TextPrompt(ANY_TEXT))

    def require_fitting(self, life: Life, known: Known) -> None:
        """Check that the model here is the one that has begun the request: no other model could end
        it, and the front that claims it keeps it. Raises `Overloaded`."""
        if not self._fits(self._fleet.resolve(life.opened.accepted.model), known):
            raise Overloaded(
                "This request has begun on another file of the model: ask a front that has it",
                retry_after_s=AGAIN_S,
            )

    def _fits(self, model: str, known: Known) -> bool:
        facts = self._dispatcher.facts(model)
        return facts is None or known.fingerprint in (None, facts.fingerprint)

    def can_go_on(self, life: Life, known: Known) -> bool:
        """Whether the request can go on here now, without its client. One that has gone on in
        several fronts waits for its client: it may be what ends them."""
        accepted = life.opened.accepted
        if accepted.model not in self._fleet.models() or len(life.runs) > MOST_UNASKED:
            return False
        if self._dispatcher.facts(accepted.model) is None or not self._fits(accepted.model, known):
            return False
        if known.needs_client(len(accepted.prompts), is_plain=life.opened.is_plain):
            return False
        wanted = {use.name for use in accepted.adapters}
        if not wanted <= set(self._fleet.adapters(accepted.model)):
            return False
        try:
            self.require_room(life)
        except RequestError:
            return False
        return True

    def running(self, life: Life, known: Known, reading: ReadingOf | None) -> DurableRequest:
        """The request, which goes on here. Without a `reading`, it runs without one until its
        client comes. Raises `RequestError`. `began` follows, once it has a follower."""
        opened = life.opened
        stream = self._dispatcher.go_on(
            opened.accepted.request(reading or plain),
            self._principal(opened),
            lambda logs: known.fill(logs, reading),
        )
        return self._taken_in(life, stream, known, lacks_reading=reading is None)

    def _principal(self, opened: Opened) -> Principal:
        """The key that the request was accepted with. It may have ended since; its running requests
        go on, as in the front that accepted them."""
        return Principal(
            opened.principal,
            frozenset({Scope.GENERATE}),
            cache_scope=opened.scope,
            account=self._account_of(opened.principal),
        )

    def began(self, revived: DurableRequest) -> None:
        """It is observed from now on; no client reads it yet."""
        revived.leave_alone()
        revived.stream.observe(revived)

    def finished(self, life: Life, end: Finished, reading: ReadingOf) -> DurableRequest:
        """The answer of another front."""
        request = life.opened.accepted.request(reading)
        logs = logs_of(request, itertools.repeat(RequestNo(0)), life.opened.scope)
        known = Known()
        known.add(end.gain)
        known.fill(logs, reading)
        stream = ResponseStream(
            request,
            logs,
            on_cancel=lambda _stream: None,
            fingerprint=lambda: logs[0].fingerprint,
        )
        if end.error is not None:
            stream.error = from_wire(end.error.code, end.error.message, end.error.param)
        revived = self._taken_in(life, stream, known, lacks_reading=False)
        revived.is_replicated = True
        stream.observe(revived)
        return revived

    def _taken_in(
        self, life: Life, stream: ResponseStream, known: Known, *, lacks_reading: bool
    ) -> DurableRequest:
        opened = life.opened
        key = DurableKey(opened.principal, opened.key)
        revived = self._durable.take_in(key, opened.digest, opened.n_bytes, stream)
        revived.restore(known.order, known.tags)
        revived.lacks_reading = lacks_reading and not opened.is_plain
        return revived
