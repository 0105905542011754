"""Prompts at which workers die: asked again alone, then held until the engine has shown that it can
answer something else."""

import asyncio
from collections.abc import Callable

import pytest

from gpufc.errors import EngineCrashed, EngineCrashSuspect, EngineUnavailable
from gpufc.ids import RequestNo
from gpufc.packed import packed
from gpufc.protocol import Prepare, Prepared, TextPrompt
from supervisor.dispatch.prompt_trials import HUNG_S
from supervisor.dispatch.recovery import MAX_OUTAGE_S
from supervisor.dispatch.stream import ResponseStream
from supervisor.fleet.exit_reason import ExitReason, Reason
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


def hung(*questions: RequestNo) -> ExitReason:
    """The watchdog's verdict on a worker whose prepare threads are stuck at these."""
    return ExitReason(reason=Reason.HUNG, at=0.0, questions=questions)


def prepares(worker: FakeWorker) -> list[Prepare]:
    return [message for message in worker.sent if isinstance(message, Prepare)]


def silent(front: Front, *, tried: bool = True, auto: bool = True) -> FakeWorker:
    """The next worker, which answers no question."""
    worker = front.fleet.start_worker(tried=tried, auto=auto)
    worker.answers_prepare = False
    front.dispatcher.group(MODEL).pump()
    return worker


async def died_at_a_prompt(
    front: Front, times: int, reason: Callable[[Prepare], ExitReason] = lambda _: CRASHED
) -> FakeWorker:
    """Workers die, each at the one prompt that it is asked. Returns the last one."""
    for _ in range(times):
        worker = front.fleet.start_worker()
        worker.answers_prepare = False
        await until(lambda worker=worker: prepares(worker))
        worker.die(reason(prepares(worker)[-1]))
    return worker


async def test_a_prompt_that_takes_workers_down_is_convicted_once_a_worker_passes_its_trial() -> (
    None
):
    front = Front()
    stream = front.submit()
    worker = await died_at_a_prompt(front, 2)
    assert (stream.error, worker.n_deaths_explained) == (None, 0)
    front.fleet.start_worker()
    with pytest.raises(EngineCrashSuspect, match="This prompt ended the engine repeatedly"):
        await whole_texts(stream)
    assert worker.n_deaths_explained == 2
    assert front.dispatcher.idle
    with pytest.raises(EngineCrashSuspect, match="equal prompt"):
        await front.submit().complete()


async def test_no_prompt_is_convicted_before_there_is_evidence() -> None:
    front = Front()
    stream = front.submit(request("poison"))
    worker = await died_at_a_prompt(front, 2)
    second = silent(front, tried=False)  # a hot spare, which was tried before the deaths
    other = front.submit(request("other"))
    await until(lambda: prepares(second))
    assert (stream.error, worker.n_deaths_explained) == (None, 0)
    (asked,) = prepares(second)  # the accused is not asked again
    second.tell(Prepared(second.epoch, asked.request, packed(tokens_of(asked.prompt))))
    assert await whole_texts(other) == [text_of("other")]
    with pytest.raises(EngineCrashSuspect):  # the answer was evidence
        await whole_texts(stream)
    assert worker.n_deaths_explained == 2


async def test_the_token_of_a_stream_is_evidence() -> None:
    front = Front()
    first = front.fleet.start_worker(auto=False)
    running = front.submit(request("story"))
    await until(lambda: first.active)
    first.answers_prepare = False
    poison = front.submit(request("poison"))
    await until(lambda: len(prepares(first)) == 2)
    first.die(CRASHED)
    silent(front, auto=False).die(CRASHED)
    third = front.fleet.start_worker(auto=False, tried=False)
    await until(lambda: third.active)
    assert poison.error is None
    third.step()
    with pytest.raises(EngineCrashSuspect):
        await poison.complete()
    third.auto = True
    third.go()
    assert await whole_texts(running) == [text_of("story")]


async def test_an_engine_that_does_not_come_back_convicts_no_prompt() -> None:
    front = Front()
    stream = front.submit(request("honest"))
    await died_at_a_prompt(front, 2)
    front.fleet.change(FAILED)  # as the fleet says after trials that failed
    with pytest.raises(EngineUnavailable, match="it does not load"):
        await whole_texts(stream)
    front.fleet.start_worker()
    assert await whole_texts(front.submit(request("honest"))) == [text_of("honest")]


async def test_an_accused_prompt_without_evidence_ends_after_the_longest_outage() -> None:
    now = 0.0
    front = Front(clock=lambda: now)
    stream = front.submit(request("poison"))
    await died_at_a_prompt(front, 2)
    front.fleet.start_worker(tried=False)
    now = MAX_OUTAGE_S + 1
    front.dispatcher.group(MODEL).expire()
    with pytest.raises(EngineUnavailable):
        await whole_texts(stream)
    assert front.dispatcher.idle


