"""Who runs, who waits, who is sent away."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gpufc.config import AdmissionConfig
from gpufc.errors import InvalidRequest, Overloaded
from gpufc.ids import RequestNo
from supervisor.dispatch.admission import Admission


def admission(slots: int = 2, queue: int = 3, replicas: int = 1) -> Admission:
    limits = AdmissionConfig(max_concurrent_requests=slots, max_queue=queue)
    return Admission(limits, replicas)


def numbers(*values: int) -> list[RequestNo]:
    return [RequestNo(value) for value in values]


def test_the_default_queue_is_eight_times_what_runs() -> None:
    assert Admission(AdmissionConfig(max_concurrent_requests=10)).places == 90


def test_a_request_takes_all_its_places_or_none() -> None:
    places = admission()
    places.accept(numbers(1, 2, 3, 4))
    with pytest.raises(Overloaded):
        places.accept(numbers(5, 6))
    assert places.n_waiting == 4
    places.accept(numbers(5))


def test_what_can_never_fit_is_the_clients_mistake() -> None:
    with pytest.raises(InvalidRequest):
        admission().accept(numbers(1, 2, 3, 4, 5, 6))


def test_the_first_one_whose_prompt_is_known_starts_first() -> None:
    places = admission(slots=1)
    places.accept(numbers(1, 2, 3))
    assert places.next() is None
    places.prepared(RequestNo(3))
    places.prepared(RequestNo(2))
    assert places.next() == 2
    places.start(RequestNo(2))
    assert places.next() is None
    places.release(RequestNo(2))
    places.prepared(RequestNo(1))
    assert places.next() == 1


def test_who_is_put_back_starts_before_who_has_not_begun_the_shortest_first() -> None:
    places = admission(slots=3)
    places.accept(numbers(1, 2, 3, 4))
    for number in numbers(1, 2, 3, 4):
        places.prepared(number)
    for number, n_tokens in ((2, 30), (1, 20), (3, 10)):
        places.start(RequestNo(number))
        places.put_back(RequestNo(number), n_tokens)
    order = []
    for _ in range(3):
        number = places.next()
        assert number is not None
        places.start(number)
        order.append(number)
    assert order == [3, 1, 2]
    places.release(RequestNo(3))
    assert places.next() == 4


def test_replicas_multiply_the_slots() -> None:
    assert admission(slots=2, queue=3, replicas=2).places == 7


def test_retry_after_follows_service_times_within_bounds() -> None:
    places = admission(slots=1)
    for _ in range(200):
        places.note_service_time(0.001)
    assert places.retry_after_s() == 1.0
    for _ in range(200):
        places.note_service_time(10.0)
    assert places.retry_after_s(2) == pytest.approx(20.0, rel=0.01)
    assert places.retry_after_s(100) == 60.0


class AdmissionMachine(RuleBasedStateMachine):
    """Any history, against plain sets."""

    @initialize(slots=st.integers(1, 4), queue=st.integers(0, 5))
    def start(self, slots: int, queue: int) -> None:
        self.slots, self.queue = slots, queue
        self.admission = admission(slots, queue)
        self.last = 0
        self.preparing: set[int] = set()
        self.ready: dict[int, tuple[int, int]] = {}
        self.running: set[int] = set()

    @rule(count=st.integers(1, 4))
    def accept(self, count: int) -> None:
        new = [RequestNo(self.last + i + 1) for i in range(count)]
        self.last += count
        present = len(self.preparing | self.ready.keys() | self.running)
        if present + count > self.slots + self.queue:
            with pytest.raises((Overloaded, InvalidRequest)):
                self.admission.accept(new)
        else:
            self.admission.accept(new)
            self.preparing.update(new)

    @rule(data=st.data())
    def prepared(self, data: st.DataObject) -> None:
        if self.preparing:
            number = data.draw(st.sampled_from(sorted(self.preparing)))
            self.admission.prepared(RequestNo(number))
            self.preparing.remove(number)
            self.ready[number] = (1, 0)

    @rule()
    def start_next(self) -> None:
        expected = None
        if self.ready and len(self.running) < self.slots:
            expected = min(self.ready, key=lambda number: (self.ready[number], number))
        number = self.admission.next()
        assert number == expected
        if number is not None:
            self.admission.start(number)
            del self.ready[number]
            self.running.add(number)

    @rule(data=st.data())
    def put_back(self, data: st.DataObject) -> None:
        if self.running:
            number = data.draw(st.sampled_from(sorted(self.running)))
            n_tokens = data.draw(st.integers(1, 100))
            self.admission.put_back(RequestNo(number), n_tokens)
            self.running.remove(number)
            self.ready[number] = (0, n_tokens)

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        everyone = sorted(self.preparing | self.ready.keys() | self.running)
        if everyone:
            number = data.draw(st.sampled_from(everyone))
            self.admission.release(RequestNo(number))
            self.ready.pop(number, None)
            for stage in (self.preparing, self.running):
                stage.discard(number)

    @invariant()
    def counts_agree(self) -> None:
        if hasattr(self, "admission"):
            assert self.admission.n_running == len(self.running) <= self.slots
            assert self.admission.n_waiting == len(self.preparing) + len(self.ready)


TestAdmissionMachine = AdmissionMachine.TestCase
