"""Cases of openai's Python package, as its documentation shows them."""

import json
from functools import partial
from typing import Any, Literal

import openai
from cases import case, raised, run, url
from pydantic import BaseModel, Field

client = openai.OpenAI(base_url=url(), api_key="none", max_retries=0)
later = openai.AsyncOpenAI(base_url=url(), api_key="none", max_retries=0)

Short = Field(max_length=16)


class Step(BaseModel):
    explanation: str = Short
    output: str = Short


class Reasoning(BaseModel):
    steps: list[Step] = Field(max_length=2)
    final_answer: str = Short


class GetWeather(BaseModel):
    """The weather of a city."""

    city: str = Short
    unit: Literal["c", "f"] | None


class Sum(BaseModel):
    a: int
    b: int


TOOLS: Any = [openai.pydantic_function_tool(GetWeather), openai.pydantic_function_tool(Sum)]
NAMED: Any = {"type": "function", "function": {"name": "GetWeather"}}


def asked(text: str, **more: Any) -> Any:
    messages = [{"role": "user", "content": text}]
    return {"model": "default", "messages": messages, "seed": 3, "max_tokens": 300} | more


SOLVE = asked("Solve 8x + 7 = -23, step by step.", response_format=Reasoning)
WEATHER = asked("How is the weather in Lima?", tools=TOOLS, tool_choice=NAMED)


def round_trip(message: Any, **more: Any) -> Any:
    """The request behind a message with calls, with a result for each of them."""
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": '{"degrees": 19}'}
        for call in message.tool_calls
    ]
    body = asked("How is the weather in Lima?", tools=TOOLS, tool_choice="none", **more)
    return body | {"messages": [*body["messages"], message, *results]}


@case("tools, round trip")
def tools() -> None:
    [choice] = client.chat.completions.create(**WEATHER).choices
    assert choice.finish_reason == "tool_calls"
    [call] = choice.message.tool_calls
    GetWeather.model_validate_json(call.function.arguments)
    [final] = client.chat.completions.create(**round_trip(choice.message)).choices
    assert final.message.content
    assert final.finish_reason in ("stop", "length")


@case("tools, round trip, streamed")
def tools_streamed() -> None:
    with client.chat.completions.stream(**WEATHER) as stream:
        events = list(stream)
        message = stream.get_final_completion().choices[0].message
    [done] = [one for one in events if one.type == "tool_calls.function.arguments.done"]
    deltas = [one for one in events if one.type == "tool_calls.function.arguments.delta"]
    assert "".join(one.arguments_delta for one in deltas) == done.arguments
    assert isinstance(done.parsed_arguments, GetWeather)
    with client.chat.completions.stream(**round_trip(message)) as stream:
        events = list(stream)
    [done] = [one for one in events if one.type == "content.done"]
    assert "".join(one.delta for one in events if one.type == "content.delta") == done.content


@case("several calls, streamed")
def several() -> None:
    body = WEATHER | {"tool_choice": "required", "parallel_tool_calls": True}
    body["extra_body"] = {"min_tokens": 60}
    found: dict[int, str] = {}
    for chunk in client.chat.completions.create(**body, stream=True):
        for choice in chunk.choices:
            for call in choice.delta.tool_calls or ():
                if call.id:
                    assert call.index == len(found)
                    assert call.function.name in ("GetWeather", "Sum")
                found[call.index] = found.get(call.index, "") + (call.function.arguments or "")
    assert len(found) > 1
    assert all(isinstance(json.loads(one), dict) for one in found.values())


@case("parse")
def parse() -> None:
    message = client.chat.completions.parse(**SOLVE).choices[0].message
    assert isinstance(message.parsed, Reasoning)


@case("parse, asynchronous")
async def parse_later() -> None:
    found = await later.chat.completions.parse(**SOLVE)
    assert isinstance(found.choices[0].message.parsed, Reasoning)


@case("parse, streamed")
def parse_streamed() -> None:
    with client.chat.completions.stream(**SOLVE, logprobs=True, top_logprobs=2) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    [done] = [one for one in events if one.type == "content.done"]
    assert isinstance(done.parsed, Reasoning)
    assert final.choices[0].message.parsed == done.parsed
    [tokens] = [one for one in events if one.type == "logprobs.content.done"]
    assert b"".join(bytes(one.bytes) for one in tokens.content).decode() == done.content
    assert any(one.type == "content.delta" and one.parsed for one in events)


