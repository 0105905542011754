"""OpenAI's Responses."""

import json
from typing import Any

from jsonschema import Draft202012Validator
from openai.types.responses import InputTokenCountResponse, Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tests.clients.requests.openai_chat import WEATHER, objects
from tests.clients.requests.request import JSON, SKIPPED, Answer, Check, Request, is_refused

PATH = "/v1/responses"
EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
LASTS = {"response.completed", "response.incomplete"}


def response(answer: Answer) -> Response:
    """The response, whole or at the end of its stream, whose events are in order."""
    if not answer.stream:
        found = Response.model_validate(answer.json, strict=True)
        assert found.status in ("completed", "incomplete")
        return found
    events = [EVENTS.validate_python(one) for one in answer.events]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:2]] == ["response.created", "response.in_progress"]
    last = events[-1]
    assert last.type in LASTS
    assert not LASTS & {event.type for event in events[:-1]}
    done = [event.item for event in events if event.type == "response.output_item.done"]
    assert [item.to_dict() for item in done] == [item.to_dict() for item in last.response.output]
    added = [event for event in events if event.type == "response.output_item.added"]
    assert [event.output_index for event in added] == list(range(len(done)))
    assert [event.item.id for event in added] == [item.id for item in done]
    texts: dict[str, str] = {}
    for event in events:
        if event.type.endswith(".delta"):
            texts[event.item_id] = texts.get(event.item_id, "") + event.delta
    for item in done:
        if item.type == "message":
            assert texts.get(item.id, "") == item.content[0].text
        elif item.type == "function_call":
            assert texts.get(item.id, "") == item.arguments
    found = last.response
    assert isinstance(found, Response)
    return found


def answered(answer: Answer) -> Response:
    """With the usage that clients add up."""
    found = response(answer)
    assert found.output
    assert found.usage is not None
    assert found.usage.total_tokens == found.usage.input_tokens + found.usage.output_tokens
    return found


def fits(schema: dict[str, Any]) -> Check:
    def check(answer: Answer) -> None:
        found = answered(answer)
        if found.status == "completed":
            document = json.loads(found.output_text)
            assert not [*Draft202012Validator(schema).iter_errors(document)]

    return check


def calls(name: str, kind: str = "function_call", namespace: str | None = None) -> Check:
    """One call and no text."""

    def check(answer: Answer) -> None:
        found = answered(answer)
        (item,) = found.output
        assert item.type == kind
        assert item.call_id
        assert item.id
        assert item.name == name
        assert getattr(item, "namespace", None) == namespace
        if kind == "function_call" and found.status == "completed":
            json.loads(item.arguments)

    return check


def cut(answer: Answer) -> None:
    found = answered(answer)
    assert found.status == "incomplete"
    assert found.incomplete_details is not None
    assert found.incomplete_details.reason == "max_output_tokens"


def skipped(*types: str) -> Check:
    def check(answer: Answer) -> None:
        answered(answer)
        assert answer.headers[SKIPPED] == ", ".join(types)

    return check


def logprobs(answer: Answer) -> None:
    found = answered(answer)
    for item in found.output:
        if item.type == "message":
            for part in item.content:
                assert part.type == "output_text"
                assert part.logprobs


def counted(answer: Answer) -> None:
    found = InputTokenCountResponse.model_validate(answer.json, strict=True)
    assert found.input_tokens > 0


def not_there(answer: Answer) -> None:
    assert answer.json["error"]["code"] == "not_found"
    assert answer.headers["x-should-retry"] == "false"


def said(role: str, text: str, kind: str = "input_text", **more: Any) -> dict[str, Any]:
    part: dict[str, Any] = {"type": kind, "text": text}
    if kind == "output_text":
        part["annotations"] = []
    return {"role": role, "content": [part]} | more


def request(client: str, needs: Check, **body: Any) -> Request:
    given = {"model": "default", "input": "Hello", "max_output_tokens": 48} | body
    given = {key: value for key, value in given.items() if value is not ...}
    return Request(client, PATH, given, needs, headers=JSON, streams=True)


