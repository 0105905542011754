"""A small server with OpenAI's API that sends known chunks. A request's `model` names its fault.

Also a program that accepts llama-server's arguments and uses host and port only.
"""

import argparse
import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

PROMPT_TOKENS = 11
CACHED_TOKENS = 5


class FakeOpenai:
    """`seen` holds the bodies that came; `running` and `most_running` how many at once."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.running = 0
        self.most_running = 0
        self.fault = ""
        """What is done wrong where a request names no model."""
        self._changed = asyncio.Condition()
        self.gate: asyncio.Event | None = None
        """Every answer waits for it after its first token, if there is one."""

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self.answer)
        app.router.add_post("/v1/completions", self.answer)
        app.router.add_get("/health", self.health)
        return app

    async def health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.seen.append(body)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        async with self._changed:
            self._changed.notify_all()
        try:
            return await self._answer(request, body)
        finally:
            self.running -= 1

    async def wait_for_running(self, n_requests: int) -> None:
        """Until so many are being answered at once."""
        async with self._changed, asyncio.timeout(60):
            await self._changed.wait_for(lambda: self.running >= n_requests)

    async def _answer(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        fault = body.get("model", self.fault)
        if fault == "refuse":
            return web.json_response({"error": {"message": "too busy"}}, status=503)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        if fault == "silent":
            await asyncio.Event().wait()
        for number, event in enumerate(events(body, fault)):
            if fault == "cut" and number == 3:
                break
            await self._write(response, event, fault)
            if self.gate and number == 1:
                await self.gate.wait()
        return response

    @staticmethod
    async def _write(response: web.StreamResponse, event: bytes, fault: str) -> None:
        if fault == "carriage returns":
            event = event.replace(b"\n", b"\r\n")
        if fault != "in pieces":
            await response.write(event)
            return
        for start in range(0, len(event), 7):
            await response.write(event[start : start + 7])
            await asyncio.sleep(0)


def events(body: dict[str, Any], fault: str) -> list[bytes]:
    """An answer: a role, `max_tokens` words, an end, the usage, `[DONE]`."""
    chat = "messages" in body
    made = [_frame([{"delta": {"role": "assistant", "content": ""}}])] if chat else []
    for number in range(body["max_tokens"]):
        if fault == "error" and number == 2:
            return [*made, b'data: {"error":{"message":"lost"}}\n\n', b"data: [DONE]\n\n"]
        word = f' "content":"{number}'  # text that looks like the mark of a chunk
        made.append(_frame([{"delta": {"content": word}} if chat else {"text": word}]))
    made.append(b": a comment\n\n")
    made.append(_frame([{"delta": {}, "finish_reason": "length"}]))
    if fault != "no usage":
        usage = {
            "prompt_tokens": PROMPT_TOKENS,
            "completion_tokens": body["max_tokens"],
            "prompt_tokens_details": {"cached_tokens": CACHED_TOKENS},
        }
        made.append(_frame([], usage))
    return [*made, b"data: [DONE]\n\n"]


def _frame(choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> bytes:
    chunk = {"choices": choices, "usage": usage}
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"


@contextlib.asynccontextmanager
async def fake_openai() -> AsyncIterator[tuple[FakeOpenai, str]]:
    """The server and its base URL."""
    fake = FakeOpenai()
    server = TestServer(fake.app())
    await server.start_server()
    try:
        yield fake, str(server.make_url("")).rstrip("/")
    finally:
        await server.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    known, _ = parser.parse_known_args()
    web.run_app(FakeOpenai().app(), host=known.host, port=known.port, print=None)


if __name__ == "__main__":
    main()
