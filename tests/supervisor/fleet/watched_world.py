"""A worker, its machine and its front as the watchdog sees them, with the test's own clock."""

from gpufc.ids import Epoch, RequestNo
from gpufc.protocol import (
    HEARTBEAT_S,
    EnginePhase,
    EngineStatus,
    Heartbeat,
    PrepareStatus,
    Preparing,
)
from supervisor.fleet.step_rate import StepRate
from supervisor.fleet.watchdog import TICK_S, Vitals, Watchdog

IDLE, PREFILL, DECODE = EnginePhase.IDLE, EnginePhase.PREFILL, EnginePhase.DECODE


class World:
    """A process and a front that looks at it. Time passes in `run` and `steps` only.

    The worker's clock is `ahead_s` ahead of the front's: they may be on two machines."""

    def __init__(
        self, *, serving: bool = True, rate: StepRate | None = None, ahead_s: float = 0.0
    ) -> None:
        self.now = 1000.0
        self.ahead_s = ahead_s
        self.rate = rate or StepRate()
        self.dog = Watchdog(self.now, self.rate)
        self.dog.heard(self.now)
        self.verdict: str | None = None
        self.questions: tuple[RequestNo, ...] = ()
        self.prepare = PrepareStatus()
        self.hung_after: float | None = None
        self.record = EngineStatus(EnginePhase.LOADING, 0, self.clock, 0, 0, 0, 0)
        self.run_state = "S"
        self.faults = 0
        self.faulting = False
        self.computes = True
        self.cpu_s = 0.0
        self.idle_share = 0.002
        self.rss_pages = 1000
        self.talks = True
        self.holds_lock = False
        self.front_runs = True
        self._next_look = self.now + TICK_S
        self._next_beat = self.now
        if serving:
            self.dog.serves(self.now)
            self.begin(IDLE, 0)

    @property
    def clock(self) -> float:
        """The worker's."""
        return self.now + self.ahead_s

    def begin(self, phase: EnginePhase, n_tokens: int) -> None:
        """The engine writes a new record."""
        step = self.record.step + (phase is not IDLE)
        self.record = EngineStatus(phase, step, self.clock, n_tokens, 1, 0, 0)

    def run(self, seconds: float) -> None:
        """Let time pass: heartbeats are sent unless it is silent, looks are taken."""
        began, end = self.now, self.now + seconds
        while self.now < end - 1e-9:
            self.now = min(end, self._next_beat, self._next_look)
            if self.now >= self._next_beat:
                self._next_beat += HEARTBEAT_S
                self.faults += self.faulting
                if self.talks and self.run_state != "T" and self.front_runs:
                    self.dog.beat(self._heartbeat(), self.now)
            if self.now >= self._next_look:
                self._next_look += TICK_S
                if self.front_runs:
                    self._look(began)

    def _heartbeat(self) -> Heartbeat:
        return Heartbeat(Epoch(1), self.record, self.clock, self.prepare, self.holds_lock)

    def hold_lock(self, seconds: float, *, overtakes: bool = False) -> None:
        """A call lets no other thread run, and the heartbeat before it says so. It may overtake one
        that another thread made a moment before."""
        earlier = self._heartbeat()
        self.now += 0.001
        self.holds_lock = True
        self.dog.beat(self._heartbeat(), self.now)
        if overtakes:
            self.dog.beat(earlier, self.now)
        self.talks = False
        self.run(seconds)
        self.talks, self.holds_lock = True, False

    def _look(self, began: float) -> None:
        self.cpu_s += TICK_S * (0.6 if self.computes else self.idle_share)
        seen = Vitals(self.run_state, self.cpu_s, self.faults, self.rss_pages)
        verdict = self.dog.look(self.now, seen)
        if verdict and self.verdict is None:
            self.verdict, self.hung_after = str(verdict), self.now - began
            self.questions = verdict.questions

    def ask(self, *requests: int) -> None:
        """The prepare threads begin to answer these questions, and no others."""
        known = {question.request: question for question in self.prepare.in_work}
        self.prepare = PrepareStatus(
            tuple(
                known.get(RequestNo(one), Preparing(RequestNo(one), self.clock, 10))
                for one in requests
            )
        )

    def steps(self, phase: EnginePhase, n_tokens: int, took_s: float, n: int = 1) -> None:
        """Steps of equal length, each finished."""
        for _ in range(n):
            self.begin(phase, n_tokens)
            self.run(took_s)

    def used(self) -> "World":
        """It has served: a prefill of 128 tokens in 0.5 s, decode steps of 30 ms."""
        self.steps(PREFILL, 128, 0.5)
        self.steps(DECODE, 1, 0.03, 40)
        self.begin(IDLE, 0)
        self.run(0.5)
        return self
