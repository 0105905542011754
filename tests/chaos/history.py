"""All that one client received, and the judge of it. Pure.

A fake stream's text is a function of its prompt, so that its history can be compared with the
truth; of a real one the form, the length and the count are known.
"""

import json
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Any

from msgspec import Struct, field

DONE = "[DONE]"
SAMPLE = 8
"""Characters in a row by which a piece of text is recognised."""


class Wrong(StrEnum):
    """What can be wrong with a history."""

    STATUS = "status"
    BROKEN_OFF = "broken_off"
    ERROR_EVENT = "error_event"
    MALFORMED = "malformed"
    DONE = "done"
    FINISH = "finish"
    LOST = "lost"
    REPEATED = "repeated"
    CROSSED = "crossed"
    ALTERED = "altered"
    IDENTITY = "identity"
    USAGE = "usage"
    SILENCE = "silence"


class Violation(Struct, frozen=True):
    """One thing that is wrong."""

    wrong: Wrong
    detail: str

    def __str__(self) -> str:
        return f"{self.wrong}: {self.detail}"


class Expected(Struct, frozen=True):
    """What a request must be answered with. `texts` is None where only a model knows."""

    n_choices: int
    prompt_tokens: int | None
    completion_tokens: int | None
    finish: str
    texts: tuple[str, ...] | None = None


class Event(Struct, frozen=True):
    """The data of one server-sent event, and when it came (monotonic)."""

    at: float
    data: str


class History(Struct):
    """Everything that came to one client for one request, in its order."""

    name: str
    expected: Expected
    streamed: bool
    started_at: float = 0.0
    ended_at: float | None = None
    status: int = 0
    events: list[Event] = field(default_factory=list)
    bytes_at: list[float] = field(default_factory=list)
    body: Any = None
    broke: str | None = None

    @property
    def open(self) -> bool:
        """Whether the client still waits for something."""
        return self.ended_at is None

    @property
    def took_s(self) -> float:
        """Seconds to the end; 0 while it is open."""
        return 0.0 if self.ended_at is None else self.ended_at - self.started_at

    @property
    def first_s(self) -> float:
        """Seconds to the first event; to the end where none came."""
        return self.events[0].at - self.started_at if self.events else self.took_s


def check(
    history: History, others: Iterable[History] = (), *, max_silence_s: float | None = None
) -> list[Violation]:
    """Every violation in a history. Text of `others` in it has crossed over."""
    if history.broke is not None:
        return [Violation(Wrong.BROKEN_OFF, history.broke)]
    if history.status != 200:
        return [Violation(Wrong.STATUS, f"{history.status} {str(history.body)[:200]}")]
    found = list(_streamed(history) if history.streamed else _whole(history))
    texts, wanted = texts_of(history), history.expected.texts
    if wanted is not None:
        foreign = [text for other in others for text in other.expected.texts or ()]
        for index, want in enumerate(wanted):
            found += _compare(texts.get(index, ""), want, [t for t in foreign if t not in wanted])
    if max_silence_s is not None and (silence := longest_silence_s(history)) > max_silence_s:
        found.append(Violation(Wrong.SILENCE, f"{silence:.1f} s without a byte"))
    return found


def check_ended(history: History, codes: Iterable[str]) -> list[Violation]:
    """Every violation in a history that could not be finished: it has to end once, with one of
    these errors, after a beginning of the expected text."""
    if history.broke is not None:
        return [Violation(Wrong.BROKEN_OFF, history.broke)]
    data = [event.data for event in history.events]
    bodies = [_parsed(item) for item in data] if data else [history.body]
    errors = [body["error"] for body in bodies if isinstance(body, dict) and "error" in body]
    found = []
    if [error.get("code") for error in errors] not in [[code] for code in codes]:
        found.append(Violation(Wrong.ERROR_EVENT, f"{errors}"))
    if data and (data.count(DONE) != 1 or data[-1] != DONE):
        found.append(Violation(Wrong.DONE, f"the last event is {data[-1][:80]}"))
    for index, want in enumerate(history.expected.texts or ()):
        text = texts_of(history).get(index, "")
        if not want.startswith(text):
            found += _compare(text, want, [])
    return found


def texts_of(history: History) -> dict[int, str]:
    """The text of each choice, as far as it came."""
    texts: dict[int, str] = {}
    for choice in _choices(history):
        text = choice.get("text")
        if text is None:
            part = choice.get("delta") or choice.get("message") or {}
            text = part.get("content") or ""
        texts[choice["index"]] = texts.get(choice["index"], "") + text
    return texts


def text_times(history: History) -> list[float]:
    """When each event with text came."""
    return [event.at for event in history.events if _text(event.data)]


def event_texts(history: History) -> list[str]:
    """The text of each event that has some."""
    return list(filter(None, (_text(event.data) for event in history.events)))


