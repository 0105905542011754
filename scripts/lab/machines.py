"""A thousand machines under one front: racks die, and the streams on them go on elsewhere.

    python -m scripts.lab.machines [MACHINES] [STREAMS]

A discrete-event simulation. Requests, queues, choices of workers and replays are those of the real
`supervisor.dispatch`; machines, their engines and the time are simulated. Each machine has one
worker of `ENGINES["GPU, 8B"]` of `scripts.lab.routing`: a step computes a token for each running
sequence and a chunk of prompts. Clients ask again as soon as they have their answer. A rack's
machines vanish at once, and the front notices after `SILENCE_S`.
"""

import argparse
import asyncio
import heapq
import itertools
import random
import time
from collections.abc import Callable
from typing import NamedTuple

from gpufc.config import AdmissionConfig
from gpufc.ids import Epoch, RequestId, RequestNo, WorkerName
from gpufc.packed import packed
from gpufc.protocol import (
    Cancel,
    Delta,
    Finished,
    FinishReason,
    Generate,
    Prepare,
    Prepared,
    Started,
    Step,
    TokenPrompt,
    ToWorker,
)
from gpufc.sampling import SamplingParams
from scripts.lab.routing import ENGINES, EngineModel
from supervisor.answers.parser import PlainText
from supervisor.dispatch.dispatcher import Dispatcher
from supervisor.dispatch.request import ANONYMOUS, GenerationRequest, Reading
from supervisor.dispatch.stream import ResponseStream
from supervisor.fleet.exit_reason import ExitReason, Reason
from tests.fakes.facts import model_facts
from tests.supervisor.dispatch.fakes import MODEL, OK, FakeFleet, worker_status

ENGINE = ENGINES["GPU, 8B"]
LINK_S = 0.001
SILENCE_S = 5.0
"""A machine that vanishes is given up after so long without a message."""
BURST_S = 0.25
"""Steps without prompts are reported together for so long: fewer events, the same tokens."""
PROMPT, ANSWER = 800, 1000
"""Mean tokens."""

LOST = ExitReason(signal=9, reason=Reason.KILLED, at=0.0)


class Load(NamedTuple):
    """`racks` of `rack` machines die at once in the middle of `seconds`."""

    machines: int = 1000
    streams: int = 10_000
    slots: int = 16
    racks: int = 1
    rack: int = 32
    seconds: float = 22.0


class Result(NamedTuple):
    """Seconds are of simulated time. `resumed` is from the verdict to a stream's next token, in
    order; `first` from a request to its first token, of requests after the death."""

    hit: int
    failed: int
    stuck: int
    resumed: list[float]
    first: list[float]
    served: int
    processor_s: float


