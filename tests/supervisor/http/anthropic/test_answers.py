"""A message, whole and streamed, as Anthropic's own types read it."""

import asyncio
from typing import Any

import pytest
from anthropic.types import Message, MessageDeltaUsage, ToolUseBlock, Usage
from anthropic.types.raw_message_delta_event import Delta as MessageDelta

from gpufc.protocol import Delta, FinishReason, Step
from supervisor.http.anthropic.answer import StopReason
from tests.supervisor.dispatch.fakes import MODEL, text_of, until
from tests.supervisor.http.anthropic.conftest import (
    HELLO,
    SAID,
    TOOLS,
    added_up,
    ask,
    client_of,
    events,
    frames,
    speaks,
)
from tests.supervisor.http.conftest import Service, running

BLOCKS: list[dict[str, Any]] = [
    {"type": "thinking", "thinking": "let me", "signature": "gpufc"},
    {"type": "text", "text": "I "},
    {"type": "tool_use", "name": "f", "input": {"a": 1}},
    {"type": "tool_use", "name": "g", "input": {}},
    {"type": "text", "text": " ok<"},
]


ENDS = ("message_start", "message_delta", "message_stop")


NEWEST = {
    *("diagnostics", "speed", "toolset_name"),
}
"""Members that the SDK's types have and Anthropic's description of an answer does not require."""


