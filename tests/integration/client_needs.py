"""What each client needs of an answer, read with the client's own types."""

import base64
import json
import math
import re
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from anthropic.types import RawMessageStreamEvent
from ollama import ChatResponse, EmbeddingsResponse, ListResponse, ShowResponse
from openai.types import Completion, CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import TypeAdapter

from tests.supervisor.http.responses.conftest import parsed

ANTHROPIC: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
SKIPPED = "x-gpufc-skipped-tools"
REASONS = {"stop", "length", "tool_calls"}


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: Any
    data: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.data)

    @property
    def lines(self) -> list[Any]:
        """The objects of NDJSON. An empty line is an error."""
        return [json.loads(line) for line in self.data.decode().removesuffix("\n").split("\n")]

    @property
    def sse(self) -> list[Any]:
        """The documents of a stream of OpenAI's, which ends with `[DONE]`."""
        assert self.headers["Content-Type"].startswith("text/event-stream")
        found = re.findall("^data: (.*)$", self.data.decode(), re.MULTILINE)
        assert found.pop() == "[DONE]"
        return [json.loads(one) for one in found]


def a_chat(answer: Answer) -> ChatCompletion:
    found = ChatCompletion.model_validate(answer.json, strict=True)
    (choice,) = found.choices
    assert (found.object, choice.message.role) == ("chat.completion", "assistant")
    assert choice.finish_reason in REASONS
    assert found.id
    assert found.usage is not None
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens
    return found


def a_chat_stream(answer: Answer) -> list[ChatCompletionChunk]:
    """Chunks with choices; usage is in one chunk of its own, the last one."""
    *chunks, last = [ChatCompletionChunk.model_validate(one) for one in answer.sse]
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.total_tokens > 0
    assert {chunk.usage for chunk in chunks} == {None}
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert [choice.finish_reason is None for choice in choices] == [True] * (len(choices) - 1) + [
        False
    ]
    assert choices[-1].finish_reason in REASONS
    assert {choice.delta.role for choice in choices} <= {"assistant", None}
    return chunks


def a_streamed_call(answer: Answer) -> None:
    chunks = a_chat_stream(answer)
    calls = [
        call
        for chunk in chunks
        for choice in chunk.choices
        for call in choice.delta.tool_calls or []
    ]
    first, *more = calls
    assert first.function is not None
    assert (first.index, first.type, first.function.name) == (0, "function", "get_weather")
    assert first.id
    assert {(one.index, one.id, one.type) for one in more} == {(0, None, None)}
    joined = "".join((one.function and one.function.arguments) or "" for one in calls)
    assert json.loads(joined) == {"city": "Lima"}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def calls_in(answer: Answer, function: str, **fields: type) -> None:
    """One call of that name whose arguments have these fields."""
    (choice,) = a_chat(answer).choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls
    for one in choice.message.tool_calls:
        assert one.type == "function"
        assert one.function.name == function
        arguments = json.loads(one.function.arguments)
        assert {field: type(value) for field, value in arguments.items()} == fields


def one_person(answer: Answer) -> None:
    calls_in(answer, "Person", name=str, age=int)
    (_,) = answer.json["choices"][0]["message"]["tool_calls"]


def a_date(answer: Answer) -> None:
    content = a_chat(answer).choices[0].message.content
    assert re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", content or "")


def a_filled_gap(answer: Answer) -> None:
    *chunks, last = answer.sse
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == "Well, said."
    assert Completion.model_validate(last).choices[0].finish_reason == "stop"


def vectors(answer: Answer) -> None:
    """Two, as the client decodes them: base64 of little-endian float32."""
    decoded = answer.json
    for one in decoded["data"]:
        numbers = base64.b64decode(one["embedding"], validate=True)
        one["embedding"] = list(struct.unpack(f"<{len(numbers) // 4}f", numbers))
    found = CreateEmbeddingResponse.model_validate(decoded, strict=True)
    assert [one.index for one in found.data] == [0, 1]
    assert all(math.hypot(*one.embedding) == pytest.approx(1) for one in found.data)
    assert found.usage.total_tokens == found.usage.prompt_tokens > 0


