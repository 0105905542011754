"""Log probabilities line up with the text for every reader, however the text was cut and held."""

import asyncio
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from gpufc.config import LimitsConfig
from gpufc.ids import Epoch, RequestNo
from gpufc.protocol import Delta, FinishReason, Logprob, LogprobsWanted, TokenLogprobs
from supervisor.answers.parts import Ended, Logprobs, Part, Text
from supervisor.dispatch.durable import Cursor, DurableKey, DurableRequest
from supervisor.dispatch.durable_store import DurableRequests
from supervisor.dispatch.request import GenerationRequest
from supervisor.dispatch.stream import Position, ResponseStream, StreamEvent
from supervisor.dispatch.stream_log import StreamLog
from tests.supervisor.answers.toy import Toy
from tests.supervisor.dispatch.fakes import N_TOKENS, request, until
from tests.supervisor.dispatch.front import Front

EPOCH = Epoch(1)
STOP = FinishReason.STOP


def entry(number: int, n_chars: int) -> TokenLogprobs:
    return TokenLogprobs(Logprob(number, b"x" * n_chars, -float(number)), (), n_chars)


lengths = st.lists(st.integers(0, 3), min_size=1, max_size=20)
"""How many characters each token ends."""


class Story:
    """One sequence's deltas: each token, its text held back at times, and an end."""

    def __init__(self, n_chars: list[int], lags: list[int], stops_after: int | None) -> None:
        self.entries = [entry(number, count) for number, count in enumerate(n_chars)]
        text = "".join(chr(97 + at % 26) for at in range(sum(n_chars)))
        stops = stops_after is not None
        self.text = text[:stops_after] if stops else text
        self.deltas: list[Delta] = []
        sent = known = 0
        for number, one in enumerate(self.entries):
            known += one.n_chars
            is_last = number + 1 == len(self.entries)
            end = len(self.text) if is_last else min(known - lags[number], len(self.text))
            piece, sent = self.text[sent : max(sent, end)], max(sent, end)
            self.deltas.append(
                Delta(
                    RequestNo(1),
                    number,
                    (number,),
                    piece,
                    STOP if is_last else None,
                    stopped_by=0 if stops and is_last else None,
                    logprobs=(one,),
                )
            )

    @property
    def expected(self) -> list[TokenLogprobs]:
        """All tokens, or those that begin before the stop string."""
        if self.deltas[-1].stopped_by is None:
            return self.entries
        found, start = [], 0
        for one in self.entries:
            if start < len(self.text):
                found.append(one)
            start += one.n_chars
        return found


@st.composite
def stories(draw: st.DrawFn) -> Story:
    n_chars = draw(lengths)
    lags = draw(st.lists(st.integers(0, 4), min_size=len(n_chars), max_size=len(n_chars)))
    # a stop string is completed by the last token
    stops_after = draw(st.none() | st.integers(0, max(0, sum(n_chars) - 1)))
    if n_chars[-1] == 0:
        stops_after = None
    return Story(n_chars, lags, stops_after)


def stream_of(parser: type[Toy] | None = None) -> ResponseStream:
    options = {} if parser is None else {"parser": parser}
    wanted = request(stop=("END",), logprobs=LogprobsWanted(), **options)  # type: ignore[arg-type]
    log = StreamLog(RequestNo(1), wanted)
    log.prompt_tokens = (1,)
    log.dispatched(EPOCH)
    return ResponseStream(wanted, [log], on_cancel=lambda _: None)


def deliver(stream: ResponseStream, delta: Delta) -> None:
    stream.logs[0].append(delta, EPOCH)
    if delta.text or delta.finish is not None:
        stream.notify(0)


def entries_of(parts: Iterable[Part]) -> list[TokenLogprobs]:
    return [one for part in parts if isinstance(part, Logprobs) for one in part.tokens]


def check_alignment(parts: list[Part]) -> None:
    """No entry comes before the text that its token ends."""
    n_covered = n_read = 0
    for part in parts:
        if isinstance(part, Logprobs):
            n_covered += sum(one.n_chars for one in part.tokens)
        elif isinstance(part, Text):
            n_read += len(part.text)
            assert n_covered <= n_read


@given(st.data(), stories())
def test_a_stream_gives_each_entry_once_and_with_its_text(
    data: st.DataObject, story: Story
) -> None:
    async def read() -> tuple[list[Part], ResponseStream]:
        stream = stream_of()
        events: list[StreamEvent] = []
        for delta in story.deltas:
            deliver(stream, delta)
            if data.draw(st.booleans()):
                events += await stream.next(0.0) or []
        while not stream.done:
            events += await stream.next(0.0) or []
        return [part for event in events for part in event.parts], stream

    parts, stream = asyncio.run(read())
    assert entries_of(parts) == story.expected
    check_alignment([part for part in parts if not isinstance(part, Ended)])
    (whole,) = stream.answers()
    assert list(whole.logprobs) == story.expected
    assert whole.text == story.text


@given(st.data(), stories(), st.sampled_from([None, Toy]))
def test_a_reader_may_resume_after_any_event(
    data: st.DataObject, story: Story, parser: type[Toy] | None
) -> None:
    stream = stream_of(parser)
    store = DurableRequests(LimitsConfig(), clock=lambda: 0.0, call_later=lambda *_: None)
    kept = store.add(DurableKey("me", "k"), b"", 0, stream)
    stream.observe(kept)
    live = Cursor(kept, Position(0))
    seen: list[StreamEvent] = []
    for delta in story.deltas:
        deliver(stream, delta)
        if data.draw(st.booleans()):
            seen += live.take(100)
    seen += live.take(100)
    assert entries_of(parts_of(seen)) == story.expected
    _check_resumed(kept, seen)


def _check_resumed(kept: DurableRequest, seen: list[StreamEvent]) -> None:
    for number, event in enumerate(seen, 1):
        assert event.position is not None
        resumed = Cursor(kept, event.position)
        assert entries_of(parts_of(resumed.known)) == entries_of(parts_of(seen[:number]))
        assert entries_of(parts_of(resumed.take(100))) == entries_of(parts_of(seen[number:]))


def parts_of(events: list[StreamEvent]) -> list[Part]:
    return [part for event in events for part in event.parts]


async def test_a_replay_keeps_the_entries_of_the_tokens_before_it() -> None:
    front = Front()
    worker = front.fleet.start_worker()
    (whole,) = await front.submit(asked()).complete()
    assert [one.token.token for one in whole.logprobs] == list(range(N_TOKENS))
    worker.die()
    for position in range(N_TOKENS):
        worker = front.fleet.start_worker(auto=False)
        stream = front.submit(asked())
        await until(lambda worker=worker: worker.active)
        for _ in range(position):
            worker.step()
        worker.die()
        worker = front.fleet.start_worker()
        (answer,) = await stream.complete()
        assert answer.logprobs == whole.logprobs
        assert answer.prompt_logprobs == whole.prompt_logprobs
        worker.die()


def asked() -> GenerationRequest:
    return request(logprobs=LogprobsWanted(2, prompt=True))
