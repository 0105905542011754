"""A chat's answer is read with the parser of the model's family."""

from typing import Any

import msgspec
import pytest

from gpufc.protocol import FinishReason
from supervisor.answers.whole import WholeAnswer, whole_answer
from supervisor.dispatch.request import PLAIN
from supervisor.http.generation.reading import reading_of
from supervisor.http.generation.tools import OfferedTools, ToolFunction
from tests.fakes.facts import model_facts

HERMES = "{% for tool in tools %}<tools></tools>{% endfor %}<tool_call></tool_call>"
PLAIN_TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"
CALL = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
TOOLS = OfferedTools((ToolFunction("f"),))


def read(
    text: str,
    template: str | None = HERMES,
    tools: OfferedTools = TOOLS,
    *,
    opening: str = "",
    parallel: bool = True,
) -> WholeAnswer:
    facts = model_facts(chat_template=template)
    reading = reading_of(lambda: facts, tools, parallel=parallel)(opening)
    return whole_answer([text], FinishReason.STOP, reading.new_parser)


@pytest.mark.parametrize("template", [HERMES, PLAIN_TEMPLATE, None])
def test_a_call_of_an_offered_tool_is_read(template: str | None) -> None:
    (call,) = read(CALL, template).calls
    assert (call.name, msgspec.json.decode(call.arguments)) == ("f", {"a": 1})


def test_without_tools_a_call_is_text() -> None:
    assert read(CALL, tools=OfferedTools()).calls == ()
    assert read(CALL, tools=OfferedTools()).text == CALL


def test_without_parallel_calls_the_first_one_counts() -> None:
    text = CALL + "\n" + CALL.replace('"f"', '"g"')
    assert [call.name for call in read(text).calls] == ["f", "g"]
    only = read(text, parallel=False)
    assert [call.name for call in only.calls] == ["f"]
    assert only.ended.n_calls == 1


@pytest.mark.parametrize(
    ("text", "opening", "expected"),
    [
        ("<think>Hm.</think>Yes", "<|im_start|>assistant\n", ("Hm.", "Yes")),
        ("Hm.</think>Yes", "<|im_start|>assistant\n<think>\n", ("Hm.", "Yes")),
    ],
)
def test_reasoning_is_apart_also_where_the_prompt_opens_it(
    text: str, opening: str, expected: Any
) -> None:
    answer = read(text, opening=opening)
    assert (answer.reasoning, answer.text) == expected


@pytest.mark.parametrize("template", [PLAIN_TEMPLATE, None])
def test_a_model_without_reasoning_and_tools_writes_text(template: str | None) -> None:
    facts = model_facts(chat_template=template)
    reading = reading_of(lambda: facts, OfferedTools(), parallel=True)("")
    assert reading is PLAIN
