"""Whether a process that exists is busy or hung. Pure: signals and times are arguments.

No single signal is reliable, so there are four, each for one question:

    existence        the pidfd; outside this module
    schedulable      heartbeats of the channel's thread; other threads send messages by themselves
    progress         the engine thread's own record on each heartbeat: a step has a deadline; so
                     has each question that the prepare threads' record shows
    run state, CPU   of the process, from the system: whether it was stopped; else only evidence

Two times do not count against a process: the time in which the front did not look (it was
suspended, or its loop was late), and for a step the time in which the process was stopped, or in
which a call held its interpreter's lock (`Heartbeat.holds_lock`).
"""

import math

from msgspec import Struct

from gpufc.ids import RequestNo
from gpufc.protocol import EnginePhase, EngineStatus, Heartbeat, PrepareStatus
from supervisor.fleet.step_rate import StepRate

TICK_S = 0.5
"""Time between two looks."""

STILL_CPU_SHARE = 0.1
"""CPU share of one core below which a load does not move. Heartbeats take less, and so do threads
that poll for a deadlocked interpreter lock (0.04 measured)."""

_COMPUTING = frozenset({EnginePhase.PREFILL, EnginePhase.DECODE})
_NO_QUESTIONS = PrepareStatus()


class WatchLimits(Struct, frozen=True, kw_only=True):
    """The watchdog's limits, in seconds. A hung worker is found after at most these times: a silent
    one after `silence_s`, one that is stuck in a step after the step's deadline."""

    silence_s: float = 10.0
    """Without a heartbeat, or stopped, while it serves."""
    loading_silence_s: float = 30.0
    """The same while it loads: a load's page faults can starve the IO thread. Also after a
    heartbeat that says `holds_lock`."""
    loading_still_s: float = 12.0
    """A loading worker that uses no CPU, reads nothing and gains no memory so long is hung."""
    step_least_s: float = 10.0
    step_factor: float = 8.0
    """A step may take `step_factor` times its predicted time, and at least `step_least_s`."""
    first_step_s: float = 60.0
    """The first step ever: no step was measured, and kernels may have to be compiled."""
    first_step_again_s: float = 30.0
    """The first step of a later process: measurements were of warm caches."""
    untaken_s: float = 30.0
    """Idle although it was sent a `Generate`."""
    prepare_s: float = 120.0
    """One question of the prepare threads. Their own limits are shorter: a template process has a
    time limit, and texts are tokenized in pieces."""
    late_s: float = 1.0
    """A look that is later than `TICK_S` by this much means that the front was suspended."""


LIMITS = WatchLimits()


class Vitals(Struct, frozen=True):
    """A process's state as /proc/PID/stat has it. `run_state` is its letter."""

    run_state: str
    cpu_s: float
    major_faults: int = 0
    rss_pages: int = 0

    @property
    def waits_for_disk(self) -> bool:
        """Whether it is in an uninterruptible wait, which is mostly for a disk."""
        return self.run_state == "D"

    @property
    def is_stopped(self) -> bool:
        """Whether SIGSTOP, another stop signal or a debugger has stopped it."""
        return self.run_state in {"T", "t"}


class Verdict(Struct, frozen=True):
    """Why a process counts as hung. `questions` are the questions that it hangs at, if it is not
    the engine that hangs."""

    detail: str
    questions: tuple[RequestNo, ...] = ()

    def __str__(self) -> str:
        return self.detail


