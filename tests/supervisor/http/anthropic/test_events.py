"""Any parts, however they are cut, are the same blocks streamed and whole."""

from itertools import pairwise
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from gpufc.ids import RequestId
from gpufc.protocol import FinishReason, TextPrompt
from gpufc.sampling import SamplingParams
from supervisor.answers.parts import (
    BEGUN,
    Ended,
    Part,
    Reasoning,
    Text,
    ToolCallArguments,
    ToolCallBegun,
)
from supervisor.answers.whole import collected
from supervisor.dispatch.request import GenerationRequest
from supervisor.dispatch.stream import StreamEvent, Usage
from supervisor.dispatch.timings import Timings
from supervisor.http.anthropic.answer import message
from supervisor.http.anthropic.events import MessageEvents
from supervisor.http.generation.dialect import Exchange
from tests.supervisor.http.anthropic.conftest import added_up, events

USAGE = Usage(prompt=9, cached=4, completion=3)
EXCHANGE = Exchange(
    id="msg_1",
    created=0,
    model="m",
    system_fingerprint=None,
    request=GenerationRequest(
        id=RequestId("1"),
        model="m",
        prompts=(TextPrompt("x"),),
        sampling=SamplingParams(seed=1),
        created=0,
        max_tokens=3,
    ),
    usage=lambda: USAGE,
    usage_of=lambda _index: USAGE,
    tokens_of=lambda _index: (),
    timings=Timings(0.0),
)

words = st.text(min_size=1, max_size=8)
inputs = st.dictionaries(words, st.none() | st.integers() | words, max_size=3)
members = st.lists(
    st.tuples(st.just(Text), words)
    | st.tuples(st.just(Reasoning), words)
    | st.tuples(st.just(ToolCallBegun), inputs | st.none()),
    max_size=8,
)


def parts_of(said: list[tuple[Any, Any]]) -> list[Part]:
    """All parts of an answer, in small pieces."""
    parts: list[Part] = [BEGUN]
    n_calls = 0
    for kind, value in said:
        if kind is not ToolCallBegun:
            parts += [kind(letter) for letter in value]
            continue
        parts.append(ToolCallBegun(n_calls, f"tool{n_calls}"))
        if value is not None:
            text = msgspec.json.encode(value).decode()
            parts += [ToolCallArguments(n_calls, letter) for letter in text]
        n_calls += 1
    return [*parts, Ended(FinishReason.STOP, n_calls)]


@given(members, st.lists(st.integers(0, 60)), st.booleans())
def test_a_stream_adds_up_to_the_whole_message(
    said: list[tuple[Any, Any]], cuts: list[int], shows_thinking: bool
) -> None:
    parts = parts_of(said)
    whole = message(EXCHANGE, collected(parts), shows_thinking=shows_thinking)
    encoder = MessageEvents(EXCHANGE, shows_thinking=shows_thinking)
    places = [0, *sorted(cuts), len(parts)]
    pieces = [parts[start:end] for start, end in pairwise(places)]
    written = b"".join(encoder.events([StreamEvent(0, piece)]) for piece in pieces)
    read = events(written + encoder.closing(USAGE))
    assert added_up(read) == msgspec.json.decode(msgspec.json.encode(whole.content))
    assert (read[0].type, read[-1].type) == ("message_start", "message_stop")
    assert read[-2].delta.stop_reason == whole.stop_reason
    assert read[-2].usage.output_tokens == whole.usage.output_tokens
