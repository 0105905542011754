"""The judge of bound answers: what it finds wrong, and what it lets pass."""

import json
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
from msgspec import structs

from tests.chaos.shapes import ASKED, NAME, Answer, exact, fast, faults, positions

TEXT = json.dumps({"name": "fox", "age": 3, "colour": "red", "words": ["sea", "sun"]})
OTHER = TEXT.replace("sun", "fog")
SCHEMA, CALL = "JSON schema", "forced call"
assert {SCHEMA, CALL} <= set(ASKED)


def answer(text: str = TEXT, *, before: str = "", after: str = "", **changed: Any) -> Answer:
    """The whole answer to `SCHEMA`; one token for each character."""
    spelt = before + text + after
    logprobs = [(letter.encode(), -float(at)) for at, letter in enumerate(spelt)]
    return structs.replace(Answer(9, text, [], ["stop"], logprobs), **changed)


def call(**changed: Any) -> Answer:
    """The same arguments as a call."""
    called = {"calls": [NAME], "finish": ["tool_calls"]}
    return answer(before='{"arguments": ', after="}", **called | changed)


def found(one: Answer, sent: str = "", kind: str = SCHEMA) -> list[str]:
    undisturbed = call() if kind is CALL else answer()
    return faults(one, undisturbed, Answer(text=sent), kind, exact)


def test_whole_answers_pass_also_another_one_that_begins_as_what_was_sent() -> None:
    assert found(answer(), TEXT[:20]) == []
    assert found(answer(OTHER), TEXT[:-8]) == []
    assert found(call(), "", CALL) == []


def moved(at: int, by: float) -> list[tuple[bytes, float]]:
    entries = answer().logprobs
    token, logprob = entries[at]
    return [*entries[:at], (token, logprob + by), *entries[at + 1 :]]


@pytest.mark.parametrize(
    ("one", "sent", "fault"),
    [
        (answer(OTHER), TEXT[:-3], "what was sent has changed"),
        (answer(TEXT.replace("3", "300")), "", "not valid: 300 is greater"),
        (answer(TEXT[:-1]), "", "not valid"),
        (answer(finish=["length"]), "", "finish reasons"),
        (answer(finish=["stop", "stop"]), "", "finish reasons"),
        (answer(calls=[NAME]), "", "calls of"),
        (answer(logprobs=answer(OTHER).logprobs), "", "log probabilities of other tokens"),
        (answer(logprobs=answer().logprobs[1:]), "", "log probabilities of other tokens"),
        (answer(logprobs=moved(7, 0.01)), "", "token 7: log probability"),
        (answer(logprobs=[*answer().logprobs, (b"", 0.0)]), "", "log probabilities, undisturbed"),
    ],
)
def test_each_fault_of_an_answer_is_found(one: Answer, sent: str, fault: str) -> None:
    [line] = found(one, sent)
    assert fault in line


def test_each_fault_of_a_call_is_found() -> None:
    [twice] = found(call(calls=[NAME, NAME]), "", CALL)
    assert "calls of" in twice
    [elsewhere] = found(call(logprobs=answer(OTHER).logprobs), "", CALL)
    assert "log probabilities of other tokens" in elsewhere


def test_later_tokens_than_the_first_other_one_are_not_compared() -> None:
    entries = answer(OTHER).logprobs
    assert (
        found(answer(OTHER, logprobs=[*entries[:-3], *[(t, 0.0) for t, _ in entries[-3:]]])) == []
    )


def test_a_sample_is_drawn_of_the_chunks_before_the_last_one() -> None:
    assert positions(5, None, 1) == positions(5, 12, 1) == [1, 2, 3, 4]
    drawn = positions(60, 12, 1)
    assert len(set(drawn)) == 12
    assert drawn == sorted(drawn) == positions(60, 12, 1) != positions(60, 12, 2)
    assert set(drawn) <= set(range(1, 60))


class Alone:
    """Stands in for llama.cpp alone: a replay moves each log probability by its known tokens."""

    def ids(self, pieces: Sequence[bytes]) -> list[int]:
        return [piece[0] for piece in pieces]

    def logprobs(self, prompt: Sequence[int], answer: Sequence[int], n_known: int) -> list[float]:
        assert (prompt, len(answer)) == ([1, 2], len(TEXT))
        return [-float(at) - MOVED * n_known for at in range(n_known, len(answer))]


MOVED = 0.01


def replayed(n_known: int, by: float = 0.0) -> Answer:
    """An answer after a kill with so many tokens in the log."""
    moved = [
        (token, logprob - (at >= n_known) * (MOVED * n_known + by))
        for at, (token, logprob) in enumerate(answer().logprobs)
    ]
    return answer(logprobs=moved)


@pytest.mark.parametrize("n_known", [10, 11, 14])
def test_a_fast_replay_moves_log_probabilities_as_llama_cpp_alone_does(n_known: int) -> None:
    """Ten tokens had come; the log may have had more."""
    sent = Answer(text=TEXT[:10], logprobs=answer().logprobs[:10])
    judge = partial(fast, Alone(), [1, 2])
    assert faults(replayed(n_known), answer(), sent, SCHEMA, judge) == []
    assert len(faults(replayed(n_known, 0.001), answer(), sent, SCHEMA, judge)) >= 10
    assert faults(replayed(9), answer(), sent, SCHEMA, judge) != []
    assert faults(replayed(n_known), answer(), sent, SCHEMA, exact) != []


@pytest.mark.parametrize("exactly", [False, True])
def test_tokens_that_had_come_and_differ_from_the_undisturbed_ones_are_found(exactly: bool) -> None:
    """The texts are the same: another token spells the beginning."""
    entries = answer().logprobs
    one = answer(logprobs=[(TEXT[:2].encode(), -9.0), *entries[2:]])
    sent = Answer(text=TEXT[:2], logprobs=one.logprobs[:1])
    judge = exact if exactly else partial(fast, Unasked(), [1, 2])
    lines = faults(one, answer(), sent, SCHEMA, judge)
    assert "token 0 of 1 that had come is another one" in lines


def test_log_probabilities_without_anything_to_compare_are_not_right() -> None:
    [line] = faults(answer(), answer(), Answer(), SCHEMA, lambda *_: [])
    assert "nothing to compare" in line


class Unasked(Alone):
    """The answer's tokens are its own."""

    def logprobs(self, prompt: Sequence[int], answer: Sequence[int], n_known: int) -> list[float]:
        return [-float(at) for at in range(n_known, len(answer))]
