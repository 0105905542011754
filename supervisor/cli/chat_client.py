"""A client of `/v1/chat/completions` for `chat`: standard library only, one answer at a time."""

import http.client
import json
import os
import time
from collections.abc import Generator, Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from gpufc.errors import GpufcError
from supervisor.control.client import NotRunning

TIMEOUT_S = 60.0
"""Longest silence before the client gives up. The front sends a comment every 5 s while a request
waits."""

Turn = dict[str, str]


class ChatFailed(GpufcError):
    """The service answered with an error. The text is the error's message."""


class Figures(Struct):
    """Token counts and times of the last answer, in seconds of this client's clock.

    `completion_tokens` counts received pieces until the service has sent its own figures.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    broken_off: bool = False
    first_token_s: float | None = None
    total_s: float = 0.0

    @property
    def tokens_per_second(self) -> float:
        """Rate after the first token."""
        spent = self.total_s - (self.first_token_s or 0.0)
        return (self.completion_tokens - 1) / spent if self.completion_tokens > 1 and spent else 0.0


class ChatClient:
    """A client of one service. `figures` belong to the last answer, complete or cancelled."""

    def __init__(self, base_url: str, options: dict[str, Any] | None = None) -> None:
        self.base_url = base_url
        self._options = options or {}
        self.figures = Figures()

    def answer(self, messages: list[Turn]) -> Generator[str, None, None]:
        """Yield the answer's text as it arrives. Closing the iterator cancels the request.

        An empty piece means that the service is alive and has no text yet. Raises `ChatFailed` or
        `NotRunning`.
        """
        self.figures = Figures()
        began = time.monotonic()
        connection = self._connection()
        try:
            response = self._send(connection, messages)
            self.figures.broken_off = True  # reset when the answer has ended
            for event in _events(response):
                text = _text(event) if event else ""
                self._count(event, text, time.monotonic() - began)
                if text or event is None:
                    yield text
            self.figures.broken_off = False
        except TimeoutError:
            raise NotRunning(f"{self.base_url} has been silent for {TIMEOUT_S:.0f} s") from None
        except (OSError, http.client.HTTPException) as err:
            raise NotRunning(f"{self.base_url} went away: {err}") from err
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.base_url)
        host = unquote(parts.hostname or "")  # the scope of a link-local address is escaped
        if parts.scheme == "https":
            return http.client.HTTPSConnection(host, parts.port, timeout=TIMEOUT_S)
        return http.client.HTTPConnection(host, parts.port, timeout=TIMEOUT_S)

    def _send(
        self, connection: http.client.HTTPConnection, messages: list[Turn]
    ) -> http.client.HTTPResponse:
        body = {"messages": messages, "stream": True, "stream_options": {"include_usage": True}}
        headers = {"Content-Type": "application/json"}
        key = os.environ.get("GPUFC_API_KEY")
        if key:
            headers["Authorization"] = f"Bearer {key}"
        payload = json.dumps(body | self._options)
        connection.request("POST", "/v1/chat/completions", payload, headers)
        response = connection.getresponse()
        if response.status != 200:
            raise ChatFailed(_error(response))
        return response

    def _count(self, event: dict[str, Any] | None, text: str, elapsed_s: float) -> None:
        self.figures.total_s = elapsed_s
        if text:
            self.figures.completion_tokens += 1
            if self.figures.first_token_s is None:
                self.figures.first_token_s = elapsed_s
        usage = event.get("usage") if event else None
        if usage:
            self.figures.prompt_tokens = usage["prompt_tokens"]
            self.figures.completion_tokens = usage["completion_tokens"]


def _events(response: http.client.HTTPResponse) -> Iterator[dict[str, Any] | None]:
    """The stream's events up to `[DONE]`; None for a comment."""
    while line := response.readline():
        if line.startswith(b":"):
            yield None
        if not line.startswith(b"data:"):
            continue
        data = line[len(b"data:") :].strip()
        if data == b"[DONE]":
            return
        event: dict[str, Any] = json.loads(data)
        if "error" in event:
            raise ChatFailed(str(event["error"]["message"]))
        yield event


def _text(event: dict[str, Any]) -> str:
    choices = event.get("choices") or []
    return (choices[0].get("delta") or {}).get("content") or "" if choices else ""


def _error(response: http.client.HTTPResponse) -> str:
    try:
        return str(json.load(response)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the service answered {response.status} {response.reason}"
