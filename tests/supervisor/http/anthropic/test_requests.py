"""A Messages request and the request that reaches the worker."""

from typing import Any

import msgspec
import pytest
from anthropic import NotFoundError
from anthropic.types import message_count_tokens_params, message_create_params

from gpufc.chat import ChatPrompt
from gpufc.constraint import ConstraintKind
from gpufc.errors import InvalidRequest
from gpufc.protocol import Prepare
from supervisor.fleet.names import ServedNames
from supervisor.http.anthropic.fields import MessagesBody, chat_fields
from supervisor.http.generation.chat import ChatFields
from supervisor.http.generation.constraints import constraint_of
from supervisor.http.generation.tools import ChosenFunction, ToolChoiceObject
from tests.supervisor.dispatch.fakes import MODEL, FakeWorker, generates
from tests.supervisor.http.anthropic.conftest import HELLO, TOOLS, ask, client_of
from tests.supervisor.http.conftest import Service, running

SCHEMA = {"type": "object", "required": ["a"]}
FORMAT = {"type": "json_schema", "schema": SCHEMA}


def read(**fields: Any) -> ChatFields:
    body = msgspec.json.encode({"messages": HELLO, **fields})
    return chat_fields(msgspec.json.decode(body, type=MessagesBody))


def prompts(worker: FakeWorker) -> list[ChatPrompt]:
    asked = [message.prompt for message in worker.sent if isinstance(message, Prepare)]
    return [prompt for prompt in asked if isinstance(prompt, ChatPrompt)]


async def test_sampling_and_limits_reach_the_worker() -> None:
    async with running() as service:
        worker = service.fleet.start_worker()
        fields = {"temperature": 0.2, "top_p": 0.5, "top_k": 7, "min_p": 0.1, "repeat_penalty": 1.1}
        await ask(
            service, **fields, ignore_eos=True, seed=5, stop_sequences=["a", ""], max_tokens=9
        )
        (sent,) = generates(worker.sent)
        assert {name: getattr(sent.sampling, name) for name in fields} == fields
        assert (sent.sampling.seed, sent.sampling.ignore_eos) == (5, True)
        assert (sent.stop, sent.max_tokens, sent.cache_prompt) == (("a",), 9, True)


async def test_nulls_are_the_defaults(service: Service) -> None:
    names = [field.name for field in msgspec.structs.fields(MessagesBody)]
    nulls = {name: None for name in names if name != "messages"}
    assert (await ask(service, **nulls)).status == 200


async def test_whole_numbers_may_be_written_as_floats(service: Service) -> None:
    assert (await ask(service, max_tokens=4.0, top_k=5.0)).status == 200


async def test_an_answer_that_is_begun_is_continued() -> None:
    async with running() as service:
        worker = service.fleet.start_worker()
        await ask(service, messages=[*HELLO, {"role": "assistant", "content": "The answer is ("}])
        (prompt,) = prompts(worker)
        assert (prompt.continues, prompt.add_generation_prompt) == (True, False)


@pytest.mark.parametrize(
    ("choice", "expected", "parallel"),
    [
        (None, None, None),
        ({"type": "auto"}, "auto", None),
        ({"type": "auto", "disable_parallel_tool_use": True}, "auto", False),
        ({"type": "any"}, "required", None),
        ({"type": "any", "disable_parallel_tool_use": False}, "required", True),
        ({"type": "none"}, "none", None),
        (
            {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
            ToolChoiceObject("function", ChosenFunction("f")),
            False,
        ),
    ],
)
def test_the_choice_of_tools_is_openai_s(choice: Any, expected: Any, parallel: bool | None) -> None:
    found = read(tools=TOOLS, tool_choice=choice)
    assert found.tool_choice == expected
    assert found.parallel_tool_calls is parallel


async def test_tools_reach_the_worker_and_others_are_named_in_a_header() -> None:
    tools = [
        {"name": "f", "description": "F", "input_schema": SCHEMA, "cache_control": None},
        {"type": "custom", "name": "g", "defer_loading": True, "strict": True},
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 8},
        {"type": "mcp_toolset", "mcp_server_name": "x"},
    ]
    async with running() as service:
        worker = service.fleet.start_worker()
        answer = await ask(service, tools=tools)
        assert answer.headers["x-gpufc-skipped-tools"] == "web_search_20250305, mcp_toolset"
        await ask(service, tools=tools, tool_choice={"type": "none"})
        with_tools, without = prompts(worker)
        functions = [tool["function"] for tool in msgspec.json.decode(with_tools.tools)]
        assert [(one["name"], one.get("description")) for one in functions] == [
            ("f", "F"),
            ("g", None),
        ]
        assert functions[0]["parameters"] == SCHEMA
        assert without.tools == ""


def thinks(wanted: bool) -> dict[str, bool]:
    return {"enable_thinking": wanted, "thinking": wanted}