def a_narrow_vector(answer: Answer) -> None:
    """Of the width that was asked for, or a refusal that names the field; this model has fewer."""
    assert (answer.status, answer.json["error"]["param"]) == (400, "dimensions")


def ollama_lines(answer: Answer) -> list[Any]:
    found = answer.lines
    for line in found:
        ChatResponse.model_validate(line, strict=True)
        assert isinstance(line["message"]["content"], str)
        assert isinstance(line["created_at"], str)
        assert isinstance(line["model"], str)
        for one in line["message"].get("tool_calls") or []:
            assert isinstance(one["function"]["arguments"], dict)
    assert [line["done"] for line in found] == [False] * (len(found) - 1) + [True]
    counted = [line for line in found if {"eval_count", "done_reason"} & set(line)]
    assert counted == [found[-1]]
    return found


def ollama_person(answer: Answer) -> None:
    lines = ollama_lines(answer)
    assert lines[-1]["done_reason"] == "stop"
    found = json.loads("".join(line["message"]["content"] for line in lines))
    assert {field: type(value) for field, value in found.items()} == {"name": str, "age": int}


def unloaded(answer: Answer) -> None:
    found = answer.json
    assert (found["done"], found["done_reason"]) == (True, "unload")
    assert found["message"]["content"] == ""


def tags(answer: Answer) -> None:
    ListResponse.model_validate(answer.json)
    for model in answer.json["models"]:
        assert model["name"].endswith(":latest")
        assert isinstance(model["size"], int)
        details = model["details"]
        assert all(isinstance(details[key], str) for key in ("family", "parameter_size", "format"))
        assert isinstance(details["families"], list)
        assert {"model", "modified_at", "digest"} <= set(model)


def shown(answer: Answer) -> None:
    ShowResponse.model_validate(answer.json)
    assert isinstance(answer.json.get("parameters", ""), str)
    assert ".Suffix" in answer.json["template"]


def a_flat_vector(answer: Answer) -> None:
    assert EmbeddingsResponse.model_validate(answer.json).embedding
    assert all(isinstance(one, float) for one in answer.json["embedding"])


def openai_models(answer: Answer) -> None:
    assert answer.json["object"] == "list"
    for one in answer.json["data"]:
        Model.model_validate(one, strict=True)
        assert one.get("name", "") is not None


def anthropic_models(answer: Answer) -> None:
    found = answer.json
    assert found["has_more"] is False
    assert found["first_id"] == found["data"][0]["id"]
    assert found["last_id"] == found["data"][-1]["id"]
    for one in found["data"]:
        assert one["type"] == "model"
        assert one["display_name"]
        assert re.match(r"\d{4}-\d\d-\d\dT", one["created_at"])
        assert one["max_input_tokens"] > 0


def a_message(answer: Answer) -> list[Any]:
    """Named events, one block open at a time, indexes that rise from 0."""
    frames = [frame for frame in answer.data.decode().split("\n\n") if frame]
    documents = []
    for frame in frames:
        name, data = frame.split("\n")
        document = json.loads(data.removeprefix("data: "))
        assert name == f"event: {document['type']}"
        documents.append(document)
    for document in documents:
        if document["type"] != "ping":
            ANTHROPIC.validate_python(document)
    first, *_, last = documents
    assert (first["type"], first["message"]["content"]) == ("message_start", [])
    assert first["message"]["usage"]["input_tokens"] > 0
    assert first["message"]["stop_reason"] is None
    assert last["type"] == "message_stop"
    assert documents[-2]["type"] == "message_delta"
    assert documents[-2]["delta"]["stop_reason"] in {"end_turn", "max_tokens", "tool_use"}
    opened = [one for one in documents if one["type"] == "content_block_start"]
    closed = [one for one in documents if one["type"] == "content_block_stop"]
    order = [one["index"] for one in documents if "index" in one]
    assert order == sorted(order)
    indexes = list(range(len(opened)))
    assert [one["index"] for one in opened] == [one["index"] for one in closed] == indexes
    return documents


