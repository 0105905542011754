"""Policies of residency side by side: 100 models on 8 devices under three mixes of requests.

    python -m scripts.lab.residency

A simulation: loads take time by the model's size, requests run for some seconds, memory comes back
a moment after an eviction. Decisions are made by `supervisor.residency`. A wait is the time from a
request to its start, which is 0 where its model is loaded and open.
"""

import argparse
import heapq
import itertools
import random
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from supervisor.residency.memory import Free, Memory
from supervisor.residency.plan import LeastRecentlyUsed, VictimOrder
from supervisor.residency.port import (
    Close,
    Evict,
    Load,
    Placement,
    Refuse,
    Reopen,
    Rules,
    Terms,
    Wait,
)
from supervisor.residency.residency import Residency
from supervisor.residency.tenant import Tenant

GIB = 1 << 30
N_MODELS, N_DEVICES, DEVICE_BYTES = 100, 8, 80 * GIB
LEAVE_S = 1.0
SAMPLE_S = 1.0
"""The time between measurements of memory."""


class Request(NamedTuple):
    at: float
    model: str
    seconds: float


Mix = Callable[[random.Random, float], Iterator[Request]]


def _names() -> list[str]:
    return [f"m{no:02d}" for no in range(N_MODELS)]


def popular(dice: random.Random, until: float) -> Iterator[Request]:
    """Independent requests; the popularity of models falls by Zipf's law."""
    weights = [1.0 / (rank + 1) ** 1.1 for rank in range(N_MODELS)]
    now = 0.0
    while (now := now + dice.expovariate(3.0)) < until:
        (model,) = dice.choices(_names(), weights)
        yield Request(now, model, dice.gammavariate(2.0, 4.0))


def sessions(dice: random.Random, until: float) -> Iterator[Request]:
    """Users who stay with one model for a dozen requests, and choose among all models alike."""
    made: list[Request] = []
    now = 0.0
    while (now := now + dice.expovariate(0.25)) < until:
        model, at = dice.choice(_names()), now
        for _ in range(1 + int(dice.expovariate(1 / 12))):
            made.append(Request(at, model, dice.gammavariate(2.0, 4.0)))
            at += made[-1].seconds + dice.expovariate(1 / 8.0)
    yield from sorted(one for one in made if one.at < until)


def crowded(dice: random.Random, until: float) -> Iterator[Request]:
    """Thirty models that are busy all the time and fill the devices; seventy that are rare."""
    made: list[Request] = []
    for rank, model in enumerate(_names()):
        rate = 0.25 if rank < 30 else 1 / 240.0
        now = 0.0
        while (now := now + dice.expovariate(rate)) < until:
            made.append(Request(now, model, dice.gammavariate(2.0, 4.0)))
    yield from sorted(made)


MIXES: dict[str, Mix] = {"popular": popular, "sessions": sessions, "crowded": crowded}


class LeastFrequentlyUsed:
    """The tenant whose model had the fewest requests lately goes first."""

    def __init__(self, uses: Counter[str]) -> None:
        self._uses = uses

    def rank(self, tenant: Tenant, now: float) -> float:
        return float(self._uses[tenant.model])


class CheapestToReload:
    """Greedy dual: by the last use, plus a credit for the seconds that a load takes."""

    def __init__(self, loads_s: dict[str, float]) -> None:
        self._loads_s = loads_s

    def rank(self, tenant: Tenant, now: float) -> float:
        return tenant.last_used + 3.0 * self._loads_s[tenant.model]


class Worker:
    def __init__(self, load: Load, now: float) -> None:
        self.no, self.model, self.need = load.tenant, load.model, load.placement.need
        self.began_at, self.is_ready, self.closed, self.leaving = now, False, False, False
        self.n_open = 0


class Result(NamedTuple):
    loads: int
    waited_share: float
    wait_mean_s: float
    wait_p99_s: float
    wait_most_s: float
    refused: int
    decision_ms: float


