"""`/api/chat`: lines that add up to the whole answer, life without messages, errors as texts."""

import asyncio
from typing import Any

import msgspec
import pytest
from ollama import ChatResponse, GenerateResponse

from gpufc.config import LimitsConfig
from supervisor.dispatch.recovery import MAX_FRUITLESS_REPLAYS
from tests.supervisor.dispatch.fakes import FAILED, MODEL, text_of, until
from tests.supervisor.dispatch.front import CRASHED
from tests.supervisor.http.conftest import Service, running
from tests.supervisor.http.ollama.conftest import HI, Speaking, ask, lines

FIGURES = {
    *("total_duration", "load_duration", "prompt_eval_count", "prompt_eval_duration"),
    *("eval_count", "eval_duration"),
}
SAID = ["<thi", "nk>let", " me</think>I <call f>", '{"a":', "1}</call><call g></", "call>", " ok<"]


def message_of(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The message as a client adds it up."""
    message: dict[str, Any] = {"role": "assistant", "content": "", "thinking": "", "tool_calls": []}
    for line in found:
        assert line["model"] == MODEL
        assert isinstance(line["created_at"], str)
        assert line["message"]["role"] == "assistant"
        message["content"] += line["message"]["content"]
        message["thinking"] += line["message"].get("thinking", "")
        message["tool_calls"] += line["message"].get("tool_calls", [])
    return message


async def both(service: Service, **fields: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """An answer whole and streamed. They agree."""
    whole = (await ask(service, stream=False, **fields)).json
    streamed = lines(await ask(service, **fields))
    assert whole["done"] is True
    added = {"thinking": "", "tool_calls": []} | whole["message"]
    first, second = added.pop("tool_calls"), message_of(streamed).pop("tool_calls")
    assert [call["function"] for call in first] == [call["function"] for call in second]
    assert added == {k: v for k, v in message_of(streamed).items() if k != "tool_calls"}
    assert streamed[-1]["done_reason"] == whole["done_reason"]
    return whole, streamed


async def test_a_stream_is_the_default_and_adds_up_to_the_whole_answer(speaking: Speaking) -> None:
    speaking.says(*SAID)
    whole, streamed = await both(speaking.service)
    message = whole["message"]
    assert (message["content"], message["thinking"]) == ("I  ok<", "let me")
    assert [call["function"] for call in message["tool_calls"]] == [
        {"index": 0, "name": "f", "arguments": {"a": 1}},
        {"index": 1, "name": "g", "arguments": {}},
    ]
    ids = [call["id"] for call in message["tool_calls"]]
    assert len(set(ids)) == 2
    assert whole["done_reason"] == "stop"
    assert [len(line["message"].get("tool_calls", [])) for line in streamed].count(1) == 2


async def test_only_the_last_line_has_figures(service: Service) -> None:
    whole, streamed = await both(service)
    assert [FIGURES & set(line) for line in streamed[:-1]] == [set()] * (len(streamed) - 1)
    for last in (whole, streamed[-1]):
        assert (last["prompt_eval_count"], last["eval_count"]) == (len("<user>hi"), 5)
        times = [last[name] for name in FIGURES if name.endswith("duration")]
        assert all(isinstance(time, int) and time >= 0 for time in times)
        assert last["total_duration"] >= last["eval_duration"]
    assert streamed[-1]["message"] == {"role": "assistant", "content": ""}


async def test_an_answer_without_reasoning_and_calls_has_no_fields_for_them(
    service: Service,
) -> None:
    whole, streamed = await both(service)
    assert set(whole["message"]) == {"role", "content"}
    assert all(set(line["message"]) == {"role", "content"} for line in streamed)


async def test_an_answer_that_is_cut_ends_with_length(service: Service) -> None:
    whole, _ = await both(service, options={"num_predict": 2})
    assert (whole["done_reason"], whole["eval_count"]) == ("length", 2)


@pytest.mark.parametrize("arguments", ['{"a": ', "[1]", "7"])
async def test_a_call_without_an_object_of_arguments_is_text(
    speaking: Speaking, arguments: str
) -> None:
    speaking.says(f"<call f>{arguments}</call>", " and more")
    whole, streamed = await both(speaking.service)
    assert whole["message"] == {
        "role": "assistant",
        "content": f" and moref({arguments})",
    }
    assert not any("tool_calls" in line["message"] for line in streamed)


async def test_a_call_comes_in_one_line_before_the_text_behind_it(speaking: Speaking) -> None:
    speaking.says("<call f>{", "}</call>", "done")
    *begin, last = lines(await ask(speaking.service))
    assert [sorted(line["message"]) for line in begin] == [
        ["content", "role", "tool_calls"],
        ["content", "role"],
    ]
    assert last["done_reason"] == "stop"


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
async def test_each_token_has_its_log_probability_and_the_best_ones(
    service: Service, path: str
) -> None:
    asked = {"logprobs": True, "top_logprobs": 2}
    whole = (await ask(service, path, stream=False, **asked)).json
    streamed = lines(await ask(service, path, **asked))
    entries = whole["logprobs"]
    text = whole["message"]["content"] if path == "/api/chat" else whole["response"]
    assert "".join(entry["token"] for entry in entries) == text
    assert [entry["logprob"] for entry in entries] == [-0.125 * n for n in range(1, 6)]
    assert [top["token"] for top in entries[0]["top_logprobs"]] == ["<0>", "<1>"]
    assert [entry for line in streamed for entry in line.get("logprobs", [])] == entries
    kind = ChatResponse if path == "/api/chat" else GenerateResponse
    for one in (whole, *streamed):
        kind.model_validate(one)


async def test_no_log_probabilities_come_unasked(service: Service) -> None:
    for asked in ({}, {"logprobs": False}, {"top_logprobs": 3}):
        whole, streamed = await both(service, **asked)
        assert not any("logprobs" in line for line in (whole, *streamed))
    (first, *_) = (await ask(service, stream=False, logprobs=True)).json["logprobs"]
    assert set(first) == {"token", "logprob", "bytes"}


async def test_too_many_of_the_best_are_refused(service: Service) -> None:
    answer = await ask(service, logprobs=True, top_logprobs=99)
    assert (answer.status, list(answer.json)) == (400, ["error"])


async def test_the_log_probabilities_of_a_call_come_with_its_line(speaking: Speaking) -> None:
    speaking.says("<call f>", '{"a":', "1}", "</call>", "ok")
    whole = (await ask(speaking.service, stream=False, logprobs=True)).json
    streamed = lines(await ask(speaking.service, logprobs=True))
    assert len(whole["logprobs"]) == 5
    assert [one for line in streamed for one in line.get("logprobs", [])] == whole["logprobs"]
    assert message_of(streamed)["content"] == "ok"
    assert len(message_of(streamed)["tool_calls"]) == 1


async def test_a_waiting_stream_is_kept_alive_with_lines_without_content() -> None:
    async with running(LimitsConfig(first_byte_s=0.02, keepalive_comment_s=0.02)) as service:
        body = {"model": MODEL, "messages": HI}
        async with service.http.post("/api/chat", json=body) as response:
            assert response.status == 200
            for _ in range(3):
                line = msgspec.json.decode(await response.content.readline())
                assert line["message"] == {"role": "assistant", "content": ""}
                assert line["done"] is False
            service.fleet.start_worker()
            rest = (await response.read()).split(b"\n")
        assert rest[-1] == b""
        found = [msgspec.json.decode(line) for line in rest[:-1]]
        assert found[-1]["done"] is True
        assert message_of(found)["content"] == text_of("<user>hi")


async def test_an_error_in_a_stream_is_a_last_line_with_a_text() -> None:
    async with running(LimitsConfig(first_byte_s=0.02)) as service:
        worker = service.fleet.start_worker(auto=False)
        asking = asyncio.create_task(ask(service))
        await until(lambda: worker.active)
        worker.step()
        for _ in range(MAX_FRUITLESS_REPLAYS + 1):
            worker.die(CRASHED)
            worker = service.fleet.start_worker(auto=False)
            await until(lambda: worker.active or service.dispatcher.idle)  # noqa: B023
        *begin, last = (await asking).body.splitlines()
        assert begin
        assert set(msgspec.json.decode(last)) == {"error"}
        assert isinstance(msgspec.json.decode(last)["error"], str)


async def test_an_error_before_a_stream_is_a_status_and_a_text() -> None:
    async with running() as service:
        service.fleet.change(FAILED)
        answer = await ask(service)
        assert (answer.status, list(answer.json)) == (503, ["error"])
        assert answer.headers["Retry-After"]


async def test_an_unknown_model_is_not_found_in_ollama_s_words(service: Service) -> None:
    for path in ("/api/chat", "/api/generate", "/api/show"):
        answer = await ask(service, path, model="it's none")
        assert answer.status == 404
        assert answer.json == {"error": "model 'it's none' not found"}


async def test_another_method_is_refused_with_a_text(service: Service) -> None:
    answer = await service.get("/api/chat")
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")
    assert isinstance(answer.json["error"], str)


@pytest.mark.parametrize("messages", [[], None])
@pytest.mark.parametrize("stream", [True, False, None])
async def test_without_messages_the_model_is_loaded(stream: bool | None, messages: Any) -> None:
    async with running() as service:
        asking = asyncio.create_task(ask(service, messages=messages, stream=stream))
        await until(lambda: service.dispatcher.group(MODEL).questions)
        assert not asking.done()
        service.fleet.start_worker()
        answer = (await asking).json
        assert (answer["done"], answer["done_reason"]) == (True, "load")
        assert answer["message"] == {"role": "assistant", "content": ""}


async def test_to_load_a_model_that_failed_is_an_error() -> None:
    async with running() as service:
        service.fleet.change(FAILED)
        assert (await ask(service, messages=[])).status == 503


@pytest.mark.parametrize("keep_alive", [0, 0.0, "0", "0s", "0m0s", "-0"])
async def test_a_keep_alive_of_zero_without_messages_asks_to_unload(keep_alive: Any) -> None:
    async with running() as service:  # without a worker: nothing waits for one
        answer = (await ask(service, messages=[], keep_alive=keep_alive)).json
        assert (answer["done"], answer["done_reason"]) == (True, "unload")


@pytest.mark.parametrize("keep_alive", [-1, 300, "5m", "1h", "-1", "0.5s", None, True])
async def test_any_other_keep_alive_loads_and_changes_no_answer(
    service: Service, keep_alive: Any
) -> None:
    answer = (await ask(service, messages=[], keep_alive=keep_alive)).json
    assert answer["done_reason"] == "load"
    assert lines(await ask(service, keep_alive=keep_alive))[-1]["done_reason"] == "stop"


async def test_a_durable_chat_is_joined_and_its_lines_have_no_ids(service: Service) -> None:
    sent = {"Content-Type": "application/json", "Idempotency-Key": "key"}
    body = {"model": MODEL, "messages": HI}
    first = await service.post("/api/chat", body, headers=sent)
    again = await service.post("/api/chat", body, headers=sent)
    assert message_of(lines(first)) == message_of(lines(again))
    assert first.body.splitlines()[-1] == again.body.splitlines()[-1]


async def test_a_durable_chat_cannot_be_resumed_in_its_middle(service: Service) -> None:
    sent = {"Content-Type": "application/json", "Idempotency-Key": "key"}
    body = {"model": MODEL, "messages": HI}
    first = await service.post("/api/chat", body, headers=sent)
    tag = first.headers["X-Request-Id"][:8]
    answer = await service.post("/api/chat", body, headers=sent | {"Last-Event-ID": f"{tag}-2"})
    assert (answer.status, list(answer.json)) == (400, ["error"])
