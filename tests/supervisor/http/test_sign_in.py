"""Signing in with a browser: the form, the cookie, and what it opens."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import urlencode

import aiohttp
import pytest

from gpufc.config import Config
from supervisor.access.ring import LOOK_S
from supervisor.access.sessions import LIFE_S
from supervisor.dispatch.request import Scope
from supervisor.http.edge import run_token
from tests.supervisor.access.test_keys import key
from tests.supervisor.http.conftest import Answer, Service
from tests.supervisor.http.test_keys import keyed

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}
OWN_PAGE = {"Sec-Fetch-Site": "same-origin"}
READER = key("reader", scopes=(Scope.READ,))


class Browser:
    """Sends what a browser would. Keeps one cookie, and follows nothing."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.cookie = ""

    async def ask(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b""
    ) -> Answer:
        sent = dict(headers or {}) | ({"Cookie": self.cookie} if self.cookie else {})
        async with (
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http,
            http.request(
                method, self.service.url + path, headers=sent, data=body, allow_redirects=False
            ) as response,
        ):
            answer = Answer(response.status, response.headers, await response.read())
        given: SimpleCookie = SimpleCookie(answer.headers.get("Set-Cookie", ""))
        for morsel in given.values():
            self.cookie = f"{morsel.key}={morsel.value}" if morsel.value else ""
        return answer

    async def sign_in(self, text: str, **fields: str) -> Answer:
        body = urlencode({"key": text, **fields}).encode()
        return await self.ask("POST", "/session", FORM | OWN_PAGE, body)


async def test_a_browser_without_a_key_gets_the_form_and_then_the_page(tmp_path: Path) -> None:
    async with keyed(tmp_path, READER) as made:
        browser = Browser(made.service)
        refused = await browser.ask("GET", "/", {"Accept": "text/html,*/*;q=0.8"})
        assert refused.status == 401
        assert refused.headers["Content-Type"].startswith("text/html")
        page = refused.body.decode()
        assert '<form method="post" action="/session">' in page
        assert "<script" not in page
        assert "frame-ancestors 'none'" in refused.headers["Content-Security-Policy"]

        led = await browser.sign_in("reader")
        assert (led.status, led.headers["Location"]) == (303, "/")
        port = made.service.address[1]
        assert re.fullmatch(
            rf"gpufc-session-{port}=[\w.-]+; HttpOnly; Max-Age={LIFE_S}; Path=/; SameSite=Strict",
            led.headers["Set-Cookie"],
        )
        assert "reader" not in browser.cookie
        assert (await browser.ask("GET", "/")).status == 200
        assert (await browser.ask("GET", "/stats")).status == 200
        assert (await browser.ask("GET", "/v1/models")).status == 403


async def test_the_form_leads_back_to_our_own_pages_only(tmp_path: Path) -> None:
    async with keyed(tmp_path, READER) as made:
        browser = Browser(made.service)
        form = (await browser.ask("GET", "/docs")).body.decode()
        assert 'name="next" value="/docs"' in form
        for asked, given in (
            *(("/docs", "/docs"), ("/", "/"), ("", "/"), ("//evil.example", "/")),
            *(("https://evil.example/", "/"), ("/admin/restart", "/"), ("/docs\r\nX: y", "/")),
        ):
            led = await browser.sign_in("reader", next=asked)
            assert (led.status, led.headers["Location"]) == (303, given)


async def test_a_wrong_key_and_one_without_the_scope_are_refused_with_the_form(
    tmp_path: Path,
) -> None:
    async with keyed(tmp_path, READER, key("maker")) as made:
        browser = Browser(made.service)
        for text, status in (("wrong", 401), ("", 401), ("maker", 403)):
            refused = await browser.sign_in(text, next='"><b>')
            assert (refused.status, "Set-Cookie" in refused.headers) == (status, False)
            assert "<form" in refused.body.decode()
            assert "<b>" not in refused.body.decode()
        large = await browser.sign_in("x" * 20_000)
        assert large.status == 413
        many = await browser.sign_in("reader", **{f"field{n}": "x" for n in range(9)})
        assert (many.status, many.error["code"]) == (400, "invalid_value")


async def test_a_script_signs_in_and_out_with_json(tmp_path: Path) -> None:
    async with keyed(tmp_path, READER) as made:
        browser = Browser(made.service)
        refused = await browser.ask("POST", "/session", JSON, b'{"key": "wrong"}')
        assert (refused.status, refused.error["code"]) == (401, "invalid_api_key")
        assert (await browser.ask("POST", "/session", JSON, b"{}")).status == 401
        answer = await browser.ask("POST", "/session", JSON, b'{"key": "reader"}')
        described = {
            "name": "reader", "scopes": ["read"], "is_signed_in": True,
            "expires": made.wall.now + LIFE_S,
        }  # fmt: skip
        assert (answer.status, answer.json) == (200, described)
        assert (await browser.ask("GET", "/session")).json == described

        cookie = browser.cookie
        assert (await browser.ask("DELETE", "/session", OWN_PAGE)).status == 204
        assert browser.cookie == ""
        browser.cookie = cookie
        assert (await browser.ask("GET", "/stats")).status == 401


