"""Cases of langchain-openai, as its documentation shows them."""

import json
from typing import Any, Literal, TypedDict

from cases import case, run, url
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import BaseModel, Field

METHODS: tuple[Literal["function_calling", "json_mode", "json_schema"], ...] = (
    "function_calling",
    "json_mode",
    "json_schema",
)

Short = Field(max_length=16)


class Joke(BaseModel):
    """A joke to tell."""

    setup: str = Short
    punchline: str = Short
    rating: int | None = Field(default=None, ge=0, le=9)


class Person(TypedDict):
    """A person."""

    name: str
    age: int


@tool
def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


TEXT = "Tell a joke about cats as JSON with the keys setup, punchline and rating."


def model(**more: Any) -> ChatOpenAI:
    given: dict[str, Any] = {"model": "default", "base_url": url(), "api_key": "none"}
    return ChatOpenAI(**given | {"max_retries": 0, "max_tokens": 300} | more)


def typed(method: Any, **more: Any) -> Any:
    return model().with_structured_output(Joke, method=method, **more)


def add_methods(method: Any) -> None:
    @case(f"{method}")
    def whole() -> None:
        assert isinstance(typed(method).invoke(TEXT), Joke)

    @case(f"{method}, streamed")
    def streamed() -> None:
        *_, last = typed(method).stream(TEXT)
        assert isinstance(last, Joke)

    @case(f"{method}, asynchronous")
    async def later() -> None:
        assert isinstance(await typed(method).ainvoke(TEXT), Joke)

    @case(f"{method}, with the message")
    def with_message() -> None:
        found = typed(method, include_raw=True).invoke(TEXT)
        assert found["parsing_error"] is None, found["parsing_error"]
        assert isinstance(found["parsed"], Joke)
        assert found["raw"].usage_metadata["total_tokens"] > 0


for one in METHODS:
    add_methods(one)


@case("function_calling, strict")
def strict() -> None:
    assert isinstance(typed("function_calling", strict=True).invoke(TEXT), Joke)


@case("a TypedDict")
def typed_dict() -> None:
    for method in ("function_calling", "json_schema"):
        found: Any = model().with_structured_output(Person, method=method).invoke("Ann is 31.")
        assert set(found) == {"name", "age"}


@case("a JSON schema")
def json_schema() -> None:
    schema = Joke.model_json_schema()
    found: Any = model().with_structured_output(schema).invoke(TEXT)
    Joke.model_validate(found)


@case("bound tools, round trip")
def tools() -> None:
    question = HumanMessage("What is 3 * 12?")
    asked = model().bind_tools([multiply, add], tool_choice="any").invoke([question])
    assert asked.tool_calls
    assert not asked.invalid_tool_calls
    results = [
        ToolMessage(str({"add": add, "multiply": multiply}[call["name"]].invoke(call["args"])),
                    tool_call_id=call["id"])
        for call in asked.tool_calls
    ]  # fmt: skip
    bound = model(max_tokens=40).bind_tools([multiply, add], tool_choice="none")
    assert bound.invoke([question, asked, *results]).text


@case("bound tools, streamed")
def tools_streamed() -> None:
    bound = model().bind_tools([multiply, add], tool_choice="multiply")
    whole: Any = None
    for chunk in bound.stream("What is 3 * 12?"):
        whole = chunk if whole is None else whole + chunk
    [call] = whole.tool_calls
    assert call["name"] == "multiply"
    assert set(call["args"]) == {"a", "b"}


@case("bound tools, strict and one call")
def tools_strict() -> None:
    bound = model().bind_tools(
        [multiply, add], tool_choice="required", strict=True, parallel_tool_calls=False
    )
    assert len(bound.invoke("What is 3 * 12?").tool_calls) == 1


@case("astream_events")
async def events() -> None:
    bound = model().bind_tools([multiply], tool_choice="multiply")
    kinds = [event["event"] async for event in bound.astream_events("3 * 12?", version="v2")]
    assert (kinds[0], kinds[-1]) == ("on_chat_model_start", "on_chat_model_end")
    assert kinds.count("on_chat_model_stream") > 1


@case("astream_events of a typed answer")
async def typed_events() -> None:
    found = [event async for event in typed("json_schema").astream_events(TEXT, version="v2")]
    assert isinstance(found[-1]["data"]["output"], Joke)


@case("usage of a stream")
def usage() -> None:
    whole: Any = None
    for chunk in model(max_tokens=6, stream_usage=True).stream("Hi"):
        whole = chunk if whole is None else whole + chunk
    counted = whole.usage_metadata
    assert counted["output_tokens"] == 6
    assert counted["total_tokens"] == counted["input_tokens"] + 6
    assert whole.response_metadata["finish_reason"] == "length"


@case("log probabilities")
def logprobs() -> None:
    found = model(max_tokens=6, logprobs=True, top_logprobs=2).invoke("Hi")
    assert len(found.response_metadata["logprobs"]["content"]) == 6


@case("Responses API")
def responses() -> None:
    api = model(use_responses_api=True)
    assert isinstance(api.with_structured_output(Joke).invoke(TEXT), Joke)
    [call] = api.bind_tools([multiply], tool_choice="multiply").invoke("3 * 12?").tool_calls
    assert call["name"] == "multiply"


@case("batches")
def batches() -> None:
    found = model(max_tokens=6).batch(["One", "Two", "Three"])
    assert all(one.response_metadata["finish_reason"] for one in found)


@case("JSON mode without a schema")
def json_mode() -> None:
    found = model(max_tokens=900).bind(response_format={"type": "json_object"}).invoke(TEXT)
    is_cut = found.response_metadata["finish_reason"] == "length"
    assert is_cut or isinstance(json.loads(found.text), dict)


@case("completions")
def completions() -> None:
    given: Any = {"model": "default", "base_url": url(), "api_key": "none", "max_tokens": 6}
    assert "".join(OpenAI(**given, seed=1, temperature=0).stream("One, two,"))


run("langchain-openai", "langchain-core", "openai")
