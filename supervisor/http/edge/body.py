"""Request bodies: bounded in size, time and number while they arrive, then decoded into structs.

A large body is weighed and decoded in a thread, one at a time, so that the loop goes on.
"""

import asyncio
import hashlib
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from mmap import mmap
from typing import NamedTuple, TypeVar

from aiohttp import HttpVersion, web
from msgspec import structs

from gpufc.config import LimitsConfig
from gpufc.errors import InvalidRequest, RequestTimeout, RequestTooLarge, UnsupportedMediaType
from supervisor.http.edge.body_budget import SMALL_BYTES, BodyBudget
from supervisor.http.edge.body_cost import Cost, weigh
from supervisor.http.edge.context import services
from supervisor.http.edge.long_strings import LEAST_BYTES, Stretch, decode_in_steps
from supervisor.http.edge.values import decode

T = TypeVar("T")

MAX_FORM_BYTES = 16_384

COPIES = 2
"""A large body is there twice at once: as it came and decoded, then decoded and in the message to
a worker. `body_cost` adds what other characters than ASCII take."""

CHUNKED_BYTES = 2048
"""What is taken at a time of a body in HTTP chunks, which may have a byte each."""

BREATH_S = 0.001
"""A turn of the loop would not do: a request that has come in is answered after some turns."""

Body = bytearray | mmap

UNTYPED = ("/api/",)
"""The beginnings of paths whose clients may leave a body's type out: Ollama does not look at it."""


class Weighed(NamedTuple):
    """The memory of a body's values, and its parts that take long to decode: the stretches of it
    that are inside a long string, and whether there are many values. `n_members` are those of all
    its objects."""

    n_bytes: int
    stretches: Sequence[Stretch] = ()
    has_many_values: bool = False
    n_members: int = 0


LIGHT = Weighed(0)


class Bodies:
    """All bodies of the front: their budget, that of large answers, and the thread that decodes
    large bodies."""

    def __init__(self, limits: LimitsConfig) -> None:
        self.budget = BodyBudget(limits.max_bodies_bytes)
        self.answers = BodyBudget(limits.max_bodies_bytes)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="decode")

    async def decode_large(self, body: Body, kind: type[T], holding: "Holding") -> T:
        """Raises `RequestError` or msgspec's errors."""
        loop = asyncio.get_running_loop()
        weighed = await loop.run_in_executor(self._thread, _weighed, body)
        holding.more(weighed.n_bytes)
        decoded = await loop.run_in_executor(self._thread, _decode, body, kind, weighed)
        # the decoder held the interpreter, and the next step holds it
        await asyncio.sleep(BREATH_S)
        return decoded

    async def close(self, _app: web.Application) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


class Holding:
    """One request's part of the budget, as a context."""

    def __init__(self, budget: BodyBudget) -> None:
        self.n_bytes = 0
        self._budget = budget
        self._since = time.monotonic()

    def at_least(self, n_bytes: int) -> None:
        """Raises `Overloaded`."""
        if n_bytes > self.n_bytes:
            self.more(n_bytes - self.n_bytes)

    def more(self, n_bytes: int) -> None:
        """Raises `Overloaded`."""
        self._budget.take(n_bytes, self.n_bytes)
        self.n_bytes += n_bytes

    def release(self) -> None:
        """The request has been answered."""
        if self.n_bytes:
            self._budget.give_back(self.n_bytes, time.monotonic() - self._since)
            self.n_bytes = 0


BODIES = web.AppKey("bodies", Bodies)
HOLDING = web.RequestKey("holding", Holding)
ANSWER = web.RequestKey("answer", Holding)
BODY_DIGEST = web.RequestKey("body_digest", bytes)
"""The SHA-256 of a small body, where exact repeats are answered from a cache."""


async def read_json(request: web.Request, kind: type[T]) -> T:
    """The body as `kind`.

    Raises `RequestError`, or msgspec's errors, which `errors.py` turns into one.
    """
    limits, bodies = services(request).config.limits, request.app[BODIES]
    _check_headers(request, limits)
    holding = request[HOLDING] = Holding(bodies.budget)
    holding.at_least(_memory_of(request.content_length or 0))
    body = _buffer(request.content_length or 0)
    try:
        await _read(request, limits, holding, body)
        if len(body) <= SMALL_BYTES:
            if limits.response_cache_bytes:
                request[BODY_DIGEST] = hashlib.sha256(body).digest()
            return _decode(body, kind)
        return await bodies.decode_large(body, kind, holding)
    except UnicodeDecodeError as err:  # not one of msgspec's own errors
        raise InvalidRequest(f"The body is not valid UTF-8 (byte {err.start})") from None
    finally:
        _free(body)


async def let_loop_go_on(request: web.Request) -> None:
    """Between two steps of a request that take time in proportion to its body: if it was a large
    one, what waits for the loop goes before the next step."""
    if request[HOLDING].n_bytes > SMALL_BYTES:
        await asyncio.sleep(BREATH_S)


async def read_form(request: web.Request) -> bytes:
    """The small body of a page's form. Raises `RequestError`."""
    limits, bodies = services(request).config.limits, request.app[BODIES]
    limits = structs.replace(limits, max_body_bytes=MAX_FORM_BYTES)
    if (request.content_length or 0) > MAX_FORM_BYTES:
        raise _too_large(limits)
    holding = request[HOLDING] = Holding(bodies.budget)
    body = bytearray()
    await _read(request, limits, holding, body)
    return bytes(body)