async def test_convictions_of_different_prompts_in_a_row_are_withdrawn() -> None:
    front = Front()
    words = ("one", "two")
    for word in words:
        stream = front.submit(request(word))
        await died_at_a_prompt(front, 2)
        silent(front).die()  # its trial is the only evidence
        with pytest.raises(EngineCrashSuspect):
            await whole_texts(stream)
    third = front.submit(request("three"))
    worker = await died_at_a_prompt(front, 2)
    again = silent(front)
    await until(lambda: prepares(again))  # acquitted, and asked once more
    assert (third.error, worker.n_deaths_explained) == (None, 0)
    again.answers_prepare = True
    (asked,) = prepares(again)
    again.tell(Prepared(again.epoch, asked.request, packed(tokens_of(asked.prompt))))
    assert await whole_texts(third) == [text_of("three")]
    for word in words:
        assert await whole_texts(front.submit(request(word))) == [text_of(word)]


async def test_a_sick_engine_is_not_asked_for_ever() -> None:
    front = Front()
    for word in ("one", "two"):
        stream = front.submit(request(word))
        await died_at_a_prompt(front, 2)
        silent(front).die()
        with pytest.raises(EngineCrashSuspect):
            await whole_texts(stream)
    third = front.submit(request("three"))
    await died_at_a_prompt(front, 4)
    front.fleet.start_worker()
    with pytest.raises(EngineCrashed, match="died 4 times at this prompt"):
        await whole_texts(third)
    assert front.dispatcher.idle


async def test_a_prompt_that_was_prepared_after_a_death_is_not_suspected_of_it_later() -> None:
    front = Front()
    stream = front.submit(request("honest"))
    await died_at_a_prompt(front, 1)
    front.fleet.start_worker()
    assert await whole_texts(stream) == [text_of("honest")]
    again = front.submit(request("honest"))
    front.dispatcher.group(MODEL)._pool.newest.die()  # from outside
    await died_at_a_prompt(front, 1)
    front.fleet.start_worker()
    assert await whole_texts(again) == [text_of("honest")]


async def test_an_operator_s_restart_frees_an_accused_prompt() -> None:
    front = Front()
    stream = front.submit(request("poison"))
    await died_at_a_prompt(front, 2)
    front.dispatcher.engine_renewed(MODEL)
    front.fleet.start_worker()
    assert await whole_texts(stream) == [text_of("poison")]


async def test_a_client_that_leaves_takes_its_accused_prompt_along() -> None:
    front = Front()
    stream = front.submit(request("poison"))
    worker = await died_at_a_prompt(front, 2)
    stream.cancel()
    assert front.dispatcher.idle
    front.fleet.start_worker()
    assert worker.n_deaths_explained == 0


async def test_the_prompts_of_one_request_are_convicted_together() -> None:
    front = Front()
    stream = front.submit(request("poison", "venom"))
    silent(front).die(CRASHED)
    for _ in range(2):
        silent(front, tried=False).die(CRASHED)
    front.fleet.start_worker()
    with pytest.raises(EngineCrashSuspect):
        await whole_texts(stream)
    assert front.dispatcher.idle


async def test_only_the_questions_that_a_worker_hung_at_are_suspected() -> None:
    front = Front()
    first = front.fleet.start_worker(auto=False)
    running = front.submit(request("story"))
    await until(lambda: first.active)
    first.answers_prepare = False
    stuck, other = front.submit(request("stuck")), front.submit(request("other"))
    await until(lambda: len(prepares(first)) == 3)
    first.die(hung(stuck.logs[0].no))
    second = silent(front, auto=False)
    await until(lambda: prepares(second))
    assert [asked.prompt for asked in prepares(second)] == [TextPrompt("stuck")]
    second.die(hung(stuck.logs[0].no))
    front.fleet.start_worker()
    with pytest.raises(EngineCrashSuspect):
        await whole_texts(stuck)
    texts = await asyncio.gather(whole_texts(running), whole_texts(other))
    assert texts == [[text_of("story")], [text_of("other")]]


@pytest.mark.parametrize(("asked_for_s", "is_suspect"), [(HUNG_S - 0.1, False), (HUNG_S, True)])
async def test_where_no_question_is_named_those_asked_some_time_ago_are_suspected(
    asked_for_s: float, is_suspect: bool
) -> None:
    now = 0.0
    front = Front(clock=lambda: now)
    first: ResponseStream = front.submit(request("one"))
    worker = silent(front)
    now = asked_for_s
    worker.die(hung())
    second = silent(front)
    front.submit(request("two"))
    assert len(prepares(second)) == (1 if is_suspect else 2)
    assert first.error is None
