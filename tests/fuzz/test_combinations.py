"""The judge of combinations finds the faults that it looks for."""

import json
from typing import Any

import pytest

from tests.clients.requests.request import Answer
from tests.fuzz.combinations import faults

USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
SHARED = {"id": "x", "created": 1, "model": "m"}


def whole(content: str, **more: Any) -> Answer:
    message = {"role": "assistant", "content": content, "refusal": None} | more.pop("message", {})
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"} | more
    body = {**SHARED, "object": "chat.completion", "choices": [choice], "usage": USAGE}
    return Answer(200, {}, json.dumps(body).encode())


def streamed(content: str, usage: Any = USAGE, **more: Any) -> Answer:
    delta = {"role": "assistant", "content": content}
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": "stop"} | more
    shared = {**SHARED, "object": "chat.completion.chunk"}
    chunks = [{**shared, "choices": [choice]}, {**shared, "choices": [], "usage": usage}]
    frames = [*map(json.dumps, chunks), "[DONE]"]
    data = "".join(f"data: {one}\n\n" for one in frames).encode()
    return Answer(200, {"Content-Type": "text/event-stream"}, data, stream=True)


def refusal(param: str | None, code: str = "invalid_value", status: int = 400) -> Answer:
    error = {"message": "no", "type": "invalid_request_error", "param": param, "code": code}
    return Answer(status, {}, json.dumps({"error": error}).encode())


def test_a_right_answer_has_no_fault() -> None:
    assert faults({"max_tokens": 5}, whole("ab"), streamed("ab")) == []


@pytest.mark.parametrize(
    ("body", "answers", "fault"),
    [
        ({}, (whole("ab"), streamed("a")), "joined"),
        ({}, (whole("a"), streamed("a", USAGE | {"completion_tokens": 9})), "in the stream"),
        ({"n": 2}, (whole("a"), streamed("a")), "1 choices"),
        ({"regex": "b"}, (whole("a"), streamed("a")), "is not b"),
        ({"response_format": {"type": "json_object"}}, (whole("a"), streamed("a")), "no JSON"),
        ({"logprobs": True}, (whole("a"), streamed("a")), "no log probabilities"),
        ({"max_tokens": 1}, (whole("a"), streamed("a")), "2 tokens of at most 1"),
        (
            {"max_tokens": 3},
            (whole("a", finish_reason="length"), streamed("a", finish_reason="length")),
            "cut at 2",
        ),
        ({"tool_choice": "required"}, (whole("a"), streamed("a")), "no call"),
        ({"stop": "x"}, (refusal("tools"), refusal("tools")), "which was not sent"),
        ({"stop": "x"}, (refusal("stop", status=500), refusal("stop", status=500)), "status 500"),
        ({"stop": "x"}, (refusal("stop"), refusal("stop", "other")), "another refusal"),
    ],
)
def test_a_fault_is_found(body: dict[str, Any], answers: tuple[Answer, Answer], fault: str) -> None:
    assert any(fault in line for line in faults(body, *answers))
