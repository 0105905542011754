"""Whether and when a dead worker is started again. Pure: time and dice are arguments.

A worker that had produced a token since it became ready is restarted at once: it works. Otherwise
the pause grows exponentially with full jitter, so that siblings do not restart in step
(https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/). A worker that never
becomes ready, or that dies too often, is given up until an operator restarts it. A start that the
system refuses is no death of a worker.
"""

from collections import deque
from random import Random

from msgspec import Struct

BACKOFF_BASE_S = 0.5
BACKOFF_LIMIT_S = 30.0
REFUSED_BASE_S = 0.25
BACKOFF_LEAST_S = 0.05
"""Full jitter may draw zero, but a worker that crashes on start must not start in a tight loop."""
STARTS_NEVER_READY = 3
DEATHS_WINDOW_S = 60.0


class RestartAfter(Struct, frozen=True):
    """Start again in `delay_s` seconds; 0 means at once."""

    delay_s: float


class GiveUp(Struct, frozen=True):
    """Do not start again without an operator. `detail` says why, for people."""

    detail: str


Decision = RestartAfter | GiveUp


class RestartPolicy:
    """The deaths of one line of processes. Owned by one `WorkerLifecycle`.

    Only unasked ends are reported to it. `now` never goes backwards.
    """

    def __init__(self, restart_limit: int, rng: Random) -> None:
        self._restart_limit = restart_limit
        self._rng = rng
        self._deaths: deque[float] = deque(maxlen=restart_limit)
        self._never_ready = 0
        self._attempt = 0
        self._n_refused = 0

    def died(self, now: float, *, was_ready: bool, produced_token: bool) -> Decision:
        """Decide on a restart. `was_ready` and `produced_token` are about the process that died."""
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

    def refused(self) -> RestartAfter:
        """Decide on another attempt after a start that the system refused. It counts as no death,
        so such attempts go on for ever."""
        ceiling = min(BACKOFF_LIMIT_S, REFUSED_BASE_S * 2.0 ** min(self._n_refused, 16))
        self._n_refused += 1
        return RestartAfter(self._rng.uniform(ceiling / 2, ceiling))

    def spawned(self) -> None:
        """The system has allowed a start."""
        self._n_refused = 0

    def reset(self) -> None:
        """Forget all deaths: an operator asked for a restart, or the model's file is another."""
        self._deaths.clear()
        self._never_ready = 0
        self._attempt = 0
        self._n_refused = 0

    def forgive(self, count: int) -> None:
        """A convicted request explains the last `count` deaths: they count no more."""
        for _ in range(min(count, len(self._deaths))):
            self._deaths.pop()

    def _recent(self, now: float) -> int:
        return sum(1 for death in self._deaths if now - death < DEATHS_WINDOW_S)