def usages(history: History) -> list[dict[str, Any]]:
    """What a stream has told of tokens; once, if all is right."""
    chunks = [_parsed(event.data) for event in history.events if event.data != DONE]
    return [chunk["usage"] for chunk in chunks if chunk and chunk.get("usage")]


def longest_silence_s(history: History) -> float:
    """The longest time without a byte on the open stream."""
    times = [*history.bytes_at, *([history.ended_at] if history.ended_at else [])]
    return max(
        (b - a for a, b in zip([history.started_at, *times], times, strict=False)), default=0
    )


def _text(data: str) -> str:
    choices = () if data == DONE else (_parsed(data) or {}).get("choices", ())
    return "".join(
        choice.get("text") or (choice.get("delta") or {}).get("content") or "" for choice in choices
    )


def _parsed(data: str) -> dict[str, Any] | None:
    try:
        parsed = json.loads(data)
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict) else None


def _choices(history: History) -> Iterator[dict[str, Any]]:
    if not history.streamed:
        yield from history.body.get("choices", ()) if isinstance(history.body, dict) else ()
        return
    for event in history.events:
        yield from (_parsed(event.data) or {}).get("choices", ())


def _streamed(history: History) -> Iterator[Violation]:
    data = [event.data for event in history.events]
    n_done = data.count(DONE)
    if n_done != 1 or data[-1] != DONE:
        last = data[-1][:80] if data else "nothing"
        yield Violation(Wrong.DONE, f"{n_done} times; the last event is {last}")
    chunks = [_parsed(item) for item in data if item != DONE]
    for chunk, item in zip(chunks, (item for item in data if item != DONE), strict=True):
        if chunk is None:
            yield Violation(Wrong.MALFORMED, item[:200])
        elif "error" in chunk:
            yield Violation(Wrong.ERROR_EVENT, item[:200])
    good = [chunk for chunk in chunks if chunk and "error" not in chunk]
    if len({(chunk.get("id"), chunk.get("created")) for chunk in good}) > 1:
        yield Violation(Wrong.IDENTITY, "the id or the time changed within the stream")
    yield from _finishes(history)
    told = usages(history)
    if len(told) != 1:
        yield Violation(Wrong.USAGE, f"{len(told)} times")
    else:
        yield from _usage(told[0], history.expected)


def _whole(history: History) -> Iterator[Violation]:
    if not isinstance(history.body, dict):
        yield Violation(Wrong.MALFORMED, str(history.body)[:200])
        return
    yield from _finishes(history)
    yield from _usage(history.body.get("usage") or {}, history.expected)


def _finishes(history: History) -> Iterator[Violation]:
    """Each choice ends once, as expected, and nothing of it comes later."""
    ends: dict[int, list[str]] = {index: [] for index in range(history.expected.n_choices)}
    for choice in _choices(history):
        index, reason = choice["index"], choice.get("finish_reason")
        if index not in ends:
            yield Violation(Wrong.FINISH, f"there is no choice {index}")
        elif ends[index] and reason is None:
            yield Violation(Wrong.FINISH, f"choice {index} goes on after its end")
        elif reason is not None:
            ends[index].append(reason)
    for index, reasons in ends.items():
        if reasons != [history.expected.finish]:
            yield Violation(Wrong.FINISH, f"choice {index}: {reasons}")


def _usage(usage: dict[str, Any], expected: Expected) -> Iterator[Violation]:
    for name in ("prompt_tokens", "completion_tokens"):
        want = getattr(expected, name)
        if want is not None and usage.get(name) != want:
            yield Violation(Wrong.USAGE, f"{name}: {usage.get(name)}, expected {want}")


def _compare(got: str, want: str, foreign: list[str]) -> Iterator[Violation]:
    """Name the first difference by where the text goes on after it."""
    if got == want:
        return
    at = next((i for i, (a, b) in enumerate(zip(got, want, strict=False)) if a != b), None)
    at = min(len(got), len(want)) if at is None else at
    rest = got[at:]
    if not rest:
        yield Violation(Wrong.LOST, f"ends after {at} of {len(want)} characters")
        return
    sample = rest[:SAMPLE]
    if len(sample) == SAMPLE and sample in want[: at + SAMPLE - 1]:
        kind = Wrong.REPEATED
    elif len(sample) == SAMPLE and sample in want[at:]:
        kind = Wrong.LOST
    elif len(sample) == SAMPLE and any(sample in text for text in foreign):
        kind = Wrong.CROSSED
    elif want.endswith(rest):
        kind = Wrong.REPEATED if at == len(want) else Wrong.LOST
    else:
        kind = Wrong.ALTERED
    place = f"at character {at}: {sample!r}, expected {want[at : at + SAMPLE]!r}"
    yield Violation(kind, place)
