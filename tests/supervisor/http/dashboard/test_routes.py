"""The page, its files, and its stream of events, over HTTP."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import structs

from gpufc.config import Config
from supervisor.access import store
from supervisor.access.keys import Key, KeyList
from supervisor.access.ring import KeyRing
from supervisor.access.sessions import Sessions
from supervisor.dispatch.request import Scope
from supervisor.fleet.crash_store import CrashStore
from supervisor.http.dashboard import feed as feeds
from supervisor.http.dashboard import handlers
from supervisor.http.dashboard.assets import FOLDER, assets
from supervisor.http.dashboard.messages import RequestRow, Tick
from supervisor.http.dashboard.snapshot import tick
from supervisor.http.edge.context import SERVICES, Services
from supervisor.http.edge.credentials import by_keys
from supervisor.http.edge.server import RETIRED, FrontRunner
from supervisor.http.routes import create_web_app
from tests.supervisor.access.test_keys import key
from tests.supervisor.dispatch.fakes import MODEL, until
from tests.supervisor.fleet.test_crash_record import record
from tests.supervisor.http.conftest import Service, running

HTML = {"Accept": "text/html"}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "PERIOD_S", 0.01)


class Events:
    """One viewer's stream."""

    def __init__(self, response: Any) -> None:
        self._response = response

    async def next(self, wanted: str) -> Any:
        """The next event of this name."""
        while True:
            name = (await self._line()).removeprefix("event: ")
            data = (await self._line()).removeprefix("data: ")
            assert await self._line() == ""
            if name == wanted:
                return msgspec.json.decode(data)

    async def end(self) -> None:
        """Return when the stream has ended properly."""
        await self._response.content.read()

    async def _line(self) -> str:
        line: bytes = await self._response.content.readline()
        assert line, "the stream has ended"
        return line.decode().rstrip("\n")


@contextlib.asynccontextmanager
async def viewer(service: Service, text: str | None = None) -> AsyncIterator[Events]:
    headers = {} if text is None else {"Authorization": f"Bearer {text}"}
    async with service.http.get("/dashboard/events", headers=headers) as response:
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/event-stream")
        yield Events(response)


def feed_of(service: Service) -> feeds.Feed:
    return service.app[handlers.FEED]


async def test_the_page_loads_nothing_from_elsewhere_and_runs_no_inline_script(
    service: Service,
) -> None:
    async with service.http.get("/", headers=HTML) as response:
        page = await response.text()
        policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<script(?![^>]*\bsrc=)|\bon\w+=|style=|https?://", page)
    addresses = re.findall(r'(?:src|href)="(/[^"]*)"', page)
    for address in addresses:
        assert (await service.get(address)).status == 200, address
    assert len(addresses) > 5


async def test_every_module_that_a_module_imports_is_a_file_of_the_page(service: Service) -> None:
    base = f"/dashboard/{assets().build}"
    n_imports = 0
    for name, asset in assets().files.items():
        for target in re.findall(r'^import [^"]*"(\.[^"]+)"', asset.body.decode(), re.MULTILINE):
            path = (Path(f"{base}/{name}").parent / target).as_posix()
            answer = await service.get(re.sub(r"/[^/]+/\.\.|/\.(?=/)", "", path))
            assert answer.status == 200, (name, target)
            assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
            n_imports += 1
    assert n_imports > 20


def test_no_file_of_the_page_is_long_or_refers_to_another_host() -> None:
    for path in FOLDER.rglob("*"):
        if path.is_file():
            text = path.read_text()
            assert len(text.splitlines()) <= 400, path
            assert "innerHTML" not in text, path
            found = re.findall(r"https?://[\w.]+", text)
            assert set(found) <= {"http://www.w3.org"}, path


async def test_a_page_that_has_not_changed_is_not_sent_again(service: Service) -> None:
    async with service.http.get("/", headers=HTML) as response:
        tag = response.headers["ETag"]
        assert response.headers["Cache-Control"] == "no-cache"
    async with service.http.get("/", headers=HTML | {"If-None-Match": tag}) as response:
        assert (response.status, await response.read()) == (304, b"")


async def test_files_of_a_build_are_kept_and_those_of_another_one_are_not_there(
    service: Service,
) -> None:
    build = assets().build
    answer = await service.get(f"/dashboard/{build}/js/app.js")
    assert "immutable" in answer.headers["Cache-Control"]
    for path in (
        *("/dashboard/000000000000/js/app.js", f"/dashboard/{build}/js/none.js"),
        f"/dashboard/{build}/..%2Fassets.py",
    ):
        assert (await service.get(path)).status == 404, path