class Clock:
    """The simulated time, and everything that is going to happen."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._order), event))

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.now = until


class Running:
    """A sequence on a machine. `unfilled` tokens are not computed yet."""

    def __init__(self, spec: Generate) -> None:
        self.spec = spec
        self.position = len(spec.tokens)
        self.unfilled = len(spec.prompt_tokens) + len(spec.tokens)


class Machine:
    """One machine with its worker: implements `WorkerHandle`."""

    def __init__(self, cell: "Cell", no: int, engine: EngineModel) -> None:
        self.name, self.epoch, self.line = WorkerName(f"default-{no}"), Epoch(no + 1), no
        self.model = MODEL
        self.facts = cell.facts
        self.machine = "another"
        self.running: dict[RequestNo, Running] = {}
        self.is_dead = False
        self._cell, self._engine = cell, engine
        self._is_stepping = False
        self._steps = itertools.count(1)
        self._fresh: list[Started] = []

    def drained(self) -> None:
        """Nothing drains here."""

    def explain_deaths(self, count: int) -> None:
        """No request is to blame."""

    def send(self, message: ToWorker) -> None:
        self._cell.clock.after(LINK_S, lambda: self._take(message))

    def _take(self, message: ToWorker) -> None:
        if self.is_dead:
            return
        match message:
            case Prepare(prompt=TokenPrompt(tokens)):
                self._tell(Prepared(self.epoch, message.request, packed(tokens)))
            case Generate():
                self.running[message.request] = Running(message)
                self._fresh.append(Started(message.request, 0))
                self._go()
            case Cancel(request=request) if self.running.pop(request, None) is not None:
                self._tell(Finished(self.epoch, request, FinishReason.CANCELLED))
            case _:
                pass

    def _tell(self, message: Prepared | Step | Finished) -> None:
        if not self.is_dead:
            self._cell.dispatcher.worker_message(self, message)

    def _go(self) -> None:
        if not self._is_stepping:
            self._is_stepping = True
            self._cell.clock.after(0.0, self._begin)

    def _begin(self) -> None:
        """Begin a step with a chunk of prompts, or a burst of steps without."""
        self._is_stepping = bool(self.running) and not self.is_dead
        if not self._is_stepping:
            return
        budget, gaining = self._engine.chunk, []
        for one in self.running.values():
            part = min(budget, one.unfilled)
            budget, one.unfilled = budget - part, one.unfilled - part
            if not one.unfilled:
                gaining.append(one)
        n_prefill = self._engine.chunk - budget
        engine = self._engine
        step_s = engine.step_s + len(gaining) * engine.sequence_s + n_prefill * engine.prefill_s
        n_steps = 1 if n_prefill else max(1, int(BURST_S / step_s))
        self._cell.clock.after(n_steps * step_s, lambda: self._end(gaining, n_steps))

    def _end(self, gaining: list[Running], n_steps: int) -> None:
        deltas = [
            self._delta(one, n_steps)
            for one in gaining
            if self.running.get(one.spec.request) is one
        ]
        fresh, self._fresh = tuple(self._fresh), []
        if not self.is_dead:
            self._cell.gained([delta.request for delta in deltas])
            self._tell(Step(self.epoch, next(self._steps), tuple(deltas), fresh))
            self._begin()

    def _delta(self, one: Running, n_steps: int) -> Delta:
        most = one.spec.max_tokens or 1
        end = min(one.position + n_steps, most)
        tokens = tuple(range(one.position, end))
        finish = FinishReason.LENGTH if end == most else None
        if finish:
            del self.running[one.spec.request]
        begin, one.position = one.position, end
        return Delta(one.spec.request, begin, tokens, "x" * len(tokens), finish)


class Cell:
    """One front over all machines, with its clients."""

    def __init__(self, load: Load, seed: int) -> None:
        self.clock = Clock()
        self.facts = model_facts(fingerprint="abc123", n_ctx=65_536, n_vocab=100_000)
        self._load, self._dice = load, random.Random(seed)
        fleet = FakeFleet()
        rows = [worker_status(f"default-{no}") for no in range(load.machines)]
        fleet.workers = lambda: rows  # type: ignore[method-assign]
        fleet.status = OK
        limits = AdmissionConfig(max_concurrent_requests=load.slots, max_queue=load.streams)
        self.dispatcher = Dispatcher(fleet, limits, clock=lambda: self.clock.now)
        self.machines = [Machine(self, no, ENGINE) for no in range(load.machines)]
        self._numbers = itertools.count(1)
        self._asked: dict[RequestNo, float] = {}
        self._streams: dict[RequestNo, ResponseStream] = {}
        self._hit: dict[RequestNo, ResponseStream] = {}
        self._resumed: dict[RequestNo, float] = {}
        self._first: list[float] = []
        self._prompt = tuple(range(10 * PROMPT))
        self.died_at = load.seconds / 2
        self.n_served = 0

    def run(self) -> Result:
        began = time.process_time()
        for machine in self.machines:
            self.dispatcher.worker_ready(machine)
        for _ in range(self._load.streams):
            self.clock.after(self._dice.uniform(0.0, 5.0), self._ask)
        self.clock.after(self.died_at, self._racks_die)
        self.clock.run(self._load.seconds)
        failed = [one for one in self._hit.values() if one.error is not None]
        stuck = len(self._hit) - len(self._resumed) - len(failed)
        resumed = sorted(self._resumed.values())
        spent = time.process_time() - began
        return Result(
            len(self._hit), len(failed), stuck, resumed, sorted(self._first), self.n_served, spent
        )

    def gained(self, numbers: list[RequestNo]) -> None:
        """These sequences have new tokens."""
        now = self.clock.now
        for no in numbers:
            asked_at = self._asked.pop(no, None)
            if asked_at is not None and asked_at > self.died_at:
                self._first.append(now - asked_at)
            if no in self._hit and no not in self._resumed:
                self._resumed[no] = now - self.died_at - SILENCE_S

    def _ask(self) -> None:
        n_prompt = max(1, int(self._dice.gammavariate(2.0, PROMPT / 2.0)))
        request = GenerationRequest(
            id=RequestId(f"r{next(self._numbers)}"),
            model=MODEL,
            prompts=(TokenPrompt(self._prompt[:n_prompt]),),
            sampling=SamplingParams(seed=1),
            created=0,
            max_tokens=max(1, int(self._dice.gammavariate(2.0, ANSWER / 2.0))),
            reading=lambda _opening: Reading(PlainText),
        )
        stream = self.dispatcher.submit(request, ANONYMOUS)
        no = stream.logs[0].no
        self._asked[no], self._streams[no] = self.clock.now, stream
        stream.observe(Ending(lambda: self._ended(no)))

    def _ended(self, no: RequestNo) -> None:
        if self._streams.pop(no, None) is not None:
            self.n_served += 1
            self.clock.after(0.0, self._ask)

    def _racks_die(self) -> None:
        n_dead = self._load.racks * self._load.rack
        dead = self.machines[:n_dead]
        for machine in dead:
            machine.is_dead = True
            self._hit |= {no: self._streams[no] for no in machine.running}
        self.clock.after(SILENCE_S, lambda: self._given_up(dead))

    def _given_up(self, dead: list[Machine]) -> None:
        for machine in dead:
            self.dispatcher.worker_lost(machine, LOST)


class Ending:
    """A `StreamObserver` that tells the end, once."""

    def __init__(self, ended: Callable[[], None]) -> None:
        self._ended = ended

    def gained(self, index: int) -> None:
        """Only the end matters."""

    def ended(self) -> None:
        self._ended()


async def simulated(load: Load, seed: int = 1) -> Result:
    """One run. In an event loop, which dispatch wants to be in; nothing waits for it."""
    return Cell(load, seed).run()


def share(values: list[float], part: float) -> float:
    """A quantile of sorted values; 0 without any."""
    return values[min(len(values) - 1, int(part * len(values)))] if values else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("machines", nargs="?", type=int, default=1000)
    parser.add_argument("streams", nargs="?", type=int, default=10_000)
    options = parser.parse_args()
    print(
        "| racks of 32 | slots in use | hit | failed | stuck | next token p50, last | first p99 |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for slots, racks in ((16, 1), (11, 1), (16, 4), (11, 4)):
        load = Load(options.machines, options.streams, slots, racks)
        found = asyncio.run(simulated(load))
        used = options.streams / (slots * options.machines)
        print(
            f"| {racks} | {used:.0%} | {found.hit:,} | {found.failed} | {found.stuck}"
            f" | {share(found.resumed, 0.5):.2f} s, {share(found.resumed, 1.0):.2f} s"
            f" | {share(found.first, 0.99):.2f} s | {found.served:,} | {found.processor_s:.0f} s |",
            flush=True,
        )


if __name__ == "__main__":
    main()
