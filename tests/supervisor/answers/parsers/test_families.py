"""Each family's parser: the laws of parsers, on texts made of its own markers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.answers.parsers import FAMILIES, parser_for
from supervisor.answers.parsers.family import Family
from tests.supervisor.answers.laws import check, cut

WORDS = [
    *("<think>", "</think>", "<th", "<tool_call>", "</tool_call>", "<", "a", " b", "\n", "é"),
    *(
        '{"name": "f"',
        ', "arguments": ',
        '{"x": "',
        "y" * 300,
        '\\"',
        "\\",
        '"',
        "{}",
        "}",
        "[",
        "]",
    ),
    *(",", "null", "-1.5", "```json", "```", '{"arguments": {"a": [1, {"b": "c"}]}, "name": "g"}'),
]


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@given(data=st.data())
def test_the_parts_do_not_depend_on_where_the_text_was_cut(
    family: Family, inside: bool, data: st.DataObject
) -> None:
    words = st.sampled_from([*WORDS, *family.markers])
    text = "".join(data.draw(st.lists(words, max_size=30)))
    new_parser = parser_for(None, tools=True, override=family.name, inside=inside)
    check(new_parser, data.draw(cut(text)))
