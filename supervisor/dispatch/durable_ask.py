"""A client's wish for a durable request, for a search beyond this front."""

from collections.abc import Callable

from msgspec import Struct

from supervisor.dispatch.durable import DurableKey, DurableRequest
from supervisor.dispatch.request import GenerationRequest


class DurableAsk(Struct, frozen=True):
    """A request under a key that no durable request of this front has.

    `n_bytes` and `digest` are of its body. `accept` makes the request, `require_room` checks that
    it may begin here, `start` begins it; each may raise `RequestError`. Without `starts`, only one
    that exists is wanted.
    """

    key: DurableKey
    digest: bytes
    n_bytes: int
    scope: str
    accept: Callable[[], GenerationRequest]
    require_room: Callable[[GenerationRequest], None]
    start: Callable[[GenerationRequest], DurableRequest]
    starts: bool
