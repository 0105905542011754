"""What dispatch tells the roster of its requests, and what it does for it."""

import pytest

from gpufc.errors import EngineUnavailable, ModelNotFound
from supervisor.fleet.exit_reason import ExitReason, Reason
from tests.supervisor.dispatch.fakes import KILLED, MODEL, text_of, until, whole_texts
from tests.supervisor.dispatch.front import Front


class Pokes:
    """The models that dispatch has told of."""

    def __init__(self, front: Front) -> None:
        self.models: list[str] = []
        front.dispatcher.demand.changed = self._changed

    def _changed(self, model: str | None) -> None:
        if model is not None:
            self.models.append(model)


async def test_a_request_without_a_worker_is_a_demand() -> None:
    front = Front()
    pokes = Pokes(front)
    stream = front.submit()
    assert pokes.models == [MODEL]
    usage = front.dispatcher.demand.usage(MODEL)
    assert (usage.n_waiting > 0, usage.open_by, usage.has_worker) == (True, {}, False)
    front.fleet.start_worker()
    assert await whole_texts(stream) == [text_of("hello")]


async def test_the_end_of_the_last_request_is_told() -> None:
    front = Front()
    worker = front.fleet.start_worker(auto=False)
    pokes = Pokes(front)
    stream = front.submit()
    await until(lambda: worker.active)
    assert front.dispatcher.demand.usage(MODEL).open_by == {worker.epoch: 1}
    assert pokes.models == []
    worker.auto = True
    worker.go()
    await whole_texts(stream)
    assert pokes.models == [MODEL]
    assert front.dispatcher.demand.usage(MODEL).open_by == {worker.epoch: 0}


async def test_a_closed_worker_ends_what_it_has_and_gets_nothing_new() -> None:
    front = Front(slots=4)
    worker = front.fleet.start_worker(auto=False)
    first = front.submit()
    await until(lambda: worker.active)
    front.dispatcher.demand.open(MODEL, worker.epoch, is_open=False)
    second = front.submit()
    worker.auto = True
    worker.go()
    assert await whole_texts(first) == [text_of("hello")]
    assert worker.most_active == 1
    assert not front.dispatcher.demand.usage(MODEL).has_worker
    front.dispatcher.demand.open(MODEL, worker.epoch, is_open=True)
    assert await whole_texts(second) == [text_of("hello")]


async def test_a_reopened_worker_keeps_its_count() -> None:
    front = Front(slots=1)
    worker = front.fleet.start_worker(auto=False)
    front.submit()
    await until(lambda: worker.active)
    for is_open in (False, False, True, True):
        front.dispatcher.demand.open(MODEL, worker.epoch, is_open=is_open)
    assert front.dispatcher.demand.usage(MODEL).open_by == {worker.epoch: 1}


async def test_requests_of_a_closed_worker_go_on_with_the_next_one() -> None:
    front = Front()
    first = front.fleet.start_worker(auto=False)
    front.dispatcher.demand.open(MODEL, first.epoch, is_open=False)
    stream = front.submit()
    first.die()
    front.fleet.start_worker()
    assert await whole_texts(stream) == [text_of("hello")]


async def test_waiting_requests_are_refused_with_the_reason() -> None:
    front = Front()
    stream = front.submit()
    refusal = EngineUnavailable("it needs 8 GiB", retry_after_s=12.0)
    front.dispatcher.demand.refuse(MODEL, refusal)
    with pytest.raises(EngineUnavailable, match="8 GiB"):
        await stream.complete()


async def test_requests_of_a_model_that_is_gone_are_told_so() -> None:
    front = Front()
    stream = front.submit()
    front.dispatcher.demand.forget(MODEL)
    with pytest.raises(ModelNotFound):
        await stream.complete()
    assert front.dispatcher.demand.usage(MODEL).n_waiting == 0


async def test_a_question_about_a_model_that_is_served_no_more_does_not_bring_it_back() -> None:
    front = Front()
    front.fleet.start_worker()
    assert front.dispatcher.facts(MODEL) is not None
    front.dispatcher.demand.forget(MODEL)
    assert front.dispatcher.facts(MODEL) is None
    assert front.dispatcher.occupancies() == {}


async def test_an_unloaded_replica_takes_its_slots_with_it() -> None:
    front = Front(slots=2, replicas=2)
    workers = [front.fleet.start_worker(line=line) for line in (1, 2)]
    admission = front.dispatcher.group(MODEL).admission
    assert admission.slots == 4
    workers[0].die(KILLED)  # it comes back in its place
    assert admission.slots == 4
    workers[1].die(ExitReason(reason=Reason.UNLOADED, at=0.0))
    assert admission.slots == 2


async def test_after_a_handover_only_models_with_a_worker_are_served() -> None:
    front = Front()
    waiting = front.submit()
    front.dispatcher.handed_over()
    with pytest.raises(EngineUnavailable, match="on a new connection"):
        await whole_texts(waiting)
    with pytest.raises(EngineUnavailable, match="on a new connection"):
        front.submit()
    front.fleet.start_worker()
    assert await whole_texts(front.submit()) == [text_of("hello")]
