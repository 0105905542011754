from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from engine_worker.text.stop_matcher import StopMatcher

texts = st.text("ab\n", max_size=30)
stop_lists = st.lists(st.text("ab\n", min_size=1, max_size=5), max_size=4)


def run(stops: list[str], pieces: list[str]) -> tuple[str, int | None]:
    matcher = StopMatcher(stops)
    sent = ""
    for piece in pieces:
        safe, hit = matcher.feed(piece)
        sent += safe
        if hit is not None:
            return sent, hit
    return sent + matcher.flush(), None


def test_text_without_stops_passes_at_once() -> None:
    assert StopMatcher([]).feed("hello") == ("hello", None)


def test_a_possible_beginning_is_held_back_until_it_is_none() -> None:
    matcher = StopMatcher(["END"])
    assert matcher.feed("the EN") == ("the ", None)
    assert matcher.feed("D") == ("", 0)
    matcher = StopMatcher(["END"])
    assert matcher.feed("the EN") == ("the ", None)
    assert matcher.feed("O") == ("ENO", None)


def test_flush_returns_the_text_that_was_held_back() -> None:
    matcher = StopMatcher(["\n\nHuman:"])
    assert matcher.feed("so\n\nHum") == ("so", None)
    assert matcher.flush() == "\n\nHum"
    assert matcher.flush() == ""


def test_the_stop_that_is_completed_first_counts() -> None:
    assert run(["abcd", "bc"], ["abcd"]) == ("a", 1)
    assert run(["xbc", "bc"], ["axbc"]) == ("a", 0)
    assert run(["bc", "xbc"], ["axbc"]) == ("a", 1)


def test_a_match_is_told_as_its_place_among_the_stop_strings_that_were_given() -> None:
    assert run(["", "no", "ab", "ab"], ["xab"]) == ("x", 2)


@given(stop_lists, texts, st.data())
def test_the_cutting_of_a_text_changes_nothing(
    stops: list[str], text: str, data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=8)))
    edges = [0, *cuts, len(text)]
    pieces = [text[start:end] for start, end in pairwise(edges)]
    whole = run(stops, [text])
    assert run(stops, pieces) == whole
    assert run(stops, list(text)) == whole


@given(stop_lists, st.lists(texts, max_size=5))
def test_sent_text_contains_no_stop_string(stops: list[str], pieces: list[str]) -> None:
    sent, hit = run(stops, pieces)
    assert not any(stop in sent for stop in stops)
    assert (hit is not None) == any(stop in "".join(pieces) for stop in stops)
    assert hit is None or stops[hit] in "".join(pieces)


def split(text: str) -> list[str | int]:
    """A vocabulary with one special token."""
    parts: list[str | int] = []
    for number, part in enumerate(text.split("<s>")):
        parts += [7, part] if number else [part]
    return [part for part in parts if part != ""]


def test_a_stop_string_that_spells_a_special_token_is_found_where_the_token_is_generated() -> None:
    matcher = StopMatcher(["<s>"], split)
    assert matcher.feed("text") == ("text", None)
    assert matcher.feed(matcher.stand_in(7)) == ("", 0)


def test_text_after_a_special_token_is_held_until_the_stop_string_is_decided() -> None:
    matcher = StopMatcher(["<s>user"], split)
    assert matcher.feed("a" + matcher.stand_in(7)) == ("a", None)
    assert matcher.feed("us") == ("", None)
    assert matcher.feed("ual") == ("usual", None)
    assert matcher.feed(matcher.stand_in(7) + "user") == ("", 0)


def test_a_special_token_written_as_text_is_a_stop_string_as_well() -> None:
    matcher = StopMatcher(["<s>user"], split)
    assert matcher.feed("x<s>user") == ("x", 0)


def test_a_special_token_never_leaves_a_trace_in_the_text() -> None:
    matcher = StopMatcher(["<s>user"], split)
    assert matcher.feed(matcher.stand_in(7)) == ("", None)
    assert matcher.flush() == ""
    assert matcher.stand_in(8) == ""
