"""Requests of `/v1/responses`: those of real clients, and those that are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from openai.types.responses import InputTokenCountResponse

from gpufc.constraint import ConstraintKind
from supervisor.http.responses.translation import name_here
from tests.supervisor.http.conftest import Answer, Service
from tests.supervisor.http.responses.conftest import Speaker, parsed, respond, whole

BODIES = Path(__file__).parent / "bodies"
SKIPPED = "x-gpufc-skipped-tools"
FUNCTION = {"type": "function", "name": "f"}


def body_of(client: str) -> dict[str, Any]:
    """A request in the form that the client sends."""
    found: dict[str, Any] = json.loads((BODIES / f"{client}.json").read_text())
    # the fake fleet serves its own name only
    return found | {"model": "fake-model"}


async def ask(service: Service, body: dict[str, Any]) -> Answer:
    return await service.post("/v1/responses", body)


def offered(speaking: Speaker) -> list[str]:
    return [tool["function"]["name"] for tool in json.loads(speaking.prompt.tools)]


async def test_codex_gets_its_tools_and_whole_items(speaking: Speaker) -> None:
    service = speaking("<call shell>", '{"command":', '["ls"]}', "</call>")
    answer = await ask(service, body_of("codex"))
    events = parsed(answer.body)
    assert answer.headers[SKIPPED] == "web_search, image_generation, tool_search"
    assert offered(speaking) == ["shell", "apply_patch", "notes__add"]
    roles = [(message.role, message.content) for message in speaking.prompt.messages]
    assert roles == [
        ("system", "You are a coding agent."),
        ("system", "Sandbox: read only."),
        ("user", "Environment: linux"),
        ("user", "List the files."),
    ]
    assert speaking.generation.max_tokens is None
    (done,) = (event.item for event in events if event.type == "response.output_item.done")
    assert (done.name, done.arguments) == ("shell", '{"command":["ls"]}')
    completed = events[-1].response
    assert completed.id.startswith("resp_")
    assert completed.usage.total_tokens == completed.usage.input_tokens + 4


async def test_codex_gets_a_patch_as_free_text(speaking: Speaker) -> None:
    service = speaking("<call apply_patch>", '{"input": "*** Begin\\n*** End"}', "</call>")
    events = parsed((await ask(service, body_of("codex"))).body)
    (done,) = (event.item for event in events if event.type == "response.output_item.done")
    assert (done.type, done.name) == ("custom_tool_call", "apply_patch")
    assert done.input == "*** Begin\n*** End"
    assert done.call_id


async def test_home_assistant_s_schema_and_results_are_taken(speaking: Speaker) -> None:
    answer = await ask(speaking('{"on": true, "rooms": []}'), body_of("home_assistant"))
    assert parsed(answer.body)[-1].type == "response.completed"
    assert answer.headers[SKIPPED] == "web_search_preview"
    constraint = speaking.generation.constraint
    assert constraint is not None
    assert constraint.kind is ConstraintKind.JSON_SCHEMA
    assert json.loads(constraint.text) == body_of("home_assistant")["text"]["format"]["schema"]
    *_, call, result = speaking.prompt.messages
    assert [(one.id, one.name) for one in call.tool_calls] == [("call_5", "get_state")]
    assert (result.role, result.tool_call_id) == ("tool", "call_5")
    assert speaking.generation.max_tokens == 3000


async def test_copilot_sends_all_again_once_its_response_is_unknown(speaking: Speaker) -> None:
    service, body = speaking("done"), body_of("copilot")
    refused = await ask(service, body)
    assert (refused.status, refused.error["code"]) == (400, "previous_response_not_found")
    del body["previous_response_id"]
    completed = parsed((await ask(service, body)).body)[-1].response
    assert completed.usage.input_tokens_details.cached_tokens == 0
    assert completed.usage.output_tokens_details.reasoning_tokens == 0
    again = await ask(service, body_of("copilot") | {"previous_response_id": completed.id})
    assert parsed(again.body)[-1].type == "response.completed"


async def test_the_sdk_s_helper_gets_its_schema(speaking: Speaker) -> None:
    answer = await ask(speaking('{"name": "Tom"}'), body_of("openai_python"))
    assert parsed(answer.body)[-1].response.output[0].content[0].text == '{"name": "Tom"}'
    constraint = speaking.generation.constraint
    assert constraint is not None
    assert constraint.kind is ConstraintKind.JSON_SCHEMA


async def test_a_load_request_of_lm_studio_s_clients_is_answered(speaking: Speaker) -> None:
    assert (await whole(speaking("x"), "", max_output_tokens=1)).status == "incomplete"


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": None, "top_p": None, "reasoning": {"effort": "medium"}},
        {"text": {}, "top_logprobs": 0, "metadata": {"a": "b"}, "include": None},
        {"stream_options": {"include_obfuscation": False}},
        {"include": ["reasoning.encrypted_content"], "context_management": [{"type": "x"}]},
        {"tool_choice": {"type": "web_search_preview"}, "tools": [{"type": "web_search_preview"}]},
        {"client_metadata": {}, "tools": [], "tool_choice": "auto", "background": False},
        {"unknown": 1, "conversation": None, "prompt": None, "service_tier": "auto"},
        {"n": 1, "seed": 5, "top_k": 3, "stop": ["x"], "max_tool_calls": 3},
    ],
)
async def test_what_clients_send_besides_is_accepted(
    speaking: Speaker, fields: dict[str, Any]
) -> None:
    await whole(speaking("x"), **fields)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"enable_thinking": "no"}, "enable_thinking"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"n": 2}, "n"),
        ({"truncation": "middle"}, "truncation"),
        ({"top_logprobs": 30}, "top_logprobs"),
        ({"n_probs": 1}, "n_probs"),
        ({"logprobs": True}, "logprobs"),
        ({"input": []}, "input"),
        ({"input": None}, "input"),
        ({"input": [{"type": "nothing_of_ours"}]}, "input"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "input[0].content[0]",
        ),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.name"),
        ({"text": {"format": {"type": "xml"}}}, "text.format"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format"),
        ({"max_output_tokens": "many"}, "max_output_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"reasoning": {"max_tokens": 100}}, "reasoning.max_tokens"),
        ({"reasoning": {"exclude": True}}, "reasoning.exclude"),
    ],
)
async def test_what_cannot_be_served_is_refused_by_name(
    service: Service, fields: dict[str, Any], param: str
) -> None:
    answer = await respond(service, **{"given": "hi", **_renamed(fields)})
    assert answer.status == 400
    assert answer.error["param"] == param
    assert answer.headers["x-should-retry"] == "false"


async def test_counted_tokens_are_those_of_the_answer_s_prompt(speaking: Speaker) -> None:
    service = speaking("ok")
    asked = {"input": "hi", "instructions": "Be kind.", "tools": [FUNCTION, {"type": "web_search"}]}
    first = await whole(service, "before")
    for more in ({}, {"previous_response_id": first.id}):
        counted = await service.post("/v1/responses/input_tokens", asked | more)
        assert counted.headers[SKIPPED] == "web_search"
        found = InputTokenCountResponse.model_validate(counted.json, strict=True)
        answer = await whole(service, **_renamed(asked | more))
        assert answer.usage is not None
        assert found.input_tokens == answer.usage.input_tokens


async def test_what_cannot_be_counted_is_refused_by_name(service: Service) -> None:
    answer = await service.post("/v1/responses/input_tokens", {"background": True, "input": "hi"})
    assert (answer.status, answer.error["param"]) == (400, "background")
    answer = await service.post("/v1/responses/input_tokens", {})
    assert (answer.status, answer.error["param"]) == (400, "input")


async def test_no_conversation_is_compacted(service: Service) -> None:
    answer = await service.post("/v1/responses/compact", {"input": "hi"})
    assert (answer.status, answer.error["code"]) == (404, "not_found")
    assert answer.headers["x-should-retry"] == "false"


def _renamed(fields: dict[str, Any]) -> dict[str, Any]:
    return {"given" if name == "input" else name: value for name, value in fields.items()}


@pytest.mark.parametrize(
    ("chat", "here"),
    [
        (None, None),
        ("messages[3].content", "input"),
        ("prompt", "input"),
        ("response_format", "text.format"),
        ("response_format.json_schema.schema", "text.format.schema"),
        ("max_completion_tokens", "max_output_tokens"),
        ("temperature", "temperature"),
        ("tools[0].function", "tools[0].function"),
    ],
)
def test_errors_name_the_fields_of_this_api(chat: str | None, here: str | None) -> None:
    assert name_here(chat) == here


async def test_one_tool_may_be_chosen_among_those_offered(speaking: Speaker) -> None:
    tools = [FUNCTION, {"type": "custom", "name": "g"}]
    allowed = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "custom", "name": "g"}]}
    await whole(speaking("x"), tools=tools, tool_choice=allowed)
    assert offered(speaking) == ["g"]
    await whole(speaking("x"), tools=tools, tool_choice="none")
    assert speaking.prompt.tools == ""


async def test_effort_and_verbosity_are_the_template_s(speaking: Speaker) -> None:
    asked = {"reasoning": {"effort": "none"}, "text": {"verbosity": "low"}}
    await whole(speaking("x"), **asked)
    found = json.loads(speaking.prompt.variables)
    switched = {"enable_thinking": False, "thinking": False}
    assert found == {"reasoning_effort": "none", "verbosity": "low"} | switched
    await whole(speaking("x"), enable_thinking=False)
    assert json.loads(speaking.prompt.variables) == switched
