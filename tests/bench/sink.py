"""Clients with almost no cost of their own, for measuring a front.

One thread serves many connections. Each sends its requests one after another and stays open in
between, as OpenAI's clients do. Received bytes are searched for chunks with text; the last bytes
tell whether an answer is complete.
"""

import contextlib
import re
import selectors
import socket
import ssl
import time
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from msgspec import Struct

from gpufc.errors import StartError
from supervisor.bench.client import DONE, TEXT

SILENCE_S = 60.0
PIECE_BYTES = 1 << 16
KEPT_BYTES = 400
"""Bytes of an answer's end: the usage, the last event and the final chunk."""

REQUEST = (
    b"POST /v1/completions HTTP/1.1\r\nHost: %b\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b"
)
BODY = (
    b'{"prompt":"stream %d","max_tokens":%d,"ignore_eos":true,"stream":true,'
    b'"stream_options":{"include_usage":true}}'
)
Trusted = ssl.SSLContext | None
"""The context of a connection over TLS; None for plain text."""

LAST_CHUNK = b"\r\n0\r\n\r\n"
COUNTED = re.compile(rb'"completion_tokens":(\d+)')
LENGTH = re.compile(rb"content-length: *(\d+)\r\n(?:.*\r\n)*\r\n", re.IGNORECASE)


class Answer(Struct):
    """The answer to one request. Times are seconds of the monotonic clock. `n_tokens` is the
    server's count, or 0 for an incomplete stream."""

    began_at: float
    ended_at: float = 0.0
    text_at: list[float] = []
    status: int = 0
    n_tokens: int = 0


class _Client:
    """One client's connection."""

    def __init__(
        self, address: tuple[str, int], requests: Iterator[bytes], trusted: Trusted
    ) -> None:
        """`requests` are complete, head and body. Shakes hands before it returns."""
        self.socket = socket.create_connection(address, SILENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if trusted is not None:
            self.socket = trusted.wrap_socket(self.socket, server_hostname=address[0])
        self.socket.setblocking(False)
        self.answer = Answer(0.0)
        self._requests = requests
        self._last = b""

    def begin(self) -> bool:
        """Send the next request. False without one."""
        request = next(self._requests, None)
        if request is None:
            return False
        self.answer, self._last = Answer(time.monotonic()), b""
        self.socket.sendall(request)
        return True

    def read(self) -> bool:
        """Read received bytes. True if they complete the answer."""
        piece = self._received()
        if piece is None:
            return False
        now, answer = time.monotonic(), self.answer
        if not piece:
            raise StartError(f"the front ended an answer early: {self._last!r}")
        if not self._last:
            answer.status = int(piece[9:12])
        answer.text_at += [now] * len(TEXT.findall(piece))
        self._last = (self._last + piece)[-KEPT_BYTES:]
        if not self._is_whole():
            return False
        answer.ended_at = now
        counted = COUNTED.search(self._last)
        if counted and DONE in self._last:
            answer.n_tokens = int(counted[1])
        return True

    def _received(self) -> bytes | None:
        """All that can be read now, empty at the end; None if a TLS record is not whole yet."""
        try:
            piece = self.socket.recv(PIECE_BYTES)
            while isinstance(self.socket, ssl.SSLSocket) and self.socket.pending():
                piece += self.socket.recv(PIECE_BYTES)  # `select` does not tell of these
        except ssl.SSLWantReadError:
            return None
        return piece

    def _is_whole(self) -> bool:
        if self.answer.status == 200:
            return self._last.endswith(LAST_CHUNK)
        length = LENGTH.search(self._last)
        return length is not None and len(self._last) - length.end() == int(length[1])


def ask(
    url: str,
    *,
    clients: int,
    tokens: int,
    requests: int = 1,
    status: int = 200,
    trusted: Trusted = None,
) -> list[Answer]:
    """Run `clients` at once, each with a number of requests in turn; over TLS with `trusted`.

    Raises `StartError` for an answer with another status or another number of tokens, or for none.
    """
    address = _address(url)
    numbers = (range(i * requests, (i + 1) * requests) for i in range(clients))
    answers = []
    asked = [_requests(address[0], n, tokens) for n in numbers]
    for answer in _ask(address, asked, trusted):
        if answer.status != status or (status == 200 and answer.n_tokens != tokens):
            raise StartError(f"the front answered {answer.status}, {answer.n_tokens} tokens")
        answers.append(answer)
    return answers


@contextlib.contextmanager
def occupying(url: str, clients: int, tokens: int, trusted: Trusted = None) -> Iterator[None]:
    """Keep requests open that are not read; their clients leave at the end of the block."""
    address = _address(url)
    with contextlib.ExitStack() as opened:
        for number in range(clients):
            client = _Client(address, _requests(address[0], [number], tokens), trusted)
            opened.enter_context(client.socket)
            client.begin()
        yield


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 0


def _requests(host: str, numbers: Iterable[int], tokens: int) -> Iterator[bytes]:
    for number in numbers:
        body = BODY % (number, tokens)
        yield REQUEST % (host.encode(), len(body), body)


def _ask(
    address: tuple[str, int], asked: list[Iterator[bytes]], trusted: Trusted
) -> Iterator[Answer]:
    """Yield complete answers of one client for each row of requests."""
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as opened:
        clients = [_Client(address, requests, trusted) for requests in asked]
        for client in clients:
            opened.enter_context(client.socket)
            selector.register(client.socket, selectors.EVENT_READ, client)
            client.begin()
        while selector.get_map():
            for client in _readable(selector):
                if client.read():
                    yield client.answer
                    if not client.begin():
                        selector.unregister(client.socket)


def _readable(selector: selectors.BaseSelector) -> list[_Client]:
    found = selector.select(SILENCE_S)
    if not found:
        raise StartError(f"the front was silent for {SILENCE_S:.0f} s")
    return [key.data for key, _ in found]
