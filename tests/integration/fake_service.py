"""Requests to a service over the scripted engine: every token is known."""

import json
import socket
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from engine_worker.backend.fake.backend import expected_text
from engine_worker.backend.fake.vocabulary import tokenize
from tests.service import sse_events

FAKE = {"GPUFC_BACKEND": "fake", "GPUFC_FAKE_SCRIPT": "step_ms=3", "GPUFC_RESTART_LIMIT": "1000"}


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
