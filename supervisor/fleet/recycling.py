"""Whether a worker has grown so much that it should be replaced. Pure but for `anonymous_bytes`.

A leak shows in anonymous memory, resident or swapped out. Mapped weights lie in the page cache, and
their size depends on the other processes of the machine.
"""

from pathlib import Path

from gpufc.ids import Epoch

LOOK_S = 1.0
"""Time between two looks at a worker."""
PAUSE_S = 60.0
"""The least time between two recyclings of a place. They do not help against a faster leak."""
_FIELDS = ("RssAnon:", "VmSwap:")


class Recycler:
    """Decides on recycling for one place. `growth_bytes` 0 switches it off."""

    def __init__(self, growth_bytes: int) -> None:
        self._growth = growth_bytes
        self._epoch: Epoch | None = None
        self._at_first = 0
        self._not_before = 0.0

    def look(self, epoch: Epoch, n_bytes: int, now: float) -> bool:
        """Note a serving worker's memory. True if it is to be replaced, once in `PAUSE_S`."""
        if epoch != self._epoch:
            self._epoch, self._at_first = epoch, n_bytes
        if not self._growth or now < self._not_before:
            return False
        if n_bytes - self._at_first <= self._growth:
            return False
        self._not_before = now + PAUSE_S
        return True


def anonymous_bytes(pid: int) -> int | None:
    """RssAnon plus VmSwap of a process; None if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) for line in lines if line.startswith(_FIELDS)]
    return sum(found) * 1024 if found else None
