"""Completions and chat: requests and their answers."""

from typing import Any

import openai
import pytest

from gpufc.chat import ChatPrompt
from gpufc.protocol import NO_RULES, InfillPrompt, Prepare, TextPrompt, TokenPrompt, TokenRules
from gpufc.sampling import SamplingFields
from supervisor.fleet.names import ServedNames
from tests.supervisor.dispatch.fakes import FAILED, MODEL, generates, text_of, until
from tests.supervisor.http.conftest import Service, running


async def test_a_completion_is_openai_s_object(service: Service) -> None:
    answer = await service.complete(model=MODEL)
    assert answer.status == 200
    body = answer.json
    assert body["id"].startswith("cmpl-")
    assert (body["object"], body["model"]) == ("text_completion", MODEL)
    assert body["system_fingerprint"] == "fp_abc123"
    assert body["choices"] == [
        {"index": 0, "text": text_of("hello"), "logprobs": None, "finish_reason": "stop"}
    ]
    assert body["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 5,
        "total_tokens": 10,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


async def test_a_streamed_completion_is_the_same_text(service: Service) -> None:
    answer = await service.complete(stream=True, stream_options={"include_usage": True})
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    *chunks, last = answer.events
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == text_of("hello")
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks][-1] == "stop"
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 10


async def test_usage_is_left_out_of_a_stream_unless_asked_for(service: Service) -> None:
    events = (await service.complete(stream=True)).events
    assert all("usage" not in event for event in events)


async def test_several_prompts_and_choices_are_numbered_as_openai_does(service: Service) -> None:
    whole = (await service.complete(prompt=["a", "b"], n=2)).json
    expected = [text_of(prompt, choice=choice) for prompt in "ab" for choice in (0, 1)]
    assert [choice["text"] for choice in whole["choices"]] == expected
    texts = ["", "", "", ""]
    for event in (await service.complete(prompt=["a", "b"], n=2, stream=True)).events:
        texts[event["choices"][0]["index"]] += event["choices"][0]["text"]
    assert texts == expected


async def test_token_prompts_reach_the_worker_as_they_are() -> None:
    async with running() as service:
        worker = service.fleet.start_worker()
        await service.complete(prompt=[1, 2, 3])
        await service.complete(prompt=[[1], [2, 3]])
        prompts = [message.prompt for message in worker.sent if isinstance(message, Prepare)]
        assert prompts == [TokenPrompt((1, 2, 3)), TokenPrompt((1,)), TokenPrompt((2, 3))]


async def test_the_rules_for_tokens_reach_the_worker() -> None:
    async with running() as service:
        worker = service.fleet.start_worker()
        fields = {"stop_token_ids": [5], "allowed_token_ids": [5, 6], "min_tokens": 2}
        await service.complete(**fields, include_stop_str_in_output=True)
        await service.chat()
        rules = [message.rules for message in generates(worker.sent)]
        assert rules == [TokenRules((5,), (5, 6), 2, keeps_stop=True), NO_RULES]


async def test_a_suffix_makes_a_gap_of_each_prompt() -> None:
    async with running() as service:
        worker = service.fleet.start_worker()
        await service.complete(prompt=["a", "b"], suffix="z")
        await service.complete(prompt="a", suffix="")
        prompts = [message.prompt for message in worker.sent if isinstance(message, Prepare)]
        assert prompts == [InfillPrompt("a", "z"), InfillPrompt("b", "z"), TextPrompt("a")]


async def test_max_tokens_defaults_to_16_for_completions_and_to_the_context_for_chat() -> None:
    async with running() as service:
        worker = service.fleet.start_worker()
        await service.complete()
        await service.chat()
        await service.complete(n_predict=3)
        await service.complete(n_predict=-1)
        await service.chat(max_tokens=2, max_completion_tokens=4)
        await service.chat(max_tokens=None)
        await service.complete(max_tokens=-1)
        await service.chat(max_tokens=1, max_completion_tokens=-1)
        await service.complete(max_tokens=10**12)
        limits = [message.max_tokens for message in generates(worker.sent)]
        assert limits == [16, None, 3, None, 4, None, None, None, 2**31 - 1]


