"""Whole answers to deterministic requests, for exact repeats. Off unless it is configured.

A request is deterministic if it is greedy or names its seed. Its answer belongs to the key that
asked, or to its `cache_group`, and to the model's fingerprint. A repeat has the same body, byte for
byte. Streams, durable requests, long bodies and OpenAI's responses, which are remembered anyway,
are computed every time.
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable

import msgspec
from aiohttp import web
from msgspec import Struct

from gpufc.config import LimitsConfig
from supervisor.dispatch.request import Principal

HEADER = "X-Gpufc-Cache"
"""On every answer that could be cached: `hit` or `miss`."""

_OVERHEAD_BYTES = 300
"""Of an entry, beside its body."""

_encoder = msgspec.msgpack.Encoder()


class _Entry(Struct, frozen=True):
    body: bytes
    expires: float


class AnswerCache:
    """At most `max_bytes` of answers, each for `life_s`. The least recently used goes first."""

    def __init__(
        self, max_bytes: int, life_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_bytes, self._life_s, self._clock = max_bytes, life_s, clock
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self.n_bytes = 0

    @classmethod
    def of(cls, limits: LimitsConfig) -> "AnswerCache | None":
        """The configured cache; None if it is off."""
        if not limits.response_cache_bytes:
            return None
        return cls(limits.response_cache_bytes, limits.response_cache_s)

    def get(self, key: bytes) -> bytes | None:
        """The body of the answer to an equal request, if it is still kept."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.expires <= self._clock():
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry.body

    def put(self, key: bytes, body: bytes) -> None:
        """Keep an answer, unless it alone is too large."""
        self._drop(key)
        if _cost(body) > self._max_bytes:
            return
        self._entries[key] = _Entry(body, self._clock() + self._life_s)
        self.n_bytes += _cost(body)
        while self.n_bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.n_bytes -= _cost(entry.body)


ANSWERS: web.AppKey[AnswerCache | None] = web.AppKey("answers")


def key_of(principal: Principal, *asked: object) -> bytes:
    """What makes a request an exact repeat: who asks, and all that is asked."""
    owner = principal.cache_scope or principal.owner
    return hashlib.sha256(_encoder.encode((owner, asked))).digest()


def _cost(body: bytes) -> int:
    return len(body) + _OVERHEAD_BYTES


class CachePlace(Struct, frozen=True):
    """The place of one request's answer. Without `is_read`, the client wants it computed anew."""

    cache: AnswerCache
    key: bytes
    headers: dict[str, str]
    is_read: bool

    def known(self) -> web.Response | None:
        """The answer to an equal request, if it is kept."""
        body = self.cache.get(self.key) if self.is_read else None
        if body is None:
            return None
        headers = self.headers | {HEADER: "hit"}
        return web.Response(body=body, content_type="application/json", headers=headers)

    def kept(self, answer: web.StreamResponse) -> web.StreamResponse:
        """The answer, kept for the next equal request."""
        body = answer.body if isinstance(answer, web.Response) else None
        if isinstance(body, bytes | bytearray) and answer.status == 200:
            self.cache.put(self.key, bytes(body))
            answer.headers[HEADER] = "miss"
        return answer