class Watchdog:
    """The watch over one process, from spawn to verdict. Owned by one runner.

    `now` is the front's monotonic clock. The worker's records have the clock of its own machine:
    two of its times make a duration, and a heartbeat turns one into an age.
    """

    def __init__(self, now: float, rate: StepRate, limits: WatchLimits = LIMITS) -> None:
        self._rate = rate
        self._limits = limits
        self._serving = False
        self._looked_at = now
        self._fair_from = now
        self._step_fair_from = now
        self._heard_at: float | None = None
        self._heard_at_first = now
        self._record: EngineStatus | None = None
        self._record_at = now
        self._clock = -math.inf
        """The worker's clock in the last heartbeat."""
        self._clock_offset_s = 0.0
        """The front's clock less the worker's, by the last heartbeat."""
        self._prepare = _NO_QUESTIONS
        self._measured = False
        self._done_step = -1
        self._handed_at: float | None = None
        self._stopped_since: float | None = None
        self._holds_lock = False
        """Whether the last heartbeat said so."""
        self._moved_at = now
        self._vitals: Vitals | None = None
        self._cpu_share = 0.0

    # signals

    def serves(self, now: float) -> None:
        """The model is loaded. From now on steps count."""
        self._serving = True
        self.heard(now)
        self._heard_at = now

    def heard(self, now: float) -> None:
        """A message of the process came. The silence is counted from the first one, and from
        heartbeats: the thread that reads our messages may hang while others send."""
        if self._heard_at is None:
            self._heard_at_first = self._heard_at = now

    def stepped(self, step: int) -> None:
        """The engine finished a step."""
        self._done_step = step

    def beat(self, heartbeat: Heartbeat, now: float) -> None:
        """A heartbeat with the threads' records came. Two threads of a worker make heartbeats, so a
        later one may overtake an earlier one, which has nothing new to say then."""
        self._heard_at = now
        if heartbeat.clock < self._clock:
            return
        self._clock, self._record_at = heartbeat.clock, now
        self._clock_offset_s = now - heartbeat.clock
        self._prepare = heartbeat.prepare
        if self._holds_lock:
            self._step_fair_from = now
        self._holds_lock = heartbeat.holds_lock
        record = heartbeat.engine
        before, self._record = self._record, record
        if before is not None and record.step_started > before.step_started:
            self._learn(before, record)
            self._handed_at = None

    def handed_work(self, now: float) -> None:
        """The process was sent a `Generate`."""
        if self._handed_at is None:
            self._handed_at = now

    # the verdict

    def look(self, now: float, vitals: Vitals | None) -> Verdict | None:
        """Why the process counts as hung, or None. Called every `TICK_S`.

        `vitals` are None if they cannot be read: then only the evidence is missing.
        """
        if now - self._looked_at > TICK_S + self._limits.late_s:
            self._fair_from = now
        self._note(vitals, now)
        self._looked_at = now
        verdict = (
            self._stopped(now)
            or self._silent(now)
            or self._still(now)
            or self._stuck()
            or self._idle_with_work()
        )
        if verdict:
            return Verdict(f"{verdict}; {self._evidence()}")
        return self._stuck_at_questions()

    def _note(self, vitals: Vitals | None, now: float) -> None:
        before, self._vitals = self._vitals, vitals
        stopped = vitals is not None and vitals.is_stopped
        if stopped and self._stopped_since is None:
            self._stopped_since = now
        elif not stopped and self._stopped_since is not None:
            self._stopped_since = None
            self._step_fair_from = now
        if vitals is None or before is None:
            return
        self._cpu_share = (vitals.cpu_s - before.cpu_s) / max(1e-3, now - self._looked_at)
        if self._moves(before, vitals):
            self._moved_at = now
        if not self._measured and vitals.major_faults > before.major_faults:
            self._step_fair_from = now  # the mapped model is still being read from the disk

    def _stopped(self, now: float) -> str | None:
        if self._stopped_since is None:
            return None
        took = now - max(self._stopped_since, self._fair_from)
        return f"stopped for {took:.1f} s" if took > self._limits.silence_s else None

    def _silent(self, now: float) -> str | None:
        if self._heard_at is None:  # no hello yet: the start timer covers it
            return None
        limits = self._limits
        is_short = self._serving and not self._holds_lock
        limit = limits.silence_s if is_short else limits.loading_silence_s
        took = now - max(self._heard_at, self._fair_from)
        return f"no heartbeat for {took:.1f} s" if took > limit else None

    def _moves(self, before: Vitals, vitals: Vitals) -> bool:
        return (
            self._cpu_share > STILL_CPU_SHARE
            or vitals.waits_for_disk
            or vitals.major_faults > before.major_faults
            or vitals.rss_pages != before.rss_pages
        )

    def _still(self, now: float) -> str | None:
        """A load that does not move. The load timer covers one that computes without progress."""
        if self._serving or self._heard_at is None or self._stopped_since is not None:
            return None
        took = now - max(self._moved_at, self._heard_at_first, self._fair_from)
        if self._vitals is None or took <= self._limits.loading_still_s:
            return None
        return f"loading, but nothing has moved for {took:.1f} s"

    def _stuck(self) -> str | None:
        """Judge a step by its age when its record came, not by its age now: since then the process
        may only be silent, which `_silent` judges."""
        record = self._record
        if not self._serving or record is None or self._stopped_since is not None:
            return None
        if record.phase not in _COMPUTING:
            return None
        took = self._record_at - self._fair(self._here(record.step_started))
        deadline = self._deadline(record)
        if record.step <= self._done_step or took <= deadline:
            return None
        return (
            f"{record.phase} step {record.step} of {record.step_tokens} tokens has taken "
            f"{took:.1f} s of {deadline:.1f} s"
        )

    def _idle_with_work(self) -> str | None:
        record = self._record
        if not self._serving or record is None or record.phase in _COMPUTING:
            return None
        if self._handed_at is None or self._stopped_since is not None:
            return None
        took = self._record_at - self._fair(max(self._handed_at, self._here(record.step_started)))
        return f"idle with work for {took:.1f} s" if took > self._limits.untaken_s else None

    def _stuck_at_questions(self) -> Verdict | None:
        """Judge questions by their age when the record came, as steps."""
        if not self._serving or self._stopped_since is not None:
            return None
        limit = self._limits.prepare_s
        ages = {
            question.request: self._record_at - self._fair(self._here(question.since))
            for question in self._prepare.in_work
        }
        stuck = tuple(request for request, age in ages.items() if age > limit)
        if not stuck:
            return None
        took = f"{max(ages.values()):.1f} s of {limit:.1f} s"
        return Verdict(f"preparing a prompt has taken {took}; {self._evidence()}", stuck)

    def _deadline(self, record: EngineStatus) -> float:
        limits = self._limits
        predicted = self._rate.predict(record.phase, record.step_tokens)
        if predicted is None:
            return limits.first_step_s
        least = limits.step_least_s if self._measured else limits.first_step_again_s
        return max(least, limits.step_factor * predicted)

    def _here(self, at: float) -> float:
        """A time of the worker's records on the front's clock."""
        return at + self._clock_offset_s

    def _fair(self, since: float) -> float:
        return max(since, self._fair_from, self._step_fair_from)

    def _learn(self, before: EngineStatus, record: EngineStatus) -> None:
        """Learn from two records: the later one's start is the end of the earlier step.

        Several steps between two heartbeats were short, and their mean is good enough."""
        if before.phase not in _COMPUTING:
            self._learn_unseen(before, record)
            return
        self._measured = True
        if self._stopped_since is None and self._here(before.step_started) >= self._step_fair_from:
            n_steps = max(1, record.step - before.step)
            took_s = (record.step_started - before.step_started) / n_steps
            self._rate.learn(before.phase, before.step_tokens, took_s)

    def _learn_unseen(self, before: EngineStatus, record: EngineStatus) -> None:
        """Learn from steps that no heartbeat has shown: the time since the work was sent bounds it.

        Otherwise steps this short would never count as measured, and every step of the process
        would get the limit of a first one."""
        n_unseen = record.step - before.step - (record.phase in _COMPUTING)
        if self._handed_at is None or self._stopped_since is not None or n_unseen < 1:
            return
        self._measured = True
        if self._rate.predict(EnginePhase.DECODE, 1) is None:
            handed_at = max(self._handed_at, self._step_fair_from)
            took_s = self._here(record.step_started) - handed_at
            self._rate.learn(EnginePhase.DECODE, 1, max(0.0, took_s) / n_unseen)

    def _evidence(self) -> str:
        if self._vitals is None:
            return "its run state is unknown"
        return f"run state {self._vitals.run_state}, {self._cpu_share:.0%} of a core"
