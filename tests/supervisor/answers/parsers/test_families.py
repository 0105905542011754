# ruff: noqa: RUF001  (the model's own tokens have these letters)
"""Each family's parser: the laws of parsers, on texts made of its own markers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.answers.parsers import FAMILIES, parser_for
from supervisor.answers.parsers.deepseek_dsml import (
    END_INVOKE,
    END_PARAMETER,
    END_SECTIONS,
    INVOKE,
    PARAMETER,
    SECTIONS,
)
from supervisor.answers.parsers.family import Family
from tests.supervisor.answers.laws import check, cut

WORDS = [
    *("<think>", "</think>", "<th", "<", "a", " b", "\n", " ", "é", "y" * 300, "name", ":", "="),
    *('{"name": "f"', ', "arguments": ', '{"x": "', '\\"', "\\", '"', "{}", "{", "}", "[", "]"),
    *(",", "null", "-1.5", "```json", "```", '{"arguments": {"a": [1, {"b": "c"}]}, "name": "g"}'),
    *(
        "(",
        ")",
        ";",
        "'",
        '{"q": 1}',
        '{"type": "function", "name": "h", "parameters": {"k": "v"}}',
    ),
]
OWN = {
    "harmony": ["analysis", "final", " to=functions.f", "commentary"],
    "kimi-k3": [
        *("think", "response", "tools", 'call tool="f"', 'argument key="k" type="string"'),
        *('<|open|>call tool="f"<|sep|>', '<|open|>argument key="k" type="number"<|sep|>'),
        *("<|close|>argument<|sep|>", "<|close|>call<|sep|>", "<|open|>think<|sep|>"),
    ],
    "kimi": ["functions.f:0"],
    "deepseek-dsml": [
        *SECTIONS,
        *END_SECTIONS,
        *INVOKE,
        *END_INVOKE,
        *PARAMETER,
        *END_PARAMETER,
        *(' name="f">', ' name="k" string="true">', ' name="k" string="false">', '"/>'),
    ],
    "deepseek": ["function<｜tool▁sep｜>f\n```json\n", "f<｜tool▁sep｜>"],
    "glm": ["f<arg_key>k</arg_key><arg_value>", "</arg_value></tool_call>", "<tool_call>f"],
    "qwen-xml": [
        *("<function=f>", "<parameter=k>", "<parameter=n>", "</parameter>", "</function>"),
        "<tool_call>\n<function=f>\n<parameter=k>\n",
    ],
    "mistral": ['[TOOL_CALLS]f[ARGS]{"a": 1}', "[TOOL_CALLS] [", "123456789"],
    "gemma": ["<|tool_call>call:f{k:", "thought\n", "call:f{", "k:", "<|channel>thought"],
    "llama": ["f(", "k=", "[f(k='", "True", "\\n", "\\u00e9"],
}
SCHEMAS = {
    "f": {"properties": {"k": {"type": "string"}, "n": {"type": ["integer", "null"]}}},
    "g": {},
    "h": {},
}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@given(data=st.data())
def test_the_parts_do_not_depend_on_where_the_text_was_cut(
    family: Family, data: st.DataObject
) -> None:
    words = st.sampled_from(WORDS) | st.sampled_from([*family.markers, *OWN.get(family.name, ())])
    text = "".join(data.draw(st.lists(words, max_size=16)))
    inside = data.draw(st.booleans())
    new_parser = parser_for(None, tools=True, override=family.name, schemas=SCHEMAS, inside=inside)
    check(new_parser, data.draw(cut(text)))
