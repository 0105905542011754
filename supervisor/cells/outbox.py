"""The durable requests of this front's run, and the batches of their gains. Pure.

gained ─▶ dirty ─ take ─▶ batch in flight ─ stored ─▶ readers are shown the entries in it
ended by an answer ─▶ `finishing`: its `Finished` is stored, then its readers are told
ended otherwise    ─▶ `dropped`: its records up to a number, or all, are forgotten
"""

import hashlib
import sys
from collections.abc import Callable, Iterator

from msgspec import Struct, field

from supervisor.cells.records import Batch, Finished
from supervisor.cells.state import Sent, gain_since
from supervisor.dispatch.durable import DurableRequest
from supervisor.dispatch.durable_store import is_an_answer


class Entry(Struct, eq=False):
    """One request. `last` is the number of the last message on its subject; all its gains are in
    messages of the run's log behind `since`. `record` is its end, the same in each attempt.
    `behind_since`: when the store had first lost its records, or was behind."""

    name: str
    request: DurableRequest
    last: int
    since: int
    sent: Sent = field(default_factory=Sent)
    record: Finished | None = None
    behind_since: float | None = None


class Outbox:
    """One run's. Implements `Follower`.

    Invariants: a request has entries that are withheld only while it is in here; `in_flight` is
    taken as a whole and stays until it is stored. `woken` is called when there is work.
    """

    def __init__(self, run: str, woken: Callable[[], None]) -> None:
        self.run = run
        self.in_flight: Batch | None = None
        self.finishing: dict[str, Entry] = {}
        self.dropped: list[tuple[str, int | None]] = []
        self._woken = woken
        self._entries: dict[DurableRequest, Entry] = {}
        self._dirty: dict[Entry, None] = {}
        self._ended: list[str] = []
        self._shown: list[tuple[DurableRequest, int]] = []
        self._n_batches = 0
        self._n_detached = 0
        self._is_alone = False

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def has_work(self) -> bool:
        """Whether `take` would give a batch, or an end is to be stored."""
        return bool(self.in_flight or self._dirty or self._ended or self.finishing or self.dropped)

    @property
    def needs_from(self) -> int:
        """Messages of the log before this number are needed no more."""
        return min((one.since for one in self._entries.values()), default=sys.maxsize)

    def follow(self, name: str, request: DurableRequest, last: int, since: int) -> None:
        """Take a request in. Its readers wait for the store from now on, unless the run is alone:
        then they wait once it is not."""
        entry = self._entries[request] = Entry(name, request, last, since)
        request.follower, request.is_replicated = self, not self._is_alone
        if self._is_alone:
            request.show_all(self._new_tag(entry))
        else:
            request.withhold()
        if request.is_over:
            self.ended(request)
        elif request.marks:
            self.gained(request)

    # the follower

    def gained(self, request: DurableRequest) -> None:
        self._dirty[self._entries[request]] = None
        self._woken()

    def ended(self, request: DurableRequest) -> None:
        entry = self._entries[request]
        self._dirty.pop(entry, None)
        if is_an_answer(request.stream):
            self.finishing[entry.name] = entry
        else:
            self._leave(entry)
            self._ended.append(entry.name)
            self.dropped.append((entry.name, entry.last))
            request.is_replicated = False
            request.show_all()
        self._woken()

    # the writer

    def take(self) -> Batch | None:
        """The batch to store next; the one in flight as long as there is one."""
        if self.in_flight is None and (self._dirty or self._ended):
            dirty, self._dirty = self._dirty, {}
            ended, self._ended = self._ended, []
            self._n_batches += 1
            # readers get entries under a new tag before they are stored, as long as the run is
            # alone: the tag is told with all of them, so that no other front has it without them
            tells_tags = not self._is_alone
            gains = tuple(
                gain_since(one.name, one.request, one.sent, tells_tags=tells_tags) for one in dirty
            )
            self._shown = [(one.request, len(one.request.marks)) for one in dirty]
            self.in_flight = Batch(self._n_batches, gains, tuple(ended))
        return self.in_flight

    def stored(self) -> None:
        """The batch in flight is stored."""
        shown, self._shown, self.in_flight = self._shown, [], None
        for request, n_entries in shown:
            request.show(n_entries)

    def finished(self, entry: Entry) -> None:
        """The store has the request's whole answer."""
        self.finishing.pop(entry.name, None)
        self._leave(entry)
        self._ended.append(entry.name)
        entry.request.show_all()
        self._woken()

    def lost(self, entry: Entry) -> None:
        """The request is another front's, or was deleted; this front's readers go on alone."""
        self.finishing.pop(entry.name, None)
        self._leave(entry)
        self._ended.append(entry.name)
        entry.request.is_replicated = False
        entry.request.show_all(self._new_tag(entry))

    def go_alone(self) -> None:
        """Readers do not wait for the store any more."""
        self._is_alone = True
        for entry in self._entries.values():
            entry.request.is_replicated = False
            entry.request.show_all(self._new_tag(entry))

    def rejoin(self) -> None:
        """Readers wait for the store again."""
        self._is_alone = False
        for entry in self._entries.values():
            entry.request.is_replicated = True
            if entry.name not in self.finishing:
                entry.request.withhold()
                self.gained(entry.request)

    def give_up(self) -> Iterator[DurableRequest]:
        """Every request goes on alone for its readers. Returns those without a reader."""
        for entry in list(self._entries.values()):
            is_read = entry.request.is_attended or entry.request.is_over
            self.lost(entry)
            if not is_read:
                yield entry.request
        self._dirty.clear()
        self._ended.clear()
        self.in_flight = None

    def move(self) -> None:
        """Other fronts go on with every request from what is stored. Answers that are whole stay
        here for their readers."""
        for entry in list(self._entries.values()):
            if entry.name in self.finishing:
                self.lost(entry)
            else:
                self._leave(entry)
                entry.request.move()

    def _leave(self, entry: Entry) -> None:
        self._entries.pop(entry.request, None)
        self._dirty.pop(entry, None)
        entry.request.follower = None

    def _new_tag(self, entry: Entry) -> str:
        """A tag for events that the store may not know."""
        self._n_detached += 1
        text = f"{entry.request.stream.request.id} {self.run} {self._n_detached}"
        return hashlib.sha256(text.encode()).hexdigest()[:8]