class Simulation:
    def __init__(self, rules: Rules, order: str, seed: int) -> None:
        dice = random.Random(seed)
        sizes = {name: int(GIB * 4 * 10 ** dice.random()) for name in _names()}  # 4 to 40 GiB
        self.load_s = {name: 2.0 + size / (2 * GIB) for name, size in sizes.items()}
        self.uses: Counter[str] = Counter()
        orders: dict[str, VictimOrder] = {
            "least recently used": LeastRecentlyUsed(),
            "least frequently used": LeastFrequentlyUsed(self.uses),
            "cheapest to reload": CheapestToReload(self.load_s),
        }
        self.residency = Residency(rules, orders[order])
        for name, size in sizes.items():
            ways = tuple(
                Placement(name=f"D{no}", need=Memory(devices={f"D{no}": size}))
                for no in range(N_DEVICES)
            )
            self.residency.register(name, Terms(placements=ways, load_s=self.load_s[name]))
        self.workers: dict[int, Worker] = {}
        self.queues: dict[str, list[Request]] = defaultdict(list)
        self.waits: list[float] = []
        self.n_loads = self.n_refused = 0
        self.events: list[tuple[float, int, str, Any]] = []
        self.order = itertools.count()
        self.decisions: list[float] = []
        self.woken_at: float | None = None

    def post(self, at: float, what: str, about: Any = None) -> None:
        heapq.heappush(self.events, (at, next(self.order), what, about))

    def run(self, mix: Mix, until: float, seed: int) -> Result:
        for request in mix(random.Random(seed), until):
            self.post(request.at, "request", request)
        self.measure(0.0)
        while self.events:
            now, _, what, about = heapq.heappop(self.events)
            if now > until * 1.5:
                break
            self.handle(now, what, about)
        left = [until - one.at for queue in self.queues.values() for one in queue]
        waits = sorted([*self.waits, *left])
        return Result(
            self.n_loads,
            sum(wait > 0 for wait in waits) / len(waits),
            statistics.mean(waits),
            waits[int(0.99 * len(waits))],
            waits[-1],
            self.n_refused,
            1000 * statistics.mean(self.decisions),
        )

    def handle(self, now: float, what: str, about: Any) -> None:
        match what:
            case "request":
                self.uses[about.model] += 1
                self.queues[about.model].append(about)
                if self.start(about.model, now):
                    return
            case "loaded":
                about.is_ready = True
                self.residency.loaded(about.no, about.need, now)
                self.start(about.model, now)
            case "ended":
                about.n_open -= 1
                self.residency.used(about.no, about.n_open, now)
                if about.n_open or not any(self.queues.values()):
                    return
            case "gone":
                del self.workers[about.no]
                self.residency.gone(about.no, now)
                self.measure(now)
            case "sample":
                self.measure(now)
            case _:
                raise AssertionError(what)
        self.decide(now)

    def start(self, model: str, now: float) -> bool:
        queue = self.queues[model]
        for one in self.workers.values():
            if one.model == model and one.is_ready and not one.closed and not one.leaving:
                for request in queue:
                    self.waits.append(now - request.at)
                    self.post(now + request.seconds, "ended", one)
                one.n_open += len(queue)
                queue.clear()
                self.residency.used(one.no, one.n_open, now)
                break
        self.residency.demand(model, len(queue), now)
        return not queue

    def measure(self, now: float) -> None:
        used: Counter[str] = Counter()
        for one in self.workers.values():
            part = 1.0 if one.is_ready else (now - one.began_at) / self.load_s[one.model]
            for place, n in one.need.devices.items():
                used[place] += int(n * min(1.0, part))
        names = [f"D{no}" for no in range(N_DEVICES)]
        self.residency.measured(
            Free(
                at=now,
                host_bytes=1 << 50,
                devices={name: DEVICE_BYTES - used[name] for name in names},
                total_devices=dict.fromkeys(names, DEVICE_BYTES),
            )
        )

    def decide(self, now: float) -> None:
        began = time.process_time()
        actions = self.residency.decide(now)
        self.decisions.append(time.process_time() - began)
        for action in actions:
            match action:
                case Load():
                    worker = Worker(action, now)
                    self.workers[action.tenant] = worker
                    self.n_loads += 1
                    self.post(now + self.load_s[action.model], "loaded", worker)
                case Evict():
                    self.workers[action.tenant].leaving = True
                    self.post(now + LEAVE_S, "gone", self.workers[action.tenant])
                case Close():
                    self.workers[action.tenant].closed = True
                case Reopen():
                    self.workers[action.tenant].closed = False
                    self.start(action.model, now)
                case Refuse():
                    self.n_refused += len(self.queues[action.model])
                    self.queues[action.model].clear()
                    self.residency.demand(action.model, 0, now)
                case Wait():
                    pass
        if any(self.queues.values()) and (self.woken_at is None or self.woken_at <= now):
            self.woken_at = now + SAMPLE_S
            self.post(self.woken_at, "sample")


LRU = "least recently used"
VARIANTS: dict[str, tuple[str, Rules]] = {
    "LRU, as it is": (LRU, Rules()),
    "LFU": ("least frequently used", Rules()),
    "greedy dual": ("cheapest to reload", Rules()),
    "LRU, stays when idle": (LRU, Rules(pause_s=1e9)),
    "LRU, pause 1 s": (LRU, Rules(pause_s=1.0, pause_per_load=0.0)),
    "LRU, no stay": (LRU, Rules(min_stay_s=0.0, stay_per_load=0.0)),
    "LRU, stay 0.5 loads": (LRU, Rules(min_stay_s=0.0, stay_per_load=0.5)),
    "LRU, stay 3 loads": (LRU, Rules(min_stay_s=10.0, stay_per_load=3.0)),
    "LRU, patience 1 s": (LRU, Rules(patience_s=1.0)),
    "LRU, patience 30 s": (LRU, Rules(patience_s=30.0)),
    "LRU, never closes": (LRU, Rules(patience_s=1e9)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1200.0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", default="", help="variants whose names hold this text")
    options = parser.parse_args()
    print("| mix | policy | loads | waited | mean | p99 | longest | refused | decision, ms |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, mix in MIXES.items():
        for variant, (order, rules) in VARIANTS.items():
            if options.only not in variant:
                continue
            runs = [
                Simulation(rules, order, seed).run(mix, options.seconds, seed)
                for seed in range(options.seeds)
            ]
            mean = Result(*(statistics.mean(column) for column in zip(*runs, strict=True)))
            print(
                f"| {name} | {variant} | {mean.loads:.0f} | {mean.waited_share:.1%}"
                f" | {mean.wait_mean_s:.1f} s | {mean.wait_p99_s:.0f} s"
                f" | {mean.wait_most_s:.0f} s | {mean.refused:.0f} | {mean.decision_ms:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
