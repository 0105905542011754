"""Anthropic's Messages."""

import json
from typing import Any

from anthropic.types import Message, RawMessageStreamEvent
from jsonschema import Draft202012Validator
from pydantic import TypeAdapter

from tests.clients.requests.openai_chat import WEATHER, objects
from tests.clients.requests.request import JSON, SKIPPED, Answer, Check, Request

PATH = "/v1/messages"
EVENTS: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
ENDS = {"end_turn", "max_tokens", "stop_sequence", "tool_use"}
CLAUDE_CODE = JSON | {
    "anthropic-version": "2023-06-01",
    "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14,"
    "context-management-2025-06-27,prompt-caching-scope-2026-01-05",
    "x-app": "cli",
    "Authorization": "Bearer unused",
}
SDK = JSON | {"anthropic-version": "2023-06-01", "X-Api-Key": "unused", "X-Stainless-Lang": "js"}


def message(answer: Answer) -> Message:
    """The message, whole or put together from its events as the SDK does."""
    if not answer.stream:
        found = Message.model_validate(answer.json, strict=True)
        assert found.stop_reason in ENDS
        return found
    documents = [one for one in answer.events if one["type"] != "ping"]
    for one in documents:
        EVENTS.validate_python(one)
    first, *middle, delta, last = documents
    assert (first["type"], delta["type"], last["type"]) == (
        "message_start", "message_delta", "message_stop")  # fmt: skip
    assert first["message"]["usage"]["input_tokens"] >= 0
    whole = first["message"] | delta["delta"] | {"usage": first["message"]["usage"]}
    whole["usage"] |= {k: v for k, v in delta["usage"].items() if v is not None}
    whole["content"] = blocks(middle)
    return Message.model_validate(whole, strict=True)