async def test_a_viewer_gets_everything_at_once_and_then_the_news(service: Service) -> None:
    async with viewer(service) as events:
        hello = await events.next("hello")
        assert hello["build"] == assets().build
        assert (hello["scopes"], hello["is_anonymous"]) == (["generate", "read"], True)
        first = await events.next("tick")
        assert [model["name"] for model in first["models"]] == [MODEL]
        assert await events.next("deaths") == {}
        assert (await events.next("limits"))["running"] == 4
        later = await events.next("tick")
        assert later["point"]["at"] > first["point"]["at"]


async def test_a_request_is_shown_while_it_runs_and_once_when_it_has_ended() -> None:
    async with running() as service, viewer(service) as events:
        worker = service.fleet.start_worker(auto=False)
        asking = asyncio.create_task(service.complete())
        while not (rows := (await events.next("tick")).get("requests")):
            pass
        (row,) = rows
        await until(lambda: worker.active)
        worker.auto = True
        worker.go()
        answer = await asking
        assert answer.headers["X-Request-Id"] == row["id"]
        while not (rows := (await events.next("tick")).get("ended")):
            pass
        (ended,) = rows
        assert (ended["id"], ended["outcome"], ended["n_generated"]) == (row["id"], "succeeded", 5)


async def test_a_death_is_told_with_the_streams_that_went_on() -> None:
    async with running() as service, viewer(service) as events:
        worker = service.fleet.start_worker(auto=False)
        asking = asyncio.create_task(service.complete())
        await until(lambda: worker.active)
        worker.step()
        worker.die()
        while not (rows := (await events.next("deaths")).get("rows")):
            pass
        (death,) = rows
        assert (death["reason"], death["n_streams"], death["n_waiting"]) == ("killed", 1, 1)
        service.fleet.start_worker()
        await asking
        while (death := (await events.next("deaths"))["rows"][0]).get("n_waiting"):
            pass
        assert death["n_went_on"] == 1
        assert len(death["pauses"]) == 1


async def test_a_death_and_the_next_worker_are_shown_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feeds, "PERIOD_S", 3600.0)
    async with running() as service, viewer(service) as events:
        assert (await events.next("tick"))["status"] == "loading"
        worker = service.fleet.start_worker()
        assert (await events.next("tick"))["status"] == "ok"
        worker.die()
        assert (await events.next("deaths"))["rows"]


async def test_nothing_is_made_while_there_is_no_viewer(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Tick] = []

    def counted(front: Services, ended: Sequence[RequestRow]) -> Tick:
        made.append(tick(front, ended))
        return made[-1]

    monkeypatch.setattr(feeds.snapshot, "tick", counted)
    feed = feed_of(service)
    await service.get("/")
    assert (feed._task, made) == (None, [])
    async with viewer(service) as first, viewer(service) as second:
        await first.next("tick")
        await second.next("tick")
        assert feed.n_viewers == 2
        assert len(feed.history) == len(made)
    await until(lambda: feed.n_viewers == 0)
    assert feed._task is None


async def test_a_viewer_that_comes_later_gets_no_old_picture(service: Service) -> None:
    async with viewer(service) as events:
        old = await events.next("tick")
    await until(lambda: feed_of(service).n_viewers == 0)
    async with viewer(service) as events:
        hello, new = await events.next("hello"), await events.next("tick")
    assert old["point"]["at"] in {point["at"] for point in hello["history"]}
    assert new["point"]["at"] > max(point["at"] for point in hello["history"])


