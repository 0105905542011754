"""A front that is taken out of service: its streams end, a balancer sees it, nothing is lost."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.integration.commands import REFUSED, command
from tests.integration.fake_service import ENDLESS, complete, fake_text, joined, stream
from tests.integration.test_stopping import Ending, session, start
from tests.integration.upgradable import upgraded_ended
from tests.service import wait_for

N_STREAMS = 50


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Ending]:
    """It would cut streams at once when it is stopped."""
    with start(tmp_path, 0.0) as running:
        yield Ending(running)


async def ready(http: aiohttp.ClientSession, url: str) -> int:
    async with http.get(f"{url}/readyz") as answer:
        return answer.status


async def test_a_pod_that_leaves_loses_no_stream(front: Ending) -> None:
    async with session() as http:
        streams = [
            asyncio.create_task(stream(http, front.url, f"stream {n}", max_tokens=300))
            for n in range(N_STREAMS)
        ]
        await front.until_it_generates(N_STREAMS)
        code, said = await command(front.running, "drain", "--wait")  # the manifest's preStop
        assert code == 0, said
        assert "no requests left" in said
        assert front.running.status()["requests"]["running"] == 0
        assert await ready(http, front.url) == 503
        front.running.process.send_signal(signal.SIGTERM)  # then the pod is stopped
        for n, events in enumerate(await asyncio.gather(*streams)):
            assert joined(events) == fake_text(f"stream {n}", 300)
    await front.until_gone()


async def test_during_the_lead_balancers_look_elsewhere_and_requests_are_still_served(
    front: Ending,
) -> None:
    async with session() as http:
        assert (await command(front.running, "drain", "--lead", "3600"))[0] == 0
        assert await ready(http, front.url) == 503
        status, _, _ = await complete(http, front.url, "a last one")
        assert status == 200
        assert (await command(front.running, "drain"))[0] == 0
        status, body, headers = await complete(http, front.url, "too late")
        assert (status, body["error"]["type"]) == (503, "overloaded_error")
        assert int(headers["Retry-After"]) >= 1


async def test_a_drain_can_be_undone(front: Ending) -> None:
    async with session() as http:
        assert (await command(front.running, "drain", "--wait"))[0] == 0
        assert (await complete(http, front.url, "too late"))[0] == 503
        code, said = await command(front.running, "drain", "--undo")
        assert (code, said) == (0, "the front takes requests\n")
        assert await ready(http, front.url) == 200
        assert (await complete(http, front.url, "in time"))[0] == 200


async def test_an_upgraded_front_stays_drained_until_it_is_told(front: Ending) -> None:
    async def told(*words: str) -> str:
        code, said = await command(front.running, *words)
        assert code == 0, said
        return said

    url = front.url
    with upgraded_ended(front.running):
        async with session() as http:
            await told("drain", "--lead", "3600")
            await told("upgrade")
            assert await ready(http, url) == 503
            assert (await complete(http, url, "in the lead"))[0] == 200
            await told("drain", "--wait")
            assert "stays drained" in await told("upgrade")
            assert await ready(http, url) == 503
            assert (await complete(http, url, "too late"))[0] == 503
            await told("drain", "--undo")
            assert await ready(http, url) == 200
            assert (await complete(http, url, "in time"))[0] == 200
        await told("upgrade")
        async with session() as http:
            assert (await complete(http, url, "still in time"))[0] == 200


async def test_the_wait_may_have_an_end(front: Ending) -> None:
    async with session() as http:
        endless = asyncio.create_task(stream(http, front.url, "one", max_tokens=ENDLESS))
        await front.until_it_generates(1)
        code, said = await command(front.running, "drain", "--timeout", "0.1")
        assert code == REFUSED
        assert "1 request running, 0 waiting" in said
        assert not endless.done()
        front.running.process.send_signal(signal.SIGTERM)
        assert (await endless)[-1] == "[DONE]"
    await front.until_gone()


async def test_a_client_that_leaves_ends_the_wait(front: Ending) -> None:
    async with session() as http:
        endless = asyncio.create_task(stream(http, front.url, "one", max_tokens=ENDLESS))
        await front.until_it_generates(1)
        waiting = asyncio.create_task(command(front.running, "drain", "--wait"))
        await asyncio.to_thread(
            wait_for,
            lambda: front.running.status()["front"]["condition"]["status"] == "draining",
            why="it drains",
        )
        endless.cancel()  # its client leaves
        assert (await waiting)[0] == 0
