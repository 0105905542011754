"""The text of a custom tool's call is read out of its arguments while they come."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.http.responses.custom_input import MAX_UNDECIDED, CustomInput


def read(arguments: str, cuts: list[int]) -> str:
    """The text of arguments that come in pieces."""
    places = sorted({0, len(arguments), *(cut % (len(arguments) + 1) for cut in cuts)})
    reader = CustomInput()
    pieces = [arguments[a:b] for a, b in pairwise(places)]
    return "".join(map(reader.feed, pieces)) + reader.end()


CUTS = st.lists(st.integers(0, 1000), max_size=8)


@given(st.text(), CUTS, st.booleans())
def test_the_text_is_json_s_however_the_arguments_are_cut(
    text: str, cuts: list[int], ascii_only: bool
) -> None:
    arguments = json.dumps({"input": text}, ensure_ascii=ascii_only)
    assert read(arguments, cuts) == text


@given(st.text(alphabet='{}":input \\u0dD8eEcC\n'), CUTS)
def test_any_arguments_give_the_same_text_however_they_are_cut(rest: str, cuts: list[int]) -> None:
    for arguments in (rest, '{"input":"' + rest):
        assert read(arguments, cuts) == read(arguments, [])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (' {\n "input" : "a\\"b" }', 'a"b'),
        ('{"input": "cut off', "cut off"),
        ('{"input": "cut off\\u00', "cut off\\u00"),
        ('{"input": "half \\ud83d"}', "half ?"),
        ('{"input": "pair \\ud83d\\ude00"}', "pair 😀"),
        ('{"input": "wrong \\q"}', "wrong \\q"),
        ("plain text", "plain text"),
        ('{"other": "text"}', '{"other": "text"}'),
        ('{"input": 5}', '{"input": 5}'),
        ('{"in', '{"in'),
        ("", ""),
        (" " * MAX_UNDECIDED + '{"input": ""}', " " * MAX_UNDECIDED + '{"input": ""}'),
    ],
)
def test_arguments_of_another_form_are_the_text_themselves(arguments: str, text: str) -> None:
    assert read(arguments, []) == text
    assert read(arguments, list(range(len(arguments)))) == text


def test_text_comes_before_its_end_is_known() -> None:
    reader = CustomInput()
    assert reader.feed('{"input": "ab') == "ab"
    assert reader.feed("c\\") == "c"
    assert reader.feed("nd") == "\nd"