def plain(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Blocks without their ids, and without members that are the same everywhere."""
    same = {"id", "citations", "caller"}
    return [{key: value for key, value in block.items() if key not in same} for block in blocks]


def given(usage: dict[str, Any]) -> dict[str, Any]:
    """The members that have a value here."""
    return {key: value for key, value in usage.items() if value is not None}


async def test_a_message_is_anthropic_s_object(service: Service) -> None:
    answer = await ask(service)
    found = Message.model_validate(answer.json, strict=True)
    assert found.id.startswith("msg_")
    assert (found.type, found.role, found.model) == ("message", "assistant", MODEL)
    assert [block.model_dump(exclude_none=True) for block in found.content] == [
        {"type": "text", "text": text_of("<user>hi"), "citations": []}
    ]
    assert (found.stop_reason, found.stop_sequence) == ("end_turn", None)
    assert answer.headers["request-id"] == answer.headers["X-Request-Id"] == found.id[4:]


async def test_every_member_that_anthropic_requires_is_there(speaking: Service) -> None:
    """Their description of an answer requires members that are null nearly always."""
    whole = (await ask(speaking)).json
    read = dict(frames((await ask(speaking, stream=True)).body))
    call = next(block for block in whole["content"] if block["type"] == "tool_use")
    for kind, found in (
        (Message, whole),
        (Message, read["message_start"]["message"]),
        (Usage, whole["usage"]),
        (Usage, read["message_start"]["message"]["usage"]),
        (MessageDeltaUsage, read["message_delta"]["usage"]),
        (MessageDelta, read["message_delta"]["delta"]),
        (ToolUseBlock, call),
    ):
        assert set(kind.model_fields) - NEWEST <= set(found), kind
    assert call["caller"] == {"type": "direct"}


async def test_usage_tells_cached_tokens_apart() -> None:
    async with running() as service:
        worker = service.fleet.start_worker()
        worker.n_cached = 6
        usage = given((await ask(service)).json["usage"])
        assert usage == {
            "input_tokens": 2,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 6,
            "output_tokens": 5,
            "service_tier": "standard",
        }
        read = events((await ask(service, stream=True)).body)
        begun, ended = read[0].message.usage, read[-2].usage
        assert begun.model_dump(exclude_none=True) == usage | {"output_tokens": 0}
        assert ended.model_dump(exclude_none=True) == usage


async def test_a_stream_has_its_events_in_order(service: Service) -> None:
    answer = await ask(service, stream=True)
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert answer.headers["request-id"]
    names = [name for name, _ in frames(answer.body)]
    assert names[:2] == ["message_start", "content_block_start"]
    assert set(names[2:-3]) == {"content_block_delta"}
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    begun = events(answer.body)[0].message
    assert (begun.content, begun.stop_reason, begun.stop_sequence) == ([], None, None)


async def test_a_stream_adds_up_to_the_whole_message(speaking: Service) -> None:
    whole = Message.model_validate((await ask(speaking)).json)
    read = events((await ask(speaking, stream=True)).body)
    content = [block.model_dump(exclude_none=True) for block in whole.content]
    assert plain(content) == plain(added_up(read)) == BLOCKS
    assert [event.delta.stop_reason for event in read if event.type == "message_delta"] == [
        whole.stop_reason
    ]
    assert whole.stop_reason == "tool_use"
    ids = [block["id"] for block in content if "id" in block]
    assert len(set(ids)) == 2
    assert all(own_id.startswith("toolu_") for own_id in ids)


async def test_the_sdk_reads_the_same_streamed_and_whole(speaking: Service) -> None:
    async with client_of(speaking) as client:
        asked: Any = {
            "model": MODEL,
            "max_tokens": 64,
            "messages": [{"role": "user", "content": "x"}],
        }
        whole = await client.messages.create(**asked, tools=TOOLS)
        async with client.messages.stream(**asked, tools=TOOLS) as stream:
            pieces = [text async for text in stream.text_stream]
            streamed = await stream.get_final_message()
    same = {"content", "id"}
    assert streamed.model_dump(exclude=same) == whole.model_dump(exclude=same)
    assert plain(streamed.model_dump(exclude_none=True)["content"]) == BLOCKS
    assert "".join(pieces) == "I  ok<"


async def test_from_each_event_s_id_the_rest_of_the_message_comes(speaking: Service) -> None:
    headers = {"Content-Type": "application/json", "Idempotency-Key": "key"}
    body = {"messages": HELLO, "stream": True}
    whole = (await speaking.post("/v1/messages", body, headers=headers)).body
    parts = [part + b"\n\n" for part in whole.split(b"\n\n")[:-1]]
    numbered = [at for at, part in enumerate(parts) if part.startswith(b"id: ")]
    assert len(numbered) > len(SAID)
    for at in numbered:
        after = {"Last-Event-ID": parts[at].split(b"\n")[0].removeprefix(b"id: ").decode()}
        rest = (await speaking.post("/v1/messages", body, headers=headers | after)).body
        together = b"".join(parts[: at + 1]) + rest
        assert added_up(events(together)) == added_up(events(whole))
        names = [name for name, _ in frames(together)]
        assert [names.count(name) for name in ENDS] == [1, 1, 1]


async def test_omitted_thinking_has_a_block_without_text(speaking: Service) -> None:
    thinking = {"type": "enabled", "budget_tokens": 1024, "display": "omitted"}
    whole = (await ask(speaking, thinking=thinking)).json["content"]
    read = added_up(events((await ask(speaking, thinking=thinking, stream=True)).body))
    empty = {"type": "thinking", "thinking": "", "signature": "gpufc"}
    assert plain(whole) == plain(read) == [empty, *BLOCKS[1:]]


@pytest.mark.parametrize(
    ("said", "limit", "reason"),
    [
        (["a", "b"], 64, StopReason.END_TURN),
        (["a", "b"], 2, StopReason.MAX_TOKENS),
        (["<call f>", "{}", "</call>"], 64, StopReason.TOOL_USE),
        (["<call f>", "{}", "</call>"], 3, StopReason.MAX_TOKENS),
    ],
)
async def test_a_message_ends_for_a_reason(
    said: list[str], limit: int, reason: StopReason, monkeypatch: pytest.MonkeyPatch
) -> None:
    speaks(monkeypatch, *said)
    async with running() as service:
        service.fleet.start_worker().n_tokens = len(said)
        whole = await ask(service, max_tokens=limit)
        read = events((await ask(service, max_tokens=limit, stream=True)).body)
        assert whole.json["stop_reason"] == read[-2].delta.stop_reason == reason


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(
    ("end", "reason", "sequence"),
    [
        ({"finish": FinishReason.LENGTH}, StopReason.CONTEXT_END, None),
        ({"finish": FinishReason.STOP, "stopped_by": 1}, StopReason.STOP_SEQUENCE, "END"),
    ],
)
async def test_the_context_s_end_and_a_stop_sequence_are_told(
    end: dict[str, Any], reason: StopReason, sequence: str | None, streamed: bool
) -> None:
    async with running() as service:
        worker = service.fleet.start_worker(auto=False)
        asking = asyncio.create_task(ask(service, stop_sequences=["STOP", "END"], stream=streamed))
        await until(lambda: worker.active)
        (no,) = worker.active
        worker.tell(Step(worker.epoch, 1, (Delta(no, 0, (1,), "x", **end),)))
        answer = await asking
        found = events(answer.body)[-2].delta if streamed else Message(**answer.json)
        assert (found.stop_reason, found.stop_sequence) == (reason, sequence)


async def test_a_call_that_the_limit_cuts_is_no_block_of_a_whole_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    speaks(monkeypatch, "<call f>", '{"path": "/', "etc")
    async with running() as service:
        service.fleet.start_worker().n_tokens = 3
        found = (await ask(service, max_tokens=3)).json
        assert (found["content"], found["stop_reason"]) == ([], "max_tokens")
