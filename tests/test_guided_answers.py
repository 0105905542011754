# ruff: noqa: RUF001  (the model's own tokens have these letters)
"""Guided answers of every family: whatever the masks let a model write, the family's parser reads
as the calls that were asked for, with arguments of their schemas."""

import json
from functools import partial
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from gpufc.answer_format import NUMBER, Function, Span
from gpufc.protocol import FinishReason
from supervisor.answers.parsers import FAMILIES, family_for, parser_for
from supervisor.answers.style import Wish, answer_format
from supervisor.answers.whole import WholeAnswer, whole_answer
from supervisor.http.generation.reading import Selected, first_call_watch
from tests.guided import Walker

TEMPLATES = {
    "harmony": ["<|channel|><|message|>"],
    "kimi-k3": ["<|open|><|close|><|sep|>"],
    "kimi": ["<|tool_calls_section_begin|><think>"],
    "deepseek-dsml": ["｜DSML｜function_calls<think>", "<｜DSML｜tool_calls>", "<｜DSML｜ calls>"],
    "deepseek": [
        "<｜tool▁calls▁begin｜></think>",
        "<｜tool▁calls▁begin｜>function<｜tool▁sep｜>f\n```json\n",
    ],
    "glm": ["<arg_key>k</arg_key>\n<arg_value></think>", "<arg_key>k</arg_key><arg_value>"],
    "qwen-xml": ["<function=f>\n<parameter=k>", "<function=f>\n<parameter=k><think>"],
    "mistral": ['[TOOL_CALLS][{"name"', "[TOOL_CALLS]f[ARGS][THINK]"],
    "gemma": ["<|tool_call>call:<channel|>"],
    "llama": ['<|start_header_id|> "parameters"', "<|header_start|><|python_start|>"],
    "hermes": ["<tool_call>", "<tool_call><think>"],
    "json": ["", "</think>"],
}
SCHEMAS: dict[str, dict[str, Any]] = {
    "search": {
        "type": "object",
        "properties": {
            "query": {"type": "string"},
            "kind": {"enum": ["all", "one"]},
            "limit": {"type": "integer", "minimum": 1, "maximum": 99},
            "near": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "tags": {"type": "array", "items": {"type": "string", "maxLength": 5}, "maxItems": 3},
            "where": {"$ref": "#/$defs/where"},
        },
        "required": ["query", "tags"],
        "additionalProperties": False,
        "$defs": {
            "where": {
                "type": "object",
                "properties": {"city": {"type": "string", "maxLength": 9}},
                "required": ["city"],
                "additionalProperties": False,
            }
        },
    },
    "now": {"type": "object", "properties": {}},
    "set-flag.v2": {
        "type": "object",
        "properties": {"on": {"type": "boolean"}, "short": {"type": "string", "maxLength": 6}},
        "required": ["on"],
    },
}
FUNCTIONS = tuple(Function(name, Span(), schema, True) for name, schema in SCHEMAS.items())
WORDS = [
    *("<think>", "</think>", "\n", "\n\n", '"', "Bern", " ", "ü", "</", "<", "{", "}", '{"name"'),
    *("</parameter>", "\n</parameter>\n", "<function=", "</arg_value>", "<tool_call>", "null"),
    *("</tool_call>", "]", ")", '"}', "[/THINK]", "<channel|>", '<|"|>', "<|close|>", "<|sep|>"),
    *("</｜DSML｜parameter>", "</｜DSML｜ parameter>", "<|end|>", "<|start|>", "assistant", "12"),
    *("<｜tool▁calls▁begin｜>", "[TOOL_CALLS]", "<|tool_call>", "<|tool_calls_section_begin|>"),
    *("<｜DSML｜tool_calls>", "<｜DSML｜function_calls>", "<｜DSML｜ calls>", "<|channel|>final"),
    *("think<|sep|>", "argument<|sep|>", "<|message|>", "<|start|>assistant", "</arg_value>\n"),
]
CASES = [(name, template) for name, templates in TEMPLATES.items() for template in templates]
N_WALKS = 3


class Guided:
    """One family's guided answers, and its reading of them."""

    def __init__(
        self, template: str, wish: Wish, *, opening: str = "", as_text: bool = False
    ) -> None:
        family = family_for(template)
        assert family is not None
        style = family.style(template)
        reasons = family.reasons(template)
        opened = style.opened(opening)
        made = answer_format(style, wish, family.markers, opened=opened, reasons=reasons)
        assert made is not None
        self.name = family.name
        self.first = style.calls(wish.functions, None).first.replace(NUMBER, "0")
        ends = [style.members.string.end, "</"] if style.members else []
        self.walker = Walker(made, [*WORDS, *ends * 20], () if as_text else family.markers)
        self.new_parser = parser_for(
            template, tools=True, schemas=SCHEMAS, inside=family.starts_inside(opening)
        )

    def read(self, text: str) -> WholeAnswer:
        return whole_answer([text], FinishReason.STOP, self.new_parser)


