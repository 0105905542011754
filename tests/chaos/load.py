"""Clients: they send requests and note all that comes back."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
from msgspec import Struct

from engine_worker.backend.fake.vocabulary import EOS, expected_text, expected_tokens, tokenize
from tests.chaos.history import Event, Expected, History

TIMEOUT_S = 180.0


class Ask(Struct, frozen=True):
    """One completion, and the answer that it must bring."""

    prompt: str
    max_tokens: int
    expected: Expected
    streamed: bool = True
    fields: dict[str, Any] = {}

    @property
    def body(self) -> dict[str, Any]:
        streamed = {"stream": True, "stream_options": {"include_usage": True}}
        return {
            "prompt": self.prompt,
            "max_tokens": self.max_tokens,
            **(streamed if self.streamed else {}),
            **self.fields,
        }


def ask_fake(
    prompt: str,
    max_tokens: int,
    *,
    streamed: bool = True,
    n: int = 1,
    stop: str | None = None,
) -> Ask:
    """A request to the scripted engine, with the answer that it must give."""
    history = tokenize(prompt, add_special=True)
    tokens = expected_tokens(history, max_tokens)
    text, finish, n_tokens = expected_text(history, max_tokens), "length", max_tokens
    if tokens[-1] == EOS:
        finish, n_tokens = "stop", len(tokens) - 1
    if stop is not None and stop in text:
        # a byte is a token where the text is ASCII
        n_tokens = text.index(stop) + len(stop)
        text, finish = text[: text.index(stop)], "stop"
    fields: dict[str, Any] = ({"n": n} if n > 1 else {}) | ({"stop": [stop]} if stop else {})
    expected = Expected(n, len(history), n * n_tokens, finish, (text,) * n)
    return Ask(prompt, max_tokens, expected, streamed, fields)


def ask_real(prompt: str, max_tokens: int, **fields: Any) -> Ask:
    """A streamed request to a real model, that must bring exactly `max_tokens`."""
    expected = Expected(1, None, max_tokens, "length")
    return Ask(prompt, max_tokens, expected, fields={"ignore_eos": True, **fields})


@contextlib.asynccontextmanager
async def clients() -> AsyncIterator[aiohttp.ClientSession]:
    """A session for any number of requests at once."""
    timeout = aiohttp.ClientTimeout(total=None, sock_read=TIMEOUT_S)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        yield session


def begin(name: str, ask: Ask) -> History:
    """The empty history of a request."""
    return History(name, ask.expected, ask.streamed, started_at=time.monotonic())


async def pursue(
    session: aiohttp.ClientSession,
    url: str,
    ask: Ask,
    history: History,
    on_event: Callable[[History], None] = lambda _: None,
) -> History:
    """Send a request and write its history until it ends, however it ends. Never raises."""
    history.started_at = time.monotonic()
    try:
        async with session.post(f"{url}/v1/completions", json=ask.body) as response:
            history.status = response.status
            if ask.streamed and response.status == 200:
                await _read_events(response, history, on_event)
            else:
                history.body = _parsed(await response.text())
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as err:
        history.broke = f"{type(err).__name__}: {err}"
    history.ended_at = time.monotonic()
    return history


def _parsed(text: str) -> Any:
    """The answer, or its text where it is no JSON: a proxy's may be."""
    try:
        return json.loads(text)
    except ValueError:
        return text


async def _read_events(
    response: aiohttp.ClientResponse, history: History, on_event: Callable[[History], None]
) -> None:
    rest = b""
    async for piece in response.content.iter_any():
        now = time.monotonic()
        history.bytes_at.append(now)
        *blocks, rest = (rest + piece).split(b"\n\n")
        for block in blocks:
            for line in block.split(b"\n"):
                if line.startswith(b"data: "):
                    history.events.append(Event(now, line[6:].decode()))
                    on_event(history)
    if rest.strip():
        history.broke = f"ended inside an event: {rest[:80]!r}"


async def run_ask(session: aiohttp.ClientSession, url: str, ask: Ask, name: str) -> History:
    """One request from beginning to end."""
    return await pursue(session, url, ask, begin(name, ask))


async def run_asks(session: aiohttp.ClientSession, url: str, asks: list[Ask]) -> list[History]:
    """Several at once."""
    return list(
        await asyncio.gather(*(run_ask(session, url, ask, f"{i}") for i, ask in enumerate(asks)))
    )
