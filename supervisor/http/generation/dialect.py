"""The port that each client dialect implements: how a request's answer is written."""

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from supervisor.answers.whole import WholeAnswer
from supervisor.dispatch.request import GenerationRequest
from supervisor.dispatch.stream import Usage
from supervisor.dispatch.timings import Timings
from supervisor.http.edge.streams import EventEncoder


class Exchange(Struct, frozen=True, kw_only=True):
    """The facts of one answer that every dialect may tell. `created` is unix time in seconds.

    `usage` gives the tokens so far: the prompt's are known once a choice has begun. `usage_of` and
    `tokens_of` are those of one choice. `timings` are complete when the request has ended.
    """

    id: str
    created: int
    model: str
    system_fingerprint: str | None
    request: GenerationRequest
    usage: Callable[[], Usage]
    usage_of: Callable[[int], Usage]
    tokens_of: Callable[[int], tuple[int, ...]]
    timings: Timings

    def call_id(self, index: int, call: int) -> str:
        """The id of a call of choice `index` where the model gives none: the same for every reader
        of the answer."""
        return f"call_{self.request.id.rpartition('-')[2]}_{index}_{call}"


class Dialect(Protocol):
    """One client API's way to write one answer. Made for each request.

    It translates and holds no state of the request: an encoder's state is a function of the parts
    that it has written.
    """

    @property
    def id_prefix(self) -> str:
        """The beginning of an answer's id."""
        ...

    def whole(self, exchange: Exchange, choices: list[WholeAnswer]) -> object:
        """The document of an answer that is not streamed."""
        ...

    def encoder(self, exchange: Exchange) -> EventEncoder:
        """The writer of a streamed answer."""
        ...
