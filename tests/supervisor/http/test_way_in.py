"""Ways in that have worked elsewhere, tried against a front that asks for keys."""

import asyncio
from pathlib import Path

import pytest

from supervisor.access.sessions import Sessions
from supervisor.dispatch.request import Scope
from tests.supervisor.access.test_keys import Clock, key
from tests.supervisor.http.test_keys import Keyed, keyed

BODY = b'{"prompt": "hello", "model_path": "/etc/passwd"}'
LINES = [
    *("GET /v1/models", "GET //v1/models", "GET /v1/models/", "GET /v1//models", "GET /V1/MODELS"),
    *("GET /livez/../v1/models", "GET /livez/%2e%2e/v1/models", "GET /livez%2f..%2fv1/models"),
    *("GET /livez;/v1/models", "GET /livez%00/v1/models", "GET /v1/models%00", "GET /v1/models#"),
    *("GET /v1/models?x=/livez", "GET /livez?/../v1/models", "GET http://localhost/v1/models"),
    *("GET http://localhost/livez/../stats", "HEAD /stats", "GET /stats", "GET /%73tats"),
    *("GET /stats%2f", "GET /./stats", "GET /x/../stats", "GET \\stats", "GET /\\stats"),
    *("POST /admin/restart", "POST //admin/restart", "POST /admin%2frestart", "PUT /admin/restart"),
    *("POST /livez", "POST /readyz/../admin/swap", "PATCH /v1/completions", "TRACE /stats"),
    *("OPTIONS /stats", "CONNECT localhost:1", "GET *", "OPTIONS *", "get /stats", "GET /session"),
    *("DELETE /session", "GET /?token=", "GET /?token=operator", "GET /?key=a", "GET /?api_key=a"),
    *("GET /docs", "GET /openapi.json", "GET /metrics", "GET /slots", "GET /props", "GET /health"),
    *("POST /completion", "POST /v1/completions", "POST /completions", "GET /static/../stats"),
]
HEADERS = [
    *("X-Original-URL: /livez", "X-Rewrite-URL: /livez", "X-HTTP-Method-Override: GET"),
    *("X-Forwarded-For: 127.0.0.1", "X-Real-IP: 127.0.0.1", "Forwarded: for=127.0.0.1"),
    *("X-Forwarded-Host: localhost", "Authorization: Bearer", "Authorization: Bearer null"),
    *("Authorization: Bearer undefined", "Authorization: Basic YTph", "Authorization: bearer  "),
    *("x-api-key: *", "x-api-key: a,b", "x-api-key: ", "api-key: ' OR 1=1", "api-key: {}"),
    *("Cookie: gpufc-session=a", "Cookie: gpufc-session-%PORT%=a.b", "Cookie: token=a; key=a"),
    *("Cookie: gpufc-session-%PORT%=%FORGED%", "Origin: null", "Sec-Fetch-Site: same-origin"),
    *("Upgrade: websocket\r\nConnection: Upgrade", "Connection: x-api-key", "Via: 1.1 localhost"),
    "Authorization: Bearer x\r\nAuthorization: Bearer the-keyx",
]
LET_IN = {"GET /livez?/../v1/models"}
"""The query of a public route is no path."""


async def answered(made: Keyed, line: str, header: str) -> bytes:
    """The first line of the answer to one request."""
    host, port = made.service.address
    forged = Sessions(b"another secret", Clock()).open("a#0000000000000000")
    header = header.replace("%PORT%", str(port)).replace("%FORGED%", forged)
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(
            f"{line} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(BODY)}\r\n{header}\r\n\r\n".encode()
            + BODY
        )
        return await reader.readline()
    finally:
        writer.close()


@pytest.mark.parametrize("header", HEADERS, ids=str)
async def test_no_header_stands_for_a_key(tmp_path: Path, header: str) -> None:
    async with keyed(tmp_path, key("the-key", scopes=(Scope.ADMIN,))) as made:
        for line in ("GET /stats", "POST /v1/completions", "POST /admin/restart", "GET /"):
            status = (await answered(made, line, header)).split()[1]
            assert status in {b"400", b"401"}, line


async def test_no_spelling_of_a_path_passes_by_the_table(tmp_path: Path) -> None:
    async with keyed(tmp_path, key("a", scopes=(Scope.ADMIN,))) as made:
        for line in LINES:
            first = await answered(made, line, "X: y")
            found = first.split()[1] if first else b"closed"
            if line in LET_IN:
                assert found == b"200", line
            else:
                assert found in {b"400", b"401", b"404", b"405", b"closed"}, line