def refused(client: str, param: str, code: str = "invalid_value", **body: Any) -> Request:
    given = {"model": "default", "input": "Hello", "max_output_tokens": 16} | body
    return Request(client, PATH, given, is_refused(param, code), 400, JSON)


def function(name: str, schema: dict[str, Any] = WEATHER, **more: Any) -> dict[str, Any]:
    return {
        "type": "function",
        "name": name,
        "description": f"Does {name}",
        "parameters": schema,
        "strict": True,
    } | more


CODEX_SECOND = [
    said("developer", "Sandbox: read only.", type="message"),
    said("user", "List the files.", type="message"),
    {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Use ls."}],
     "encrypted_content": None},
    said("assistant", "I will look.", "output_text", type="message"),
    {"type": "function_call", "name": "shell", "arguments": '{"command": ["ls"]}',
     "call_id": "c1"},
    {"type": "function_call_output", "call_id": "c1", "output": [
        {"type": "input_text", "text": "a.c"}]},
    {"type": "custom_tool_call", "status": "completed", "call_id": "c2", "name": "apply_patch",
     "input": "*** Begin Patch\n*** End Patch"},
    {"type": "custom_tool_call_output", "call_id": "c2", "output": "Done"},
    {"type": "local_shell_call", "call_id": "c3", "status": "completed", "action": {
        "type": "exec", "command": ["ls"], "timeout_ms": None}},
    {"type": "function_call_output", "call_id": "c3", "output": "{\"output\": \"a.c\"}"},
    {"type": "web_search_call", "status": "completed", "action": {
        "type": "search", "query": "x"}},
    {"type": "ghost_snapshot", "ghost_commit": {"id": "x"}},
    {"type": "compaction", "encrypted_content": "x"},
    said("user", "Go on.", type="message"),
]  # fmt: skip
PATCH = {"type": "custom", "name": "apply_patch", "description": "Edits files"}
HOSTED = [
    {"type": "web_search_preview", "search_context_size": "medium", "user_location": None},
    {"type": "file_search", "vector_store_ids": ["vs"]},
    {"type": "code_interpreter", "container": {"type": "auto"}},
    {"type": "mcp", "server_label": "s", "server_url": "http://127.0.0.1",
     "require_approval": "never"},
    {"type": "computer_use_preview", "display_width": 1, "display_height": 1,
     "environment": "linux"},
]  # fmt: skip

