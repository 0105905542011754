"""Cases of instructor over openai's client, as its documentation shows them."""

from collections.abc import Iterable
from typing import Any, Literal

import instructor
from cases import case, run, url
from instructor import Mode
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel, Field

Short = Field(max_length=16)


class User(BaseModel):
    name: str = Short
    age: int = Field(ge=0, le=120)


class Party(BaseModel):
    host: User
    guests: list[User] = Field(max_length=2)
    mood: Literal["good", "bad"]
    place: str | None = Field(default=None, max_length=16)


class Weather(BaseModel):
    city: str = Short
    units: Literal["imperial", "metric"]


class Search(BaseModel):
    query: str = Short


BOUND = [Mode.TOOLS, Mode.TOOLS_STRICT, Mode.JSON_SCHEMA]
TOLD = [Mode.JSON, Mode.MD_JSON]
"""Modes that tell the model of the schema in words only."""
TEXT = "Ann is 31 years old. Bob is 40. They had a good evening in Lima."


def made(mode: Mode) -> Any:
    return instructor.from_openai(OpenAI(base_url=url(), api_key="none", max_retries=0), mode=mode)


def asked(text: str = TEXT, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"Extract: {text}"}]
    fields: dict[str, Any] = {"model": "default", "messages": messages, "max_retries": 0}
    return fields | {"seed": 3, "max_tokens": 400} | more


def add_whole(mode: Mode) -> None:
    name = mode.value

    @case(f"{name}, whole")
    def whole() -> None:
        found = made(mode).chat.completions.create(response_model=User, **asked())
        assert isinstance(found, User)


def add_others(mode: Mode) -> None:
    name = mode.value

    @case(f"{name}, nested")
    def nested() -> None:
        found = made(mode).chat.completions.create(response_model=Party, **asked())
        assert isinstance(found, Party)

    @case(f"{name}, partial")
    def partial() -> None:
        *some, last = made(mode).chat.completions.create_partial(response_model=User, **asked())
        assert some
        assert User.model_validate(last.model_dump())

    @case(f"{name}, iterable")
    def iterable() -> None:
        found = list(made(mode).chat.completions.create_iterable(response_model=User, **asked()))
        assert found
        assert all(isinstance(one, User) for one in found)

    @case(f"{name}, list")
    def many() -> None:
        found = made(mode).chat.completions.create(response_model=Iterable[User], **asked())
        assert all(isinstance(one, User) for one in found)

    @case(f"{name}, with the completion")
    def completion() -> None:
        found, raw = made(mode).chat.completions.create_with_completion(
            response_model=User, **asked()
        )
        assert isinstance(found, User)
        assert raw.usage.total_tokens > 0


for one in BOUND:
    add_whole(one)
    add_others(one)
for one in TOLD:
    add_whole(one)


@case("parallel calls")
def parallel() -> None:
    found = made(Mode.PARALLEL_TOOLS).chat.completions.create(
        response_model=Iterable[Weather | Search],
        **asked("the weather in Lima and in Oslo", tool_choice="required"),
    )
    assert all(isinstance(one, Weather | Search) for one in found)


@case("asynchronous")
async def later() -> None:
    client = instructor.from_openai(AsyncOpenAI(base_url=url(), api_key="none", max_retries=0))
    assert isinstance(await client.chat.completions.create(response_model=User, **asked()), User)


@case("asynchronous, partial")
async def later_partial() -> None:
    client = instructor.from_openai(AsyncOpenAI(base_url=url(), api_key="none", max_retries=0))
    stream = client.chat.completions.create_partial(response_model=User, **asked())
    found = [one async for one in stream]
    assert found[-1].age is not None


@case("asked again after a failed validation")
def again() -> None:
    class Odd(BaseModel):
        name: str = Short
        age: int = Field(ge=0, le=120)

        def model_post_init(self, _context: Any) -> None:
            tries.append(self)
            if len(tries) < 2:
                raise ValueError("try again")

    tries: list[Any] = []
    try:
        made(Mode.TOOLS).chat.completions.create(response_model=Odd, **asked() | {"max_retries": 2})
    except ValueError:
        raise AssertionError("no second try") from None
    assert len(tries) == 2


@case("a type that is no model")
def simple() -> None:
    found = made(Mode.TOOLS).chat.completions.create(response_model=int, **asked("31"))
    assert isinstance(found, int)


run("instructor", "openai")
