"""Chat answers with reasoning and tool calls say the same streamed, whole and resumed."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from gpufc.config import LimitsConfig
from gpufc.protocol import Delta, Generate, Step
from supervisor.answers.parts import Part
from supervisor.dispatch.request import Reading
from supervisor.http.generation import chat
from supervisor.http.openai import chat as openai_chat
from supervisor.http.openai.chunks import ChatChunks
from tests.supervisor.answers.toy import Toy
from tests.supervisor.dispatch import fakes
from tests.supervisor.dispatch.fakes import until
from tests.supervisor.http.conftest import Service, running
from tests.supervisor.http.test_durable import ask, frames

SAID = ["<thi", "nk>let", " me</think>I <call f>", '{"a":', "1}</call><call g></", "call>", " ok<"]
ARGUMENTS = [("f", '{"a":1}'), ("g", "")]


@pytest.fixture
async def speaking(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    """A service with a model that says `SAID`, and a parser for it."""

    def piece(_spec: Generate, position: int) -> str:
        return SAID[position]

    monkeypatch.setattr(fakes, "piece", piece)
    monkeypatch.setattr(chat, "reading_of", lambda *_, **__: lambda _opening: Reading(Toy))
    async with running() as service:
        service.fleet.start_worker().n_tokens = len(SAID)
        yield service


def chunks_of(body: bytes) -> list[ChatCompletionChunk]:
    data = [data for _, data in frames(body) if data != "[DONE]"]
    return [ChatCompletionChunk.model_validate(msgspec.json.decode(item)) for item in data]


def message_of(chunks: list[ChatCompletionChunk], index: int = 0) -> dict[str, Any]:
    """One choice as a client adds it up."""
    message: dict[str, Any] = {"content": "", "reasoning_content": "", "calls": [], "finish": []}
    for chunk in chunks:
        for choice in chunk.choices:
            if choice.index != index:
                continue
            delta = choice.delta
            message["content"] += delta.content or ""
            message["reasoning_content"] += (delta.model_extra or {}).get("reasoning_content", "")
            for call in delta.tool_calls or []:
                assert call.function is not None
                if call.id is not None:
                    assert (call.index, call.type) == (len(message["calls"]), "function")
                    message["calls"].append([call.id, call.function.name, ""])
                message["calls"][call.index][2] += call.function.arguments or ""
            message["finish"] += [choice.finish_reason] if choice.finish_reason else []
    return message


async def test_a_streamed_answer_adds_up_to_the_whole_one(speaking: Service) -> None:
    answer = await speaking.chat(n=2)
    whole = ChatCompletion.model_validate(answer.json)
    streamed = chunks_of((await speaking.chat(n=2, stream=True)).body)
    for choice in whole.choices:
        added = message_of(streamed, choice.index)
        message = choice.message
        calls = message.tool_calls or []
        assert message.content == added["content"] == "I  ok<"
        reasoning = (message.model_extra or {})["reasoning_content"]
        assert reasoning == added["reasoning_content"] == "let me"
        functions = [call.function for call in calls if call.type == "function"]
        assert [(call.name, call.arguments) for call in functions] == ARGUMENTS
        assert [tuple(call[1:]) for call in added["calls"]] == ARGUMENTS
        assert [choice.finish_reason] == added["finish"] == ["tool_calls"]
    ids = [call.id for choice in whole.choices for call in choice.message.tool_calls or []]
    assert len(set(ids)) == len(ids) == 4


@pytest.mark.parametrize("fields", [{"include_reasoning": False}, {"reasoning": {"exclude": True}}])
async def test_reasoning_is_left_out_where_it_is_not_wanted(
    speaking: Service, fields: dict[str, Any]
) -> None:
    (choice,) = (await speaking.chat(**fields)).json["choices"]
    assert choice["message"]["content"] == "I  ok<"
    assert "reasoning_content" not in choice["message"]
    added = message_of(chunks_of((await speaking.chat(stream=True, **fields)).body))
    assert (added["content"], added["reasoning_content"]) == ("I  ok<", "")
    assert len(added["calls"]) == 2


@pytest.mark.parametrize("wanted", [{"logprobs": True}, {"n_probs": 1}])
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"include_reasoning": False}, "include_reasoning"),
        ({"reasoning": {"exclude": True}}, "reasoning.exclude"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_log_probabilities_without_their_reasoning_are_refused(
    speaking: Service, wanted: dict[str, Any], fields: dict[str, Any], param: str, stream: bool
) -> None:
    answer = await speaking.chat(stream=stream, **wanted, **fields)
    assert (answer.status, answer.error["param"]) == (400, param)
    (choice,) = (await speaking.chat(**wanted)).json["choices"]
    assert len(choice["logprobs"]["content"]) == len(SAID)


BODY = {"messages": [{"role": "user", "content": "hi"}], "stream": True, "max_tokens": 10**6}
OMITTED = {"thinking": {"type": "enabled", "budget_tokens": 2000, "display": "omitted"}}


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "key"}], ids=["plain", "durable"])
@pytest.mark.parametrize(
    ("path", "fields", "sign"),
    [
        ("/v1/chat/completions", {"include_reasoning": False}, b": waiting\n\n"),
        ("/v1/messages", OMITTED, b'event: ping\ndata: {"type":"ping"}\n\n'),
    ],
)
async def test_a_stream_is_kept_alive_while_reasoning_that_is_left_out_comes(
    monkeypatch: pytest.MonkeyPatch,
    headers: dict[str, str],
    path: str,
    fields: dict[str, Any],
    sign: bytes,
) -> None:
    monkeypatch.setattr(chat, "reading_of", lambda *_, **__: lambda _opening: Reading(Toy))
    limits = LimitsConfig(first_byte_s=3600.0, keepalive_comment_s=0.2)
    async with running(limits) as service:
        worker = service.fleet.start_worker(auto=False)

        async def reason() -> None:
            """Pieces of reasoning, each long before a comment is due."""
            await until(lambda: worker.active)
            (no,) = worker.active
            for position in itertools.count():
                piece = "hm " if position else "<think>hm "
                worker.tell(Step(worker.epoch, position, (Delta(no, position, (1,), piece),)))
                await asyncio.sleep(0.002)

        reasoning = asyncio.create_task(reason())
        try:
            async with (
                asyncio.timeout(60),
                service.http.post(path, json=BODY | fields, headers=headers) as response,
            ):
                found = [await response.content.readuntil(b"\n\n") for _ in range(6)]
        finally:
            reasoning.cancel()
        assert found[-2:] == [sign, sign]
        assert all(b"hm" not in event for event in found)


async def test_an_answer_of_calls_alone_has_no_content_and_a_cut_one_is_too_long(
    speaking: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fakes, "piece", lambda _spec, position: ["<call f>", "{}"][position])
    (choice,) = (await speaking.chat(max_tokens=2)).json["choices"]
    assert choice["message"]["content"] is None
    assert "reasoning_content" not in choice["message"]
    assert choice["finish_reason"] == "length"


async def test_an_answer_without_calls_or_reasoning_has_no_fields_for_them(
    service: Service,
) -> None:
    (choice,) = (await service.chat()).json["choices"]
    assert set(choice["message"]) == {"role", "content", "refusal"}


async def test_from_each_event_s_id_the_rest_of_the_parts_come(speaking: Service) -> None:
    options = {"path": "/v1/chat/completions", "stream": True}
    body = (await ask(speaking, **options)).body
    whole = message_of(chunks_of(body))
    events = frames(body)[:-1]
    assert len({event_id for event_id, _ in events}) == len(events)
    assert any("." in (event_id or "") for event_id, _ in events)
    for count, (event_id, _) in enumerate(events, start=1):
        rest = (await ask(speaking, after=event_id, **options)).body
        before = "".join(f"data: {data}\n\n" for _, data in events[:count]).encode()
        assert message_of(chunks_of(before + rest)) == whole
        roles = [c.delta.role for chunk in chunks_of(rest) for c in chunk.choices]
        assert not any(roles)
    for wrong in (f"{events[0][0]}.9", "deadbeef-1.0", "deadbeef-1.1.1"):
        assert (await ask(speaking, after=wrong, **options)).status == 400


class Doubling(ChatChunks):
    """Writes two events for each part."""

    def chunk(
        self, index: int, gained: bytes, part: Part | None = None, logprobs: bytes = b"null"
    ) -> bytes:
        return 2 * super().chunk(index, gained, part, logprobs)


async def test_of_a_part_s_several_events_the_last_one_has_the_id(
    speaking: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_chat, "ChatChunks", Doubling)
    events = frames((await ask(speaking, path="/v1/chat/completions", stream=True)).body)[:-1]
    (first_id, first), (second_id, second) = events[:2]
    assert (first_id, first) == (None, second)
    assert second_id is not None