async def test_sampling_fields_of_both_dialects_reach_the_worker() -> None:
    async with running() as service:
        worker = service.fleet.start_worker()
        fields = {
            "temperature": 0,
            "top_p": 0.5,
            "top_k": 7,
            "min_p": 0.1,
            "typical_p": 0.9,
            "top_n_sigma": 1.5,
            "repeat_penalty": 1.1,
            "repeat_last_n": 10,
            "frequency_penalty": 0.5,
            "presence_penalty": -0.5,
            "ignore_eos": True,
            "min_keep": 2,
            "dynatemp_range": 0.25,
            "dynatemp_exponent": 2.0,
            "xtc_probability": 0.5,
            "xtc_threshold": 0.2,
            "dry_multiplier": 0.8,
            "dry_base": 2.0,
            "dry_allowed_length": 3,
            "dry_penalty_last_n": -1,
            "mirostat": 2,
            "mirostat_tau": 4.0,
            "mirostat_eta": 0.2,
        }
        await service.complete(
            **fields, seed=-2, logit_bias={"5": -100}, stop=["a", "b"], cache_prompt=False
        )
        (sent,) = generates(worker.sent)
        assert {name: getattr(sent.sampling, name) for name in fields} == fields
        assert sent.sampling.seed == 2**63 - 2
        assert sent.sampling.logit_bias == ((5, -100.0),)
        assert sent.stop == ("a", "b")
        assert sent.cache_prompt is False


async def test_the_model_s_defaults_are_sent_where_a_request_has_no_value() -> None:
    async with running() as service:
        worker = service.fleet.start_worker()
        service.fleet.defaults = SamplingFields(temperature=0.1, mirostat=1)
        await service.complete(mirostat=0)
        await service.chat(temperature=0.5)
        first, second = (message.sampling for message in generates(worker.sent))
        assert (first.temperature, first.mirostat) == (0.1, 0)
        assert (second.temperature, second.mirostat) == (0.5, 1)


@pytest.mark.parametrize("field", ["top_k", "top_n_sigma"])
@pytest.mark.parametrize("value", [-1, 0])
async def test_a_sampler_that_llama_server_switches_off_is_off(field: str, value: int) -> None:
    async with running() as service:
        worker = service.fleet.start_worker()
        await service.complete(**{field: value})
        (sent,) = generates(worker.sent)
        assert getattr(sent.sampling, field) == 0


async def test_a_chat_completion_is_openai_s_object(service: Service) -> None:
    body = (await service.chat()).json
    assert body["object"] == "chat.completion"
    assert body["id"].startswith("chatcmpl-")
    (choice,) = body["choices"]
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"] == text_of("<user>hi")
    assert choice["finish_reason"] == "stop"


async def test_a_chat_stream_begins_with_the_role_and_ends_with_an_empty_delta(
    service: Service,
) -> None:
    events = (await service.chat(stream=True, n=2)).events
    for index in (0, 1):
        own = [e["choices"][0] for e in events if e["choices"][0]["index"] == index]
        assert own[0]["delta"] == {"role": "assistant", "content": ""}
        assert own[-1]["delta"] == {}
        assert own[-1]["finish_reason"] == "stop"
        text = "".join(choice["delta"].get("content", "") for choice in own)
        assert text == text_of("<user>hi", choice=index)
        assert all(choice["finish_reason"] is None for choice in own[:-1])


async def test_messages_reach_the_worker_joined_and_in_the_templates_words() -> None:
    async with running() as service:
        worker = service.fleet.start_worker()
        parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
        messages = [{"role": "developer", "content": "x"}, {"role": "user", "content": parts}]
        await service.chat(messages=messages)
        (prepare,) = [message for message in worker.sent if isinstance(message, Prepare)]
        assert isinstance(prepare.prompt, ChatPrompt)
        got = [(message.role, message.content) for message in prepare.prompt.messages]
        assert got == [("system", "x"), ("user", "ab")]


