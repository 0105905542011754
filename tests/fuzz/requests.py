"""Malformed HTTP requests against a front: every answer is a refusal or a right one.

    python -m tests.fuzz.requests [--n 16000] [--seed 1] HOST PORT    against a front that runs

A request is made from a seed and its number alone, so a violation can be repeated.
"""

import argparse
import asyncio
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable

from msgspec import Struct

ALLOWED = frozenset({503})
"""Statuses from 500 that are no defect."""
ANSWER_S = 30.0
AT_ONCE = 16

PATHS = (
    *("/v1/completions", "/v1/chat/completions", "/tokenize", "/chat/completions") * 8,
    *("/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize", "/completions/"),
    *("/v1/models", "/v1/models/x", "/livez", "/readyz", "/health", "/stats", "/", "//", "*"),
    *("/admin/swap", "/admin/restart", "/v1/requests", "/%00", "/..%2f..", "http://x/livez", "/?a"),
)
METHODS = ("POST",) * 12 + ("GET", "HEAD", "DELETE", "PUT", "OPTIONS", "CONNECT", "get", "")
VERSIONS = ("HTTP/1.1",) * 40 + ("HTTP/1.0", "HTTP/2.0", "HTTP/0.9", "HTTP/1.", "")
HEADERS = (
    *("Host: x", "Host:", "Host: a b", "Transfer-Encoding: chunked", "Transfer-Encoding:"),
    *("Transfer-Encoding: gzip", "Content-Length: -1", "Content-Length: 9e9", "Content-Length: 5"),
    *("Content-Encoding: gzip", "Content-Type: text/plain", "Content-Type: \xff", "Expect: x"),
    *("Expect: 100-continue", "Upgrade: h2c", "Connection: upgrade", "Connection: close"),
    *("Idempotency-Key: k", "Idempotency-Key: \xe9", "Last-Event-ID: 00000000-1", "A" * 9000),
    *("Last-Event-ID: x", "X-Request-Id: \x01", "Authorization: Bearer \xff", " folded: x"),
    *("Authorization: Basic", "Range: bytes=0-", "Cookie: a=b", "Accept: \x00", "no colon"),
)
VALUES = (
    *(None, True, False, 0, -1, 1, 1.5, 8.0, 2**31, -(2**63), 2**64, 1e308, "", "x", "\x00"),
    *("\ud800", [], {}, [[]], [None], {"": None}, [1, "a"], {"0": 1}, "x" * 300, [0] * 300),
)
FIELDS = (
    *("prompt", "messages", "model", "n", "max_tokens", "stop", "stream", "stream_options", "seed"),
    *("temperature", "top_p", "top_k", "logit_bias", "tools", "response_format", "content"),
    *(
        "tokens",
        "echo",
        "logprobs",
        "suffix",
        "cache_prompt",
        "with_pieces",
        "model_path",
        "worker",
    ),
)


def malformed(seed: int, number: int) -> bytes:
    """The request of that number: up to four faults in a valid one."""
    rnd = random.Random(f"{seed} {number}")
    body = _body(rnd)
    headers = ["Host: x", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    for _ in range(rnd.choice((0, 0, 1, 1, 2, 3))):
        headers.insert(rnd.randrange(len(headers) + 1), rnd.choice(HEADERS))
    if rnd.random() < 0.1:
        headers.pop(rnd.randrange(len(headers)))
    if rnd.random() < 0.15:
        body = _chunked(rnd, body)
        headers = [*headers[:2], "Transfer-Encoding: chunked"]
    line = f"{rnd.choice(METHODS)} {rnd.choice(PATHS)} {rnd.choice(VERSIONS)}"
    end = rnd.choice(("\r\n",) * 40 + ("\n", "\r", "\r\n\r\n"))
    head = end.join([line, *headers, "", ""]).encode("latin-1", errors="replace")
    return _damaged(rnd, head + body)


def _body(rnd: random.Random) -> bytes:
    fields: dict[str, object] = {"prompt": "a", "max_tokens": 2}
    if rnd.random() < 0.5:
        fields = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 2}
    for _ in range(rnd.choice((0, 0, 1, 2, 4))):
        fields[rnd.choice(FIELDS)] = rnd.choice(VALUES)
    return json.dumps(fields).encode()


def _chunked(rnd: random.Random, body: bytes) -> bytes:
    sizes = (b"%x" % len(body), b"%x;a=b" % len(body), b"-1", b"zz", b"", b"ffffffffffffffff")
    size = rnd.choice((sizes[0], *sizes))
    return size + b"\r\n" + body + rnd.choice((b"\r\n0\r\n\r\n", b"\n0\n\n", b"0\r\n", b""))


def _damaged(rnd: random.Random, data: bytes) -> bytes:
    faults: tuple[Callable[[bytes, int], bytes], ...] = (
        lambda data, at: data[:at],
        lambda data, at: data[:at] + bytes([rnd.randrange(256)]) + data[at + 1 :],
        lambda data, at: data[:at] + rnd.randbytes(rnd.randrange(9)) + data[at:],
        lambda data, at: data[:at] + data[at + rnd.randrange(9) :],
        lambda data, at: data + data[at:],
    )
    return data if rnd.random() < 0.5 else rnd.choice(faults)(data, rnd.randrange(len(data)))


class Tally(Struct):
    """The answers by status. `closed` are requests without one. `violations` are the numbers of
    requests with a forbidden answer or none in time."""

    statuses: Counter[int]
    closed: int = 0
    violations: list[int] = []


async def run(host: str, port: int, seed: int, numbers: Iterable[int]) -> Tally:
    """Send these requests, some at once, each on a connection of its own."""
    tally = Tally(Counter())
    waiting = iter(numbers)

    async def work() -> None:
        for number in waiting:
            statuses = await _statuses(host, port, malformed(seed, number))
            tally.statuses.update(statuses or ())
            tally.closed += statuses == []
            if statuses is None or any(one >= 500 and one not in ALLOWED for one in statuses):
                tally.violations.append(number)

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return tally


async def _statuses(host: str, port: int, data: bytes) -> list[int] | None:
    """The statuses of all answers; None if the connection stays open without an end."""
    reader, writer = await asyncio.open_connection(host, port)
    answer = b""
    try:
        async with asyncio.timeout(ANSWER_S):
            writer.write(data)
            writer.write_eof()
            while part := await reader.read(65_536):
                answer += part
    except ConnectionError:
        pass
    except TimeoutError:
        return None
    finally:
        writer.close()
    return [int(one) for one in re.findall(rb"HTTP/1\.[01] ([2-5]\d\d) ", answer)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--n", type=int, default=16_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    tally = asyncio.run(run(given.host, given.port, given.seed, range(given.n)))
    print(f"{given.n} requests, seed {given.seed}: {dict(sorted(tally.statuses.items()))}")
    print(f"{tally.closed} closed without an answer; violations: {tally.violations}")
    return 1 if tally.violations else 0


if __name__ == "__main__":
    sys.exit(main())
