"""A client of any OpenAI-compatible server that works as little as possible while tokens arrive.

The load shares the processors with the measured server. A piece of a stream costs one search for
chunks with text, and only the stream's end is parsed. `server_text` reads a kept stream afterwards.
"""

import contextlib
import os
import re
import time
from collections.abc import AsyncIterator
from enum import StrEnum
from typing import Any

import aiohttp
import msgspec
from msgspec import Struct, structs

from supervisor.bench.outcome import Failure, Outcome
from supervisor.bench.workload import Conversation, Workload

SILENCE_S = 120.0
LIST_S = 5.0

_UNLISTED = (msgspec.DecodeError, KeyError, IndexError, TypeError)
"""The exceptions that an answer without a list of models leads to."""

TEXT = re.compile(rb'"(?:content|text|reasoning_content)": ?"(?!")')
"""Marks a chunk with text. Inside a JSON string, the quotes would be escaped."""

ERROR = re.compile(rb'^data: ?\{"error":', re.MULTILINE)
USAGE = re.compile(rb'"usage": ?\{')
END = re.compile(rb'"usage": ?\{|"error"|\[DONE\]')
DONE = b"[DONE]"


class Api(StrEnum):
    CHAT = "chat"
    COMPLETIONS = "completions"


class Target(Struct, frozen=True, kw_only=True):
    """The measured server. `url` is its base, with or without `/v1`.

    A `strict` server refuses fields that are not OpenAI's. Without those fields an answer may end
    early.
    """

    url: str
    model: str | None = None
    api: Api = Api.CHAT
    key: str | None = None
    strict: bool = False

    @property
    def endpoint(self) -> str:
        """The URL of requests."""
        return self._at("chat/completions" if self.api is Api.CHAT else "completions")

    @property
    def models(self) -> str:
        """The URL of the server's models."""
        return self._at("models")

    def _at(self, route: str) -> str:
        return f"{self.url.rstrip('/').removesuffix('/v1')}/v1/{route}"


@contextlib.asynccontextmanager
async def session(key: str | None = None) -> AsyncIterator[aiohttp.ClientSession]:
    """A session without a limit on connections."""
    headers = {"Authorization": f"Bearer {key}"} if key else None
    timeout = aiohttp.ClientTimeout(total=None, sock_read=SILENCE_S, sock_connect=30.0)
    # some servers close a connection after a stream without announcing it
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, headers=headers
    ) as opened:
        yield opened


async def named(target: Target) -> Target:
    """`target` with the first model that the server lists, if it names none: many servers need one.
    Unchanged if the server lists none."""
    if target.model is not None:
        return target
    limit = aiohttp.ClientTimeout(total=LIST_S)
    with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError, *_UNLISTED):
        async with session(target.key) as http, http.get(target.models, timeout=limit) as response:
            listed = msgspec.json.decode(await response.read())
            return structs.replace(target, model=str(listed["data"][0]["id"]))
    return target


def body(
    target: Target, workload: Workload, asked: Conversation, said: list[tuple[str, str]]
) -> bytes:
    """The request of the turn after `said`, pairs of the user's and the server's texts."""
    fields: dict[str, Any] = {
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": asked.output_tokens,
        "seed": asked.seed,
        "temperature": 0.0 if workload.greedy else 0.8,
        "top_p": 0.95,
    }
    if not target.strict:
        fields |= {"ignore_eos": True, "top_k": 40, "min_p": 0.05}
    fields |= workload.fields
    if target.model is not None:
        fields["model"] = target.model
    own = asked.turns[len(said)]
    if target.api is Api.COMPLETIONS:
        before = "".join(f"{user}{server}\n" for user, server in said)
        prefix = f"{asked.prefix}\n" if asked.prefix else ""
        return msgspec.json.encode(fields | {"prompt": f"{prefix}{before}{own}"})
    messages = [{"role": "system", "content": asked.prefix}] if asked.prefix else []
    for user, server in said:
        messages.append({"role": "user", "content": user})
        messages.append({"role": "assistant", "content": server})
    messages.append({"role": "user", "content": own})
    return msgspec.json.encode(fields | {"messages": messages})


