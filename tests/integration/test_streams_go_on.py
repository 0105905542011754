"""A stream outlives its worker: it goes on at its position, with no token lost or repeated.

The fake engine's text depends on every token before it, so equality with `fake_text` is the whole
check. Each test asserts that a new epoch served, so that a fault that missed cannot pass.
"""

import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.integration.fake_service import FAKE, complete, fake_text, joined, stream
from tests.service import Gains, Service, service, wait_for

N_TOKENS = 60


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("goes-on") / "run"
    with service(folder, environ=FAKE | {"GPUFC_FAKE_SCRIPT": "step_ms=5"}) as started:
        yield started


@pytest.fixture
def running(shared: Service) -> Service:
    """The one service of this module, with nothing to do and a worker ready."""
    shared.wait_idle()
    return shared


@pytest.mark.parametrize("fault", ["kill", "segv", "abort", "exit", "raise", "decode_error", "nan"])
async def test_a_stream_outlives_each_kind_of_death(
    running: Service, fault: str, tmp_path: Path
) -> None:
    once = tmp_path / f"{fault}.done"
    prompt = f"[[{fault}@13 once={once}]] goes on"
    epoch, gains = running.worker()["epoch"], Gains(running)
    async with aiohttp.ClientSession() as session:
        streamed, other, (status, whole, _) = await asyncio.gather(
            stream(session, running.url, prompt, max_tokens=N_TOKENS),
            stream(session, running.url, "bystander", max_tokens=N_TOKENS),
            complete(session, running.url, "not streamed", max_tokens=N_TOKENS),
        )
    assert once.exists()
    assert running.worker()["epoch"] > epoch
    assert joined(streamed) == fake_text(prompt, N_TOKENS)
    assert joined(other) == fake_text("bystander", N_TOKENS)
    assert status == 200
    assert whole["choices"][0]["text"] == fake_text("not streamed", N_TOKENS)
    assert whole["usage"]["completion_tokens"] == N_TOKENS
    lost, failed, replayed = gains.of("requests", "lost_total", "failed_total", "replayed_total")
    assert (lost, failed) == (0, 0)
    assert replayed >= 1


async def test_usage_counts_each_token_once_and_ids_stay(running: Service, tmp_path: Path) -> None:
    prompt = f"[[kill@20 once={tmp_path / 'done'}]]"
    async with aiohttp.ClientSession() as session:
        events = await stream(
            session,
            running.url,
            prompt,
            max_tokens=N_TOKENS,
            n=2,
            stream_options={"include_usage": True},
        )
    chunks = [json.loads(event) for event in events[:-1]]
    assert (tmp_path / "done").exists()
    assert len({chunk["id"] for chunk in chunks}) == len({c["created"] for c in chunks}) == 1
    assert chunks[-1]["usage"]["completion_tokens"] == 2 * N_TOKENS
    finishes = [c["finish_reason"] for chunk in chunks for c in chunk["choices"]]
    assert finishes.count("length") == 2


async def test_a_death_inside_a_character_breaks_none(running: Service, tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as session:
        for position in range(1, 6):
            once = tmp_path / f"emoji-{position}"
            prompt = f"[[emoji]][[kill@{position} once={once}]]"
            events = await stream(session, running.url, prompt, max_tokens=40)
            assert once.exists()
            text = joined(events)
            assert "\ufffd" not in text
            assert fake_text(prompt, 60).startswith(text)
            assert len(text) >= 8


async def test_a_death_inside_a_held_back_stop_string_sends_nothing_of_it(
    running: Service, tmp_path: Path
) -> None:
    async with aiohttp.ClientSession() as session:
        for position in range(8, 11):
            once = tmp_path / f"stop-{position}"
            prompt = f"[[say:before STOP after]][[kill@{position} once={once}]]"
            events = await stream(session, running.url, prompt, max_tokens=40, stop=["STOP"])
            assert once.exists()
            assert joined(events) == "before "


async def test_a_poison_request_among_32_is_found_and_the_others_finish(running: Service) -> None:
    gains = Gains(running)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        poison = asyncio.create_task(
            complete(session, running.url, "[[segv@7]] poison", max_tokens=N_TOKENS)
        )
        answers = await asyncio.gather(
            *(complete(session, running.url, f"good {n}", max_tokens=N_TOKENS) for n in range(31))
        )
        status, body, _ = await poison
        again = await complete(session, running.url, "[[segv@7]] poison", max_tokens=N_TOKENS)
    for n, (code, answer, _) in enumerate(answers):
        assert code == 200
        assert answer["choices"][0]["text"] == fake_text(f"good {n}", N_TOKENS)
    assert (status, body["error"]["code"]) == (500, "engine_crash_suspect")
    assert (again[0], again[1]["error"]["code"]) == (500, "engine_crash_suspect")
    assert 1 <= gains.restarts() <= 3


async def test_random_kills_lose_repeat_and_cross_nothing(running: Service) -> None:
    """Streams start all the time while the worker is killed at random moments."""
    n_kills, results, gains = 6, [], Gains(running)
    stop = asyncio.Event()

    async def client(number: int) -> None:
        async with aiohttp.ClientSession() as session:
            turn = 0
            while not stop.is_set():
                prompt = f"client {number} turn {turn}"
                events = await stream(session, running.url, prompt, max_tokens=80)
                results.append(joined(events) == fake_text(prompt, 80))
                turn += 1

    async with asyncio.TaskGroup() as group:
        for number in range(12):
            group.create_task(client(number))
        try:
            for _ in range(n_kills):
                before = running.status()["tokens"]["generated_total"]
                epoch = await asyncio.to_thread(running.kill_worker, signal.SIGKILL)
                await asyncio.to_thread(running.wait_epoch_after, epoch)
                await asyncio.to_thread(
                    wait_for,
                    lambda before=before: (
                        running.status()["tokens"]["generated_total"] > before + 150
                    ),
                    why="streams go on",
                )
        finally:
            stop.set()
    assert results
    assert all(results)
    assert gains.restarts() >= n_kills
    assert gains.of("requests", "lost_total", "failed_total") == (0, 0)


@pytest.mark.parametrize("version", [1, 2])
async def test_the_state_of_a_sampler_outlives_its_worker(
    running: Service, version: int, tmp_path: Path
) -> None:
    once = tmp_path / "done"
    prompt = f"[[kill@9 once={once}]] with a state"
    # nearly equal letters: which of them are left depends on the state, which on those before
    fields = {
        "mirostat": version,
        "mirostat_tau": 2.0,
        "mirostat_eta": 0.7,
        "temperature": 100.0,
        "seed": 5,
        "regex": "[a-z]+",
        "ignore_eos": True,
    }
    epoch = running.worker()["epoch"]
    async with aiohttp.ClientSession() as session:
        killed = await stream(session, running.url, prompt, max_tokens=N_TOKENS, **fields)
        assert once.exists()
        assert running.worker()["epoch"] > epoch
        undisturbed = await stream(session, running.url, prompt, max_tokens=N_TOKENS, **fields)
    assert len(joined(killed)) == N_TOKENS
    assert joined(killed) == joined(undisturbed)