@case("parse, choices")
def parse_choices() -> None:
    found = client.chat.completions.parse(**SOLVE, n=2)
    assert [isinstance(one.message.parsed, Reasoning) for one in found.choices] == [True, True]


@case("parse of a call")
def parse_call() -> None:
    [call] = client.chat.completions.parse(**WEATHER).choices[0].message.tool_calls
    assert isinstance(call.function.parsed_arguments, GetWeather)


@case("parse of a cut answer")
def parse_cut() -> None:
    cut = SOLVE | {"max_tokens": 4}
    err = raised(openai.LengthFinishReasonError, lambda: client.chat.completions.parse(**cut))
    assert err.completion.usage.completion_tokens == 4


@case("JSON mode")
def json_mode() -> None:
    body = asked("A colour as JSON.", response_format={"type": "json_object"}, max_tokens=900)
    [choice] = client.chat.completions.create(**body).choices
    assert choice.finish_reason == "length" or isinstance(json.loads(choice.message.content), dict)


@case("log probabilities")
def logprobs() -> None:
    body = asked("Name a colour.", max_tokens=12, logprobs=True, top_logprobs=4)
    [choice] = client.chat.completions.create(**body).choices
    content = choice.logprobs.content
    assert b"".join(bytes(one.bytes) for one in content).decode() == choice.message.content
    assert {len(one.top_logprobs) for one in content} == {4}


@case("log probabilities of a completion")
def completion_logprobs() -> None:
    found = client.completions.create(
        model="default", prompt="One, two,", max_tokens=5, logprobs=3, echo=True, seed=1
    )
    logprobs = found.choices[0].logprobs
    assert "".join(logprobs.tokens) == found.choices[0].text
    assert logprobs.token_logprobs[0] is None
    assert logprobs.text_offset[0] == 0


@case("usage of a stream")
def usage() -> None:
    body = asked("Hi", max_tokens=5, stream=True, stream_options={"include_usage": True})
    *chunks, last = client.chat.completions.create(**body)
    assert {chunk.usage for chunk in chunks} == {None}
    assert last.choices == []
    assert last.usage.completion_tokens == 5
    assert last.usage.total_tokens == last.usage.prompt_tokens + 5


@case("raw response")
def raw() -> None:
    found = client.chat.completions.with_raw_response.create(**asked("Hi", max_tokens=3))
    assert found.headers["x-request-id"]
    assert found.parse()._request_id == found.headers["x-request-id"]


@case("responses, parse")
def responses_parse() -> None:
    found = client.responses.parse(
        model="default", input="Solve x + 1 = 2.", text_format=Reasoning, max_output_tokens=300
    )
    assert isinstance(found.output_parsed, Reasoning)


@case("responses, parse, streamed")
def responses_streamed() -> None:
    body: Any = {"model": "default", "input": "Solve x + 1 = 2.", "max_output_tokens": 300}
    with client.responses.stream(**body, text_format=Reasoning) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert events[0].type == "response.created"
    assert isinstance(final.output_parsed, Reasoning)


def refused(kind: type[openai.APIStatusError], code: str | None, **body: Any) -> None:
    """The request and its stream raise the same error."""
    for stream in (False, True):
        given = asked("Hi") | body | {"stream": stream}
        err = raised(kind, partial(client.chat.completions.create, **given))
        assert err.code == code, err
        assert err.request_id
        assert err.message


@case("typed refusals")
def refusals() -> None:
    bad = openai.BadRequestError
    refused(bad, "invalid_value", temperature=-1)
    refused(bad, "invalid_value", messages=[])
    refused(bad, "context_length_exceeded", messages=asked("many words " * 9000)["messages"])
    schema = {"name": "x", "schema": {"type": "array", "uniqueItems": True}}
    refused(bad, "invalid_grammar", response_format={"type": "json_schema", "json_schema": schema})
    refused(openai.NotFoundError, "model_not_found", model="none-such")


run("openai")
