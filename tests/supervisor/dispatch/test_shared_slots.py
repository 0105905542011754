"""An owner without a slot gets one of another owner's at once, and a worker is told what yields."""

import asyncio

from gpufc.protocol import Cancel, Generate
from supervisor.dispatch.admission import LEAST_GAIN
from supervisor.dispatch.request import ANONYMOUS, Principal
from tests.supervisor.dispatch.fakes import (
    FakeWorker,
    generates,
    request,
    text_of,
    until,
    whole_texts,
)
from tests.supervisor.dispatch.front import Front


def has_short_one(worker: FakeWorker) -> bool:
    return any(spec.max_tokens == 1 for spec, _ in worker.active.values())


async def test_a_flood_gives_a_slot_up_also_while_a_replica_is_not_there() -> None:
    front = Front(slots=2, queue=12, replicas=2)
    worker = front.fleet.start_worker(auto=False)
    for _ in range(3):
        front.submit()
    await until(lambda: len(worker.active) == 2)
    other = front.submit(request("other", max_tokens=1), Principal("b", ANONYMOUS.scopes))
    await until(lambda: has_short_one(worker))
    worker.step()
    assert await whole_texts(other) == [text_of("other", 1)]


async def test_a_shared_slot_is_taken_behind_the_cancel_and_not_once_it_is_answered() -> None:
    front = Front(slots=2, queue=12)
    worker = front.fleet.start_worker(auto=False)
    floods = [front.submit() for _ in range(3)]
    await until(lambda: len(worker.active) == 2)
    other = front.submit(request("other", max_tokens=1), Principal("b", ANONYMOUS.scopes))
    await until(lambda: has_short_one(worker))
    kinds = [type(message) for message in worker.sent]
    assert kinds[-2:] == [Cancel, Generate]
    assert kinds.count(Generate) == 3
    assert worker.most_active == 2
    worker.auto = True
    worker.go()
    assert await whole_texts(other) == [text_of("other", 1)]
    for stream in floods:
        assert await whole_texts(stream) == [text_of("hello")]
    assert front.dispatcher.idle
    assert worker.most_active == 2


async def test_a_worker_that_is_lost_before_a_shared_slot_is_free_loses_no_place() -> None:
    front = Front(slots=2, queue=12)
    worker = front.fleet.start_worker(auto=False)
    floods = [front.submit() for _ in range(3)]
    await until(lambda: len(worker.active) == 2)
    other = front.submit(request("other", max_tokens=1), Principal("b", ANONYMOUS.scopes))
    await until(lambda: Cancel in map(type, worker.sent))
    worker.die()
    after = front.fleet.start_worker()
    for stream in floods:
        assert await whole_texts(stream) == [text_of("hello")]
    assert await whole_texts(other) == [text_of("other", 1)]
    assert after.most_active == 2
    assert front.dispatcher.idle


async def test_short_requests_one_after_another_keep_no_other_one_from_its_tokens() -> None:
    front = Front(slots=2, queue=12)
    worker = front.fleet.start_worker(auto=False)
    worker.n_tokens = 100
    for _ in range(2):
        front.submit()
    await until(lambda: len(worker.active) == 2)
    waited = []
    for _ in range(3):
        other = front.submit(request("other", max_tokens=1), Principal("b", ANONYMOUS.scopes))
        n_steps = 0
        while True:
            for _ in range(10):
                await asyncio.sleep(0)
            if has_short_one(worker):
                break
            worker.step()
            n_steps += 1
            assert n_steps <= LEAST_GAIN
        worker.step()
        assert await whole_texts(other) == [text_of("other", 1)]
        await until(lambda: len(worker.active) == 2)
        waited.append(n_steps)
    assert waited == [0, 0, LEAST_GAIN - 1]  # one token was made beside the second short one


async def test_a_worker_is_told_which_sequences_yield() -> None:
    front = Front()
    worker = front.fleet.start_worker()
    for number, yields in enumerate((False, True)):
        principal = Principal(f"p{number}", ANONYMOUS.scopes, yields=yields)
        await whole_texts(front.submit(request("hello"), principal))
    assert [sent.yields for sent in generates(worker.sent)] == [False, True]
