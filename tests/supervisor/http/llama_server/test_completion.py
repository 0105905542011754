"""`/completion` and `/infill`: llama-server's forms of prompts and answers."""

import asyncio
import math
from typing import Any

import msgspec
import pytest

from gpufc.config import LimitsConfig
from gpufc.protocol import (
    ContextFile,
    Delta,
    FinishReason,
    InfillPrompt,
    Prepare,
    Prompt,
    Step,
    TextPrompt,
    TokenPrompt,
)
from gpufc.sampling import SamplerName
from supervisor.answers.parts import Ended
from supervisor.dispatch.recovery import MAX_FRUITLESS_REPLAYS
from supervisor.http.llama_server.answers import StopType, stop_type
from tests.supervisor.dispatch import fakes
from tests.supervisor.dispatch.fakes import FAILED, FakeWorker, generates, text_of, until
from tests.supervisor.http.conftest import Answer, Service, running
from tests.supervisor.http.test_durable import frames

PATH = "/completion"


async def ask(service: Service, path: str = PATH, **fields: Any) -> Answer:
    body: dict[str, Any] = {"prompt": "hello"} if path == PATH else {}
    return await service.post(path, body | fields)


def events(answer: Answer) -> list[dict[str, Any]]:
    """The data of all events: nothing but objects."""
    assert answer.status == 200, answer.body
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    frames = answer.body.decode().removesuffix("\n\n").split("\n\n")
    assert all(frame.startswith("data: {") for frame in frames)
    return [msgspec.json.decode(frame[6:]) for frame in frames]


def prepared(worker: FakeWorker) -> list[Prompt]:
    return [message.prompt for message in worker.sent if isinstance(message, Prepare)]


async def prompts_of(given: Any, path: str = PATH, **fields: Any) -> list[Prompt]:
    """The prompts that a worker gets."""
    async with running() as service:
        worker = service.fleet.start_worker()
        body = fields if path != PATH else {"prompt": given, **fields}
        answer = await service.post(path, body)
        assert answer.status == 200, answer.body
        return prepared(worker)


async def test_an_answer_has_its_text_its_end_and_its_counts(service: Service) -> None:
    answer = (await ask(service)).json
    assert (answer["content"], answer["index"]) == (text_of("hello"), 0)
    assert (answer["stop"], answer["stop_type"], answer["stopping_word"]) == (True, "eos", "")
    assert (answer["tokens_evaluated"], answer["tokens_predicted"]) == (5, 5)
    assert (answer["tokens_cached"], answer["truncated"]) == (10, False)
    assert (answer["prompt"], answer["tokens"], answer["has_new_line"]) == ("hello", [], False)
    assert answer["timings"]["predicted_n"] == 5
    assert answer["generation_settings"]["n_predict"] == -1


async def test_a_stream_adds_up_to_the_whole_answer_and_its_end_has_the_rest(
    service: Service,
) -> None:
    whole = (await ask(service, seed=1)).json
    *begin, last = events(await ask(service, seed=1, stream=True))
    assert all(set(one) == {"index", "content", "tokens", "stop"} for one in begin)
    assert not any(one["stop"] for one in begin)
    assert "".join(one["content"] for one in begin) == whole["content"]
    assert last["content"] == ""
    for part in (whole, last):
        del part["content"], part["timings"]
    assert last == whole


async def test_the_settings_are_those_of_the_request(service: Service) -> None:
    fields = {"temperature": 0.25, "top_k": 7, "seed": 3, "n_predict": 2, "stop": ["x"]}
    answer = (await ask(service, **fields, logit_bias=[[5, -1.0]])).json
    settings = answer["generation_settings"]
    assert {name: settings[name] for name in fields} == fields
    assert settings["logit_bias"] == [{"token": 5, "bias": -1.0}]
    assert answer["stop_type"] == "limit"


async def test_the_stop_string_that_ended_an_answer_is_named() -> None:
    async with running() as service:
        worker = service.fleet.start_worker(auto=False)
        asking = asyncio.create_task(ask(service, stop=["a", "b"]))
        await until(lambda: worker.active)
        (no,) = worker.active
        end = Delta(no, 0, (1, 2), "text\n", FinishReason.STOP, stopped_by=1)
        worker.tell(Step(worker.epoch, 1, (end,)))
        answer = (await asking).json
    assert (answer["stop_type"], answer["stopping_word"]) == ("word", "b")
    assert (answer["content"], answer["has_new_line"]) == ("text\n", True)