def hold_answer(request: web.Request, n_bytes: int) -> None:
    """Count in an answer that may take much more memory than its body. Raises `Overloaded`.

    Answers have a budget of their own: one that is made for long keeps no body out. One that is
    larger than the budget is made alone, beside small ones."""
    answers = request.app[BODIES].answers
    holding = request[ANSWER] = Holding(answers)
    holding.more(min(n_bytes, answers.for_large_bytes))


def release(request: web.Request) -> None:
    """Give back what the request holds of the budgets."""
    for key in (HOLDING, ANSWER):
        if key in request:
            request[key].release()


async def answer_expectation_later(_request: web.Request) -> None:
    """aiohttp's answer to `Expect`: none yet. A request may be refused before its body is sent."""


async def _invite(request: web.Request) -> None:
    """Tell a client that waits for it to send the body."""
    if request.version == HttpVersion(1, 1) and "Expect" in request.headers:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer has not begun


def _check_headers(request: web.Request, limits: LimitsConfig) -> None:
    """Refuse a body by its headers, before it is read."""
    # a small compressed body can have any size once it is decompressed
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("Compressed request bodies are not accepted")
    if request.content_type != "application/json" and not _may_be_untyped(request):
        raise UnsupportedMediaType(
            "The Content-Type must be application/json (curl: -H 'Content-Type: application/json')"
        )
    if (request.content_length or 0) > limits.max_body_bytes:
        raise _too_large(limits)


def _may_be_untyped(request: web.Request) -> bool:
    """Whether the body is read as JSON although its headers do not say so.

    A page of another site could send it without asking. A browser names the origin then.
    """
    is_browser = "Origin" in request.headers or "Sec-Fetch-Site" in request.headers
    return request.path.startswith(UNTYPED) and not is_browser


async def _read(request: web.Request, limits: LimitsConfig, holding: Holding, body: Body) -> None:
    """Read the whole body. It may lag behind `body_rate` by at most `body_timeout_s`.

    A body that was ahead of the rate gains nothing by it: once it stalls, it has that time left.
    """
    await _invite(request)
    size = 0
    loop = asyncio.get_running_loop()
    due = loop.time() + limits.body_timeout_s
    try:
        async with asyncio.timeout_at(due) as deadline:
            while part := await _next_part(request):
                if size + len(part) > limits.max_body_bytes:
                    raise _too_large(limits)
                holding.at_least(_memory_of(size + len(part)))
                if isinstance(body, bytearray):
                    body[size : size + len(part)] = part  # in chunks, it grows
                else:
                    body[size : size + len(part)] = part
                size += len(part)
                latest = loop.time() + limits.body_timeout_s
                due = min(due + len(part) / limits.body_rate, latest)
                deadline.reschedule(due)
    except TimeoutError:
        raise RequestTimeout("The body did not arrive in time") from None
    except (web.RequestPayloadError, ConnectionError) as err:
        raise InvalidRequest("The body is broken off") from err


async def _next_part(request: web.Request) -> bytes:
    """What has come of the body, none at its end.

    Each HTTP chunk of a body in chunks is taken, and the next one parsed, by itself. With chunks of
    a byte that takes long, so the loop goes on after each part.
    """
    if request.content_length is not None:
        return await request.content.readany()
    await asyncio.sleep(0)
    return await request.content.read(CHUNKED_BYTES)


def _memory_of(n_bytes: int) -> int:
    """What a body of this length takes until it is answered, without its values."""
    return n_bytes if n_bytes <= SMALL_BYTES else COPIES * n_bytes


def _buffer(n_bytes: int) -> Body:
    """Memory for a body. That of a large one goes back to the system when the body is decoded."""
    return bytearray(n_bytes) if n_bytes <= SMALL_BYTES else mmap(-1, n_bytes)


def _free(body: Body) -> None:
    """Give a large body's memory back now: an exception's traceback would hold it for long."""
    if isinstance(body, mmap):
        with suppress(BufferError):  # the decoder goes on after its request has left
            body.close()


def _weighed(body: Body) -> Weighed:
    """Raises `InvalidRequest` for too many values."""
    cost = Cost()
    stretches: list[Stretch] = []
    end = 0
    for cost in weigh(body):
        if cost.is_too_much:
            raise InvalidRequest("The body has too many values")
        if cost.is_inside and stretches and stretches[-1][1] == end:
            stretches[-1] = (stretches[-1][0], cost.end)
        elif cost.is_inside:
            stretches.append((end, cost.end))
        end = cost.end
        _let_others_have_the_interpreter()
    long = [one for one in stretches if one[1] - one[0] >= LEAST_BYTES]
    return Weighed(cost.n_bytes, long, cost.is_much, cost.n_members)


def _decode(body: Body, kind: type[T], weighed: Weighed = LIGHT) -> T:
    if not (weighed.stretches or weighed.has_many_values):
        return decode(body, kind)
    parts = weighed.stretches, weighed.n_members
    return decode_in_steps(body, *parts, kind, _let_others_have_the_interpreter)


def _let_others_have_the_interpreter() -> None:
    time.sleep(0)


def _too_large(limits: LimitsConfig) -> RequestTooLarge:
    return RequestTooLarge(f"The body is larger than {limits.max_body_bytes} bytes")
