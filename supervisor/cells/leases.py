"""Which runs of other fronts are alive, by their beats. Pure; the time is an argument.

Silence is counted only while this front could hear: a front that was stopped itself, or cut off
from the store, takes no other for dead when it comes back.
"""

from enum import StrEnum

from msgspec import Struct


class Pulse(StrEnum):
    """What is known of another run.

    SEEN → HEARD by a beat; SEEN and HEARD → DUE by silence, or because it has left; DUE → HEARD by
    a beat, as long as it is not CLOSED, which is for ever.
    """

    SEEN = "seen"
    """Its log was found; it has not been heard yet."""
    HEARD = "heard"
    DUE = "due"
    """It may be closed."""
    CLOSED = "closed"


class Lease(Struct):
    """One run's. It was `heard_at`, else seen at `seen_at`; times are those of `tick`."""

    pulse: Pulse = Pulse.SEEN
    seen_at: float = 0.0
    silent_s: float = 0.0
    heard_at: float = -1.0
    closed_at: float = 0.0


class Leases:
    """Other fronts' runs. Invariant: the silence of a run is at most the time that this front has
    listened since the run's last beat."""

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self._runs: dict[str, Lease] = {}
        self._looked_at: float | None = None

    def saw(self, run: str, now: float) -> None:
        """Its records were found."""
        self._runs.setdefault(run, Lease(seen_at=now))

    def heard(self, run: str, now: float) -> None:
        """A sign of life."""
        lease = self._runs.setdefault(run, Lease())
        if lease.pulse is not Pulse.CLOSED:
            lease.pulse, lease.silent_s, lease.heard_at = Pulse.HEARD, 0.0, now

    def left(self, run: str) -> None:
        """It has ended in order."""
        lease = self._runs.setdefault(run, Lease())
        if lease.pulse is not Pulse.CLOSED:
            lease.pulse = Pulse.DUE

    def closed(self, run: str, now: float) -> None:
        """It may write no more."""
        lease = self._runs.setdefault(run, Lease())
        lease.pulse, lease.closed_at = Pulse.CLOSED, now

    def tick(self, now: float, *, could_hear: bool) -> list[str]:
        """The runs that may be closed, the last one that was heard first. To be called a few times
        in a lease."""
        since = now if self._looked_at is None else self._looked_at
        self._looked_at = now if could_hear else None
        most = self._lease_s / 2 if could_hear else 0.0
        for lease in self._runs.values():
            if lease.pulse in (Pulse.SEEN, Pulse.HEARD):
                began = max(since, lease.heard_at, lease.seen_at)
                lease.silent_s += max(0.0, min(now - began, most))
                if lease.silent_s >= self._lease_s:
                    lease.pulse = Pulse.DUE
        due = [run for run, lease in self._runs.items() if lease.pulse is Pulse.DUE]
        return sorted(due, key=lambda run: -self._runs[run].heard_at)

    def forgotten(self, before: float) -> list[str]:
        """Forget the runs that were closed before a time, and name them."""
        old = [
            run
            for run, lease in self._runs.items()
            if lease.pulse is Pulse.CLOSED and lease.closed_at < before
        ]
        for run in old:
            del self._runs[run]
        return old

    def is_closed(self, run: str) -> bool:
        """Whether it may write no more."""
        return run in self._runs and self._runs[run].pulse is Pulse.CLOSED

    def was_heard_since(self, run: str, then: float) -> bool:
        """Whether it has been heard after a time."""
        return run in self._runs and self._runs[run].heard_at > then

    @property
    def n_alive(self) -> int:
        """How many other runs are heard."""
        return sum(lease.pulse is Pulse.HEARD for lease in self._runs.values())
