"""Requests to a service over the scripted engine: every token is known."""

import asyncio
import json
import socket
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from engine_worker.backend.fake.backend import expected_text
from engine_worker.backend.fake.vocabulary import tokenize
from tests.service import sse_events

FAKE = {"GPUFC_BACKEND": "fake", "GPUFC_FAKE_SCRIPT": "step_ms=3", "GPUFC_RESTART_LIMIT": "1000"}
ENDLESS = 100_000
"""Tokens of a stream that outlasts every command on the slowest machine."""
WIDE = {"GPUFC_N_CTX": str(2 * ENDLESS), "GPUFC_KV_CELLS": str(4 * ENDLESS)}
"""Room for endless streams."""


def fake_text(prompt: str, n_tokens: int) -> str:
    """The one answer of the scripted engine to a plain prompt."""
    return expected_text(tokenize(prompt, add_special=True), n_tokens)


async def complete(
    session: aiohttp.ClientSession, url: str, prompt: str, **fields: Any
) -> tuple[int, dict[str, Any], dict[str, str]]:
    body = {"prompt": prompt, "max_tokens": 20, **fields}
    async with session.post(f"{url}/v1/completions", json=body) as response:
        return response.status, await response.json(), dict(response.headers)


async def stream(session: aiohttp.ClientSession, url: str, prompt: str, **fields: Any) -> list[str]:
    body = {"prompt": prompt, "max_tokens": 20, "stream": True, **fields}
    async with session.post(f"{url}/v1/completions", json=body) as response:
        assert response.status == 200, await response.text()
        return await sse_events(response)


class Reading:
    """A completion stream that is read as it comes, for a test that looks at it in the middle. It
    may be endless: `leave` ends it."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, prompt: str, max_tokens: int
    ) -> None:
        self._prompt = prompt
        self._text = ""
        self._changed = asyncio.Event()
        body = {"prompt": prompt, "max_tokens": max_tokens, "stream": True}
        self._task = asyncio.create_task(self._read(session, f"{url}/v1/completions", body))

    async def _read(self, session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> None:
        try:
            async with session.post(url, json=body) as response:
                assert response.status == 200, await response.text()
                try:
                    async for line in response.content:
                        if line.startswith(b"data: {"):
                            chunk = json.loads(line[6:])
                            assert "choices" in chunk, chunk
                            self._text += "".join(choice["text"] for choice in chunk["choices"])
                            self._changed.set()
                finally:
                    _abort(response)
        finally:
            self._changed.set()

    async def goes_on(self, n_tokens: int = 1) -> None:
        """Wait for so many further tokens: each is a letter. Fails if the stream ends before."""
        wanted = len(self._text) + n_tokens
        async with asyncio.timeout(60):
            while len(self._text) < wanted:
                if self._task.done():
                    self._task.result()  # raises its error, if it has one
                    raise AssertionError(f"the stream ended after {len(self._text)} tokens")
                self._changed.clear()
                await self._changed.wait()

    async def leave(self) -> None:
        """End it. Its text so far must be the scripted engine's."""
        self._task.cancel()
        await asyncio.wait({self._task})
        assert self._task.cancelled(), self._task
        assert self._text == fake_text(self._prompt, len(self._text))


def _abort(response: aiohttp.ClientResponse) -> None:
    """Close its connection now. Over TLS it would be open until the server has answered."""
    transport = None if response.connection is None else response.connection.transport
    if transport is not None:
        transport.abort()


def unread(url: str) -> socket.socket:
    """A client with a long answer of which it takes nothing."""
    address = urlsplit(url)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect((address.hostname, address.port))
    body = b'{"prompt": "x", "n": 8, "max_tokens": 30000, "stream": true}'
    head = f"Host: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    client.sendall(b"POST /v1/completions HTTP/1.1\r\n" + head.encode() + body)
    return client


def joined(events: list[str]) -> str:
    """The text of a completion stream that ended properly."""
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    errors = [chunk for chunk in chunks if "choices" not in chunk]
    assert not errors, errors
    return "".join(c["text"] for chunk in chunks for c in chunk["choices"])
