"""Placeholder rows in an engine: the shape of passes while requests come and go, and failures."""

import random

import pytest

from engine_worker.backend.fake.backend import expected_tokens
from engine_worker.backend.port import Batch
from engine_worker.scheduling.placeholders import PlaceholderSlots
from gpufc.errors import DecodeFailed
from gpufc.protocol import EngineFailed
from tests.engine_worker.engine.engine_runs import EngineRun
from tests.engine_worker.engine.recorded_device import N_STREAMS, device, prompt
from tests.engine_worker.text.sequences import spec


def test_a_failure_names_no_request_that_has_ended() -> None:
    fake = device()
    run = EngineRun(fake, max_running=N_STREAMS, batch_tokens=256)
    for n in range(1, 11):
        run.engine.inbox.put(spec(n, prompt(f"{n}"), max_tokens=5 if n == 1 else 50))
    slots = run.engine.scheduler.slots
    assert isinstance(slots, PlaceholderSlots)
    while len(run.engine.scheduler.running) != 9 or not slots.held:
        run.engine.take_requests()
        run.engine.run_step()
    fake.begin = failing  # type: ignore[method-assign]
    with pytest.raises(DecodeFailed):
        run.engine.run_step()
    assert isinstance(run.messages[-1], EngineFailed)
    assert run.messages[-1].requests == tuple(range(2, 11))


def failing(_: Batch) -> None:
    raise DecodeFailed("the device is lost")


def test_the_shape_stays_while_requests_come_and_go() -> None:
    fake, dice = device(), random.Random(1)
    run = EngineRun(fake, max_running=N_STREAMS, batch_tokens=256)
    lengths = {n: dice.randint(5, 60) for n in range(1, 60)}
    left = iter(lengths.items())

    def put_more() -> None:
        scheduler = run.engine.scheduler
        n_held = len(scheduler.running) + len(scheduler.waiting) + run.engine.inbox.qsize()
        for _, (n, length) in zip(range(N_STREAMS - n_held), left, strict=False):
            run.engine.inbox.put(spec(n, prompt(f"{n} request " * 3), max_tokens=length))

    n_begun = []

    def note_and_put_more() -> None:
        if len(run.engine.scheduler.decoding()) == N_STREAMS:
            n_begun.append(len(fake.batches))
        put_more()

    put_more()
    run.run(between=note_and_put_more)
    batches = fake.batches[n_begun[0] : n_begun[-1]]
    assert len(batches) > 100
    for batch in batches:
        assert batch.in_one_pass or len(set(batch.sequences)) == len(batch.sequences)
        assert sorted(set(batch.sequences)) == sorted(set(batches[0].sequences))
        assert sum(batch.outputs) == N_STREAMS
    for n, length in lengths.items():
        assert run.tokens(n) == expected_tokens(prompt(f"{n} request " * 3), length)
