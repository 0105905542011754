"""Sequences and prompts whose workers die: they go on, and only those that cannot end."""

import time

import pytest

from gpufc.config import FleetConfig
from gpufc.errors import EngineCrashed, EngineCrashSuspect, EngineUnavailable
from gpufc.packed import packed
from gpufc.protocol import (
    Cancel,
    Prepare,
    Prepared,
)
from supervisor.answers.parts import BEGUN, Text
from supervisor.dispatch.losses import KILLS_S
from supervisor.dispatch.recovery import MAX_EXCUSED_KILLS, MAX_FRUITLESS_REPLAYS, MAX_OUTAGE_S
from supervisor.dispatch.stream import StreamEvent
from supervisor.fleet.exit_reason import ExitReason, Reason
from supervisor.fleet.port import Condition, ConditionStatus
from supervisor.fleet.states import WorkerState
from tests.supervisor.dispatch.fakes import (
    KILLED,
    MODEL,
    generates,
    request,
    text_of,
    tokens_of,
    until,
    whole_texts,
)
from tests.supervisor.dispatch.front import CRASHED, Front

OUT_OF_MEMORY = ExitReason(signal=9, reason=Reason.OUT_OF_MEMORY, at=0.0)


async def test_a_step_may_bring_several_tokens_of_a_sequence_also_after_a_death() -> None:
    front = Front()
    first = front.fleet.start_worker(auto=False)
    first.n_at_once = 3
    stream = front.submit(request(max_tokens=8))
    await until(lambda: first.active)
    first.n_tokens = 100
    first.step()
    assert await stream.next(1.0) == [StreamEvent(0, (BEGUN, Text(text_of("hello", 3))))]
    first.die()
    second = front.fleet.start_worker(auto=False)
    second.n_tokens, second.n_at_once = 100, 4
    await until(lambda: second.active)
    (spec,) = generates(second.sent)
    assert spec.tokens == (0, 1, 2)
    second.step()
    second.step()
    assert await whole_texts(stream) == [text_of("hello", 8)]
    assert stream.usage.completion == 8
    assert front.dispatcher.ledger.tokens.generated == 8


async def test_a_sequence_without_a_token_survives_its_worker() -> None:
    front = Front()
    first = front.fleet.start_worker(auto=False)
    stream = front.submit()
    await until(lambda: first.active)
    first.die()
    second = front.fleet.start_worker()
    assert await whole_texts(stream) == [text_of("hello")]
    assert [message.epoch for message in generates(second.sent)] == [second.epoch]
    assert front.requests["replayed"] == 1
    assert front.requests["lost"] == 0


async def test_a_sequence_goes_on_at_its_position_on_the_next_worker() -> None:
    front = Front()
    worker = front.fleet.start_worker(auto=False)
    stream = front.submit()
    for n in range(3):
        await until(lambda worker=worker: worker.active)
        worker.step()
        worker.step()
        worker.die()
        worker = front.fleet.start_worker(auto=n == 1)
        if n == 1:
            break
    assert await whole_texts(stream) == [text_of("hello")]
    (replayed,) = generates(worker.sent)
    assert list(replayed.tokens) == [0, 1, 2, 3]
    assert stream.usage.completion == 5
    assert (stream.usage.prompt, front.requests["replayed"], front.requests["lost"]) == (5, 2, 0)


async def test_after_a_death_the_shortest_go_on_first_and_before_new_ones() -> None:
    front = Front(slots=3)
    first = front.fleet.start_worker(auto=False)
    for words in ("a long prompt", "mid", "z", "never begun"):
        front.submit(request(words))
    await until(lambda: len(first.active) == 3)
    first.die()
    second = front.fleet.start_worker(auto=False)
    await until(lambda: len(second.active) == 3)
    assert [len(message.prompt_tokens) for message in generates(second.sent)] == [1, 3, 13]


async def test_a_cancelled_request_is_not_replayed() -> None:
    front = Front()
    worker = front.fleet.start_worker(auto=False)
    stream = front.submit()
    await until(lambda: worker.active)
    worker.step()
    stream.cancel()
    worker.die()
    second = front.fleet.start_worker()
    assert generates(second.sent) == []
    assert front.dispatcher.idle


