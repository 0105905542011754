"""Ollama's API."""

import json
import math
from typing import Any

from jsonschema import Draft202012Validator
from ollama import (
    ChatResponse,
    EmbedResponse,
    GenerateResponse,
    ListResponse,
    ProcessResponse,
    ShowResponse,
)

from tests.clients.requests.openai_chat import WEATHER, objects
from tests.clients.requests.request import JSON, Answer, Check, Request, nothing

CHAT, GENERATE, EMBED = "/api/chat", "/api/generate", "/api/embed"


def documents(answer: Answer, kind: type[Any]) -> list[Any]:
    """Lines or the whole answer, the last one with `done` and the counts."""
    found = answer.lines if answer.stream else [answer.json]
    for one in found:
        kind.model_validate(one, strict=True)
        assert isinstance(one["model"], str)
        assert isinstance(one["created_at"], str)
    assert [one["done"] for one in found] == [False] * (len(found) - 1) + [True]
    assert ["eval_count" in one for one in found] == [False] * (len(found) - 1) + [True]
    assert found[-1]["done_reason"] in ("stop", "length", "load", "unload")
    return found


def chat(answer: Answer) -> dict[str, Any]:
    """The message, and the reason of its end."""
    lines = documents(answer, ChatResponse)
    messages = [line["message"] for line in lines]
    assert {message["role"] for message in messages} == {"assistant"}
    calls = [call for message in messages for call in message.get("tool_calls") or ()]
    assert all(isinstance(call["function"]["arguments"], dict) for call in calls)
    text = "".join(message["content"] for message in messages)
    return {"text": text, "calls": calls, "ended": lines[-1]["done_reason"], "lines": lines}


def text_of(answer: Answer) -> str:
    return "".join(one["response"] for one in documents(answer, GenerateResponse))


def fits(schema: dict[str, Any]) -> Check:
    def check(answer: Answer) -> None:
        found = chat(answer)
        if found["ended"] != "length":
            assert not [*Draft202012Validator(schema).iter_errors(json.loads(found["text"]))]

    return check


def generates_json(answer: Answer) -> None:
    text = text_of(answer)
    if documents(answer, GenerateResponse)[-1]["done_reason"] != "length":
        assert isinstance(json.loads(text), dict)


def has_logprobs(answer: Answer) -> None:
    found = [one for line in chat(answer)["lines"] for one in line.get("logprobs") or ()]
    assert found
    assert all(one["logprob"] <= 0 and len(one["top_logprobs"]) == 2 for one in found)


def life(reason: str) -> Check:
    """An answer without a word."""

    def check(answer: Answer) -> None:
        found = answer.json
        assert (found["done"], found["done_reason"]) == (True, reason)
        assert found.get("response", "") == ""
        assert found.get("message", {"content": ""})["content"] == ""

    return check


def vectors(n: int) -> Check:
    def check(answer: Answer) -> None:
        found = EmbedResponse.model_validate(answer.json, strict=True)
        assert len(found.embeddings) == n
        assert all(abs(math.hypot(*one) - 1) < 1e-3 for one in found.embeddings)

    return check


def is_error(words: str = "") -> Check:
    """Ollama's form: a text."""

    def check(answer: Answer) -> None:
        assert answer.json.keys() == {"error"}
        assert words in answer.json["error"]

    return check


def typed(kind: type[Any]) -> Check:
    def check(answer: Answer) -> None:
        kind.model_validate(answer.json)

    return check


def user(content: str = "Hello", **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content} | more


def request(client: str, needs: Check, path: str = CHAT, **body: Any) -> Request:
    given: dict[str, Any] = {"model": "default"} | (
        {"messages": [user()]} if path == CHAT else {"prompt": "Once"}
    )
    given |= body
    given["options"] = {"num_predict": 24} | (body.get("options") or {})
    return Request(client, path, given, needs, headers=JSON, streams=True)


def one(client: str, path: str, body: Any, needs: Check, status: int = 200, **more: Any) -> Request:
    return Request(client, path, body, needs, status, **({"headers": JSON} | more))


def tool(name: str, schema: dict[str, Any] = WEATHER) -> dict[str, Any]:
    described = {"name": name, "description": f"Does {name}", "parameters": schema}
    return {"type": "function", "function": described}