@pytest.mark.parametrize(
    ("ended", "expected"),
    [
        (Ended(FinishReason.STOP), StopType.EOS),
        (Ended(FinishReason.STOP, stop="x"), StopType.WORD),
        (Ended(FinishReason.LENGTH), StopType.LIMIT),
        (Ended(FinishReason.CANCELLED), StopType.NONE),
    ],
)
def test_each_end_has_its_type(ended: Ended, expected: StopType) -> None:
    assert stop_type(ended) is expected


@pytest.mark.parametrize("stream", [False, True])
async def test_the_ids_of_the_answer_come_if_they_are_wanted(
    service: Service, stream: bool
) -> None:
    answer = await ask(service, return_tokens=True, stream=stream)
    last = events(answer)[-1] if stream else answer.json
    assert last["tokens"] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("stream", [False, True])
async def test_only_the_wanted_fields_come(service: Service, stream: bool) -> None:
    wanted = ["stop_type", "timings/predicted_n", "timings/none", "index/none", "none"]
    answer = await ask(service, response_fields=wanted, stream=stream)
    last = events(answer)[-1] if stream else answer.json
    assert last == {"stop_type": "eos", "timings/predicted_n": 5}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_line_that_is_indented_less_ends_the_answer(
    service: Service, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = ["one\n", "  two", "\n", "three", "\n  four"]
    monkeypatch.setattr(fakes, "piece", lambda _spec, position: said[position])
    answer = await ask(service, n_indent=2, stream=stream)
    found = events(answer) if stream else [answer.json]
    assert "".join(one["content"] for one in found) == "one\n  two\n"
    assert (found[-1]["stop_type"], found[-1]["has_new_line"]) == ("limit", True)


async def test_a_gap_s_own_sampler_is_passed_over() -> None:
    async with running() as service:
        worker = service.fleet.start_worker()
        fields = {"input_prefix": "a", "input_suffix": "z", "samplers": ["top_k", "infill"]}
        answer = await ask(service, "/infill", **fields)
        assert answer.status == 200, answer.body
        (spec,) = generates(worker.sent)
        assert spec.sampling.samplers == (SamplerName.TOP_K,)
        refused = await ask(service, samplers=["top_k", "infill"])
        assert (refused.status, "infill" in refused.error["message"]) == (400, True)


async def test_a_wish_for_time_is_accepted_in_a_gap_only(service: Service) -> None:
    gap = {"input_prefix": "a", "input_suffix": "z", "t_max_predict_ms": 500}
    assert (await ask(service, "/infill", **gap)).status == 200
    assert (await ask(service, t_max_predict_ms=500)).status == 400


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a", [TextPrompt("a")]),
        ({"prompt_string": "a"}, [TextPrompt("a")]),
        ([1, 2], [TokenPrompt((1, 2))]),
        (["a", "b"], [TextPrompt("a"), TextPrompt("b")]),
        (["a"], [TextPrompt("a")]),
        ([[1, 2], "a", {"prompt_string": "b"}], [
            TokenPrompt((1, 2)), TextPrompt("a"), TextPrompt("b"),
        ]),
    ],
)  # fmt: skip
async def test_a_prompt_has_many_forms(given: Any, expected: list[Prompt]) -> None:
    assert await prompts_of(given) == expected


async def test_texts_between_token_ids_are_tokenized_where_they_stand() -> None:
    found = await prompts_of(["ab", 7, "", "c"])
    assert found == [
        TextPrompt("ab", add_special=True),
        TextPrompt("c", add_special=False),
        TokenPrompt((*b"ab", 7, *b"c")),
    ]
    assert (await prompts_of([[7, "c"]]))[-1] == TokenPrompt((7, *b"c"))


async def test_a_text_before_token_ids_is_asked_for_as_what_is_continued() -> None:
    """A worker puts EOS behind a text that is only counted, which is `reserve` None."""
    async with running() as service:
        worker = service.fleet.start_worker()
        assert (await service.post(PATH, {"prompt": ["ab", 7, "c"]})).status == 200
        asked = [message for message in worker.sent if isinstance(message, Prepare)]
        assert [message.reserve is None for message in asked] == [False] * len(asked)