async def test_a_fault_in_one_picture_does_not_end_the_stream(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with viewer(service) as events:
        await events.next("tick")
        with monkeypatch.context() as broken:
            broken.setattr(service.fleet, "workers", lambda: 1 / 0)
            await until(lambda: "dashboard_tick_failed" in caplog.text)
        assert await events.next("tick")


async def test_a_front_that_stops_or_is_replaced_ends_the_stream(service: Service) -> None:
    async with viewer(service) as events:
        await events.next("tick")
        service.app[RETIRED].set()
        await events.end()
    service.app[RETIRED].clear()
    async with viewer(service) as events:
        await events.next("tick")
        feed_of(service).close()
        await events.end()
    assert feed_of(service).n_viewers == 0


async def test_no_more_viewers_than_there_may_be(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "MOST_VIEWERS", 1)
    async with viewer(service) as events:
        await events.next("tick")
        answer = await service.get("/dashboard/events")
    assert (answer.status, answer.error["code"]) == (503, "overloaded")
    assert answer.headers["Retry-After"]


async def test_viewers_who_ask_at_once_are_counted(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "MOST_VIEWERS", 2)
    async with contextlib.AsyncExitStack() as open_until_the_end:
        asked = (service.http.get("/dashboard/events") for _ in range(8))
        entered = map(open_until_the_end.enter_async_context, asked)
        found = await asyncio.gather(*entered)
        assert sorted(response.status for response in found) == [200] * 2 + [503] * 6
    await until(lambda: feed_of(service).n_asked == 0)


async def test_readers_do_not_keep_an_administrator_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "MOST_VIEWERS", 0)
    keys = key("reader", scopes=(Scope.READ,)), key("admin", scopes=(Scope.ADMIN,))
    async with guarded(tmp_path, *keys) as made, viewer(made, "admin") as events:
        await events.next("tick")
        headers = {"Authorization": "Bearer reader"}
        async with made.http.get("/dashboard/events", headers=headers) as refused:
            assert refused.status == 503


@contextlib.asynccontextmanager
async def guarded(folder: Path, *keys: Key) -> AsyncIterator[Service]:
    """A front with keys and a runtime folder. The text of a key is its name."""
    path = folder / "keys.json"
    store.change(path, lambda _known: KeyList(keys))
    ring = KeyRing(path)
    authenticator = by_keys(ring, Sessions(b"secret", time.time))
    service = Service(Config(), authenticator=authenticator)
    services = msgspec.structs.replace(service.app[SERVICES], keys=ring, runtime_dir=folder)
    service.app = create_web_app(services, authenticator)
    service.runner = FrontRunner(service.app, service.config.limits)
    await service.start()
    service.fleet.start_worker()
    try:
        yield service
    finally:
        await service.stop()


async def test_keys_and_logs_are_for_administrators(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "front.log").write_text("a line\n")
    admin, reader = key("admin", scopes=(Scope.ADMIN,)), key("reader", scopes=(Scope.READ,))
    async with guarded(tmp_path, admin, reader) as service:
        async with viewer(service, "admin") as events:
            assert (await events.next("hello"))["runtime_dir"] == str(tmp_path)
            rows = (await events.next("keys"))["rows"]
            assert [row["name"] for row in rows] == ["admin", "reader"]
            assert await events.next("log") == {"lines": [{"process": "front", "text": "a line"}]}
            with (tmp_path / "logs" / "front.log").open("a") as file:
                file.write("another one\n")
            assert (await events.next("log"))["lines"][0]["text"] == "another one"
            async with viewer(service, "reader") as other:
                hello = await other.next("hello")
                assert (hello["scopes"], hello["needs_key"]) == (["read"], True)
                feed = feed_of(service)
                assert [name for name, _ in feed.news_for(is_admin=False)] == [
                    *("tick", "deaths", "limits")
                ]
                await other.next("tick")
        async with service.http.get("/dashboard/events") as response:
            assert response.status == 401


async def test_a_record_that_is_written_after_its_death_is_shown_with_it(tmp_path: Path) -> None:
    reader = key("reader", scopes=(Scope.READ,))
    async with guarded(tmp_path, reader) as service, viewer(service, "reader") as events:
        worker = service.fleet.start_worker()
        worker.die()
        while not (rows := (await events.next("deaths")).get("rows")):
            pass
        (death,) = rows
        assert "record" not in death
        await events.next("tick")
        late = record(at=death["at"], epoch=death["epoch"], model=death["model"])
        CrashStore(tmp_path).write(structs.replace(late, worker=death["worker"]))
        while not (rows := (await events.next("deaths"))["rows"])[0].get("record"):
            pass
        assert [row["record"] for row in rows] == [CrashStore(tmp_path).list()[0].id]


async def test_a_key_with_a_list_of_models_sees_those_only(tmp_path: Path) -> None:
    stranger = key("stranger", scopes=(Scope.READ,), models=("other-*",))
    async with guarded(tmp_path, stranger) as service:
        service.fleet.start_worker().die()
        async with viewer(service, "stranger") as events:
            shown = await events.next("tick")
            assert not {"models", "workers", "requests"} & set(shown)
            assert await events.next("deaths") == {}
