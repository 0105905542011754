"""Requests that outlive their clients: the order of their texts, and the places of their readers.

Pure. The text stays in the stream logs. A durable request adds the order in which its choices
gained text: eight bytes for each entry. Each entry says that a choice has begun, has more text, or
has finished. A `Position` in that order is exact: it does not depend on the number of choices, on
the number of parts of an entry, or on how a reader's pieces were joined. Any reader can resume from
any position that another reader was given, while the request runs or after its end. After the last
entry's position comes that of the closing: usage, or the request's error.
"""

import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Protocol

from msgspec import Struct

from gpufc.errors import InvalidRequest
from supervisor.answers.parts import BEGUN, Part, joined, kind_of, merged
from supervisor.dispatch.request import ReadingOf
from supervisor.dispatch.stream import LogParser, Position, ResponseStream, StreamEvent

HAS_BEGUN = 0
HAS_FINISHED = 2**32 - 1

PIECE_BYTES = 32
"""Roughly the memory of a text without its characters: list slots, tokens, its entry."""

PROMPT_TOKEN_BYTES = 40
LOGPROB_BYTES = 160
"""Roughly the memory of a token's log probability, and of each one in its place."""


class DurableKey(Struct, frozen=True):
    """A client's name for its request. Equal keys of different principals are different keys."""

    principal: str
    key: str


class Keeper(Protocol):
    """The store that keeps a durable request (`durable_store.DurableRequests`)."""

    def grew(self, request: "DurableRequest", n_bytes: int) -> None:
        """A running request takes that many bytes more."""
        ...

    def abandoned(self, request: "DurableRequest") -> float:
        """The last reader of a running request has left, at the time that is returned."""
        ...

    def ended(self, request: "DurableRequest") -> None:
        """A running request has ended."""
        ...


class Follower(Protocol):
    """Copies a durable request to where other fronts find it (`supervisor/cells`)."""

    def gained(self, request: "DurableRequest") -> None:
        """It has new entries."""
        ...

    def ended(self, request: "DurableRequest") -> None:
        """It has ended, by an answer or otherwise."""
        ...