@pytest.mark.parametrize(
    "text", ["ünïcödé", "🙂👩‍👩‍👧", "中文", 'quote " and \\ and \n newline \x00', "\u2028"]
)
async def test_text_comes_through_a_stream_unbroken(
    service: Service, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.supervisor.dispatch.fakes.piece", lambda spec, position: text)
    events = (await service.complete(stream=True)).events
    assert "".join(event["choices"][0]["text"] for event in events) == text * 5


async def test_the_openai_client_lists_completes_chats_and_streams(service: Service) -> None:
    async with openai.AsyncOpenAI(
        base_url=service.url + "/v1", api_key="none", max_retries=0
    ) as client:
        models = await client.models.list()
        assert [model.id for model in models.data] == [MODEL]
        assert (await client.models.retrieve(MODEL)).id == MODEL
        completion = await client.completions.create(model=MODEL, prompt="hello")
        assert completion.choices[0].text == text_of("hello")
        messages: Any = [{"role": "user", "content": "hi"}]
        chat = await client.chat.completions.create(model=MODEL, messages=messages)
        assert chat.choices[0].message.content == text_of("<user>hi")
        stream = await client.chat.completions.create(
            model=MODEL, messages=messages, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        assert chunks[-1].usage is not None
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
        assert text == text_of("<user>hi")


async def test_the_openai_client_gets_typed_exceptions(service: Service) -> None:
    async with openai.AsyncOpenAI(
        base_url=service.url + "/v1", api_key="none", max_retries=0
    ) as client:
        with pytest.raises(openai.BadRequestError) as bad:
            await client.completions.create(model=MODEL, prompt="x", temperature=-1)
        assert bad.value.param == "temperature"
        with pytest.raises(openai.NotFoundError) as unknown:
            await client.completions.create(model="absent", prompt="x")
        assert unknown.value.code == "model_not_found"
        service.fleet.change(FAILED)
        with pytest.raises(openai.InternalServerError) as unavailable:
            await client.completions.create(model=MODEL, prompt="x")
        assert unavailable.value.status_code == 503
        assert int(unavailable.value.response.headers["Retry-After"]) == 60


async def test_tokenize_and_detokenize_as_llama_server(service: Service) -> None:
    assert (await service.post("/tokenize", {"content": "ab"})).json == {"tokens": [97, 98]}
    assert (await service.post("/tokenize", {"content": ""})).json == {"tokens": []}
    pieces = (await service.post("/tokenize", {"content": "aé", "with_pieces": True})).json
    assert pieces["tokens"] == [
        {"id": 97, "piece": "a"},
        {"id": 195, "piece": [195]},
        {"id": 169, "piece": [169]},
    ]
    assert (await service.post("/detokenize", {"tokens": [97, 98]})).json == {"content": "ab"}
    assert (await service.post("/detokenize", {"tokens": []})).json == {"content": ""}


async def test_stats_have_the_contract_s_shape(service: Service) -> None:
    await service.complete()
    stats = (await service.get("/stats")).json
    assert stats["requests"] == {
        "running": 0,
        "waiting": 0,
        "succeeded_total": 1,
        "failed_total": 0,
        "cancelled_total": 0,
        "rejected_total": 0,
        "replayed_total": 0,
        "lost_total": 0,
    }
    assert stats["tokens"]["prompt_total"] == 5
    assert stats["tokens"]["generated_total"] == 5
    assert {"prompt_cached_total", "recomputed_total", "generated_per_second"} <= set(
        stats["tokens"]
    )
    (worker,) = stats["workers"]
    assert worker["last_exit"]["reason"] == "killed"
    assert worker["tokens_per_second"] >= 0
    assert {"cpu_percent", "memory_total_bytes", "memory_available_bytes"} <= set(stats["host"])
    assert stats["devices"] == []
    for name in ("time_to_first_token_seconds", "inter_token_seconds", "request_seconds"):
        assert set(stats["latency"][name]) == {"p50", "p99"}
    assert stats["latency"]["request_seconds"]["p50"] > 0


async def test_readiness_follows_the_fleet() -> None:
    async with running() as service:
        assert (await service.get("/livez")).status == 200
        loading = await service.get("/readyz")
        assert loading.status == 503
        assert loading.json["status"] == "loading"
        assert int(loading.headers["Retry-After"]) >= 1
        service.fleet.start_worker()
        assert (await service.get("/readyz")).json == {"status": "ok"}
        assert (await service.get("/health")).status == 200
        service.dispatcher.drain()
        assert (await service.get("/readyz")).json["status"] == "draining"
        await until(lambda: service.dispatcher.idle)


async def test_a_configured_name_is_the_one_that_the_answer_shows(service: Service) -> None:
    service.fleet.names = ServedNames({MODEL: {"default"}}, {MODEL: ("gpt-*",)})
    for asked, shown in (("gpt-4o", "gpt-4o"), ("default", MODEL), (None, MODEL)):
        assert (await service.complete(model=asked)).json["model"] == shown
        events = (await service.chat(model=asked, stream=True)).events
        assert {event["model"] for event in events} == {shown}
    refused = await service.chat(model="claude-x")
    assert (refused.status, refused.error["code"]) == (404, "model_not_found")
    assert f"'{MODEL}'" in refused.error["message"]
    assert (await service.get("/v1/models/gpt-4o")).json["id"] == MODEL
