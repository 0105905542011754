"""The family of a chat template, and what a request tells its parser."""

import json

import pytest

from gpufc.protocol import FinishReason
from supervisor.answers.parser import NewParser, PlainText
from supervisor.answers.parsers import FAMILIES, NAMES, UnknownParser, family_for, parser_for
from supervisor.answers.whole import ToolCall, whole_answer
from tests.supervisor.answers.laws import STOP

CALL = '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'

TEMPLATES = {
    "harmony": "{{- '<|start|>assistant<|channel|>final<|message|>' + content + '<|return|>' }}",
    "kimi-k3": "{{ '<|open|>message<|sep|>' }}{{ '<|close|>message<|sep|>' }}",
    "kimi": "<|im_middle|>{{- '<|tool_calls_section_begin|>' -}}",
    "deepseek-dsml": "\uff5cDSML\uff5cinvoke",
    "deepseek": "<\uff5ctool\u2581calls\u2581begin\uff5c>",
    "glm": "<tool_call>{{ tc.name }}{% for k, v in args %}<arg_key>{{ k }}</arg_key>",
    "qwen-xml": "<tool_call>\n<function=example>\n<parameter=one>\n",
    "mistral": '{{- "[TOOL_CALLS][" }}',
    "gemma": "{{- '<|tool_call>call:' + name -}}<|channel>thought",
    "llama": '<|start_header_id|>assistant {"name": "f", "parameters": {}}',
    "hermes": "<|im_start|>assistant\n<tool_call>\n{%- if '</think>' in content %}",
    "json": "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_tells_its_family(name: str) -> None:
    family = family_for(TEMPLATES[name])
    assert family is not None
    assert family.name == name


def test_every_family_has_a_template_here_and_a_name_of_its_own() -> None:
    assert set(TEMPLATES) == {family.name for family in FAMILIES}
    assert len(set(NAMES)) == len(FAMILIES) + 1


def test_an_override_counts_more_than_the_template() -> None:
    parser = parser_for(TEMPLATES["mistral"], tools=True, override="hermes")
    assert whole_answer([CALL], STOP, parser).calls == (ToolCall("f", '{"a": 1}'),)
    assert parser_for(TEMPLATES["hermes"], tools=True, override="none") is PlainText


def test_an_unknown_override_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(UnknownParser, match="hermes"):
        family_for(None, "nonsense")


def test_without_tools_a_call_is_text_and_reasoning_is_reasoning() -> None:
    parser = parser_for(TEMPLATES["hermes"], tools=False)
    answer = whole_answer(["<think>well</think>", CALL], STOP, parser)
    assert (answer.text, answer.reasoning, answer.calls) == (CALL, "well", ())


def test_without_tools_a_model_that_does_not_reason_writes_plain_text() -> None:
    assert parser_for(TEMPLATES["json"], tools=False) is PlainText
    assert parser_for(None, tools=False) is PlainText


@pytest.mark.parametrize(
    ("name", "prompt", "inside"),
    [
        ("hermes", "<|im_start|>assistant\n<think>\n", True),
        ("hermes", "<|im_start|>assistant\n<think>\n\n</think>\n\n", False),
        ("mistral", "[/INST][THINK]", True),
        ("gemma", "<|turn>model\n<|channel>thought\n<channel|>", False),
        ("kimi-k3", "<|open|>think<|sep|>", True),
        ("harmony", "<|start|>assistant", False),
    ],
)
def test_a_prompt_tells_whether_it_has_opened_the_reasoning(
    name: str, prompt: str, inside: bool
) -> None:
    family = family_for(None, name)
    assert family is not None
    assert family.starts_inside(prompt) is inside


def hermes(inside: bool = False) -> NewParser:
    return parser_for(None, tools=True, override="hermes", inside=inside)


def test_reasoning_that_the_prompt_has_opened_is_reasoning() -> None:
    answer = whole_answer(["well, ", "yes\n</think>\n\nYes."], STOP, hermes(inside=True))
    assert (answer.reasoning, answer.text) == ("well, yes", "Yes.")


def test_white_space_of_an_answer_without_calls_is_its_own() -> None:
    assert whole_answer(["\n  a\n", "\n"], STOP, hermes()).text == "\n  a\n\n"


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>no call</tool_call> at all",
        'so: <tool_call>{"name": "f", "arguments": {"a" 1}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": [1]}</tool_call>',
        '<tool_call>{"arguments": {}}</tool_call>',
    ],
)
def test_a_malformed_call_becomes_text(text: str) -> None:
    answer = whole_answer([text], STOP, hermes())
    assert (answer.text, answer.calls) == (text, ())