class DurableRequest:
    """One durable request, running or finished. Implements `StreamObserver`. Only its stream's
    calls change it; `expires_at` is the store's. `abandoned_at` is set while it runs and has no
    watcher left.

    Invariant: entry i is about choice `choices[i]`, and `marks[i]` is the number of texts in its
    log that are read by then, or HAS_BEGUN or HAS_FINISHED. Entries are only appended, and never
    after the end. `n_bytes` estimates all memory of the request, logs included.

    Readers get the first `n_readable` entries: all of them, unless they are withheld for a
    follower, which shows them. `tags` are all names under which events were given out, the present
    one last; positions mean the same under each. `tag_ends` has the last position of a tag, once
    another one has followed: other fronts may give out other entries under the same tag behind it.
    `is_replicated`: other fronts could go on with it, and have its answer after its end.
    `has_moved`: another front goes on with it, from the entries that readers may
    have; its end here is not the request's. `lacks_reading`: it was begun at another front, and no
    client has come since.
    """

    def __init__(
        self,
        key: DurableKey,
        digest: bytes,
        stream: ResponseStream,
        n_bytes: int,
        store: Keeper,
    ) -> None:
        self.key = key
        self.digest = digest
        self.stream = stream
        self.n_bytes = n_bytes
        self.choices = array("I")
        self.marks = array("I")
        self.is_over = False
        self.expires_at = 0.0
        self.abandoned_at: float | None = None
        self.tags = [stream.request.id[:8]]
        self.tag_ends: dict[str, int] = {}
        self.follower: Follower | None = None
        self.is_replicated = False
        self.lacks_reading = False
        self.has_moved = False
        self._is_withheld = False
        self._n_shown = 0
        self._watchers: set[Callable[[], None]] = set()
        self._store = store
        self._n_texts = [0] * len(stream.logs)
        self._n_logprobs = [0] * len(stream.logs)
        self._begun: set[int] = set()
        self._fingerprint: str | None = None

    @property
    def tag(self) -> str:
        """Tells this generation from an earlier or later one under the same key."""
        return self.tags[-1]

    @property
    def n_readable(self) -> int:
        """How many entries readers may have."""
        return max(self._n_shown, 0 if self._is_withheld else len(self.marks))

    @property
    def n_given(self) -> int:
        """The last position that readers may have: the closing's once they know of the end."""
        return self.closing.marks if self.is_told else self.n_readable

    @property
    def is_told(self) -> bool:
        """Whether readers may know of the end."""
        return self.is_over and (self.has_moved or not self._is_withheld)

    @property
    def is_attended(self) -> bool:
        """Whether any client reads it."""
        return bool(self._watchers)

    @property
    def closing(self) -> Position:
        """The position after the closing, once the request is over."""
        return Position(len(self.marks) + 1)

    @property
    def fingerprint(self) -> str | None:
        """The model's fingerprint. The first known value stays, also after a swap."""
        if self._fingerprint is None:
            self._fingerprint = self.stream.fingerprint
        return self._fingerprint

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call this after each change and at the end."""
        self._watchers.add(watcher)
        if self.abandoned_at is not None:
            self.abandoned_at = None
            self.stream.attend(True)

    def unwatch(self, watcher: Callable[[], None]) -> None:
        """Call it no more."""
        self._watchers.discard(watcher)
        self.leave_alone()

    def move(self) -> None:
        """Leave the rest to another front. Readers get no new entries here, only an end."""
        self.withhold()
        self.follower, self.has_moved = None, True

    def read_as(self, reading: ReadingOf) -> None:
        """A client has come with the reading that was lacking."""
        self.lacks_reading = False
        for log in self.stream.logs:
            log.read_as(reading)

    def leave_alone(self) -> None:
        """It runs, and no client has come yet."""
        if not self._watchers and not self.is_over:
            self.abandoned_at = self._store.abandoned(self)
            self.stream.attend(False)

    def withhold(self) -> None:
        """Give readers no new entries from now on."""
        self._n_shown = self.n_readable
        self._is_withheld = True

    def show(self, n_entries: int) -> None:
        """Give readers the first entries, up to so many."""
        self._n_shown = max(self._n_shown, n_entries)
        self._tell()

    def show_all(self, tag: str | None = None) -> None:
        """Give readers everything from now on, the end included. New events get the tag."""
        if tag is not None:
            self._rename(tag, self.n_given)
        self._is_withheld = False
        self._tell()

    def has_given(self, tag: str, position: Position) -> bool:
        """Whether this request may have an event of that tag at that position."""
        end = self.tag_ends.get(tag)
        return tag in self.tags and (end is None or position <= Position(end))

    def _rename(self, tag: str, since: int | None) -> None:
        """Events behind the position `since` are under this tag, and not under the one before."""
        if self.tags and since is not None:
            self.tag_ends[self.tags[-1]] = since
        self.tags.append(tag)

    def restore(
        self, order: Iterable[tuple[int, int]], tags: Iterable[tuple[str, int | None]]
    ) -> None:
        """Take the entries that another front has given out; its logs have their text. Each tag
        comes with its `since`."""
        for tag, since in tags:
            if tag not in self.tags:
                self._rename(tag, since)
        for index, mark in order:
            self._note(index, mark)
            if mark == HAS_BEGUN:
                self._begun.add(index)
            elif mark != HAS_FINISHED:
                self._n_texts[index] = mark
        n_bytes = 0
        for log in self.stream.logs:
            n_bytes += sum(PIECE_BYTES + sys.getsizeof(text) for text in log.texts)
            n_bytes += PROMPT_TOKEN_BYTES * len(log.prompt_tokens or ())
            n_bytes += self._logprob_bytes(log.index)
        self.n_bytes += n_bytes
        self._store.grew(self, n_bytes)

    def gained(self, index: int) -> None:
        log = self.stream.logs[index]
        n_bytes = 0
        if index not in self._begun:
            self._begun.add(index)
            self._note(index, HAS_BEGUN)
            if log.choice == 0:  # choices share their prompt
                n_bytes += PROMPT_TOKEN_BYTES * len(log.prompt_tokens or ())
        new = log.texts[self._n_texts[index] :]
        if any(new):
            self._n_texts[index] = len(log.texts)
            self._note(index, len(log.texts))
            n_bytes += sum(PIECE_BYTES + sys.getsizeof(text) for text in new)
        n_bytes += self._logprob_bytes(index)
        if log.finish is not None:
            self._note(index, HAS_FINISHED)
        self.n_bytes += n_bytes
        self._store.grew(self, n_bytes)
        if self.follower is not None:
            self.follower.gained(self)
        if not self._is_withheld:
            self._tell()

    def ended(self) -> None:
        if not self.is_over:
            self.is_over = True
            _ = self.fingerprint
            self._store.ended(self)
            if self.follower is not None:
                self.follower.ended(self)
            self._tell()

    def _logprob_bytes(self, index: int) -> int:
        """The memory of log probabilities that came since the last call."""
        log, n_known = self.stream.logs[index], self._n_logprobs[index]
        prompt = log.prompt_logprobs
        n_entries = len(prompt) + len(log.logprobs)
        if n_known == n_entries:
            return 0
        self._n_logprobs[index] = n_entries
        new = log.logprobs[n_known - len(prompt) :] if n_known else (*prompt, *log.logprobs)
        return LOGPROB_BYTES * sum(1 + len(entry.top) for entry in new)

    def _note(self, index: int, mark: int) -> None:
        self.choices.append(index)
        self.marks.append(mark)

    def _tell(self) -> None:
        for watcher in tuple(self._watchers):
            watcher()


class Cursor:
    """One reader's place in a durable request, with parsers of its own. Only `take` moves it.

    `known` has the parts before the first position, as one event for each choice: an encoder needs
    them to go on in the right state.
    """

    def __init__(self, request: DurableRequest, position: Position) -> None:
        """Raises `InvalidRequest` for a position that no reader can have been given."""
        if not 0 <= position.marks <= request.n_given:
            raise _unknown_event()
        self._request = request
        self._parsers = [LogParser(log) for log in request.stream.logs]
        self._n_read = [0] * len(request.stream.logs)
        self._at = position.marks
        self._n_given = position.parts
        self._entry: Sequence[Part] = ()
        had = self._parts_before(position.marks)
        if self._n_given:
            self._begin_within_an_entry(had)
        self.known = [StreamEvent(index, joined(parts)) for index, parts in had.items()]

    @property
    def has_news(self) -> bool:
        """Whether there are entries for `take` to read."""
        return self._at < self._request.n_readable

    @property
    def is_closed(self) -> bool:
        """Whether the reader came with the position after the closing."""
        return self._request.is_told and self._at == self._request.closing.marks

    def take(self, limit: int) -> list[StreamEvent]:
        """Read at most `limit` entries. Each part is an event, adjoining pieces of one kind are one
        event. Empty if the parsers hold everything back."""
        found: list[StreamEvent] = []
        for kind, group in groupby(self._parts(limit), _kind):
            events = list(group)
            found += events if kind is None else [_merged(events)]
        return found

    def _parts(self, limit: int) -> Iterator[StreamEvent]:
        end = min(self._request.n_readable, self._at + limit)
        while self._at < end:
            at, n_given = self._at, self._n_given
            parts = self._entry if n_given else self._read(at)
            self._at, self._n_given, self._entry = at + 1, 0, ()
            index = self._request.choices[at]
            for n in range(n_given + 1, len(parts) + 1):
                position = Position(at + 1) if n == len(parts) else Position(at, n)
                yield StreamEvent(index, (parts[n - 1],), position)

    def _read(self, at: int) -> Sequence[Part]:
        """The parts of the next entry of its choice. Each entry is read once."""
        index, mark = self._request.choices[at], self._request.marks[at]
        log, parser = self._request.stream.logs[index], self._parsers[index]
        if mark == HAS_BEGUN:
            return (BEGUN,)
        if mark == HAS_FINISHED:
            return () if log.finish is None else parser.end(log.finish)
        start, self._n_read[index] = self._n_read[index], mark
        return parser.feed("".join(log.texts[start:mark]))

    def _parts_before(self, n_marks: int) -> dict[int, list[Part]]:
        """The parts of the first entries by choice. Each choice's text is read in one piece."""
        request = self._request
        had: dict[int, list[Part]] = {}
        finished = []
        for index, mark in zip(request.choices[:n_marks], request.marks[:n_marks], strict=True):
            if mark == HAS_BEGUN:
                had[index] = [BEGUN]
            elif mark == HAS_FINISHED:
                finished.append(index)
            else:
                self._n_read[index] = mark
        for index, parts in had.items():
            texts = request.stream.logs[index].texts[: self._n_read[index]]
            parts += self._parsers[index].feed("".join(texts))
        for index in finished:
            end = request.stream.logs[index].finish
            had[index] += () if end is None else self._parsers[index].end(end)
        return had

    def _begin_within_an_entry(self, had: dict[int, list[Part]]) -> None:
        if not self.has_news:
            raise _unknown_event()
        self._entry = self._read(self._at)
        if not 0 < self._n_given < len(self._entry):
            raise _unknown_event()
        had[self._request.choices[self._at]] += self._entry[: self._n_given]


def _unknown_event() -> InvalidRequest:
    return InvalidRequest("There is no such event in this stream", param="Last-Event-ID")


def _kind(event: StreamEvent) -> tuple[int, object] | None:
    kind = kind_of(event.parts[0])
    return None if kind is None else (event.index, kind)


def _merged(events: list[StreamEvent]) -> StreamEvent:
    first, last = events[0], events[-1]
    return StreamEvent(first.index, (merged([event.parts[0] for event in events]),), last.position)
