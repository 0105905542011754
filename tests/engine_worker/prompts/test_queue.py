from concurrent.futures import ThreadPoolExecutor

import pytest

from engine_worker.prompts import queue
from engine_worker.prompts.queue import Lane, PrepareQueue, Task
from engine_worker.prompts.tokenizer import PrepareCancelled
from gpufc.errors import Overloaded
from gpufc.ids import Epoch, RequestNo
from gpufc.protocol import Detokenize, Prepare, TextPrompt
from tests.service import wait_for

EPOCH = Epoch(1)
LONG = "x" * (queue.SHORT_BYTES + 1)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def prompts(clock: Clock) -> PrepareQueue:
    return PrepareQueue(clock)


def ask(no: int, text: str = "hi") -> Prepare:
    return Prepare(EPOCH, RequestNo(no), TextPrompt(text))


def taken(prompts: PrepareQueue, lane: Lane) -> Task:
    task = prompts.take(lane, 0)
    assert task is not None
    return task


def test_short_prompts_have_a_lane_that_long_ones_never_enter(prompts: PrepareQueue) -> None:
    prompts.put(ask(1, LONG))
    assert prompts.take(Lane.SHORT, 0) is None
    prompts.put(ask(2))
    assert taken(prompts, Lane.SHORT).question == ask(2)
    assert taken(prompts, Lane.ANY).question == ask(1, LONG)


def test_a_long_prompt_lets_later_short_ones_pass_for_a_while_only(
    prompts: PrepareQueue, clock: Clock
) -> None:
    prompts.put(ask(1, "x" * (2 * queue.BYTES_PER_S)))
    clock.now += 1
    prompts.put(ask(2))
    clock.now += 2
    prompts.put(ask(3))
    order = [taken(prompts, Lane.ANY).question.request for _ in range(3)]
    assert order == [2, 1, 3]


def test_a_short_prompt_is_left_to_its_own_lane_until_the_other_one_helps(
    prompts: PrepareQueue,
) -> None:
    prompts.put(ask(1))
    assert prompts.take(Lane.ANY, 0, helps=False) is None
    task = prompts.take(Lane.ANY, 0, helps=True)
    assert task is not None
    assert task.question == ask(1)


def test_a_short_prompt_goes_to_its_own_lane_while_that_is_idle(prompts: PrepareQueue) -> None:
    with ThreadPoolExecutor(1) as pool:
        short = pool.submit(prompts.take, Lane.SHORT, 60.0)
        wait_for(lambda: Lane.SHORT in prompts.idle)
        prompts.put(ask(1))
        # idle still, or it has the prompt already
        assert prompts.take(Lane.ANY, 0) is None
        task = short.result(60.0)
    assert task is not None
    assert task.question == ask(1)


def test_a_cancelled_prompt_is_not_prepared_and_leaves_room(
    prompts: PrepareQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "MAX_QUESTIONS", 1)
    prompts.put(ask(1))
    assert prompts.cancel(EPOCH, RequestNo(1))
    prompts.put(ask(2))
    assert taken(prompts, Lane.SHORT).question == ask(2)


def test_cancel_reaches_what_is_being_prepared(prompts: PrepareQueue) -> None:
    prompts.put(ask(1))
    task = taken(prompts, Lane.SHORT)
    task.require_wanted()
    assert prompts.cancel(EPOCH, RequestNo(1))
    with pytest.raises(PrepareCancelled):
        task.require_wanted()
    prompts.done(task)
    assert not prompts.cancel(EPOCH, RequestNo(1))


def test_another_front_s_number_is_another_question(prompts: PrepareQueue) -> None:
    prompts.put(ask(1))
    assert not prompts.cancel(Epoch(2), RequestNo(1))


@pytest.mark.parametrize(("name", "limit"), [("MAX_QUESTIONS", 2), ("MAX_BYTES", 5)])
def test_number_and_bytes_are_bounded(
    prompts: PrepareQueue, monkeypatch: pytest.MonkeyPatch, name: str, limit: int
) -> None:
    monkeypatch.setattr(queue, name, limit)
    prompts.put(ask(1))
    task = taken(prompts, Lane.SHORT)  # what is being prepared counts too
    prompts.put(ask(2))
    with pytest.raises(Overloaded):
        prompts.put(ask(3))
    prompts.done(task)
    prompts.put(ask(3))


def test_a_prompt_can_move_to_another_lane(prompts: PrepareQueue) -> None:
    prompts.put(ask(1))
    prompts.move(taken(prompts, Lane.SHORT), Lane.APART)
    assert prompts.take(Lane.ANY, 0) is None
    assert taken(prompts, Lane.APART).question == ask(1)


def test_a_prompt_that_was_cancelled_before_it_moved_is_dropped(prompts: PrepareQueue) -> None:
    prompts.put(ask(1))
    task = taken(prompts, Lane.SHORT)
    prompts.cancel(EPOCH, RequestNo(1))
    prompts.move(task, Lane.APART)
    assert prompts.take(Lane.APART, 0) is None


def test_the_record_says_what_is_in_work_and_how_many_wait(
    prompts: PrepareQueue, clock: Clock
) -> None:
    prompts.put(ask(1, LONG))
    prompts.put(ask(2))
    prompts.put(Detokenize(EPOCH, RequestNo(3), ((1, 2, 3),)))
    taken(prompts, Lane.SHORT)
    clock.now += 5
    taken(prompts, Lane.ANY)
    status = prompts.status()
    assert [(one.request, one.since, one.n_bytes) for one in status.in_work] == [
        (2, 100.0, 2),
        (3, 105.0, 24),
    ]
    assert status.n_waiting == 1