async def test_a_revoked_or_expired_key_ends_its_sessions(tmp_path: Path) -> None:
    async with keyed(tmp_path, READER, key("b", scopes=(Scope.READ,), expires=200)) as made:
        first, second = Browser(made.service), Browser(made.service)
        await first.sign_in("reader")
        await second.sign_in("b")
        made.wall.now = 201.0
        assert ((await first.ask("GET", "/stats")).status) == 200
        assert ((await second.ask("GET", "/stats")).status) == 401
        made.put(key("reader", "another text", scopes=(Scope.READ,)))  # the name alone is the same
        made.clock.now += LOOK_S
        assert ((await first.ask("GET", "/stats")).status) == 401


FOREIGN: list[dict[str, str]] = [
    {},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "null"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
async def test_another_origins_page_cannot_use_the_session(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    async with keyed(tmp_path, key("a", scopes=(Scope.ADMIN,))) as made:
        browser = Browser(made.service)
        await browser.sign_in("a")
        refused = await browser.ask("POST", "/v1/completions", JSON | headers, b'{"prompt": "x"}')
        assert refused.status == 401
        assert (await browser.ask("DELETE", "/session", headers)).status == 401
        own = {"Origin": made.service.url}
        answer = await browser.ask("POST", "/v1/completions", JSON | own, b'{"prompt": "x"}')
        assert answer.status == 200


@pytest.mark.parametrize("headers", [one for one in FOREIGN if one], ids=str)
async def test_another_origins_page_cannot_sign_a_browser_in(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    async with keyed(tmp_path, READER) as made:
        browser = Browser(made.service)
        refused = await browser.ask("POST", "/session", FORM | headers, b"key=reader")
        assert (refused.status, browser.cookie) == (403, "")


@asynccontextmanager
async def keyless(folder: Path) -> AsyncIterator[tuple[Service, str]]:
    token = run_token.make(folder / "token")
    service = Service(Config(), authenticator=run_token.by_token(token))
    await service.start()
    service.fleet.start_worker()
    try:
        yield service, token
    finally:
        await service.stop()


async def test_the_address_that_start_prints_signs_in_as_the_operator(tmp_path: Path) -> None:
    async with keyless(tmp_path) as (service, token):
        browser = Browser(service)
        assert (await browser.ask("GET", "/")).status == 200
        anonymous = (await browser.ask("GET", "/session")).json
        assert anonymous == {
            "name": "anonymous", "scopes": ["generate", "read"], "is_signed_in": False,
            "expires": None,
        }  # fmt: skip
        led = await browser.ask("GET", f"/?token={token}")
        assert (led.status, led.headers["Location"]) == (303, "/")
        assert token not in browser.cookie
        me = (await browser.ask("GET", "/session")).json
        assert (me["name"], me["scopes"]) == ("operator", ["generate", "read", "admin"])
        # reached: there is no operator behind this front
        reached = await browser.ask("POST", "/admin/restart", JSON | OWN_PAGE, b"{}")
        assert reached.status == 404
        for headers in FOREIGN:
            refused = await browser.ask("POST", "/admin/restart", JSON | headers, b"{}")
            assert refused.status == 401


async def test_a_wrong_token_in_the_address_gets_the_form(tmp_path: Path) -> None:
    async with keyless(tmp_path) as (service, token):
        browser = Browser(service)
        for given in ("", "wrong", token[:-1], "%ff"):
            refused = await browser.ask("GET", f"/?token={given}")
            assert (refused.status, browser.cookie) == (401, "")
            assert "<form" in refused.body.decode()
        assert (await browser.sign_in(token)).status == 303


async def test_a_key_in_the_address_counts_only_where_no_keys_are_configured(
    tmp_path: Path,
) -> None:
    async with keyed(tmp_path, READER) as made:
        browser = Browser(made.service)
        assert (await browser.ask("GET", "/?token=reader")).status == 401
        assert (await browser.ask("GET", "/?key=reader")).status == 401
        assert browser.cookie == ""


async def test_a_program_that_takes_no_pages_gets_the_error_object(tmp_path: Path) -> None:
    async with keyed(tmp_path, READER) as made:
        refused = await Browser(made.service).ask("GET", "/", {"Accept": "application/json"})
        assert (refused.status, refused.error["code"]) == (401, "invalid_api_key")
