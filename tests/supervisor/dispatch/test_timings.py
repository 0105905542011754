"""The moments of a request: each is noted once, a replay moves none."""

from collections.abc import Callable

import pytest

from gpufc.config import AdmissionConfig
from supervisor.dispatch.dispatcher import Dispatcher
from supervisor.dispatch.request import ANONYMOUS, GenerationRequest
from supervisor.dispatch.stream import ResponseStream
from supervisor.dispatch.timings import Timings
from tests.supervisor.dispatch.fakes import (
    N_TOKENS,
    FakeFleet,
    FakeWorker,
    generates,
    request,
    until,
    whole_texts,
)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fleet(clock: Clock) -> FakeFleet:
    fleet = FakeFleet()
    fleet.dispatcher = Dispatcher(fleet, AdmissionConfig(max_concurrent_requests=4), clock=clock)
    return fleet


def moments(times: Timings) -> tuple[float | None, ...]:
    """All but the runs."""
    return times.submitted_at, times.started_at, times.first_token_at, times.ended_at


async def started(
    fleet: FakeFleet, wanted: GenerationRequest | None = None
) -> tuple[ResponseStream, FakeWorker]:
    stream = fleet.dispatcher.submit(wanted or request(), ANONYMOUS)
    worker = fleet.start_worker(auto=False)
    await until(lambda: len(worker.active) == stream.request.n_sequences)
    return stream, worker


def steps(worker: FakeWorker, clock: Clock, count: int, seconds: float) -> None:
    for _ in range(count):
        clock.now += seconds
        worker.step()


async def test_the_times_of_queue_prompt_and_generation_add_up(
    fleet: FakeFleet, clock: Clock
) -> None:
    stream = fleet.dispatcher.submit(request(), ANONYMOUS)
    clock.now += 3
    worker = fleet.start_worker(auto=False)
    await until(lambda: worker.active)
    steps(worker, clock, N_TOKENS, 2)
    await whole_texts(stream)
    found = stream.timings
    assert moments(found) == (100.0, 103.0, 105.0, 113.0)
    assert (found.queue_s, found.prompt_s, found.generation_s, found.total_s) == (3, 2, 8, 13)


async def test_several_choices_count_from_the_first_token_to_the_last_end(
    fleet: FakeFleet, clock: Clock
) -> None:
    stream, worker = await started(fleet, request(n=2))
    first, second = generates(worker.sent)
    waiting = worker.active.pop(second.request)
    steps(worker, clock, N_TOKENS, 1)
    worker.active[second.request] = waiting
    steps(worker, clock, N_TOKENS, 1)
    assert first.choice == 0
    await whole_texts(stream)
    assert moments(stream.timings) == (100.0, 100.0, 101.0, 110.0)


async def test_a_replay_moves_no_moment_and_its_pause_counts_as_generation(
    fleet: FakeFleet, clock: Clock
) -> None:
    stream, worker = await started(fleet)
    steps(worker, clock, 2, 1)
    worker.die()
    clock.now += 50
    worker = fleet.start_worker(auto=False)
    await until(lambda: worker.active)
    steps(worker, clock, N_TOKENS - 2, 1)
    await whole_texts(stream)
    assert moments(stream.timings) == (100.0, 100.0, 101.0, 155.0)
    lost, replay = stream.timings.runs
    assert (lost.was_lost, lost.is_replay, lost.first_at) == (True, False, 101.0)
    assert (replay.was_lost, replay.is_replay) == (False, True)
    assert lost.ended_at is not None
    assert replay.ended_at == 155.0
    assert lost.ended_at <= replay.sent_at
    assert replay.n_known > 0


@pytest.mark.parametrize(
    "seconds",
    [
        lambda timings: timings.queue_s,
        lambda timings: timings.prompt_s,
        lambda timings: timings.generation_s,
        lambda timings: timings.total_s,
    ],
)
def test_a_time_is_zero_until_both_of_its_moments_have_come(
    seconds: Callable[[Timings], float],
) -> None:
    assert seconds(Timings(5.0)) == 0.0
