"""What loaded workers take: measured when they are ready, and again while they serve."""

from collections.abc import Callable

from supervisor.residency.memory import Free, Memory
from supervisor.roster.needs import may_use, taken
from supervisor.roster.resident import Resident

GROWTH_LOOK_S = 5.0
"""Between two measurements of a worker: its first requests take memory that its load did not."""


class Scales:
    """Measures residents, and keeps in each one what it was seen with. In the event loop."""

    def __init__(self, measure: Callable[[int], int | None], free: Callable[[], Free]) -> None:
        """`measure` gives the own memory of a process; None if it is gone."""
        self._measure = measure
        self._free = free

    def loaded(self, one: Resident, now: float) -> Memory:
        """What a worker takes that is ready now. One on another machine takes nothing here."""
        row, config = one.place.runner.status(), one.place.spec.config
        one.held, one.measured_at = Memory(), now
        if row.machine is None and row.facts is not None and row.pid is not None:
            devices = [name for name in self._free().devices if may_use(config, name)]
            one.held = taken(row.facts, config, self._measure(row.pid) or 0, devices)
        return one.held

    def has_grown(self, one: Resident, now: float) -> bool:
        """Whether a loaded worker takes more than it was seen with. Asks for it now and then."""
        if one.epoch is None or now - one.measured_at < GROWTH_LOOK_S:
            return False
        row, one.measured_at = one.place.runner.status(), now
        if row.machine is not None or row.pid is None:
            return False
        return one.grown(self._measure(row.pid) or 0)