CALLED = {"role": "assistant", "content": "", "tool_calls": [
    {"function": {"name": "get_weather", "arguments": {"city": "Bern"}}}]}  # fmt: skip
TYPED = {"type": ["object", "null"], "properties": {}}

REQUESTS = [
    request("ollama-python tools", chat, tools=[tool("get_weather")], messages=[
        user("Rain?"), CALLED, {"role": "tool", "content": "yes", "tool_name": "get_weather"}]),
    request("home assistant", chat, messages=[
        {"role": "system", "content": "S"}, user("Rain?"), CALLED,
        {"role": "tool", "content": '{"rain": true}'}], tools=[tool("get_weather", {
            "type": "object", "properties": {"name": {"type": "string"}}})],
        keep_alive="30s", think=False, options={"num_ctx": 8192, "num_predict": 24}),
    request("langchain js ids", chat, messages=[
        user(images=[]), {"role": "assistant", "content": "", "tool_calls": [
            {"type": "tool_call", "id": "x", "function": {"name": "f", "arguments": {}}}]},
        {"role": "tool", "content": "ok", "tool_call_id": "x"}], tools=[tool("f")],
        options={"num_predict": 24, "stop": ["\n\n\n"], "f16_kv": True, "embedding_only": False}),
    request("langchain structured", fits(WEATHER), format=WEATHER, tools=[],
            options={"num_predict": 200, "temperature": 0}),
    request("home assistant structured", fits(objects(a={"type": "boolean"})), format={
        "type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"],
        "additionalProperties": False, "strict": True}, options={"num_predict": 80}),
    request("llama-index", chat, format="", keep_alive="5m", options={
        "num_predict": 24, "temperature": 0.75, "num_ctx": 3900.0}),
    request("ollama-js json", chat, format="json", options={"num_predict": 40}),
    request("open webui", chat, options={"num_predict": 24, "stop": ["</s>"], "seed": 1.0,
                                         "mirostat": 0, "num_gqa": 1, "num_thread": 2},
            keep_alive="10m", metadata={"chat_id": "c"}),
    request("cline", chat, messages=[{"role": "system", "content": "S"}, user("a"),
                                     {"role": "assistant", "content": "b"}, user("c")],
            options={"num_predict": 24, "num_ctx": 32768, "temperature": 0}),
    request("zed thinking", chat, think=True, keep_alive=-1, messages=[
        user(), {"role": "assistant", "content": "x", "thinking": "y", "tool_calls": None},
        user("?")], tools=[]),
    request("gpt-oss effort", chat, think="low"),
    request("think max", chat, think="max"),
    request("open code names", chat, messages=[
        user(), CALLED, {"role": "tool", "name": "get_weather", "content": "rain"}],
        tools=[tool("get_weather")]),
    request("types as a list", chat, tools=[tool("f", TYPED)]),
    request("logprobs", has_logprobs, logprobs=True, top_logprobs=2, options={"num_predict": 5}),
    request("koog", chat, keep_alive="1h30m", options={"temperature": 0.0, "num_predict": 24}),
    request("continue", chat, keep_alive=1800, raw=None, options={
        "num_predict": 24, "stop": [], "top_k": None, "num_ctx": None, "min_p": None,
        "num_gpu": 99, "use_mmap": None}),
    request("dates of old", chat, keep_alive=0.5, options=None),
    request("names with dots", chat, tools=[tool("files.read")], messages=[
        user(), {"role": "assistant", "content": "", "tool_calls": [
            {"function": {"name": "files.read", "arguments": {}}}]},
        {"role": "tool", "content": "x", "tool_name": "files.read"}]),
    request("picture in a result", chat, messages=[
        user(), CALLED, {"role": "tool", "content": "see", "tool_name": "get_weather",
                         "images": ["AA=="]}]),
    *(request(f"keep_alive {given!r}", chat, keep_alive=given)
      for given in (0, "0", "-1m", "24h0m0s", "", "300", None)),
    request("num_predict -2", chat, options={"num_predict": -2, "stop": ["e", "a", "o", " "]}),
    request("num_predict -1", chat, options={"num_predict": -1, "stop": ["e", "a", "o", " "]}),
    request("open webui think and format", chat, think=False, format=None, tools=None,
            options={"num_predict": 24, "stop": None, "mirostat_eta": None}),
    request("fields of the newest", chat, truncate=True, shift=True, options={
        "num_predict": 24, "rope_frequency_base": 1.0, "logits_all": True}),
    request("generate with probabilities", text_of, GENERATE, logprobs=True, top_logprobs=2),
    request("continue autocomplete", text_of, GENERATE, raw=True, keep_alive=1800, options={
        "num_predict": 24, "stop": ["<|end|>", "\n\n"], "num_ctx": 8192, "mirostat": None}),
    request("raw json", generates_json, GENERATE, raw=True, format="json", options={
        "num_predict": 60}),
    request("generate an effort", text_of, GENERATE, think="high"),
    request("fields of pictures", text_of, GENERATE, width=0, height=0, steps=0),
    request("generate", text_of, GENERATE),
    request("generate raw", text_of, GENERATE, raw=True),
    request("ollama-python empties", text_of, GENERATE, suffix="", system="", template="",
            raw=False, context=None, images=[], format="", think=None),
    request("generate with a system", text_of, GENERATE, system="Be brief.", think=False),
    request("generate json", generates_json, GENERATE, format="json", options={
        "num_predict": 60}),
    request("litellm generate", text_of, GENERATE, options={
        "num_predict": 24, "stop": "\n\n\n", "repeat_penalty": 1.1, "tfs_z": 1.0}),
    one("load", CHAT, {"model": "default", "messages": []}, life("load")),
    one("load by generate", GENERATE, {"model": "default"}, life("load")),
    one("load for ever", GENERATE, {"model": "default", "prompt": "", "keep_alive": -1},
        life("load")),
    one("unload by generate", GENERATE, {"model": "default", "keep_alive": "0s"}, life("unload")),
    one("embed a list", EMBED, {"model": "default", "input": ["a", "b"], "truncate": True,
                                "options": {}, "keep_alive": "5m"}, vectors(2)),
    one("embed a text", EMBED, {"model": "default", "input": "a", "dimensions": None}, vectors(1)),
    one("embed nothing", EMBED, {"model": "default", "input": []}, vectors(0)),
    one("embed too long", EMBED, {"model": "default", "input": "a " * 9000, "truncate": False},
        is_error("longer than"), 400),
    one("embed and cut", EMBED, {"model": "default", "input": "a " * 9000}, vectors(1)),
    one("show", "/api/show", {"model": "default:latest", "verbose": True}, typed(ShowResponse)),
    one("show unknown", "/api/show", {"model": "gone"}, is_error("model 'gone' not found"), 404),
    one("tags", "/api/tags", None, typed(ListResponse), method="GET"),
    one("ps", "/api/ps", None, typed(ProcessResponse), method="GET"),
    one("pull", "/api/pull", {"model": "default", "stream": False}, nothing),
    one("pull unknown", "/api/pull", {"name": "gone"}, is_error("not found"), 404),
    one("version", "/api/version", None, nothing, method="GET"),
    one("head", "/api/tags", None, nothing, method="HEAD"),
    one("unknown model", CHAT, {"model": "gone", "messages": [user()]},
        is_error("not found"), 404),
    one("wrong method", CHAT, None, is_error(), 405, method="GET"),
    one("picture", CHAT, {"model": "default", "messages": [user(images=["AA=="])]},
        is_error(), 400),
    one("bad format", CHAT, {"model": "default", "messages": [user()], "format": "xml"},
        is_error("format"), 400),
    one("template", GENERATE, {"model": "default", "prompt": "a", "template": "{{ .Prompt }}"},
        is_error("template"), 400),
    one("picture to generate", GENERATE, {"model": "default", "prompt": "a", "images": ["AA=="]},
        is_error("images"), 400),
    one("sign-in of the cli", "/api/me", {}, is_error(), 404),
    one("context", GENERATE, {"model": "default", "prompt": "a", "context": [1, 2]},
        is_error("context"), 400),
    one("raw and a system", GENERATE, {"model": "default", "prompt": "a", "raw": True,
                                       "system": "s"}, is_error("raw"), 400),
    one("malformed", CHAT, None, is_error(), 400),
    one("blob", "/api/blobs/sha256:00", None, nothing, 404, method="HEAD"),
    one("create", "/api/create", {"model": "m", "from": "default"}, is_error(), 501),
    one("delete", "/api/delete", {"model": "default"}, is_error(), 501, method="DELETE"),
]  # fmt: skip
