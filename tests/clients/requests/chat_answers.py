"""Chat completions as OpenAI's clients read them: whole, and put together from chunks."""

import json
from collections.abc import Sequence
from typing import Any

from jsonschema import Draft202012Validator
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.chat_completion import Choice

from tests.clients.requests.request import SKIPPED, Answer, Check

REASONS = {"stop", "length", "tool_calls", "function_call"}


def chat(answer: Answer) -> list[Choice]:
    """The choices of an answer, whole or streamed, read with the SDK's types."""
    if not answer.stream:
        whole = ChatCompletion.model_validate(answer.json, strict=True)
        assert whole.usage is not None
        assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
        assert all(choice.finish_reason in REASONS for choice in whole.choices)
        assert all(choice.message.role == "assistant" for choice in whole.choices)
        return whole.choices
    assert answer.data.endswith(b"data: [DONE]\n\n")
    return joined([ChatCompletionChunk.model_validate(one) for one in answer.events])


def joined(chunks: Sequence[ChatCompletionChunk]) -> list[Choice]:
    """Whole choices from chunks, put together as openai-node does."""
    assert len({(chunk.id, chunk.model, chunk.created) for chunk in chunks}) == 1
    found: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for one in chunk.choices:
            choice = found.setdefault(one.index, new_choice(one.index))
            message, delta = choice["message"], one.delta
            assert choice["finish_reason"] is None
            assert delta.role in (None, "assistant")
            for name in ("content", "reasoning_content"):
                if (piece := getattr(delta, name, None)) is not None:
                    message[name] = (message.get(name) or "") + piece
            for call in delta.tool_calls or ():
                add_call(message.setdefault("tool_calls", []), call)
            if delta.function_call is not None:
                called = message.setdefault("function_call", {"name": "", "arguments": ""})
                called["name"] += delta.function_call.name or ""
                called["arguments"] += delta.function_call.arguments or ""
            if one.logprobs and one.logprobs.content:
                choice["logprobs"] = choice["logprobs"] or {"content": [], "refusal": None}
                choice["logprobs"]["content"] += [
                    entry.model_dump() for entry in one.logprobs.content
                ]
            choice["finish_reason"] = one.finish_reason
    assert [chunk.usage is not None for chunk in chunks].count(True) <= 1
    return [Choice.model_validate(found[index], strict=True) for index in sorted(found)]


def new_choice(index: int) -> dict[str, Any]:
    message = {"role": "assistant", "content": None, "refusal": None}
    return {"index": index, "finish_reason": None, "logprobs": None, "message": message}


def add_call(calls: list[Any], delta: Any) -> None:
    if delta.index == len(calls):
        assert delta.id
        assert delta.type == "function"
        assert delta.function.name
        named = {"name": delta.function.name, "arguments": ""}
        calls.append({"id": delta.id, "type": "function", "function": named})
    else:
        assert delta.index == len(calls) - 1
        assert delta.id is None
    calls[-1]["function"]["arguments"] += delta.function.arguments or ""


def says(n: int = 1) -> Check:
    """So many choices with a text."""

    def check(answer: Answer) -> None:
        choices = chat(answer)
        assert [choice.index for choice in choices] == list(range(n))
        assert all(isinstance(choice.message.content, str) for choice in choices)

    return check


def fits(schema: dict[str, Any] | None = None) -> Check:
    """A whole JSON answer of the schema; one that was cut is a beginning."""

    def check(answer: Answer) -> None:
        (choice,) = chat(answer)
        if choice.finish_reason == "length":
            return
        document = json.loads(choice.message.content or "")
        assert not [*Draft202012Validator(schema or {"type": "object"}).iter_errors(document)]

    return check


def calls(*names: str, most: int = 1) -> Check:
    """One call or more, each of one of these functions, with arguments that are an object."""

    def check(answer: Answer) -> None:
        (choice,) = chat(answer)
        found = choice.message.tool_calls or []
        if choice.finish_reason == "length" and not found:
            return
        assert 1 <= len(found) <= most
        assert not choice.message.content
        assert len({call.id for call in found}) == len(found)
        for call in found:
            assert call.type == "function"
            assert call.function.name in names
            if choice.finish_reason != "length":
                assert isinstance(json.loads(call.function.arguments), dict)
        assert choice.finish_reason in ("tool_calls", "length")

    return check


def may_call(answer: Answer) -> None:
    """A text, calls, or both."""
    (choice,) = chat(answer)
    for call in choice.message.tool_calls or ():
        if call.type == "function" and choice.finish_reason != "length":
            json.loads(call.function.arguments)


def skipped(*types: str) -> Check:
    def check(answer: Answer) -> None:
        may_call(answer)
        assert answer.headers[SKIPPED] == ", ".join(types)

    return check