async def ask(
    http: aiohttp.ClientSession, target: Target, payload: bytes, outcome: Outcome, *, keep: bool
) -> None:
    """Send a request and record its stream to the end, whatever the end is.

    With `keep`, the outcome has the answer's text. A cancelled request is recorded as `unfinished`.
    """
    outcome.failure = Failure.UNREACHABLE
    try:
        await _ask(http, target, payload, outcome, keep)
    except TimeoutError as err:
        outcome.failure, outcome.detail = Failure.SILENT, str(err)
    except aiohttp.ClientConnectorError as err:
        number = err.os_error.errno or 0
        # a failed lookup is described by its text only, other failures best by their number
        why = os.strerror(number) if number > 0 else err.strerror
        outcome.detail = f"{err.host} port {err.port}: {why}"
    except (aiohttp.ClientError, OSError, msgspec.DecodeError) as err:
        # the failure tells how far the request came
        outcome.detail = f"{type(err).__name__}: {err}"
    except BaseException:
        outcome.failure = Failure.UNFINISHED
        raise
    finally:
        outcome.ended_at = time.monotonic()


async def _ask(
    http: aiohttp.ClientSession, target: Target, payload: bytes, outcome: Outcome, keep: bool
) -> None:
    headers = {"Content-Type": "application/json"}
    outcome.began_at = time.monotonic()
    async with http.post(target.endpoint, data=payload, headers=headers) as response:
        if response.status != 200:
            outcome.failure = Failure.REFUSED
            outcome.detail = f"{response.status}: {_message(await response.read())}"
            return
        outcome.failure = Failure.CUT
        pieces = await _read(response.content, outcome, keep)
    if keep:
        outcome.text = server_text(b"".join(pieces))


async def _read(content: aiohttp.StreamReader, outcome: Outcome, keep: bool) -> list[bytes]:
    """Record the time of each chunk with text. A piece may end anywhere, also inside a line."""
    kept: list[bytes] = []
    tail = b""
    times, clock, find = outcome.text_at, time.monotonic, TEXT.findall
    async for piece in content.iter_any():
        now = clock()
        if keep:
            kept.append(piece)
        whole, _, tail = (tail + piece).rpartition(b"\n")
        times.extend([now] * len(find(whole)))
        if END.search(whole):
            _read_end(whole, outcome)
    _read_end(tail, outcome)
    return kept


def _read_end(events: bytes, outcome: Outcome) -> None:
    """The last events, which may contain the usage and an error."""
    if ERROR.search(events):
        outcome.failure = Failure.ERROR_EVENT
        outcome.detail = events[:300].decode("utf-8", "replace")
        return
    for data in _data(events):
        if data == DONE:
            if outcome.failure is Failure.CUT:
                outcome.failure = None
        elif USAGE.search(data):
            _count(msgspec.json.decode(data)["usage"], outcome)
    if not outcome.counted_by_server:
        outcome.output_tokens = len(outcome.text_at)


def _count(usage: dict[str, Any], outcome: Outcome) -> None:
    outcome.prompt_tokens = usage.get("prompt_tokens", 0)
    outcome.output_tokens = usage.get("completion_tokens", 0)
    outcome.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    outcome.counted_by_server = True


def server_text(stream: bytes) -> str:
    """The answer's text in a whole stream."""
    texts = []
    for data in _data(stream):
        if data == DONE:
            break
        for choice in msgspec.json.decode(data).get("choices") or []:
            texts.append((choice.get("delta") or choice).get("content") or choice.get("text") or "")
    return "".join(texts)


def _data(events: bytes) -> list[bytes]:
    return [line[5:].strip() for line in events.split(b"\n") if line.startswith(b"data:")]


def _message(answer: bytes) -> str:
    try:
        return str(msgspec.json.decode(answer)["error"]["message"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return answer[:200].decode("utf-8", "replace")
