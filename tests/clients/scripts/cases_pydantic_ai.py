"""Cases of Pydantic AI's agents, as its documentation shows them."""

from dataclasses import replace
from typing import Any, Literal

from cases import case, run, url
from pydantic import BaseModel, Field
from pydantic_ai import (
    Agent,
    ModelRetry,
    NativeOutput,
    PromptedOutput,
    RunContext,
    ToolOutput,
)
from pydantic_ai.direct import model_request
from pydantic_ai.messages import ModelRequest, ToolReturnPart
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.tools import ToolDefinition

Short = Field(max_length=16)


class City(BaseModel):
    city: str = Short
    country: str = Short


class Fruit(BaseModel):
    name: str = Short
    colour: Literal["red", "green"]


class Host(BaseModel):
    """Without a length: a strict schema of this client tells the model of it in words only."""

    city: Literal["London", "Rio"]
    year: int


TEXT = "Where were the olympics held in 2012?"
SETTINGS: Any = {"max_tokens": 300, "seed": 3}
APIS = {"chat": OpenAIChatModel, "responses": OpenAIResponsesModel}


def model(api: str) -> Any:
    made: Any = APIS[api]
    return made("default", provider=OpenAIProvider(base_url=url(), api_key="none"))


def agent(kind: Any, api: str = "chat", **more: Any) -> Agent[Any, Any]:
    given: dict[str, Any] = {"model_settings": SETTINGS, "retries": 0}
    return Agent(model(api), output_type=kind, **given | more)


FORMS = {
    "tool output": ToolOutput(City),
    "native output": NativeOutput(City),
    "prompted output": PromptedOutput(City),
    "several tool outputs": [ToolOutput(City, name="city"), ToolOutput(Fruit, name="fruit")],
    "several native outputs": NativeOutput([City, Fruit], name="either"),
    "several prompted outputs": PromptedOutput([City, Fruit]),
    "strict tool output": ToolOutput(Host, strict=True),
    "strict native output": NativeOutput(Host, strict=True),
}


def add(name: str, form: Any, api: str) -> None:
    @case(f"{name}, {api}")
    async def whole() -> None:
        found = await agent(form, api).run(TEXT)
        assert isinstance(found.output, City | Fruit | Host)
        assert found.usage.output_tokens > 0

    @case(f"{name}, {api}, streamed")
    async def streamed() -> None:
        async with agent(form, api).run_stream(TEXT) as result:
            some = [one async for one in result.stream_output(debounce_by=None)]
            assert isinstance(await result.get_output(), City | Fruit | Host)
        assert some


for form_name, one in FORMS.items():
    for each in APIS:
        add(form_name, one, each)


@case("a function as output")
async def function() -> None:
    def placed(city: str, people: int) -> str:
        """Note a city and its people."""
        return f"{city} {people}"

    assert isinstance((await agent(placed).run(TEXT)).output, str)


@case("tools, round trip")
async def tools() -> None:
    schema = {"type": "object", "properties": {"city": {"enum": ["London", "Lima"]}}}
    population = ToolDefinition(name="population", parameters_json_schema=schema)
    offered = ModelRequestParameters(function_tools=[population], allow_text_output=False)
    asked: list[Any] = [ModelRequest.user_text_prompt(TEXT)]
    called = await model_request(model("chat"), asked, model_request_parameters=offered)
    [call] = called.tool_calls
    assert call.tool_name == "population"
    result = ToolReturnPart(call.tool_name, 7, tool_call_id=call.tool_call_id)
    final = await model_request(
        model("chat"),
        [*asked, called, ModelRequest([result])],
        model_settings={"max_tokens": 60, "tool_choice": "none"},
        model_request_parameters=replace(offered, allow_text_output=True),
    )
    assert final.text


@case("tools of an agent")
async def agent_tools() -> None:
    def population(city: Literal["London", "Lima"]) -> int:
        """The people of a city."""
        return len(city)

    assert isinstance((await agent(City, tools=[population]).run(TEXT)).output, City)


@case("asked again after a failed validation")
async def again() -> None:
    asking = agent(City, retries=2)
    tries = []

    @asking.output_validator
    def check(_context: RunContext[None], output: City) -> City:
        tries.append(output)
        if len(tries) < 2:
            raise ModelRetry("Another city.")
        return output

    found = await asking.run(TEXT)
    assert isinstance(found.output, City)
    assert len(tries) == 2


@case("a conversation that goes on")
async def conversation() -> None:
    first = await agent(City).run(TEXT)
    then = await agent(City).run("And in 2016?", message_history=first.all_messages())
    assert isinstance(then.output, City)


@case("text")
async def text() -> None:
    async with agent(str).run_stream("Hi", model_settings={"max_tokens": 8}) as result:
        assert "".join([one async for one in result.stream_text(delta=True)])


run("pydantic-ai-slim", "openai")