def test_a_short_call_that_the_limit_cuts_is_left_out() -> None:
    answer = whole_answer(["well ", CALL, CALL[:40]], FinishReason.LENGTH, hermes())
    assert (answer.text, answer.calls) == ("well", (ToolCall("f", '{"a": 1}'),))
    assert answer.ended.n_calls == 1


def test_a_call_without_arguments_has_an_empty_object() -> None:
    answer = whole_answer(['<tool_call>{"name": "f"}</tool_call>'], STOP, hermes())
    assert answer.calls == (ToolCall("f", "{}"),)


def test_a_json_answer_is_no_call_of_a_tool_that_was_not_offered() -> None:
    text = '{"name": "Ada", "arguments": {"born": 1815}}'
    parser = parser_for(None, tools=True, schemas={"f": {}})
    assert whole_answer([text], STOP, parser).text == text
    offered = parser_for(None, tools=True, schemas={"Ada": {}})
    assert whole_answer([text], STOP, offered).calls == (ToolCall("Ada", '{"born": 1815}'),)


def test_a_block_of_json_that_is_no_call_stays_as_it_is() -> None:
    text = 'See:\n```json\n{"a": [1, 2]}\n```\nDone.'
    assert whole_answer([text], STOP, parser_for(None, tools=True)).text == text


def test_a_think_tag_after_the_first_words_is_text() -> None:
    text = "Models write <think> and </think> around their reasoning."
    answer = whole_answer([text], STOP, hermes())
    assert (answer.text, answer.reasoning) == (text, "")


@pytest.mark.parametrize("name", ["llama", "json"])
def test_a_bare_call_may_follow_the_reasoning(name: str) -> None:
    text = 'I need f.</think>\n\n{"name": "f", "arguments": {"a": 1}}'
    parser = parser_for(None, tools=True, override=name, inside=True)
    answer = whole_answer([text], STOP, parser)
    assert (answer.reasoning, answer.text) == ("I need f.", "")
    assert answer.calls == (ToolCall("f", '{"a": 1}'),)


def test_pythonic_arguments_become_json() -> None:
    text = r"[f(a='\ud83d\ude00 \x41\n', b=(1, None), c={'k': True}), g()]"
    answer = whole_answer([text], STOP, parser_for(None, tools=True, override="llama"))
    first, second = answer.calls
    assert json.loads(first.arguments) == {"a": "\U0001f600 A\n", "b": [1, None], "c": {"k": True}}
    assert second == ToolCall("g", "{}")


def test_a_long_text_that_looks_like_a_call_is_not_lost_at_the_limit() -> None:
    text = '{"type": "report", "index": "' + "x" * 2000
    answer = whole_answer([text], FinishReason.LENGTH, parser_for(None, tools=True))
    assert (answer.text, answer.calls) == (text, ())


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        ({"type": "string"}, "007", "007"),
        ({"type": "integer"}, "007", "007"),
        ({"type": "integer"}, "7", 7),
        ({"type": ["string", "null"]}, "null", None),
        ({"type": ["string", "null"]}, "7", "7"),
        ({"anyOf": [{"type": "number"}, {"type": "string"}]}, "7", 7),
        ({"enum": ["1", "2"]}, "1", "1"),
        ({"type": "boolean"}, "True", True),
        ({"type": "object"}, '{"a": "b\nc"}', {"a": "b\nc"}),
        ({}, "[1, 2]", [1, 2]),
        ({}, "NaN", "NaN"),
    ],
)
def test_a_value_without_quotes_has_the_type_of_its_schema(
    schema: dict[str, object], value: str, expected: object
) -> None:
    schemas = {"f": {"properties": {"k": schema}}}
    parser = parser_for(None, tools=True, override="glm", schemas=schemas)
    text = f"<tool_call>f<arg_key>k</arg_key><arg_value>{value}</arg_value></tool_call>"
    [call] = whole_answer([text], STOP, parser).calls
    assert json.loads(call.arguments) == {"k": expected}
