"""A share of new requests goes to the canary, and each request stays with its model."""

import asyncio

from gpufc.errors import InternalError
from supervisor.dispatch.stream import ResponseStream
from supervisor.routing.canary import Canary, CanaryRules, Verdict
from tests.supervisor.dispatch.fakes import FakeWorker, generates, request, until, whole_texts
from tests.supervisor.dispatch.front import Front

RULES = CanaryRules(share=0.25, n_enough=5, least_s=0.0)


def begin(
    front: Front, rules: CanaryRules = RULES, *, auto: bool = True
) -> tuple[FakeWorker, Canary]:
    """A canary beside the worker that there is."""
    canary = Canary(rules, now=0.0)
    worker = FakeWorker(front.fleet, 10, auto=auto, line=2, fingerprint="canary")
    front.dispatcher.canary_began(worker, canary)
    front.dispatcher.worker_ready(worker)
    return worker, canary


async def answer(front: Front, n: int) -> list[ResponseStream]:
    streams = []
    for number in range(n):
        streams.append(front.submit(request(f"p{number}")))
        await whole_texts(streams[-1])
    return streams


async def test_its_share_of_new_requests_goes_to_the_canary_until_it_may_take_over() -> None:
    front = Front(slots=4)
    stable = front.fleet.start_worker()
    worker, canary = begin(front)
    streams = await answer(front, 16)
    assert len(generates(worker.sent)) == 4
    assert len(generates(stable.sent)) == 12
    assert canary.verdict(1.0) is Verdict.UNDECIDED
    await answer(front, 4)
    assert canary.verdict(1.0) is Verdict.TAKE_OVER
    assert {stream.fingerprint for stream in streams} == {"abc123", "canary"}


async def test_all_choices_of_a_request_are_on_one_side() -> None:
    front = Front(slots=8)
    stable = front.fleet.start_worker()
    worker, _ = begin(front, CanaryRules(share=0.5))
    for number in range(4):
        await whole_texts(front.submit(request(f"p{number}", n=2)))
    assert len(generates(worker.sent)) == len(generates(stable.sent)) == 4
    for sent in (worker.sent, stable.sent):
        numbers = [message.request_id for message in generates(sent)]
        assert numbers[::2] == numbers[1::2]


async def test_a_choice_waits_for_room_on_the_side_of_the_others_and_others_go_on() -> None:
    front = Front(slots=1, replicas=2)
    stable = front.fleet.start_worker()
    worker, _ = begin(front, CanaryRules(share=0.5), auto=False)
    await whole_texts(front.submit(request("first")))
    stream = front.submit(request("both", n=2))
    await until(lambda: worker.active)
    await whole_texts(front.submit(request("last")))
    assert len(generates(stable.sent)) == 2
    worker.auto = True
    worker.go()
    await whole_texts(stream)
    assert len(generates(worker.sent)) == 2
    assert {log.fingerprint for log in stream.logs} == {"canary"}


async def test_the_canary_is_not_asked_to_prepare_the_requests_of_the_model_before() -> None:
    front = Front(slots=4)
    front.fleet.start_worker()
    worker, _ = begin(front, CanaryRules(share=0.001))
    await answer(front, 8)
    assert worker.sent == []


async def test_a_failing_canary_gets_the_blame_and_the_model_before_does_not() -> None:
    front = Front(slots=4)
    front.fleet.start_worker()
    worker, canary = begin(front, auto=False)
    for number in range(32):
        stream = front.submit(request(f"p{number}"))
        reading = asyncio.create_task(whole_texts(stream))
        await until(lambda: worker.active or reading.done())  # noqa: B023
        if worker.active:
            front.dispatcher.group("fake-model")._table.fail(stream, InternalError("broken"))
            await until(lambda: not worker.active)
        await asyncio.gather(reading, return_exceptions=True)
        if canary.verdict(1.0) is not Verdict.UNDECIDED:
            break
    assert canary.verdict(1.0) is Verdict.ROLL_BACK
    assert "requests failed" in canary.reason


async def test_without_room_at_the_canary_requests_go_to_the_model_before() -> None:
    front = Front(slots=1)
    stable = front.fleet.start_worker()
    worker, _ = begin(front, CanaryRules(share=1.0), auto=False)
    front.dispatcher.group("fake-model").admission.replicas = 2
    held = front.submit(request("held"))
    await until(lambda: worker.active)
    await whole_texts(front.submit(request("other")))
    assert len(generates(stable.sent)) == 1
    held.cancel()


async def test_while_the_model_before_has_no_worker_the_canary_serves_all() -> None:
    front = Front(slots=4)
    stable = front.fleet.start_worker()
    worker, _ = begin(front, CanaryRules(share=0.001))
    stable.die()
    await answer(front, 4)
    assert len(generates(worker.sent)) == 4


async def test_after_a_roll_back_its_streams_end_on_it_and_new_ones_go_elsewhere() -> None:
    front = Front(slots=4)
    stable = front.fleet.start_worker()
    worker, _ = begin(front, CanaryRules(share=1.0), auto=False)
    stream = front.submit(request("begun"))
    await until(lambda: worker.active)
    worker.step()
    front.dispatcher.worker_draining(worker)
    await answer(front, 2)
    assert len(generates(stable.sent)) == 2
    assert worker.active
    worker.auto = True
    worker.go()
    await whole_texts(stream)
    assert worker.n_drained == 1


async def test_after_the_takeover_all_requests_get_the_new_model() -> None:
    front = Front(slots=4)
    stable = front.fleet.start_worker()
    worker, _ = begin(front)
    front.dispatcher.worker_draining(stable)
    await answer(front, 3)
    assert len(generates(worker.sent)) == 3
    assert front.dispatcher.group("fake-model").facts is worker.facts