def claude_code(answer: Answer) -> None:
    a_message(answer)
    assert answer.headers[SKIPPED] == "web_search_20250305"


def a_demanded_use(answer: Answer) -> None:
    documents = a_message(answer)
    (block,) = [one["content_block"] for one in documents if one["type"] == "content_block_start"]
    assert (block["type"], block["name"], block["input"]) == ("tool_use", "get_weather", {})
    pieces = [
        one["delta"]["partial_json"] for one in documents if "index" in one and "delta" in one
    ]
    assert json.loads("".join(pieces)) == {"city": "Oslo"}
    assert documents[-2]["delta"]["stop_reason"] == "tool_use"


def codex(answer: Answer) -> None:
    events = parsed(answer.data)
    assert answer.headers[SKIPPED] == "web_search, image_generation, tool_search"
    usage = events[-1].response.usage
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert usage.input_tokens_details.cached_tokens >= 0


def home_assistant(answer: Answer) -> None:
    last = parsed(answer.data)[-1]
    assert last.type == "response.completed"
    assert json.loads(last.response.output_text) == {"on": True, "rooms": []}


def copilot(answer: Answer) -> None:
    error = answer.json["error"]
    assert (answer.status, error["code"]) == (400, "previous_response_not_found")


def openai_s_helper(answer: Answer) -> None:
    events = parsed(answer.data)
    kinds = [event.type.removeprefix("response.") for event in events]
    assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert events[0].response.output == []
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    assert all(isinstance(event.logprobs, list) for event in deltas)
    assert events[-1].type == "response.completed"
    assert json.loads(events[-1].response.output_text) == {"name": "Tom"}


def nothing(answer: Answer) -> None:
    """An answer that the client does not read."""


NEEDS: dict[str, Callable[[Answer], Any]] = {
    "anth-01-claude-code-main-turn": claude_code,
    "anth-03-claude-code-tool-results": a_message,
    "anth-05-anthropic-python-forced-tool": a_demanded_use,
    "anth-07-pi-mid-conversation-effort": a_message,
    "chat-01-openai-python-tool-round-trip": a_chat,
    "chat-03-openai-node-stream-forced-tool": a_streamed_call,
    "chat-05-roo-code-openai-compatible": a_chat_stream,
    "chat-07-continue-legacy-completions-fim": a_filled_gap,
    "chat-09-opencode": a_chat_stream,
    "chat-11-open-webui-openai": a_chat_stream,
    "chat-13-instructor-tools": one_person,
    "chat-15-outlines-vllm-regex": a_date,
    "chat-17-pydantic-ai-output-tool": lambda a: calls_in(a, "final_result", city=str, people=int),
    "chat-19-strict-null-and-nulls": a_chat,
    "emb-01-openai-python-default": vectors,
    "emb-03-dimensions-single": a_narrow_vector,
    "olla-01-probe-root": nothing,
    "olla-03-tags": tags,
    "olla-05-show-by-name": shown,
    "olla-07-zed-chat-nulls": ollama_lines,
    "olla-09-format-schema": ollama_person,
    "olla-11-ollama-python-history": ollama_lines,
    "olla-13-load-and-unload": unloaded,
    "olla-15-cline-ollama": ollama_lines,
    "olla-17-embeddings-legacy": a_flat_vector,
    "olla-19-litellm-options": ollama_lines,
    "probe-01-models-openai-clients": openai_models,
    "probe-03-claude-code-model-discovery": anthropic_models,
    "probe-05-claude-code-event-logging": nothing,
    "resp-01-codex-first-turn": codex,
    "resp-03-home-assistant": home_assistant,
    "resp-05-vscode-copilot-byok-responses": copilot,
    "resp-07-openai-python-stream-helper": openai_s_helper,
}