async def test_a_sequence_that_no_worker_comes_for_ends_after_the_longest_outage() -> None:
    now = 0.0
    front = Front(clock=lambda: now)
    worker = front.fleet.start_worker(auto=False)
    stream = front.submit()
    await until(lambda: worker.active)
    worker.die()
    group = front.dispatcher.group(MODEL)
    now = MAX_OUTAGE_S - 1
    group.outage.expire()
    assert stream.error is None
    now = MAX_OUTAGE_S + 1
    group.outage.expire()
    with pytest.raises(EngineCrashed):
        await whole_texts(stream)


async def test_a_load_that_gets_on_is_no_outage() -> None:
    now = 0.0
    front = Front(clock=lambda: now)
    stream = front.submit()
    group = front.dispatcher.group(MODEL)
    front.fleet.state = WorkerState.LOADING
    for _ in range(4):
        now += MAX_OUTAGE_S - 1
        front.dispatcher.condition_changed()
        assert group.outage.expire() == MAX_OUTAGE_S
    assert stream.error is None
    front.fleet.state = WorkerState.STARTING
    now += MAX_OUTAGE_S + 1
    awaited = "waiting for a machine: none has joined"
    front.fleet.change(Condition(ConditionStatus.LOADING, awaited, 1.0))
    assert group.outage.expire() is None
    with pytest.raises(EngineUnavailable, match="ready for 120 s: waiting for a machine: none"):
        await whole_texts(stream)


async def test_a_sequence_that_dies_again_and_again_of_kills_from_outside_ends() -> None:
    front = Front()
    stream = front.submit()
    for _ in range(4):
        worker = front.fleet.start_worker(auto=False)
        await until(lambda worker=worker: worker.active)
        worker.die()
    with pytest.raises(EngineCrashed):
        await whole_texts(stream)
    assert front.requests["lost"] == front.requests["failed"] == 1


async def killed(front: Front, times: int, reason: ExitReason = KILLED) -> None:
    """So many workers in a row end with the only sequence, before its token."""
    for _ in range(times):
        worker = front.fleet.start_worker(auto=False)
        await until(lambda worker=worker: worker.active)
        worker.die(reason)


async def test_kills_that_also_hit_idle_workers_are_not_held_against_a_sequence() -> None:
    front = Front()
    front.fleet.start_worker().die()
    stream = front.submit()
    await killed(front, MAX_EXCUSED_KILLS)
    assert stream.error is None
    front.fleet.start_worker()
    assert await whole_texts(stream) == [text_of("hello")]
    assert front.requests["replayed"] == MAX_EXCUSED_KILLS


async def test_a_sequence_ends_that_is_killed_for_ever_with_all_others() -> None:
    front = Front()
    front.fleet.start_worker().die()
    stream = front.submit()
    await killed(front, MAX_EXCUSED_KILLS + MAX_FRUITLESS_REPLAYS + 1)
    with pytest.raises(EngineCrashed, match="died 9 times"):
        await whole_texts(stream)


async def test_kills_of_workers_whose_sequences_all_get_on_are_evidence_of_a_killer() -> None:
    front = Front()
    front.submit(request("gets on"))
    worker = front.fleet.start_worker(auto=False)
    await until(lambda: worker.active)
    worker.step()
    worker.die()
    losses, now = front.dispatcher.losses, time.monotonic()
    assert losses.has_killer(MODEL, now)
    assert not losses.has_killer(MODEL, now + KILLS_S)
    assert not losses.has_killer("another model", now)


def test_a_request_ends_by_kills_before_its_model_fails_by_them() -> None:
    n_kills = MAX_EXCUSED_KILLS + MAX_FRUITLESS_REPLAYS + 1
    assert n_kills < FleetConfig().restart_limit


async def test_a_request_that_attracts_kills_is_not_excused_by_those_before_or_beside_it() -> None:
    """An out-of-memory daemon kills like any other process. The request comes again, and twice."""
    front = Front(slots=1, replicas=2)
    for _ in range(2):
        stream = front.submit(request("takes much memory"))
        await killed(front, MAX_FRUITLESS_REPLAYS + 1)
        with pytest.raises(EngineCrashed, match="died 4 times"):
            await whole_texts(stream)
    streams = [front.submit(request("takes much memory")) for _ in range(2)]
    for _ in range(MAX_FRUITLESS_REPLAYS + 1):
        workers = [front.fleet.start_worker(auto=False, line=line) for line in (1, 2)]
        await until(lambda workers=workers: all(worker.active for worker in workers))
        for worker in workers:
            worker.die()
    for stream in streams:
        with pytest.raises(EngineCrashed, match="died 4 times"):
            await whole_texts(stream)


