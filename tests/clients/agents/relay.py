"""A relay between an agent and a service: it records what is said, demands a call of a tool, and
bounds answers."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import aiohttp
from aiohttp import web

MAX_BODY_BYTES = 64 * 1024 * 1024
START_S = 10.0
HOP = frozenset({"host", "content-length", "transfer-encoding", "connection", "accept-encoding"})
"""Headers that belong to one connection, or that would compress what is recorded."""


class Demand(NamedTuple):
    """A tool of an agent, and the arguments of the call that the model must make."""

    tool: str
    arguments: Mapping[str, Any]

    @property
    def schema(self) -> dict[str, Any]:
        """The schema that these arguments alone match."""
        return {
            "type": "object",
            "properties": {name: {"const": value} for name, value in self.arguments.items()},
            "required": list(self.arguments),
            "additionalProperties": False,
        }


class Exchange(NamedTuple):
    """A request as the agent sent it, and its answer. `answer` is whole, also of a stream."""

    method: str
    path: str
    body: Any
    status: int
    answer: str
    demanded: bool


def demanding(path: str, body: Any, demand: Demand) -> tuple[Any, bool]:
    """The request with the call's schema in place of the tool's, and with the call demanded by the
    dialect's own `tool_choice` unless the request has the result of a call. The schema stays in
    later requests, so that their prompts begin alike. Says whether the call is demanded."""
    tools = body.get("tools") if isinstance(body, dict) else None
    if not tools or demand.tool not in map(_name, tools):
        return body, False
    if path.endswith("/chat/completions"):
        is_done = any(message["role"] == "tool" for message in body["messages"])
        function = {"name": demand.tool, "parameters": demand.schema}
        changed: dict[str, Any] = {"type": "function", "function": function}
        choice: dict[str, Any] = {"type": "function", "function": {"name": demand.tool}}
    elif path.endswith("/responses"):
        is_done = any(str(item.get("type")).endswith("_output") for item in body["input"])
        changed = {"type": "function", "name": demand.tool, "parameters": demand.schema}
        choice = {"type": "function", "name": demand.tool}
    elif path.endswith("/messages"):
        contents = [message["content"] for message in body["messages"]]
        blocks = [block for content in contents if isinstance(content, list) for block in content]
        is_done = any(block["type"] == "tool_result" for block in blocks)
        changed = {"name": demand.tool, "input_schema": demand.schema}
        choice = {"type": "tool", "name": demand.tool}
    else:
        return body, False
    offered = [changed if _name(tool) == demand.tool else tool for tool in tools]
    chosen = {} if is_done else {"tool_choice": choice}
    return {**body, "tools": offered, **chosen}, not is_done


def bounded(path: str, body: Any, most: int) -> Any:
    """The request with at most so many tokens of an answer: a small model may repeat itself up to
    the limit that the agent sets for a large one."""
    if not isinstance(body, dict) or not path.endswith(tuple(LIMITS)):
        return body
    name = next(limit for end, limit in LIMITS.items() if path.endswith(end))
    return {key: value for key, value in body.items() if key not in LIMITS.values()} | {name: most}


LIMITS = {
    "/chat/completions": "max_completion_tokens",
    "/messages": "max_tokens",
    "/responses": "max_output_tokens",
}
"""The field that bounds an answer, by the end of the path."""


def _name(tool: dict[str, Any]) -> str | None:
    return tool.get("name") or tool.get("function", {}).get("name")


class Relay:
    """Forwards every request to `target` and keeps the exchanges, in order of their end.

    It runs in a thread of its own. `exchanges` may be read once the agent has ended.
    """

    def __init__(self, target: str, demand: Demand | None, most: int | None = None) -> None:
        self.exchanges: list[Exchange] = []
        self.url = ""
        self._target = target
        self._demand = demand
        self._most = most
        self._loop = asyncio.new_event_loop()
        self._is_ready = threading.Event()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=[self._run()])
        self._thread.start()
        assert self._is_ready.wait(START_S), "the relay has not started"

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()
        self._loop.close()

    async def _run(self) -> None:
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_route("*", "/{path:.*}", self._forward)
        runner = web.AppRunner(app)
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(self._target, timeout=timeout) as self._session:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            self._is_ready.set()
            await self._ended.wait()
            await runner.cleanup()

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        data = await request.read()
        body = _document(data)
        changed, demanded = body, False
        if self._demand is not None and body is not None:
            changed, demanded = demanding(request.path, body, self._demand)
        if self._most is not None and not demanded:
            changed = bounded(request.path, changed, self._most)
        sent = data if changed is body else json.dumps(changed).encode()
        headers = {name: text for name, text in request.headers.items() if name.lower() not in HOP}
        received = bytearray()
        async with self._session.request(
            request.method, request.path_qs, data=sent or None, headers=headers
        ) as found:
            answer = web.StreamResponse(status=found.status)
            answer.headers.update(
                {name: text for name, text in found.headers.items() if name.lower() not in HOP}
            )
            # an agent may close its connection in the middle
            with contextlib.suppress(ConnectionError):
                await answer.prepare(request)
                async for piece in found.content.iter_any():
                    received += piece
                    await answer.write(piece)
                await answer.write_eof()
        said = received.decode(errors="replace")
        self.exchanges.append(
            Exchange(request.method, request.path, body, found.status, said, demanded)
        )
        return answer


def _document(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


@contextlib.contextmanager
def relay(target: str, demand: Demand | None = None, most: int | None = None) -> Iterator[Relay]:
    """A running relay to a service's address. `most` bounds the tokens of answers that are not a
    demanded call."""
    running = Relay(target, demand, most)
    try:
        yield running
    finally:
        running.end()
