"""Requests that kill workers: convicted, and no other request with them."""

import asyncio

import pytest

from gpufc.errors import (
    EngineCrashed,
    EngineCrashSuspect,
    EngineUnavailable,
)
from gpufc.protocol import (
    TextPrompt,
)
from supervisor.dispatch.recovery import MAX_OUTAGE_S
from supervisor.dispatch.stream import ResponseStream
from tests.supervisor.dispatch.fakes import (
    FAILED,
    MODEL,
    FakeWorker,
    request,
    text_of,
    tokens_of,
    until,
    whole_texts,
)
from tests.supervisor.dispatch.front import CRASHED, Front


async def test_a_request_that_kills_is_convicted_and_all_others_are_served() -> None:
    front = Front(slots=4, queue=20)
    streams = {word: front.submit(request(word)) for word in ["a", "b", "poison", "c", "d"]}
    poison_tokens = tokens_of(TextPrompt("poison"))
    deaths = 0
    while not all(log.ended for stream in streams.values() for log in stream.logs):
        worker = front.fleet.start_worker(auto=False)
        while not all(log.ended for stream in streams.values() for log in stream.logs):
            await until(lambda worker=worker: worker.active)
            running = [spec for spec, _ in worker.active.values()]
            if any(spec.prompt_tokens == poison_tokens for spec in running):
                worker.die(CRASHED)
                deaths += 1
                break
            worker.step()
            await asyncio.sleep(0)
    assert deaths <= 3
    with pytest.raises(EngineCrashSuspect):
        await whole_texts(streams.pop("poison"))
    for word, stream in streams.items():
        assert await whole_texts(stream) == [text_of(word)]
    with pytest.raises(EngineCrashSuspect):
        front.submit(request("poison"))


async def died_twice_alone(front: Front, stream: ResponseStream) -> FakeWorker:
    """Two workers die over one sequence. Returns the second one."""
    for _ in range(2):
        worker = front.fleet.start_worker(auto=False)
        await until(lambda worker=worker: worker.active)
        worker.die(CRASHED)
    assert stream.error is None
    return worker


async def test_no_request_is_convicted_before_an_engine_has_passed_its_trial() -> None:
    front = Front()
    stream = front.submit(request("poison"))
    second = await died_twice_alone(front, stream)
    front.fleet.start_worker(tried=False)  # a hot spare, which was tried before the deaths
    await until(lambda: front.dispatcher.occupancy.waiting == 1)
    assert stream.error is None
    assert second.n_deaths_explained == 0
    assert await whole_texts(front.submit(request("other"))) == [text_of("other")]
    with pytest.raises(EngineCrashSuspect):  # the other's tokens are evidence
        await whole_texts(stream)
    assert second.n_deaths_explained == 2


async def test_an_engine_that_fails_its_trials_convicts_no_request() -> None:
    front = Front()
    stream = front.submit(request("honest"))
    await died_twice_alone(front, stream)
    front.fleet.change(FAILED)  # as the fleet says after trials that failed
    with pytest.raises(EngineUnavailable, match="it does not load"):
        await whole_texts(stream)
    front.fleet.start_worker()
    assert await whole_texts(front.submit(request("honest"))) == [text_of("honest")]


async def test_an_accused_without_evidence_ends_after_the_longest_outage() -> None:
    now = 0.0
    front = Front(clock=lambda: now)
    stream = front.submit(request("poison"))
    await died_twice_alone(front, stream)
    front.fleet.start_worker(tried=False)
    now = MAX_OUTAGE_S + 1
    front.dispatcher.group(MODEL).expire()
    with pytest.raises(EngineCrashed):
        await whole_texts(stream)
    assert front.dispatcher.idle


async def test_convictions_in_a_row_without_a_token_are_withdrawn() -> None:
    front = Front()
    words = ("one", "two", "three")
    for word in words[:2]:
        stream = front.submit(request(word))
        await died_twice_alone(front, stream)
        front.fleet.start_worker(auto=False).die()
        with pytest.raises(EngineCrashSuspect):
            await whole_texts(stream)
    third = front.submit(request("three"))
    await died_twice_alone(front, third)
    healed = front.fleet.start_worker()
    assert await whole_texts(third) == [text_of("three")]
    assert healed.n_deaths_explained == 0
    for word in words:
        assert await whole_texts(front.submit(request(word))) == [text_of(word)]


@pytest.mark.parametrize("renewed", ["restart", "fingerprint", "failed"])
async def test_the_quarantine_is_emptied_with_the_engine(renewed: str) -> None:
    front = Front()
    stream = front.submit(request("poison"))
    await died_twice_alone(front, stream)
    worker = front.fleet.start_worker()
    with pytest.raises(EngineCrashSuspect):
        await whole_texts(stream)
    with pytest.raises(EngineCrashSuspect):
        front.submit(request("poison"))
    match renewed:
        case "restart":
            front.dispatcher.engine_renewed(MODEL)
        case "fingerprint":
            worker.die()
            front.fleet.start_worker(fingerprint="another")
        case _:
            worker.die()
            front.fleet.change(FAILED)
            front.fleet.start_worker()
    assert await whole_texts(front.submit(request("poison"))) == [text_of("poison")]


async def test_an_accused_whose_client_leaves_is_gone() -> None:
    front = Front()
    stream = front.submit(request("poison"))
    await died_twice_alone(front, stream)
    stream.cancel()
    assert front.dispatcher.idle
    front.fleet.start_worker()
    assert await whole_texts(front.submit(request("poison"))) == [text_of("poison")]
