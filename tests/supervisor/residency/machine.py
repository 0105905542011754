"""A machine with devices, and a fleet that carries out what a `Residency` asks for.

It knows the truth: which bytes are taken, which sequences run. Each action is checked against it.
Time moves only by `advance`.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from random import Random

from supervisor.residency.memory import HOST, Free, Memory
from supervisor.residency.port import (
    Close,
    Evict,
    EvictReason,
    Load,
    Placement,
    Refuse,
    Reopen,
    Rules,
    TenantNo,
    Terms,
    Wait,
)
from supervisor.residency.residency import Residency


class Worker:
    """A tenant's process."""

    def __init__(self, load: Load, now: float) -> None:
        self.model = load.model
        self.need = load.placement.need
        self.began_at = now
        self.taken = 0.0
        """The part of its memory that it has taken so far."""
        self.ready_at: float | None = None
        self.first_ready_at: float | None = None
        self.last_used = now
        self.ends: list[float] = []
        self.closed = False
        self.leaves_at: float | None = None


class Machine:
    """Broken promises raise `AssertionError`."""

    LOAD_S = 1.0
    LEAVE_S = 0.5

    def __init__(
        self,
        terms: Mapping[str, Terms],
        totals: Mapping[str, int],
        rules: Rules,
        seed: int = 0,
        load_s: float = LOAD_S,
    ) -> None:
        self.load_s = load_s
        self.now = 100.0
        self.terms, self.totals, self.rules = dict(terms), dict(totals), rules
        self.residency = Residency(rules)
        for model, one in terms.items():
            self.residency.register(model, one)
        self.workers: dict[TenantNo, Worker] = {}
        self.queues: dict[str, list[float]] = defaultdict(list)
        self.loads: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.served: Counter[str] = Counter()
        self.longest_wait_s = 0.0
        self.breaks: set[str] = set()
        """Models whose loads fail."""
        self._asked: set[str] = set()
        self._dice = Random(seed)
        self.measure()

    # the truth

    def used(self, place: str) -> int:
        """The bytes that processes have taken at a place by now."""
        return sum(int(one.need.at(place) * one.taken) for one in self.workers.values())

    def promised(self, place: str) -> int:
        """The bytes that processes have taken or will take."""
        return sum(one.need.at(place) for one in self.workers.values())

    # events

    def measure(self) -> None:
        devices = {place: n - self.used(place) for place, n in self.totals.items() if place != HOST}
        self.residency.measured(
            Free(
                at=self.now,
                host_bytes=self.totals[HOST] - self.used(HOST),
                total_host_bytes=self.totals[HOST],
                devices=devices,
                total_devices={place: n for place, n in self.totals.items() if place != HOST},
            )
        )

    def request(self, model: str) -> None:
        self.queues[model].append(self.now)
        self.settle()

    def unload(self, model: str) -> None:
        self._asked.add(model)
        self.queues[model].clear()
        self.residency.unload(model, self.now)
        self.settle()

    def die(self, model: str) -> None:
        """The first ready worker of the model dies, and is started again."""
        for no, one in self.workers.items():
            if one.model == model and one.ready_at is not None and one.leaves_at is None:
                self.queues[model] = [self.now] * len(one.ends) + self.queues[model]
                one.began_at, one.ready_at, one.ends, one.taken = self.now, None, [], 0.0
                one.closed = False
                self.residency.restarting(no, self.now)
                break
        self.settle()

    def advance(self, seconds: float, *, sequence_s: float = 1.0) -> None:
        self.now += seconds
        for no, one in list(self.workers.items()):
            if one.leaves_at is not None:
                if one.leaves_at <= self.now:
                    del self.workers[no]
                    self.residency.gone(no, self.now)
            elif one.ready_at is None:
                one.taken = min(1.0, (self.now - one.began_at) / self.load_s)
                if one.taken == 1.0:
                    self._loaded(no, one)
            else:
                left = [end for end in one.ends if end > self.now]
                if len(left) != len(one.ends):
                    one.ends, one.last_used = left, self.now
                    self.residency.used(no, len(left), self.now)
        self._sequence_s = sequence_s
        self.settle()

    _sequence_s = 1.0

    def _loaded(self, no: TenantNo, one: Worker) -> None:
        if one.model in self.breaks:
            self.residency.load_failed(no, "it is broken", self.now)
            one.leaves_at = self.now + self.LEAVE_S
        else:
            one.ready_at = one.last_used = self.now
            one.first_ready_at = one.first_ready_at or self.now
            self.residency.loaded(no, one.need, self.now)

    # the fleet

    def settle(self) -> None:
        """Start what can start, and carry out what is asked for, until nothing changes."""
        self._start()
        actions = self.residency.decide(self.now)
        for action in actions:
            match action:
                case Load():
                    self._load(action)
                case Evict():
                    self._evict(action)
                case Close():
                    assert not self._is_pinned(action.model)
                    self.workers[action.tenant].closed = True
                case Reopen():
                    self.workers[action.tenant].closed = False
                case Refuse():
                    self.refused[action.model] += 1
                    self.queues[action.model].clear()
                    self.residency.demand(action.model, 0, self.now)
                case Wait():
                    assert self.queues[action.model]
        for action in actions:
            if isinstance(action, Evict) and action.newcomer is not None:
                assert self._fits_then(action.newcomer), "evicted in vain"
        self._start()

    def _start(self) -> None:
        for model, queue in self.queues.items():
            open_now = [
                (no, one)
                for no, one in self.workers.items()
                if one.model == model
                and one.ready_at is not None
                and one.leaves_at is None
                and not one.closed
            ]
            if open_now and queue:
                no, one = self._dice.choice(open_now)
                self.served[model] += len(queue)
                self.longest_wait_s = max(self.longest_wait_s, self.now - queue[0])
                one.ends += [self.now + self._sequence_s] * len(queue)
                one.last_used = self.now
                queue.clear()
                self.residency.used(no, len(one.ends), self.now)
            self.residency.demand(model, len(queue), self.now)

    def _load(self, action: Load) -> None:
        self.workers[action.tenant] = Worker(action, self.now)
        self.loads[action.model] += 1
        for place, total in self.totals.items():
            assert self.promised(place) <= total, "two loads take the same bytes"
        if self.rules.max_resident is not None:
            assert len(self.workers) <= self.rules.max_resident

    def _evict(self, action: Evict) -> None:
        one = self.workers[action.tenant]
        assert not one.ends, "a busy worker is evicted"
        if action.reason is EvictReason.ROOM:
            assert not self._is_pinned(action.model)
            assert action.newcomer is not None
            assert one.first_ready_at is not None
            rules = self.rules
            stay_s = max(rules.min_stay_s, rules.stay_per_load * self.load_s)
            stayed = self.now - one.first_ready_at >= stay_s
            pause_s = max(rules.pause_s, rules.pause_per_load * self.load_s)
            paused = self.now - one.last_used >= pause_s
            assert stayed or paused, "evicted before its stay"
        elif action.reason is EvictReason.EXPIRED:
            assert not self._is_pinned(action.model)
            assert not self.queues[action.model]
        one.leaves_at = self.now + self.LEAVE_S

    def _fits_then(self, model: str) -> bool:
        """Whether a model will fit once all leaving workers are gone."""
        staying = [one for one in self.workers.values() if one.leaves_at is None]
        return any(
            all(
                sum(one.need.at(place) for one in staying) + way.need.at(place) <= total
                for place, total in self.totals.items()
            )
            for way in self.terms[model].placements
        )

    def _is_pinned(self, model: str) -> bool:
        return self.terms[model].pinned and model not in self._asked


def terms_of(
    device_bytes: int,
    *devices: str,
    pinned: bool = False,
    keep_alive_s: float | None = None,
    load_s: float = Machine.LOAD_S,
) -> Terms:
    """A model that may lie on any of these devices."""
    return Terms(
        placements=tuple(
            Placement(name=name, need=Memory(host_bytes=1, devices={name: device_bytes}))
            for name in devices
        ),
        pinned=pinned,
        keep_alive_s=keep_alive_s,
        load_s=load_s,
    )
