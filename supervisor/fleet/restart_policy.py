"""Whether and when a worker that died is started again. Pure: no clock, the dice are injected.

A worker that had produced a token since it became ready comes back at once: it works, something
happened to it. One that had not waits, ever longer and never in step with its siblings (full
jitter, https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/). One that never
gets ready, or that dies all the time, is given up until somebody changes something.
"""

from collections import deque
from random import Random

from msgspec import Struct

BACKOFF_BASE_S = 0.5
BACKOFF_LIMIT_S = 30.0
BACKOFF_LEAST_S = 0.05
"""Full jitter may say zero, and what crashes on start must never be started in a tight loop."""
STARTS_NEVER_READY = 3
DEATHS_WINDOW_S = 60.0


class RestartAfter(Struct, frozen=True):
    """Start again in `delay_s` seconds; 0 means at once."""

    delay_s: float


class GiveUp(Struct, frozen=True):
    """Do not start again by itself. `detail` says why, for people."""

    detail: str


Decision = RestartAfter | GiveUp


class RestartPolicy:
    """The deaths of one worker's place, over its processes.

    Only unasked ends are reported to it. `now` never goes backwards. Owned by one
    `WorkerLifecycle`.
    """

    def __init__(self, restart_limit: int, rng: Random) -> None:
        self._restart_limit = restart_limit
        self._rng = rng
        self._deaths: deque[float] = deque(maxlen=restart_limit)
        self._never_ready = 0
        self._attempt = 0

    def died(self, now: float, *, was_ready: bool, produced_token: bool) -> Decision:
        """What to do about a death. `was_ready` and `produced_token` are about this process."""
        self._deaths.append(now)
        self._never_ready = 0 if was_ready else self._never_ready + 1
        if self._never_ready >= STARTS_NEVER_READY:
            return GiveUp(f"{self._never_ready} starts in a row never became ready")
        if self._recent(now) >= self._restart_limit:
            return GiveUp(f"died {self._recent(now)} times in {DEATHS_WINDOW_S:.0f} s")
        if produced_token:
            self._attempt = 0
            return RestartAfter(0.0)
        ceiling = min(BACKOFF_LIMIT_S, BACKOFF_BASE_S * 2.0 ** min(self._attempt, 16))
        self._attempt += 1
        return RestartAfter(max(BACKOFF_LEAST_S, self._rng.uniform(0.0, ceiling)))

    def reset(self) -> None:
        """Forget everything: an operator, another model or another configuration starts afresh."""
        self._deaths.clear()
        self._never_ready = 0
        self._attempt = 0

    def forgive(self, count: int) -> None:
        """The last `count` deaths were explained by a request, and count no more."""
        for _ in range(min(count, len(self._deaths))):
            self._deaths.pop()

    def _recent(self, now: float) -> int:
        return sum(1 for death in self._deaths if now - death < DEATHS_WINDOW_S)