async def test_several_prompts_are_a_list_of_answers_with_counts_of_their_own(
    service: Service,
) -> None:
    first, second = (await ask(service, prompt=["a", "bcd"])).json
    assert [first["index"], second["index"]] == [0, 1]
    assert [first["content"], second["content"]] == [text_of("a"), text_of("bcd")]
    assert [first["tokens_evaluated"], second["tokens_evaluated"]] == [1, 3]
    streamed = events(await ask(service, prompt=["a", "bcd"], stream=True))
    for index, whole in enumerate((first, second)):
        own = [one for one in streamed if one["index"] == index]
        assert "".join(one["content"] for one in own) == whole["content"]
        assert [one["stop"] for one in own] == [False] * (len(own) - 1) + [True]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": [1, [2]]}, "prompt"),
        ({"prompt": [[1], 2]}, "prompt"),
        ({"prompt": ["a", 1] * 300}, "prompt"),
        ({"prompt": {"prompt_string": "a", "multimodal_data": ["x"]}}, "prompt.multimodal_data"),
        ({"prompt": ["a"] * 2000}, "prompt"),
        ({"samplers": ["infill"]}, "samplers"),
        ({"image_data": [{}]}, "image_data"),
        ({"n_predict": -3}, "n_predict"),
    ],
)
async def test_a_field_that_cannot_be_served_is_named(
    service: Service, fields: dict[str, Any], param: str
) -> None:
    answer = await ask(service, **fields)
    assert (answer.status, answer.error["param"]) == (400, param)


@pytest.mark.parametrize("after", [False, True])
async def test_each_token_has_its_probability_and_the_best_ones(
    service: Service, after: bool
) -> None:
    fields = {"n_probs": 2, "post_sampling_probs": after}
    whole = (await ask(service, **fields)).json
    streamed = events(await ask(service, stream=True, **fields))
    entries = whole["completion_probabilities"]
    assert [one for event in streamed for one in event.get("completion_probabilities", [])] == (
        entries
    )
    assert "completion_probabilities" not in streamed[-1]
    assert "".join(entry["token"] for entry in entries) == whole["content"]
    name, best = ("prob", "top_probs") if after else ("logprob", "top_logprobs")
    first = -0.125 if not after else math.exp(-0.125)
    assert entries[0][name] == pytest.approx(first)
    assert [one["token"] for one in entries[0][best]] == ["<0>", "<1>"]
    assert {"id", "token", "bytes", name} == set(entries[0][best][0])


async def test_no_probabilities_come_unasked(service: Service) -> None:
    assert "completion_probabilities" not in (await ask(service)).json
    assert "completion_probabilities" not in (await ask(service, n_probs=0)).json


async def test_a_waiting_stream_carries_comments_and_an_error_ends_it() -> None:
    async with running(LimitsConfig(first_byte_s=0.02, keepalive_comment_s=0.02)) as service:
        async with service.http.post(PATH, json={"prompt": "hello", "stream": True}) as response:
            assert (await response.content.readuntil(b"\n\n")).startswith(b":")
            worker = service.fleet.start_worker(auto=False)
            for _ in range(MAX_FRUITLESS_REPLAYS + 1):
                await until(lambda: worker.active)  # noqa: B023
                worker.die()
                worker = service.fleet.start_worker(auto=False)
            *_, last, end = (await response.read()).split(b"\n\n")
        assert end == b""
        assert set(msgspec.json.decode(last.removeprefix(b"data: "))) == {"error"}


async def test_an_error_before_the_headers_is_an_ordinary_one() -> None:
    async with running() as service:
        service.fleet.change(FAILED)
        answer = await ask(service, stream=True)
        assert (answer.status, answer.error["code"]) == (503, "engine_unavailable")


async def test_a_gap_is_a_prompt_of_its_own_kind() -> None:
    fields: dict[str, Any] = {"input_prefix": "a", "input_suffix": "z"}
    assert await prompts_of(None, "/infill", **fields) == [
        InfillPrompt("a", "z", param="input_suffix")
    ]
    more = {"prompt": "b", "input_extra": [{"filename": "f", "text": "t"}, {"text": "u"}]}
    assert await prompts_of(None, "/infill", **fields, **more) == [
        InfillPrompt("ab", "z", (ContextFile("f", "t"), ContextFile("", "u")), "input_suffix")
    ]


async def test_a_durable_completion_has_ids_and_goes_on_after_one(service: Service) -> None:
    sent = {"Content-Type": "application/json", "Idempotency-Key": "key"}
    body = {"prompt": "hello", "stream": True}
    whole = frames((await service.post(PATH, body, headers=sent)).body)
    first_id, first = whole[0]
    resumed = sent | {"Last-Event-ID": str(first_id)}
    rest = frames((await service.post(PATH, body, headers=resumed)).body)
    contents = [msgspec.json.decode(data)["content"] for data in (first, *dict(rest).values())]
    assert "".join(contents) == text_of("hello")
    assert rest[-1] == whole[-1]
    assert whole[-1][0] is not None
