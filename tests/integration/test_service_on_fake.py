"""The whole service over a scripted engine in a real worker process, and faults in it.

Every fault test asserts that the fault hit (a new epoch served), so that a miss cannot pass.
"""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.integration.fake_service import FAKE, complete, fake_text, joined, stream
from tests.service import Gains, Service, lives, service, wait_for, zombies
from tests.supervisor.dispatch.fakes import until


@pytest.fixture
def running(plain: Service) -> Service:
    return plain


@pytest.fixture(scope="module")
def leisurely(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose answers last for minutes: a client leaves in the middle on any machine."""
    environ = FAKE | {"GPUFC_FAKE_SCRIPT": "step_ms=50"}
    with service(tmp_path_factory.mktemp("leisurely") / "run", environ=environ) as started:
        yield started


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Service]:
    """A service for a test that ends it, or that looks at its memory."""
    with service(tmp_path / "run", environ=FAKE) as started:
        yield started


async def test_sixteen_streams_at_once_each_bring_their_own_text(running: Service) -> None:
    prompts = [f"canary {n} " * (n + 1) for n in range(16)]
    async with aiohttp.ClientSession() as session:
        answers = await asyncio.gather(
            *(stream(session, running.url, prompt, max_tokens=40) for prompt in prompts)
        )
    for prompt, events in zip(prompts, answers, strict=True):
        assert joined(events) == fake_text(prompt, 40)


async def test_a_thousand_streams_at_once_each_bring_their_own_text(tmp_path: Path) -> None:
    keys = {"MAX_CONCURRENT_REQUESTS": "1024", "MAX_CONNECTIONS_PER_ADDRESS": "2000"}
    environ = FAKE | {f"GPUFC_{key}": value for key, value in keys.items()}
    prompts = [f"canary {n}" for n in range(1024)]
    with service(tmp_path / "run", environ=environ) as running:
        unlimited = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=unlimited) as session:
            answers = await asyncio.gather(
                *(stream(session, running.url, prompt, max_tokens=8) for prompt in prompts)
            )
    for prompt, events in zip(prompts, answers, strict=True):
        assert joined(events) == fake_text(prompt, 8)


async def test_of_a_hundred_at_once_ninety_are_served_and_ten_refused(running: Service) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        with running.paused():
            asked = [
                asyncio.create_task(complete(session, running.url, f"number {n}", max_tokens=30))
                for n in range(100)
            ]
            await until(lambda: sum(one.done() for one in asked) >= 10)
        answers = await asyncio.gather(*asked)
    served = [answer for answer in answers if answer[0] == 200]
    refused = [answer for answer in answers if answer[0] == 503]
    assert (len(served), len(refused)) == (90, 10)
    for _, body, headers in refused:
        assert body["error"]["type"] == "overloaded_error"
        assert int(headers["Retry-After"]) >= 1
    for n, (status, body, _) in enumerate(answers):
        if status == 200:
            assert body["choices"][0]["text"] == fake_text(f"number {n}", 30)


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_client_that_leaves_frees_its_sequence(leisurely: Service, streamed: bool) -> None:
    running = leisurely
    gains = Gains(running)
    async with aiohttp.ClientSession() as session:
        body = {"prompt": "gone", "max_tokens": 4000, "stream": streamed}
        task = asyncio.create_task(session.post(f"{running.url}/v1/completions", json=body))
        await asyncio.to_thread(wait_for, lambda: _is_generating(running), why="it runs")
        task.cancel()
        if streamed:
            response = await asyncio.gather(task, return_exceptions=True)
            if isinstance(response[0], aiohttp.ClientResponse):
                response[0].close()
    await asyncio.to_thread(
        wait_for,
        lambda: gains.of("requests", "cancelled_total") == (1,),
        why="it is cancelled",
    )
    assert running.status()["requests"]["running"] == 0
    assert gains.of("tokens", "generated_total") < (3000,)
    await asyncio.to_thread(
        wait_for, lambda: running.worker()["sequences_running"] == 0, why="the worker has none"
    )


def _is_generating(running: Service) -> bool:
    """Whether a request runs: a sequence of the worker alone may be its trial."""
    is_running = running.status()["requests"]["running"] == 1
    return is_running and bool(running.worker()["sequences_running"] == 1)


async def test_emoji_and_chinese_stream_without_a_broken_character(running: Service) -> None:
    prompt = "[[emoji]] please"
    async with aiohttp.ClientSession() as session:
        for n_tokens in range(30, 42):
            events = await stream(session, running.url, prompt, max_tokens=n_tokens)
            text = joined(events)
            assert "\ufffd" not in text
            whole = fake_text(prompt, 60)
            assert whole.startswith(text)
            assert len(text) > 5


async def test_the_front_serves_on_after_ten_kills_and_leaks_nothing(running: Service) -> None:
    front, gains = running.front, Gains(running)
    async with aiohttp.ClientSession() as session:
        for n in range(10):
            assert (await complete(session, running.url, f"kill {n}"))[0] == 200
            epoch = await asyncio.to_thread(running.kill_worker)
            async with session.get(f"{running.url}/livez") as alive:
                assert alive.status == 200
            await asyncio.to_thread(running.wait_epoch_after, epoch)
            if n == 3:
                descriptors = front.num_fds()
    assert running.process.poll() is None
    assert gains.restarts() == 10
    await asyncio.to_thread(
        wait_for, lambda: front.num_fds() <= descriptors + 2, why="no descriptor is left open"
    )
    # template processes of dead workers: the front looks for them now and then
    await asyncio.to_thread(wait_for, lambda: not zombies(front), why="all are reaped")


async def test_readyz_tells_the_truth_about_a_dead_worker(running: Service) -> None:
    statuses: list[int] = []
    async with aiohttp.ClientSession() as session:

        async def is_ready() -> bool:
            async with session.get(f"{running.url}/readyz") as answer:
                body = await answer.json()
                statuses.append(answer.status)
                assert (body["status"] == "ok") is (answer.status == 200)
                if answer.status == 503:
                    assert int(answer.headers["Retry-After"]) >= 1
                return answer.status == 200

        assert (await complete(session, running.url, "before"))[0] == 200
        for _ in range(10):  # on a busy machine the next worker may be ready before we look
            epoch = running.kill_worker(signal.SIGKILL)
            while not await is_ready() or running.worker()["epoch"] == epoch:
                pass
            if 503 in statuses:
                break
    assert 503 in statuses


async def test_requests_that_wait_are_served_by_the_next_worker(running: Service) -> None:
    async with aiohttp.ClientSession() as session:
        assert (await complete(session, running.url, "first"))[0] == 200
        epoch = running.kill_worker()
        answers = await asyncio.gather(
            *(complete(session, running.url, f"waits {n}") for n in range(20))
        )
    assert {status for status, _, _ in answers} == {200}
    assert running.worker()["epoch"] > epoch


def test_a_killed_front_takes_its_worker_with_it(own: Service) -> None:
    children = own.front.children(recursive=True)
    os.kill(own.process.pid, signal.SIGKILL)
    own.process.wait()
    wait_for(lambda: not any(map(lives, children)), why="the workers are gone")


def test_the_idle_front_is_light_and_a_stop_leaves_nothing_behind(own: Service) -> None:
    assert own.front.memory_info().rss <= 80 * 1024 * 1024
    children = own.front.children(recursive=True)
    own.process.send_signal(signal.SIGTERM)
    assert own.process.wait() == 0
    wait_for(lambda: not any(map(lives, children)), why="its processes have ended")
    assert list(own.runtime.path.glob("*.sock")) == []