def blocks(events: list[Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    is_open = False
    pieces = ""
    for event in events:
        match event["type"]:
            case "content_block_start":
                assert not is_open
                assert event["index"] == len(found)
                found.append(dict(event["content_block"]))
                is_open, pieces = True, ""
            case "content_block_delta":
                assert is_open
                assert event["index"] == len(found) - 1
                delta = event["delta"]
                kind = delta["type"].removesuffix("_delta")
                if kind == "input_json":
                    pieces += delta["partial_json"]
                    found[-1]["input"] = pieces
                else:
                    found[-1][kind] = found[-1].get(kind, "") + delta[kind]
            case "content_block_stop":
                is_open = False
                if found[-1]["type"] == "tool_use":
                    try:
                        found[-1]["input"] = json.loads(pieces or "{}")
                    except ValueError:
                        found[-1]["input"] = {"cut": pieces}
            case other:
                raise AssertionError(other)
    assert not is_open
    return found


def says(answer: Answer) -> Message:
    """Text or thinking, and no call."""
    found = message(answer)
    assert {block.type for block in found.content} <= {"text", "thinking"}
    return found


def may_use(answer: Answer) -> Message:
    found = message(answer)
    uses = [block for block in found.content if block.type == "tool_use"]
    assert all(isinstance(block.input, dict) for block in uses)
    assert found.stop_reason == "max_tokens" or bool(uses) == (found.stop_reason == "tool_use")
    return found


def uses(*names: str, most: int = 1) -> Check:
    """Calls only, of these tools."""

    def check(answer: Answer) -> None:
        found = may_use(answer)
        if found.stop_reason == "max_tokens":
            return
        assert 1 <= len(found.content) <= most
        assert {block.type for block in found.content} == {"tool_use"}
        assert {block.name for block in found.content if block.type == "tool_use"} <= set(names)

    return check


def skipped(*types: str) -> Check:
    def check(answer: Answer) -> None:
        may_use(answer)
        assert answer.headers[SKIPPED] == ", ".join(types)

    return check


def fits(schema: dict[str, Any]) -> Check:
    def check(answer: Answer) -> None:
        found = says(answer)
        text = "".join(block.text for block in found.content if block.type == "text")
        if found.stop_reason != "max_tokens":
            assert not [*Draft202012Validator(schema).iter_errors(json.loads(text))]

    return check


def counted(answer: Answer) -> None:
    assert answer.json.keys() == {"input_tokens"}
    assert answer.json["input_tokens"] > 0


def is_error(place: str) -> Check:
    """Anthropic's form, with the place in its text."""

    def check(answer: Answer) -> None:
        found = answer.json
        assert (found["type"], found["error"]["type"]) == ("error", "invalid_request_error")
        assert place in found["error"]["message"], found
        assert found["request_id"]

    return check


def user(*content: Any) -> dict[str, Any]:
    given = content[0] if len(content) == 1 and isinstance(content[0], str) else list(content)
    return {"role": "user", "content": given}


def text(said: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": said} | more


def tool(name: str, schema: dict[str, Any] = WEATHER, **more: Any) -> dict[str, Any]:
    return {"name": name, "description": f"Does {name}", "input_schema": schema} | more


def request(client: str, needs: Check, headers: dict[str, str] = SDK, **body: Any) -> Request:
    given = {"model": "claude-x", "max_tokens": 48, "messages": [user("Hello")]} | body
    return Request(client, PATH, given, needs, headers=headers, streams=True)


def count(client: str, **body: Any) -> Request:
    given = {"model": "claude-x", "messages": [user("Hello")]} | body
    return Request(client, f"{PATH}/count_tokens?beta=true", given, counted, headers=SDK)


def refused(client: str, place: str, **body: Any) -> Request:
    given = {"model": "claude-x", "max_tokens": 8, "messages": [user("Hello")]} | body
    return Request(client, PATH, given, is_error(place), 400, SDK)


SHORT = {"type": "string", "maxLength": 12}
CACHED = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
PICTURE = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": "AA=="},
}
USE = {"type": "tool_use", "id": "toolu_1", "name": "read", "input": {"path": "a.c"}}


def result(*content: Any, **more: Any) -> dict[str, Any]:
    given = {"type": "tool_result", "tool_use_id": "toolu_1"} | more
    return given | ({"content": content[0]} if content else {})


def after(*results: dict[str, Any]) -> list[dict[str, Any]]:
    """A conversation whose last turn has results of a tool."""
    thought = {"type": "thinking", "thinking": "I read.", "signature": "abc"}
    hidden = {"type": "redacted_thinking", "data": "xyz"}
    return [user("Read."), {"role": "assistant", "content": [thought, hidden, text("Yes."), USE]},
            user(*results)]  # fmt: skip


REQUESTS = [
    request("claude code side call", says, CLAUDE_CODE, max_tokens=16, temperature=0,
            stop_sequences=["</block>"], system=[text("Name it.", **CACHED)],
            metadata={"user_id": '{"device_id": "d", "session_id": "s"}'}),
    request("claude code thinking", may_use, CLAUDE_CODE, thinking={
        "type": "enabled", "budget_tokens": 1024}, tools=[tool("read", **CACHED)],
        system=[text("x-anthropic-billing-header: cc_version=2; cch=1;"), text("Be brief.")],
        context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        output_config={"effort": "high"}),
    request("claude code adaptive", says, CLAUDE_CODE, thinking={"type": "adaptive"},
            output_config={"effort": "max"}),
    request("sdk without thinking", says, thinking={"type": "disabled"}, temperature=1, top_p=0.9,
            top_k=5, service_tier="auto", container=None, inference_geo=None),
    request("tool_choice any", uses("a", "b"), max_tokens=200, tools=[tool("a"), tool("b")],
            tool_choice={"type": "any"}),
    request("tool_choice any in parallel", uses("a", "b", most=64), max_tokens=300,
            tools=[tool("a"), tool("b")],
            tool_choice={"type": "any", "disable_parallel_tool_use": False}),
    request("tool_choice tool", uses("b"), max_tokens=200, tools=[tool("a"), tool("b")],
            tool_choice={"type": "tool", "name": "b", "disable_parallel_tool_use": True}),
    request("tool_choice none", says, tools=[tool("a")], tool_choice={"type": "none"}),
    request("tool_choice auto, one at most", may_use, tools=[tool("a")],
            tool_choice={"type": "auto", "disable_parallel_tool_use": True}),
    request("strict tool", may_use, tools=[tool("a", strict=True, eager_input_streaming=True,
                                                input_examples=[{"city": "x"}],
                                                allowed_callers=["direct"], defer_loading=False)]),
    request("tool without parameters", uses("now"), max_tokens=120, tool_choice={"type": "any"},
            tools=[tool("now", {"type": "object", "properties": {}})]),
    request("result is a text", may_use, messages=after(result("int a;")), tools=[tool("read")]),
    request("result is empty", may_use, messages=after(result()), tools=[tool("read")]),
    request("result is an error", may_use, messages=after(result("none", is_error=True)),
            tools=[tool("read")]),
    request("result has a picture", may_use, messages=after(result([text("see"), PICTURE])),
            tools=[tool("read")]),
    request("result has documents", may_use, tools=[tool("read")], messages=after(result([
        {"type": "search_result", "source": "x", "title": "T", "content": [text("c")],
         "citations": {"enabled": True}},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "d"},
         "title": "t", "context": "c", "citations": {"enabled": False}}]), text("And?"))),
    request("result has a tool reference", may_use, tools=[tool("read")], messages=after(
        result([{"type": "tool_reference", "tool_name": "read"}]))),
    request("result and a reminder", may_use, CLAUDE_CODE, tools=[tool("read")], messages=after(
        result("ok", cache_control={"type": "ephemeral"}),
        text("<system-reminder>x</system-reminder>"))),
    request("server tools", skipped("bash_20250124", "text_editor_20250728",
                                    "code_execution_20250825"), tools=[
        {"type": "bash_20250124", "name": "bash"}, tool("a", type="custom"),
        {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool",
         "max_characters": 100},
        {"type": "code_execution_20250825", "name": "code_execution"}]),
    request("server tools' history", says, messages=[user("Hi"), {"role": "assistant", "content": [
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
        text("Found.", citations=None)]}, user("?")]),
    request("beginning of the answer", says, messages=[
        user("JSON?"), {"role": "assistant", "content": '{"a":'}], stop_sequences=["}"]),
    request("beginning with a blank at its end", says, messages=[
        user("Say"), {"role": "assistant", "content": [text("The answer is ")]}]),
    request("system is a text", says, system="Be brief.", stop_sequences=[]),
    request("system is empty", says, system=[]),
    request("system in the middle", says, CLAUDE_CODE, messages=[
        user("Hi"), {"role": "system", "content": "Be brief."},
        {"role": "assistant", "content": "Yes"}, {"role": "system", "content": [text("More.")]},
        user("?")]),
    request("users in a row", says, messages=[
        user("a"), user(text("b"), text("c")), {"role": "assistant", "content": "d"}, user("e")]),
    request("a plain document", says, messages=[user({
        "type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "d"},
        "title": "T"}, text("Sum up."))]),
    request("ai sdk json_schema", fits(WEATHER), max_tokens=160, output_config={
        "format": {"type": "json_schema", "schema": WEATHER}}),
    request("sdk parse", fits(WEATHER), max_tokens=160,
            output_format={"type": "json_schema", "schema": WEATHER}),
    request("langchain-anthropic", uses("Joke"), max_tokens=200,
            tools=[tool("Joke", objects(setup={"type": "string", "maxLength": 9}))],
            tool_choice={"type": "tool", "name": "Joke"}, betas=["x"], mcp_servers=None),
    request("litellm nulls", says, stop_sequences=None, system=None, tools=None, tool_choice=None,
            temperature=None, top_k=None, top_p=None, thinking=None, metadata=None),
    request("claude code quota", says, CLAUDE_CODE, max_tokens=1, messages=[user("quota")],
            metadata={"user_id": "u"}),
    request("claude code title", fits(objects(title=SHORT)), CLAUDE_CODE, max_tokens=120,
            system=[text("Title it.")], thinking={"type": "disabled"}, temperature=1,
            output_config={"format": {"type": "json_schema", "schema": objects(title=SHORT)}}),
    request("claude code effort and budget", says, CLAUDE_CODE, output_config={
        "effort": "xhigh", "task_budget": {"type": "tokens", "total": 1000}},
        thinking={"type": "adaptive", "display": "summarized"}, speed="fast"),
    request("claude code compaction", may_use, CLAUDE_CODE, tools=[tool("read")], system=[
        text("You summarize.", cache_control={"type": "ephemeral", "scope": "global"})],
        messages=[*after(result("int a;")), user("Summarize the conversation so far.")],
        context_management={"edits": [{"type": "compact_20260112"}]}),
    request("claude code picture read", may_use, CLAUDE_CODE, tools=[tool("read")],
            messages=after(result([PICTURE], cache_control={"type": "ephemeral"}))),
    request("web search offered", skipped("web_search_20250305"), CLAUDE_CODE, tools=[
        tool("read"), {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}]),
    request("ai sdk tools of a provider", skipped("web_search_20250305", "memory_20250818",
                                                  "tool_search_tool_regex_20251119"), tools=[
        {"type": "web_search_20250305", "name": "web_search"},
        {"type": "memory_20250818", "name": "memory"},
        {"type": "tool_search_tool_regex_20251119", "name": "tool_search_tool_regex"},
        tool("a", defer_loading=True)], container={"skills": [
            {"type": "anthropic", "skill_id": "pptx", "version": "latest"}]}),
    request("names with dots", uses("files.read"), max_tokens=120, tool_choice={"type": "any"},
            tools=[tool("files.read", {"type": "object", "properties": {}})]),
    request("auto without tools", says, tools=[], tool_choice={"type": "auto"}),
    request("fields of the newest", says, cache_control={"type": "ephemeral"}, inference_geo="us",
            fallbacks=[{"model": "x"}], diagnostics={"previous_message_id": "m"},
            service_tier="standard_only", mcp_servers=[]),
    request("answers that are empty", says, messages=[
        user("a"), {"role": "assistant", "content": []}, user("b"),
        {"role": "assistant", "content": [{"type": "compaction", "content": "c"}]}, user("?")]),
    count("claude code count", tools=[tool("read")], system=[text("S", **CACHED)],
          thinking={"type": "enabled", "budget_tokens": 1024}),
    count("sdk count with results", messages=after(result("x")), tools=[tool("read")],
          tool_choice={"type": "auto"}),
    refused("picture", "messages[0].content[0]", messages=[user(PICTURE, text("?"))]),
    refused("pdf", "messages[0].content[0]", messages=[user({
        "type": "document", "source": {"type": "base64", "media_type": "application/pdf",
                                       "data": "AA=="}})]),
    refused("mcp", "mcp_servers", mcp_servers=[{"type": "url", "url": "http://x", "name": "x"}]),
    refused("web search chosen", "tool_choice.name", tool_choice={
        "type": "tool", "name": "web_search"}, tools=[{
            "type": "web_search_20250305", "name": "web_search", "max_uses": 8}]),
    refused("unknown tool chosen", "tool_choice", tools=[tool("a")],
            tool_choice={"type": "tool", "name": "b"}),
    refused("any without tools", "a call is required", tool_choice={"type": "any"}),
    refused("temperature out of range", "temperature", temperature=-1),
    refused("a tool without a name", "tools[0].name", tools=[{"input_schema": WEATHER}]),
    refused("no messages", "messages", messages=[]),
    refused("a role of others", "messages", messages=[{"role": "tool", "content": "x"}]),
    Request("claude code hello", "/api/hello", None, lambda _: None, method="HEAD"),
    Request("bedrock's batches", f"{PATH}/batches", {"requests": []}, lambda _: None, 404, SDK),
]  # fmt: skip
