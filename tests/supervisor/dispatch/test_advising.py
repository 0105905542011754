"""A policy's wishes: asked once for each prompt, kept over deaths, and never an obligation."""

import asyncio
from collections.abc import Callable

from gpufc.config import AdmissionConfig
from gpufc.ids import RequestNo, WorkerName
from gpufc.protocol import Batching
from supervisor.dispatch.admission import Admission
from supervisor.dispatch.advising import Advice, Case
from supervisor.dispatch.conversion import from_generate
from tests.supervisor.dispatch.fakes import (
    MODEL,
    FakeWorker,
    generates,
    request,
    text_of,
    until,
    whole_texts,
)
from tests.supervisor.dispatch.front import Front


class Asked:
    """An adviser that answers when it is told to."""

    def __init__(self) -> None:
        self.open: list[tuple[Case, Callable[[Advice], None]]] = []

    def ask(self, case: Case, done: Callable[[Advice], None]) -> None:
        self.open.append((case, done))

    def answer(self, *workers: str, later: int = 0) -> None:
        _, done = self.open.pop(0)
        done(Advice(tuple(map(WorkerName, workers)), Batching(later)))


def advised(front: Front) -> Asked:
    front.dispatcher.adviser = asked = Asked()
    return asked


def prompts(worker: FakeWorker) -> list[str]:
    return [bytes(one.prompt_tokens).decode() for one in generates(worker.sent)]


async def test_a_prompt_is_asked_about_once_for_all_its_choices() -> None:
    front = Front(slots=4)
    asked = advised(front)
    front.fleet.start_worker()
    stream = front.submit(request("hello", n=2))
    await until(lambda: asked.open)
    ((case, _),) = asked.open
    assert (case.principal, case.arrival.n_tokens, case.request.n) == ("anonymous", 5, 2)
    assert (case.n_running, case.n_waiting, case.n_slots) == (0, 2, 4)
    assert {name: load.capacity for name, load in case.loads.items()} == {"default-0": 4}
    asked.answer()
    assert await whole_texts(stream) == [text_of("hello", choice=n) for n in (0, 1)]
    assert asked.open == []


async def test_a_sequence_keeps_its_wishes_when_its_worker_dies() -> None:
    front = Front()
    asked = advised(front)
    dies = front.fleet.start_worker(name="default-1", line=2, auto=False)
    front.fleet.start_worker()
    stream = front.submit()
    await until(lambda: asked.open)
    asked.answer("default-1", later=7)
    await until(lambda: dies.active)
    dies.step()
    dies.die()
    again = front.fleet.start_worker(name="default-1", line=2)
    assert await whole_texts(stream) == [text_of("hello")]
    sent = [*generates(dies.sent), *generates(again.sent)]
    assert [one.batching for one in sent] == [Batching(7)] * len(sent)
    assert asked.open == []


async def test_a_worker_that_is_gone_or_draining_is_no_wish() -> None:
    front = Front()
    asked = advised(front)
    old = front.fleet.start_worker(name="default-1", line=2)
    new = front.fleet.start_worker()
    stream = front.submit()
    await until(lambda: asked.open)
    front.dispatcher.worker_draining(old)
    asked.answer("default-9", "default-1")
    assert await whole_texts(stream) == [text_of("hello")]
    assert prompts(new) == ["hello"]


async def test_an_answer_for_a_request_that_has_ended_changes_nothing() -> None:
    front = Front()
    asked = advised(front)
    worker = front.fleet.start_worker()
    stream = front.submit()
    await until(lambda: asked.open)
    stream.cancel()
    assert front.dispatcher.idle
    asked.answer("default-0", later=3)
    await asyncio.sleep(0)
    assert front.dispatcher.idle
    assert generates(worker.sent) == []


async def test_another_model_is_asked_about_again() -> None:
    front = Front()
    asked = advised(front)
    old = front.fleet.start_worker()
    stream = front.submit()
    await until(lambda: asked.open)
    front.fleet.start_worker(name="default-1", line=2, fingerprint="other")
    front.dispatcher.worker_draining(old)
    asked.answer(later=1)
    await until(lambda: asked.open)
    asked.answer(later=2)
    assert await whole_texts(stream) == [text_of("hello")]


def test_a_sequence_keeps_its_place_among_its_owners_when_no_client_reads_it() -> None:
    admission = Admission(AdmissionConfig(max_concurrent_requests=1))
    numbers = [RequestNo(no) for no in (1, 2, 3)]
    admission.accept(numbers, "a")
    for no, later in zip(numbers, (0, 0, -2), strict=True):
        admission.prepared(no, later)
    assert admission.next() == 3
    admission.abandon(numbers[2])
    admission.abandon(numbers[1])
    admission.abandon(numbers[0])
    assert admission.next() == 3
    admission.start(numbers[2])
    admission.release(numbers[2])
    assert admission.next() == 1


async def test_the_wish_goes_over_to_the_next_front() -> None:
    front = Front()
    asked = advised(front)
    worker = front.fleet.start_worker(auto=False)
    front.submit()
    await until(lambda: asked.open)
    asked.answer(later=-4)
    await until(lambda: worker.active)
    (sent,) = generates(worker.sent)
    assert from_generate(RequestNo(1), MODEL, 0, sent).batching == Batching(-4)