async def test_a_kill_after_a_token_gives_no_credit() -> None:
    front = Front()
    front.fleet.start_worker().die()
    stream = front.submit()
    worker = front.fleet.start_worker(auto=False)
    await until(lambda: worker.active)
    worker.step()
    worker.die()
    (log,) = stream.logs
    assert (log.fruitless_dispatches, log.excused_kills) == (0, 1)


async def test_a_token_begins_the_count_of_excused_kills_anew() -> None:
    front = Front()
    front.fleet.start_worker().die()
    stream = front.submit()
    await killed(front, MAX_EXCUSED_KILLS)
    worker = front.fleet.start_worker(auto=False)
    await until(lambda: worker.active)
    worker.step()
    worker.die()
    await killed(front, MAX_EXCUSED_KILLS - 1)
    assert stream.error is None


@pytest.mark.parametrize(
    ("elsewhere", "reason", "passed_s"),
    [(KILLED, KILLED, KILLS_S), (CRASHED, KILLED, 0.0), (KILLED, OUT_OF_MEMORY, 0.0)],
)
async def test_what_does_not_excuse_the_deaths_of_a_sequence(
    elsewhere: ExitReason, reason: ExitReason, passed_s: float
) -> None:
    now = 1000.0
    front = Front(clock=lambda: now)
    front.fleet.start_worker().die(elsewhere)
    now += passed_s
    stream = front.submit()
    await killed(front, MAX_FRUITLESS_REPLAYS + 1, reason)
    with pytest.raises(EngineCrashed, match="died 4 times"):
        await whole_texts(stream)


async def test_a_running_stream_is_not_charged_with_what_was_being_prepared() -> None:
    front = Front()
    first = front.fleet.start_worker(auto=False)
    running = front.submit(request("story"))
    await until(lambda: first.active)
    first.answers_prepare = False
    poison = front.submit(request("poison"))
    worker = first
    for _ in range(2):
        await until(lambda worker=worker: any(isinstance(one, Prepare) for one in worker.sent))
        assert len(worker.active) == (worker is first)  # nothing runs beside a trial
        worker.die(CRASHED)
        worker = front.fleet.start_worker(auto=False)
        worker.answers_prepare = False
    with pytest.raises(EngineCrashSuspect):
        await poison.complete()
    await until(lambda: worker.active)
    worker.auto = True
    worker.go()
    assert await whole_texts(running) == [text_of("story")]


async def test_prompts_that_were_open_at_a_death_are_asked_again_alone() -> None:
    front = Front()
    worker = front.fleet.start_worker()
    worker.answers_prepare = False
    streams = [front.submit(request(text)) for text in ("one", "two")]
    await until(lambda: len(worker.sent) == 2)
    worker.die(CRASHED)
    again = front.fleet.start_worker()
    again.answers_prepare = False
    await until(lambda: again.sent)
    (asked,) = again.sent
    assert isinstance(asked, Prepare)
    again.answers_prepare = True
    again.tell(Prepared(again.epoch, asked.request, packed(tokens_of(asked.prompt))))
    for stream, text in zip(streams, ("one", "two"), strict=True):
        assert await whole_texts(stream) == [text_of(text)]


async def test_a_prompt_whose_client_leaves_is_no_longer_prepared() -> None:
    front = Front()
    worker = front.fleet.start_worker()
    worker.answers_prepare = False
    stream = front.submit()
    await until(lambda: worker.sent)
    stream.cancel()
    assert worker.sent[-1] == Cancel(worker.epoch, stream.logs[0].no)


async def test_what_is_only_being_prepared_goes_to_the_next_worker() -> None:
    front = Front()
    worker = front.fleet.start_worker()
    worker.answers_prepare = False
    stream = front.submit()
    await until(lambda: worker.sent)
    worker.die()
    front.fleet.start_worker()
    assert await whole_texts(stream) == [text_of("hello")]
    assert front.requests["replayed"] == 0