def check(answer: WholeAnswer, text: str) -> None:
    for call in answer.calls:
        errors = Draft202012Validator(SCHEMAS[call.name]).iter_errors(json.loads(call.arguments))
        assert not list(errors), (text, call)


def test_every_family_is_tried() -> None:
    assert set(TEMPLATES) == {family.name for family in FAMILIES}
    for name, template in CASES:
        family = family_for(template)
        assert family is not None
        assert family.name == name, template


@pytest.mark.parametrize("as_text", [False, True], ids=["control", "text"])
@pytest.mark.parametrize(("name", "template"), CASES)
def test_a_forced_answer_is_calls_alone(name: str, template: str, as_text: bool) -> None:
    guided = Guided(template, Wish(FUNCTIONS, must_call=True, most=3), as_text=as_text)
    for text in guided.walker.texts(N_WALKS):
        answer = guided.read(text)
        assert 1 <= len(answer.calls) <= 3, text
        assert answer.text == "", text
        check(answer, text)


@pytest.mark.parametrize(("name", "template"), CASES)
def test_a_watch_ends_an_answer_behind_its_first_call(name: str, template: str) -> None:
    guided = Guided(template, Wish(FUNCTIONS, must_call=True, most=3))
    for text in guided.walker.texts(N_WALKS):
        is_whole = first_call_watch(guided.new_parser)
        n_read = next((at for at, letter in enumerate(text, 1) if is_whole(letter)), len(text))
        only = partial(Selected, guided.new_parser, one_call=True, no_text=False)
        ended, whole = (
            whole_answer([one], FinishReason.STOP, only) for one in (text[:n_read], text)
        )
        calls = guided.read(text).calls
        assert ended == whole, text
        assert (ended.text, ended.calls) == ("", calls[:1]), text
        assert n_read < len(text) or len(calls) == 1, text


@pytest.mark.parametrize(("name", "template"), CASES)
def test_a_named_function_is_called_once(name: str, template: str) -> None:
    guided = Guided(template, Wish(FUNCTIONS[:1], must_call=True, most=1))
    for text in guided.walker.texts(N_WALKS):
        [call] = guided.read(text).calls
        assert call.name == "search", text
        check(guided.read(text), text)


GUIDED_AUTO = [(name, template) for name, template in CASES if name != "kimi-k3"]
"""A call of Kimi K3 has no beginning of its own: `<|open|>` begins every element."""


@pytest.mark.parametrize("as_text", [False, True], ids=["control", "text"])
@pytest.mark.parametrize(("name", "template"), GUIDED_AUTO)
def test_a_call_in_a_free_answer_is_bound_from_its_first_marker(
    name: str, template: str, as_text: bool
) -> None:
    guided = Guided(template, Wish(FUNCTIONS), as_text=as_text)
    for text in guided.walker.texts(N_WALKS):
        check(guided.read(text), text)
    for text in guided.walker.texts(3 * N_WALKS, guided.first):
        answer = guided.read(text)
        assert answer.calls, text
        check(answer, text)


OPENINGS = {
    "kimi-k3": "<|open|>think<|sep|>",
    "kimi": "<think>",
    "deepseek": "<think>\n",
    "glm": "<think>",
    "mistral": "[THINK]",
    "gemma": "<|channel>thought\n",
    "hermes": "<|im_start|>assistant\n<think>\n",
    "json": "<think>\n",
}


@pytest.mark.parametrize("name", OPENINGS)
def test_reasoning_that_the_prompt_has_opened_ends_before_the_call(name: str) -> None:
    template = TEMPLATES[name][-1] if name != "deepseek" else TEMPLATES[name][0]
    guided = Guided(template, Wish(FUNCTIONS, must_call=True, most=1), opening=OPENINGS[name])
    reasoned = 0
    for text in guided.walker.texts(2 * N_WALKS):
        answer = guided.read(text)
        assert (len(answer.calls), answer.text) == (1, ""), text
        check(answer, text)
        reasoned += bool(answer.reasoning)
    assert reasoned


SCHEMA: dict[str, Any] = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 9}}}
SCHEMA |= {"required": ["n"], "additionalProperties": False}
WITH_JSON = [(name, template) for name, template in GUIDED_AUTO if name != "llama"]
"""A call of Llama begins like JSON."""


@pytest.mark.parametrize(("name", "template"), WITH_JSON)
def test_an_answer_with_a_schema_is_json_or_calls(name: str, template: str) -> None:
    guided = Guided(template, Wish(FUNCTIONS, schema=SCHEMA))
    n_texts = 0
    for text in guided.walker.texts(4 * N_WALKS):
        answer = guided.read(text)
        check(answer, text)
        if not answer.calls:
            n_texts += 1
            assert Draft202012Validator(SCHEMA).is_valid(json.loads(answer.text)), text
    assert n_texts
    [first, *_] = guided.walker.texts(N_WALKS, guided.first)
    assert guided.read(first).calls
