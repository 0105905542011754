"""The judge can say no: histories that were tampered with, each in one way."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.chaos.history import DONE, Event, History, Wrong, check, check_ended, texts_of
from tests.chaos.load import ask_fake, begin

PROMPT, N_TOKENS = "a stream of its own", 40


def chunk(**fields: Any) -> str:
    return json.dumps({"id": "cmpl-1", "created": 7, "choices": [], "usage": None} | fields)


def text_chunk(text: str, finish: str | None = None, index: int = 0) -> str:
    return chunk(choices=[{"index": index, "text": text, "finish_reason": finish}])


def good(prompt: str = PROMPT) -> History:
    """The history of a stream that met nothing."""
    ask = ask_fake(prompt, N_TOKENS)
    history = begin(prompt, ask)
    (text,) = ask.expected.texts or ()
    usage = {
        "prompt_tokens": ask.expected.prompt_tokens,
        "completion_tokens": ask.expected.completion_tokens,
    }
    data = [*map(text_chunk, text), text_chunk("", "length"), chunk(usage=usage), DONE]
    history.status = 200
    history.events = [Event(history.started_at + n, item) for n, item in enumerate(data)]
    history.bytes_at = [event.at for event in history.events]
    history.ended_at = history.bytes_at[-1]
    return history


OTHER = good("the stream beside it")


def set_data(history: History, place: int, data: str) -> None:
    history.events[place] = Event(history.events[place].at, data)


def lose(history: History) -> None:
    del history.events[20]


def lose_the_tail(history: History) -> None:
    del history.events[30:40]


def double(history: History) -> None:
    history.events[20:20] = history.events[18:20]


def double_the_last(history: History) -> None:
    history.events.insert(40, history.events[39])


def cross(history: History) -> None:
    history.events[20:40] = OTHER.events[20:40]


def alter(history: History) -> None:
    set_data(history, 20, text_chunk("#"))


def error(history: History) -> None:
    set_data(history, 20, json.dumps({"error": {"code": "engine_crashed"}}))


def two_ends(history: History) -> None:
    history.events.insert(40, Event(0.0, text_chunk("", "length")))


def another_end(history: History) -> None:
    set_data(history, 40, text_chunk("", "stop"))


def text_after_the_end(history: History) -> None:
    history.events[39], history.events[40] = history.events[40], history.events[39]


def no_done(history: History) -> None:
    del history.events[-1]


def done_twice(history: History) -> None:
    history.events.append(history.events[-1])


def text_after_done(history: History) -> None:
    history.events.append(history.events.pop(39))


def another_id(history: History) -> None:
    set_data(history, 20, text_chunk("x").replace("cmpl-1", "cmpl-2"))


def usage_of_a_replay(history: History) -> None:
    usage = {"prompt_tokens": history.expected.prompt_tokens, "completion_tokens": N_TOKENS + 13}
    set_data(history, -2, chunk(usage=usage))


def no_usage(history: History) -> None:
    del history.events[-2]


def half_an_event(history: History) -> None:
    set_data(history, 20, '{"id": "cmpl-1", "cho')


def broken_off(history: History) -> None:
    history.broke = "ServerDisconnectedError"


def refused(history: History) -> None:
    history.status = 503


@pytest.mark.parametrize(
    ("tamper", "wrong"),
    [
        (lose, Wrong.LOST),
        (lose_the_tail, Wrong.LOST),
        (double, Wrong.REPEATED),
        (double_the_last, Wrong.REPEATED),
        (cross, Wrong.CROSSED),
        (alter, Wrong.ALTERED),
        (error, Wrong.ERROR_EVENT),
        (two_ends, Wrong.FINISH),
        (another_end, Wrong.FINISH),
        (text_after_the_end, Wrong.FINISH),
        (no_done, Wrong.DONE),
        (done_twice, Wrong.DONE),
        (text_after_done, Wrong.DONE),
        (another_id, Wrong.IDENTITY),
        (usage_of_a_replay, Wrong.USAGE),
        (no_usage, Wrong.USAGE),
        (half_an_event, Wrong.MALFORMED),
        (broken_off, Wrong.BROKEN_OFF),
        (refused, Wrong.STATUS),
    ],
)
def test_a_history_that_was_tampered_with_is_found(
    tamper: Callable[[History], None], wrong: Wrong
) -> None:
    history = copy.deepcopy(good())
    tamper(history)
    assert wrong in {item.wrong for item in check(history, [OTHER])}


def test_a_history_without_a_fault_is_passed() -> None:
    assert check(good(), [OTHER], max_silence_s=5.0) == []


def test_silence_is_found_where_it_is_asked_for() -> None:
    history = good()
    history.bytes_at[20:] = [at + 6.0 for at in history.bytes_at[20:]]
    history.ended_at = history.bytes_at[-1]
    assert check(history) == []
    assert [item.wrong for item in check(history, max_silence_s=5.0)] == [Wrong.SILENCE]


@pytest.mark.parametrize("tokens", [N_TOKENS, N_TOKENS - 1])
def test_an_answer_in_one_piece_is_judged_too(tokens: int) -> None:
    ask = ask_fake(PROMPT, N_TOKENS, streamed=False)
    history = begin("whole", ask)
    history.status = 200
    (text,) = ask.expected.texts or ()
    history.body = {
        "choices": [{"index": 0, "text": text[:tokens], "finish_reason": "length"}],
        "usage": {"prompt_tokens": len(PROMPT) + 1, "completion_tokens": tokens},
    }
    found = {item.wrong for item in check(history)}
    assert found == (set() if tokens == N_TOKENS else {Wrong.LOST, Wrong.USAGE})


def test_choices_are_judged_one_by_one() -> None:
    ask = ask_fake(PROMPT, N_TOKENS, n=2, streamed=False)
    history = begin("two", ask)
    history.status = 200
    (text, _) = ask.expected.texts or ()
    choices = [{"index": i, "text": text, "finish_reason": "length"} for i in range(2)]
    usage = {"prompt_tokens": len(PROMPT) + 1, "completion_tokens": 2 * N_TOKENS}
    history.body = {"choices": choices, "usage": usage}
    assert check(history) == []
    assert texts_of(history) == {0: text, 1: text}
    del choices[1]
    assert {item.wrong for item in check(history)} == {Wrong.FINISH, Wrong.LOST}


def test_a_stop_string_ends_the_expected_text_and_is_counted() -> None:
    ask = ask_fake("[[say:before STOP after]]", 40, stop="STOP")
    assert ask.expected.texts == ("before ",)
    assert (ask.expected.completion_tokens, ask.expected.finish) == (len("before STOP"), "stop")


def ended(code: str = "engine_unavailable") -> History:
    """Half a stream: its model could not be loaded again."""
    history = good()
    error = json.dumps({"error": {"code": code}})
    history.events[20:-1] = [Event(history.events[20].at, error)]
    return history


def ended_twice(history: History) -> None:
    history.events.insert(20, history.events[20])


def with_another_text(history: History) -> None:
    set_data(history, 7, text_chunk("#"))


def without_done(history: History) -> None:
    del history.events[-1]


def test_a_stream_that_could_not_be_finished_ends_once_with_its_error() -> None:
    assert check_ended(ended(), {"engine_unavailable"}) == []
    found = check_ended(ended("internal_error"), {"engine_unavailable"})
    assert [item.wrong for item in found] == [Wrong.ERROR_EVENT]
    assert {item.wrong for item in check_ended(good(), {"engine_unavailable"})} == {
        Wrong.ERROR_EVENT
    }


@pytest.mark.parametrize(
    ("tamper", "wrong"),
    [
        (ended_twice, Wrong.ERROR_EVENT),
        (with_another_text, Wrong.ALTERED),
        (without_done, Wrong.DONE),
        (broken_off, Wrong.BROKEN_OFF),
    ],
)
def test_an_ending_that_was_tampered_with_is_found(
    tamper: Callable[[History], None], wrong: Wrong
) -> None:
    history = ended()
    tamper(history)
    assert wrong in {item.wrong for item in check_ended(history, {"engine_unavailable"})}