@pytest.mark.parametrize(
    ("fields", "variables"),
    [
        ({}, {}),
        ({"thinking": {"type": "disabled"}}, thinks(False)),
        ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, thinks(True)),
        ({"thinking": {"type": "adaptive", "block_binding": "none"}}, thinks(True)),
        ({"output_config": {"effort": "low"}}, {"reasoning_effort": "low"}),
        ({"output_config": {"effort": "max", "format": None}}, {"reasoning_effort": "high"}),
    ],
)
async def test_thinking_and_effort_are_the_template_s_variables(
    fields: dict[str, Any], variables: dict[str, Any]
) -> None:
    async with running() as service:
        worker = service.fleet.start_worker()
        await ask(service, **fields)
        (prompt,) = prompts(worker)
        assert msgspec.json.decode(prompt.variables or "{}") == variables


@pytest.mark.parametrize(
    "fields",
    [
        {"output_config": {"format": FORMAT}},
        {"output_format": FORMAT},
        {"output_config": {"format": FORMAT}, "output_format": FORMAT},
    ],
)
def test_a_format_is_a_constraint(fields: dict[str, Any]) -> None:
    found = constraint_of(read(**fields))
    assert found is not None
    assert found.key == (ConstraintKind.JSON_SCHEMA, '{"type":"object","required":["a"]}')


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"mcp_servers": [{"type": "url", "url": "https://x"}]}, "mcp_servers"),
        ({"thinking": {"type": "deep"}}, "thinking.type"),
        ({"output_format": {"type": "regex"}}, "output_format.type"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
        ({"tools": TOOLS, "tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"tools": TOOLS, "tool_choice": {"type": "some"}}, "tool_choice.type"),
        (
            {
                "tools": [{"type": "web_search_20250305", "name": "web_search"}],
                "tool_choice": {"type": "tool", "name": "web_search"},
            },
            "tool_choice.name",
        ),
        ({"tools": [{"input_schema": {}}]}, "tools[0].name"),
    ],
)
def test_what_cannot_be_served_is_refused_with_its_place(
    fields: dict[str, Any], place: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(**fields)
    assert caught.value.param == place
    assert caught.value.message.startswith(f"{place}: ")


@pytest.mark.parametrize("kind", ["web_search_20250305", "bash_20250124"])
def test_a_chosen_tool_of_a_type_that_is_not_served_is_called_so(kind: str) -> None:
    tools = [{"type": kind, "name": "own"}]
    with pytest.raises(InvalidRequest, match="'own' is a tool of a type that is not served"):
        read(tools=tools, tool_choice={"type": "tool", "name": "own"})


IGNORED = {
    "cache_control",
    "container",
    "diagnostics",
    "inference_geo",
    "metadata",
    "service_tier",
    "speed",
    "user_profile_id",
    "workspace_id",
}


@pytest.mark.parametrize(
    "parameters",
    [
        message_create_params.MessageCreateParamsBase,
        message_create_params.MessageCreateParamsStreaming,
        message_count_tokens_params.MessageCountTokensParams,
    ],
)
def test_every_parameter_of_the_sdk_is_understood_or_ignored_on_purpose(parameters: Any) -> None:
    fields = {field.name for field in msgspec.structs.fields(MessagesBody)}
    assert set(parameters.__annotations__) - fields - IGNORED == set()
    assert not fields & IGNORED


async def test_unknown_fields_are_ignored_on_every_level(service: Service) -> None:
    more = {"unknown": {"a": [1]}}
    answer = await ask(
        service,
        **more,
        context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        container=None,
        mcp_servers=[],
        system=[{"type": "text", "text": "s", "citations": [], **more}],
        messages=[{"role": "user", "content": [{"type": "text", "text": "a", **more}], **more}],
        tools=[{**TOOLS[0], **more}],
        tool_choice={"type": "auto", **more},
        thinking={"type": "adaptive", **more},
        output_config={"effort": "low", "task_budget": {"total": 1}, **more},
    )
    assert answer.status == 200


async def test_counted_tokens_are_those_of_the_answer_s_prompt(service: Service) -> None:
    async with client_of(service) as client:
        asked: Any = {"model": MODEL, "messages": HELLO, "system": "Be kind.", "tools": TOOLS}
        counted = await client.messages.count_tokens(**asked)
        answer = await client.messages.create(**asked, max_tokens=2)
        assert counted.input_tokens == answer.usage.input_tokens
        billed = [
            {"type": "text", "text": "x-anthropic-billing-header: cch=1;"},
            {"type": "text", "text": "Be kind."},
        ]
        assert await client.messages.count_tokens(**asked | {"system": billed}) == counted


async def test_a_prompt_of_any_length_can_be_counted(service: Service) -> None:
    long = [{"role": "user", "content": "x" * 10_000}]
    answer = await ask(service, "/v1/messages/count_tokens", messages=long)
    assert answer.json == {"input_tokens": 10_006}
    refused = await ask(service, messages=long)
    assert refused.status == 400
    assert refused.json["error"]["message"].startswith("prompt is too long: ")


async def test_a_name_of_claude_is_answered_with_it(service: Service) -> None:
    async with client_of(service) as client:
        asked: Any = {"model": "claude-x", "max_tokens": 8, "messages": HELLO}
        with pytest.raises(NotFoundError, match="aliases"):
            await client.messages.create(**asked)
        service.fleet.names = ServedNames({MODEL: ()}, {MODEL: ("claude-*",)})
        assert (await client.messages.create(**asked)).model == "claude-x"
        async with client.messages.stream(**asked) as stream:
            assert (await stream.get_final_message()).model == "claude-x"
