"""OpenAI's older `functions`, and answers with at most one call."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from gpufc.errors import InvalidRequest
from gpufc.protocol import Generate
from supervisor.http.generation.tools import ToolChoiceObject
from supervisor.http.openai.functions import ChatCompletionBody, with_tools
from tests.fakes.facts import model_facts
from tests.supervisor.dispatch import fakes
from tests.supervisor.http.conftest import Service, running
from tests.supervisor.http.test_durable import frames

CALL = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
SAID = ["I look.", *CALL.partition(', "arg'), "\n", *CALL.partition('"'), "Done."]
FUNCTION = {"name": "f", "parameters": {"type": "object", "properties": {"a": {}}}}
HELLO = [{"role": "user", "content": "x"}]


def body(**fields: Any) -> ChatCompletionBody:
    return msgspec.convert({"messages": HELLO, **fields}, ChatCompletionBody)


@pytest.fixture
async def speaking(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    """A service with a model of Hermes' family that says `SAID`, with two calls in it."""

    def piece(_spec: Generate, position: int) -> str:
        return SAID[position]

    monkeypatch.setattr(fakes, "piece", piece)
    facts = model_facts(chat_template="<tools></tools><tool_call></tool_call>", n_ctx=4096)
    monkeypatch.setattr(fakes, "model_facts", lambda **_: facts)
    async with running() as service:
        service.fleet.start_worker().n_tokens = len(SAID)
        yield service


def test_functions_are_tools() -> None:
    found = with_tools(body(functions=[FUNCTION], function_call={"name": "f"}))
    assert [tool.function.name for tool in found.tools or () if tool.function] == ["f"]
    assert isinstance(found.tool_choice, ToolChoiceObject)
    assert found.parallel_tool_calls is False
    assert with_tools(body(functions=[], function_call="auto")).tools is None
    assert with_tools(body(functions=[FUNCTION], function_call="none")).tool_choice == "none"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"functions": [FUNCTION], "function_call": {"name": "g"}}, "function_call"),
        ({"functions": [FUNCTION], "function_call": "required"}, "function_call"),
        ({"function_call": {"name": "f"}}, "function_call"),
        ({"functions": [{"name": ""}]}, "functions[0].name"),
        ({"functions": [FUNCTION], "tools": [{"function": FUNCTION}]}, "functions"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_name(fields: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as err:
        with_tools(body(**fields))
    assert err.value.param == param


async def test_a_call_has_the_older_shape_streamed_and_whole(speaking: Service) -> None:
    answer = await speaking.chat(functions=[FUNCTION])
    (choice,) = ChatCompletion.model_validate(answer.json).choices
    assert choice.finish_reason == "function_call"
    assert choice.message.tool_calls is None
    assert choice.message.content == "I look."
    called = choice.message.function_call
    assert called is not None
    assert (called.name, called.arguments) == ("f", '{"a": 1}')
    streamed = await speaking.chat(functions=[FUNCTION], stream=True)
    data = [data for _, data in frames(streamed.body) if data != "[DONE]"]
    chunks = [ChatCompletionChunk.model_validate(msgspec.json.decode(item)) for item in data]
    deltas = [chunk.choices[0].delta for chunk in chunks]
    calls = [delta.function_call for delta in deltas if delta.function_call]
    assert [call.name for call in calls if call.name] == ["f"]
    assert "".join(call.arguments or "" for call in calls) == '{"a": 1}'
    assert chunks[-1].choices[0].finish_reason == "function_call"


@pytest.mark.parametrize("stream", [False, True])
async def test_with_one_call_wanted_the_engine_stops_behind_it(
    speaking: Service, *, stream: bool
) -> None:
    tools = [{"type": "function", "function": FUNCTION}]
    options = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    answer = await speaking.chat(tools=tools, parallel_tool_calls=False, **options)
    data = frames(answer.body)[-2][1] if stream else answer.body
    used = msgspec.json.decode(data)["usage"]["completion_tokens"]
    assert used == 1 + len(CALL.partition(', "arg'))
    assert await speaking.dispatcher.wait_idle(10.0)
    assert speaking.dispatcher.ledger.requests.succeeded == 1
    both = (await speaking.chat(tools=tools)).json["choices"][0]["message"]["tool_calls"]
    assert len(both) == 2
