"""What models really took: memory and load times, learnt from this machine's own loads."""

from collections.abc import Iterable

from msgspec import Struct

from supervisor.residency.memory import Memory

MAX_ENTRIES = 1_000
KEPT_LOADS = 5


class Held(Struct, frozen=True, kw_only=True):
    """One way of holding a model, as a key. `file` identifies the contents: path, size and time of
    change. `placement` is the placement's name."""

    file: str
    n_ctx: int
    n_cells: int
    placement: str


class Entry(Struct, frozen=True, kw_only=True):
    """What one way took. `fingerprint` is the one that its worker reported."""

    held: Held
    fingerprint: str = ""
    peak: Memory
    load_s: tuple[float, ...] = ()


class Measured:
    """The learnt entries, the latest last; the oldest go beyond `MAX_ENTRIES`."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._entries = {entry.held: entry for entry in entries}

    def entries(self) -> tuple[Entry, ...]:
        """To be written to the file."""
        return tuple(self._entries.values())

    def need(self, held: Held) -> Memory | None:
        """The peak of all loads; None before the first."""
        entry = self._entries.get(held)
        return None if entry is None else entry.peak

    def load_s(self, held: Held) -> float | None:
        """The median of the last loads; None before the first."""
        entry = self._entries.get(held)
        times = () if entry is None else sorted(entry.load_s)
        return times[len(times) // 2] if times else None

    def loaded(self, held: Held, fingerprint: str, peak: Memory, load_s: float) -> None:
        """A load has ended well."""
        before = self._entries.pop(held, None)
        times = () if before is None else before.load_s
        known = peak if before is None else before.peak | peak
        self._entries[held] = Entry(
            held=held,
            fingerprint=fingerprint,
            peak=known,
            load_s=(*times, load_s)[-KEPT_LOADS:],
        )
        while len(self._entries) > MAX_ENTRIES:
            del self._entries[next(iter(self._entries))]