REQUESTS = [
    request("codex second turn", answered, input=CODEX_SECOND, instructions="Code.", tools=[
        function("shell", objects("command", command={"type": "array", "items": {
            "type": "string"}}), strict=False), PATCH], tool_choice="auto", reasoning=None,
        parallel_tool_calls=True, store=False, include=["reasoning.encrypted_content"],
        prompt_cache_key="k", text={"verbosity": "medium"}),
    request("codex with a schema", fits(WEATHER), max_output_tokens=160, store=False, include=[],
            text={"format": {"type": "json_schema", "strict": True, "name": "codex_output_schema",
                             "schema": WEATHER}, "verbosity": "low"}),
    request("codex namespace call", calls("add", namespace="notes"), max_output_tokens=160,
            tool_choice="required", parallel_tool_calls=False, tools=[
                {"type": "namespace", "name": "notes", "description": "d", "tools": [
                    function("add", objects(text={"type": "string", "maxLength": 5}))]}]),
    request("agents sdk", answered, include=["reasoning.encrypted_content"], instructions="Help.",
            input=[{"content": "Hi", "role": "user"}], tools=[function("f")], store=None,
            truncation=None, previous_response_id=None, prompt_cache_retention=None, prompt=...,
            reasoning={"effort": "minimal", "summary": "auto"}, metadata={"a": "b"}),
    request("agents sdk hosted tools", skipped(
        "web_search_preview", "file_search", "code_interpreter", "mcp", "computer_use_preview"),
        tools=HOSTED),
    request("openai-python hosted choice", answered, tools=[*HOSTED, function("f")],
            tool_choice={"type": "web_search_preview"}),
    request("openai-python named function", calls("f"), tools=[function("f"), function("g")],
            tool_choice={"type": "function", "name": "f"}, max_output_tokens=160),
    request("openai-python custom tool", calls("note", "custom_tool_call"), tools=[
        {"type": "custom", "name": "note", "description": "Text", "format": {
            "type": "grammar", "syntax": "regex", "definition": "[a-z]{3,8}"}}],
        tool_choice={"type": "custom", "name": "note"}, max_output_tokens=160),
    request("openai-python allowed_tools", calls("g"), tools=[function("f"), function("g")],
            max_output_tokens=160, tool_choice={
                "type": "allowed_tools", "mode": "required",
                "tools": [{"type": "function", "name": "g"}]}),
    request("openai-python json mode", fits({"type": "object"}), max_output_tokens=120,
            text={"format": {"type": "json_object"}}),
    request("openai-python cut", cut, max_output_tokens=16, ignore_eos=True),
    request("openai-node plain text", answered, text={"format": {"type": "text"}}, user="u",
            service_tier="auto", safety_identifier="s", stream_options={
                "include_obfuscation": False}, max_tool_calls=None),
    request("langchain logprobs", logprobs, include=["message.output_text.logprobs"],
            top_logprobs=2, max_output_tokens=16),
    request("langchain history", answered, input=[
        {"role": "system", "content": "S"},
        said("user", "Hi"),
        said("assistant", "Hello", "output_text", id="msg_1", type="message", status="completed"),
        {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "1", "id": "fc_1"},
        {"type": "function_call_output", "output": "[{\"type\": \"text\", \"text\": \"4\"}]",
         "call_id": "1"},
        {"role": "user", "content": "And?"}], tools=[function("f")]),
    request("ai sdk role items", answered, input=[
        {"role": "developer", "content": "D"}, said("user", "Hi"),
        {"role": "assistant", "content": [{"type": "output_text", "text": "Hello"}], "id": "m"},
        said("user", "?")], store=False, text={"format": {"type": "text"}, "verbosity": None},
        reasoning={"effort": "low", "summary": "detailed"}),
    request("home assistant tool results", answered, input=[
        said("user", "Turn it on"),
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "abc"},
        {"type": "function_call", "name": "turn_on", "arguments": "{}", "call_id": "c"},
        {"type": "function_call_output", "call_id": "c", "output": "{\"ok\": true}"}],
        tools=[function("turn_on", {"type": "object", "properties": {}}, strict=False)],
        store=False, user="u"),
    request("computer and mcp history", answered, input=[
        said("user", "Click"),
        {"type": "computer_call", "call_id": "c", "id": "cu_1", "action": {"type": "click"},
         "pending_safety_checks": [], "status": "completed"},
        {"type": "computer_call_output", "call_id": "c", "output": {
            "type": "computer_screenshot", "image_url": "data:,"}},
        {"type": "mcp_list_tools", "id": "m", "server_label": "s", "tools": []},
        {"type": "mcp_call", "id": "m2", "name": "x", "arguments": "{}", "server_label": "s"},
        {"type": "code_interpreter_call", "id": "ci", "code": "1", "container_id": "c",
         "outputs": [], "status": "completed"},
        {"type": "image_generation_call", "id": "ig", "result": None, "status": "completed"},
        said("user", "?")]),
    request("continue", answered, input=[{"role": "user", "content": "Hi"}], temperature=None,
            top_p=None, reasoning={"effort": "medium", "summary": "auto"}),
    request("n8n", answered, text={}, top_logprobs=0, metadata={}, tools=None,
            parallel_tool_calls=None),
    request("litellm", answered, extra_headers={}, temperature=1.0, top_p=1.0, tools=[],
            tool_choice="auto", truncation="auto"),
    request("refusal in the history", answered, input=[
        said("user", "Hi"),
        {"type": "message", "role": "assistant", "content": [
            {"type": "refusal", "refusal": "No."}]}, said("user", "?")]),
    request("codex view_image", answered, store=False, input=[
        said("user", "Look.", type="message"),
        {"type": "function_call", "name": "view_image", "arguments": '{"path": "a.png"}',
         "call_id": "c1"},
        {"type": "function_call_output", "call_id": "c1", "output": [
            {"type": "input_image", "image_url": "data:image/png;base64,AA=="}]}]),
    request("agents sdk outputs", answered, input=[
        said("user", "Look."),
        {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "c1", "id": "fc_1",
         "status": "completed"},
        {"type": "function_call_output", "call_id": "c1", "output": [
            {"type": "input_text", "text": "see"},
            {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "auto"},
            {"type": "input_file", "file_data": "data:application/pdf;base64,AA=="}]}]),
    request("agents sdk settings", answered, store=False, metadata={"a": "b"}, truncation="auto",
            text={"verbosity": "low"}, reasoning={"effort": "low"}, prompt_cache_key="k",
            include=["web_search_call.action.sources", "file_search_call.results",
                     "message.input_image.image_url", "code_interpreter_call.outputs"]),
    request("ai sdk tools of a provider", skipped("web_search", "code_interpreter", "file_search",
                                                  "image_generation", "local_shell"), tools=[
        {"type": "web_search", "filters": None}, {"type": "code_interpreter", "container": {
            "type": "auto"}}, {"type": "file_search", "vector_store_ids": ["v"]},
        {"type": "image_generation"}, {"type": "local_shell"}]),
    request("codex tools of the newest", skipped("tool_search", "apply_patch", "shell",
                                                 "computer"), tools=[
        {"type": "tool_search"}, {"type": "apply_patch"},
        {"type": "shell", "environment": {"type": "local"}}, {"type": "computer"},
        function("f", defer_loading=True)]),
    request("openai-node compaction and obfuscation", answered, stream_options={
        "include_obfuscation": False}, context_management=[{
            "type": "compaction", "compact_threshold": 1000}], conversation=None, background=None,
        prompt=None, service_tier="flex", top_logprobs=None, max_tool_calls=2),
    request("codex history after a compaction", answered, store=False, input=[
        {"type": "compaction", "encrypted_content": "x", "id": "cmp_1"},
        {"type": "tool_search_call", "arguments": {}, "call_id": "t"},
        {"type": "tool_search_output", "call_id": "t", "tools": []},
        said("user", "Go on.", type="message", phase="commentary")]),
    request("arguments and results that are objects", answered, input=[
        said("user", "Hi"), {"type": "function_call", "call_id": "c", "name": "f", "arguments": {},
                             "status": None, "id": None},
        {"type": "function_call_output", "call_id": "c", "output": {"ok": True}}]),
    request("beginning of the answer", answered, input=[
        said("user", "JSON?"), {"role": "assistant", "content": '{"a":'}]),
    request("lm studio's load by codex", answered, input="", max_output_tokens=1),
    request("mcp chosen", answered, tool_choice={"type": "mcp", "server_label": "s"}, tools=HOSTED),
    Request("openai-python input_tokens.count", f"{PATH}/input_tokens", {
        "model": "default", "input": CODEX_SECOND, "instructions": "I", "tools": [function("f")],
        "tool_choice": "auto", "truncation": "auto", "personality": "friendly",
        "reasoning": {"effort": "low"}, "text": {"format": {"type": "text"}}}, counted,
        headers=JSON),
    Request("openai-python compact", f"{PATH}/compact", {"model": "default", "input": "Hello"},
            not_there, 404, JSON),
    refused("picture", "input[0].content[0]", input=[{"role": "user", "content": [
        {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "auto"}]}]),
    refused("file", "input[0].content[0]", input=[{"role": "user", "content": [
        {"type": "input_file", "file_id": "f"}]}]),
    refused("background", "background", background=True),
    refused("conversation", "conversation", conversation="conv_1"),
    refused("prompt template", "prompt", prompt={"id": "pmpt_1"}),
    refused("unknown previous response", "previous_response_id", "previous_response_not_found",
            previous_response_id="resp_gone"),
    refused("unknown item", "input[0].id", input=[{"type": "item_reference", "id": "msg_gone"}]),
    refused("required, hosted tools only", "tool_choice", tools=HOSTED, tool_choice="required"),
    refused("a tool without a name", "tools[0].name", tools=[{"type": "function"}]),
]  # fmt: skip
