"""Admission under events in any order."""

from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gpufc.errors import InvalidRequest, Overloaded
from gpufc.ids import RequestNo
from tests.supervisor.dispatch.places import admission


class AdmissionMachine(RuleBasedStateMachine):
    """Any history, against plain sets."""

    @initialize(slots=st.integers(1, 4), queue=st.integers(0, 5))
    def start(self, slots: int, queue: int) -> None:
        self.slots, self.queue = slots, queue
        self.admission = admission(slots, queue)
        self.last = 0
        self.owners: dict[int, str] = {}
        self.preparing: set[int] = set()
        self.fresh: set[int] = set()
        self.again: dict[int, int] = {}
        self.running: set[int] = set()
        self.passed_over_since: dict[str, int] = {}
        self.n_events = 0

    @rule(count=st.integers(1, 4), owner=st.sampled_from("abc"))
    def accept(self, count: int, owner: str) -> None:
        new = [RequestNo(self.last + i + 1) for i in range(count)]
        self.last += count
        if self.refuses(count, owner):
            with pytest.raises((Overloaded, InvalidRequest)):
                self.admission.accept(new, owner)
        else:
            self.admission.accept(new, owner)
            self.preparing.update(new)
            if owner not in self.owners.values():
                self.event(owner)
            self.owners |= dict.fromkeys(new, owner)

    def refuses(self, count: int, owner: str) -> bool:
        places = self.slots + self.queue
        present = Counter(self.owners.values())
        share = places // len(present.keys() | {owner})
        reserve = min(self.slots, self.queue) if present[owner] + count <= share else 0
        return count > places or present.total() + count > places + reserve

    def event(self, owner: str) -> None:
        self.n_events += 1
        self.passed_over_since[owner] = self.n_events

    @rule(data=st.data())
    def prepared(self, data: st.DataObject) -> None:
        if self.preparing:
            number = data.draw(st.sampled_from(sorted(self.preparing)))
            self.admission.prepared(RequestNo(number))
            self.preparing.remove(number)
            self.fresh.add(number)

    @rule()
    def start_next(self) -> None:
        expected = self.whose_turn() if len(self.running) < self.slots else None
        number = self.admission.next()
        assert number == expected
        if number is not None:
            self.admission.start(number)
            self.again.pop(number, None)
            self.fresh.discard(number)
            self.running.add(number)
            self.event(self.owners[number])

    def whose_turn(self) -> int | None:
        """The same rules, by looking at all sequences."""
        if self.again:
            return min(self.again, key=lambda number: (self.again[number], number))
        running = Counter(self.owners[number] for number in self.running)

        def rank(number: int) -> tuple[int, int, int]:
            owner = self.owners[number]
            return running[owner], self.passed_over_since[owner], number

        return min(self.fresh, key=rank, default=None)

    @rule(data=st.data())
    def put_back(self, data: st.DataObject) -> None:
        if self.running:
            number = data.draw(st.sampled_from(sorted(self.running)))
            n_tokens = data.draw(st.integers(1, 100))
            self.admission.put_back(RequestNo(number), n_tokens)
            self.running.remove(number)
            self.event(self.owners[number])
            self.again[number] = n_tokens

    @rule()
    def share(self) -> None:
        expected = self.whose_slot() if len(self.running) >= self.slots else None
        number = self.admission.to_pause()
        assert number == expected
        if number is not None:
            self.admission.put_back(number, 7)
            self.running.remove(number)
            self.event(self.owners[number])
            self.fresh.add(number)

    def whose_slot(self) -> int | None:
        """The same rules, by looking at all sequences."""
        by_owner: dict[str, list[int]] = {}
        for number in self.running:
            by_owner.setdefault(self.owners[number], []).append(number)
        if not {self.owners[number] for number in self.fresh} - by_owner.keys():
            return None
        crowds = [running for running in by_owner.values() if len(running) > 1]
        ranks = [(len(running), max(running)) for running in crowds]
        return max(ranks)[1] if ranks else None

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if self.owners:
            number = data.draw(st.sampled_from(sorted(self.owners)))
            self.admission.release(RequestNo(number))
            if number in self.running:
                self.event(self.owners[number])
            self.again.pop(number, None)
            for stage in (self.preparing, self.fresh, self.running):
                stage.discard(number)
            del self.owners[number]

    @invariant()
    def counts_agree(self) -> None:
        if hasattr(self, "admission"):
            n_waiting = len(self.preparing) + len(self.fresh) + len(self.again)
            assert self.admission.n_running == len(self.running) <= self.slots
            assert self.admission.n_waiting == n_waiting


TestAdmissionMachine = AdmissionMachine.TestCase
