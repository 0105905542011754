"""Answers of `/v1/responses`, whole and streamed, as the SDK's types read them."""

from typing import Any

import msgspec
import pytest
from openai.types.responses import Response

from gpufc.config import LimitsConfig
from supervisor.http.responses.fields import LOGPROBS
from tests.supervisor.dispatch.fakes import FAILED, N_CTX, until
from tests.supervisor.http.conftest import running
from tests.supervisor.http.responses.conftest import Speaker, events_of, parsed, respond, whole

REASONED = (
    "<thi",
    "nk>let",
    " me</think>I <call f>",
    '{"a":',
    "1}</call><call g></",
    "call>",
    "ok",
)
PATCH = ("<call apply_patch>", '{"inp', 'ut": "*** Be', "gin\\", 'n\\u00e9"}', "</call>")
QUICK = LimitsConfig(first_byte_s=0.01, keepalive_comment_s=0.01)
FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object"}}
CUSTOM = {"type": "custom", "name": "apply_patch"}


def types(events: list[Any]) -> list[str]:
    return [event.type.removeprefix("response.") for event in events]


def final(events: list[Any]) -> Response:
    response: Response = events[-1].response
    return response


def said(response: Response) -> list[tuple[Any, ...]]:
    """The output without ids."""
    found: list[tuple[Any, ...]] = []
    for item in response.output:
        match item.type:
            case "message":
                found.append(("message", item.status, item.content[0].to_dict()["text"]))
            case "reasoning":
                found.append(("reasoning", item.status, item.summary[0].text))
            case "function_call":
                found.append(("call", item.status, item.namespace, item.name, item.arguments))
            case "custom_tool_call":
                found.append(("custom", item.name, item.input))
    return found


async def test_the_events_of_a_text_have_openai_s_order(speaking: Speaker) -> None:
    events = await events_of(speaking("Hel", "lo"))
    assert types(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    created, added, part, delta = events[0].response, events[2].item, events[3].part, events[4]
    assert (created.status, created.output, created.usage) == ("in_progress", [], None)
    assert (added.status, added.content, part.text, part.annotations) == ("in_progress", [], "", [])
    assert (delta.item_id, delta.output_index, delta.content_index) == (added.id, 0, 0)
    assert (delta.delta, delta.logprobs) == ("Hel", [])
    assert events[6].text == events[7].part.text == "Hello"
    assert events[8].item == final(events).output[0]
    assert said(final(events)) == [("message", "completed", "Hello")]


async def test_reasoning_text_and_calls_are_items_in_their_order(speaking: Speaker) -> None:
    events = await events_of(speaking(*REASONED), tools=[FUNCTION])
    assert said(final(events)) == [
        ("reasoning", "completed", "let me"),
        ("message", "completed", "I "),
        ("call", "completed", None, "f", '{"a":1}'),
        ("call", "completed", None, "g", "{}"),
        ("message", "completed", "ok"),
    ]
    names = types(events)
    assert names[2:9] == [
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
    ]
    first_call = names.index("function_call_arguments.delta")
    assert names[first_call - 1 : first_call + 4] == [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
    ]
    added = events[first_call - 1].item
    assert (added.name, added.arguments, added.status) == ("f", "", "in_progress")
    assert added.call_id.startswith("call_")
    places = [event.output_index for event in events if event.type.endswith("output_item.done")]
    assert places == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "pieces", [("Hello",), REASONED, PATCH, ("<think>only",), ("<call f>",)], ids=len
)
async def test_a_streamed_answer_adds_up_to_the_whole_one(
    speaking: Speaker, pieces: tuple[str, ...]
) -> None:
    service = speaking(*pieces)
    events = await events_of(service, tools=[FUNCTION, CUSTOM])
    answer = await whole(service, tools=[FUNCTION, CUSTOM])
    assert said(final(events)) == said(answer)
    done = [event.item for event in events if event.type == "response.output_item.done"]
    assert done == final(events).output
    for item in done:
        deltas = [
            event.delta
            for event in events
            if event.type.endswith(".delta") and event.item_id == item.id
        ]
        assert "".join(deltas) in (said(final(events))[done.index(item)])
    ids = [item.id for item in answer.output]
    assert len(set(ids)) == len(ids)


async def test_a_custom_tool_s_call_is_its_text(speaking: Speaker) -> None:
    events = await events_of(speaking(*PATCH), tools=[CUSTOM])
    assert said(final(events)) == [("custom", "apply_patch", "*** Begin\né")]
    assert types(events)[2:7] == [
        "output_item.added",
        *["custom_tool_call_input.delta"] * 3,
        "custom_tool_call_input.done",
    ]
    assert [event.delta for event in events[3:6]] == ["*** Be", "gin", "\né"]
    assert events[6].input == "*** Begin\né"
    assert events[2].item.input == ""


async def test_a_tool_of_a_namespace_is_called_by_its_own_name(speaking: Speaker) -> None:
    service = speaking("<call notes__add>{}", "</call>")
    tools = [{"type": "namespace", "name": "notes", "tools": [{**FUNCTION, "name": "add"}]}]
    answer = await respond(service, tools=tools)
    (item,) = answer.json["output"]
    assert (item["namespace"], item["name"]) == ("notes", "add")


async def test_reasoning_has_a_seal_where_the_client_asks_for_one(speaking: Speaker) -> None:
    service = speaking("<think>hm</think>", "ok")
    asked = {"store": False, "include": ["reasoning.encrypted_content"]}
    sealed = (await whole(service, **asked)).output[0]
    streamed = final(await events_of(service, **asked)).output[0]
    plain = (await whole(service, store=False)).output[0]
    seals = [
        item.encrypted_content is not None
        for item in (sealed, streamed, plain)
        if item.type == "reasoning"
    ]
    assert seals == [True, True, False]


async def test_an_answer_without_a_word_is_an_empty_message(speaking: Speaker) -> None:
    assert said(await whole(speaking("<think>hm</thi", "nk>"))) == [
        ("reasoning", "completed", "hm"),
        ("message", "completed", ""),
    ]


async def test_an_answer_at_its_limit_is_incomplete(speaking: Speaker) -> None:
    service = speaking("one", " two", " three")
    events = await events_of(service, max_output_tokens=2)
    answer = await whole(service, max_output_tokens=2)
    for response in (final(events), answer):
        assert response.status == "incomplete"
        assert response.incomplete_details is not None
        assert response.incomplete_details.reason == "max_output_tokens"
        assert response.completed_at is None
        assert said(response) == [("message", "incomplete", "one two")]
    assert events[-1].type == "response.incomplete"
    assert (await whole(service)).status == "completed"


async def test_usage_counts_prompt_cached_and_answer(speaking: Speaker) -> None:
    response = await whole(speaking("a", "b", "c"))
    assert response.usage is not None
    n_prompt = len("<user>hi")
    assert response.usage.to_dict() == {
        "input_tokens": n_prompt,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": n_prompt + 3,
    }


async def test_an_answer_repeats_the_request_s_fields(speaking: Speaker) -> None:
    asked: dict[str, Any] = {
        "instructions": "Be short.",
        "max_output_tokens": 9,
        "metadata": {"a": "b"},
        "parallel_tool_calls": False,
        "prompt_cache_key": "key",
        "reasoning": {"effort": "low", "summary": "auto"},
        "safety_identifier": "id",
        "store": False,
        "temperature": 0.25,
        "text": {"format": {"type": "json_object"}, "verbosity": "low"},
        "tool_choice": "none",
        "tools": [{**FUNCTION, "strict": None, "description": None}],
        "top_p": 0.5,
        "truncation": "auto",
        "user": "u",
    }
    answer = await respond(speaking("{}"), **asked, service_tier="flex", include=[])
    assert {name: answer.json[name] for name in asked} == asked
    assert answer.json["service_tier"] == "default"
    assert answer.json["id"].startswith("resp_")
    assert answer.json["object"] == "response"


async def test_what_is_not_asked_for_has_openai_s_default(speaking: Speaker) -> None:
    answer = (await respond(speaking("x"))).json
    assert answer["tool_choice"] == "auto"
    assert answer["truncation"] == "disabled"
    assert answer["text"] == {"format": {"type": "text"}, "verbosity": "medium"}
    assert answer["reasoning"] == {"effort": None, "summary": None}
    assert (answer["store"], answer["background"], answer["metadata"]) == (True, False, {})
    assert (answer["temperature"], answer["top_p"]) == (0.8, 0.95)
    assert answer["error"] is answer["incomplete_details"] is None


async def test_the_conversation_reaches_the_model(speaking: Speaker) -> None:
    service = speaking("x")
    given = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]},
        {"role": "assistant", "content": "b"},
        {"type": "reasoning", "summary": [], "encrypted_content": None},
        {"role": "user", "content": "c"},
    ]
    answer = await whole(service, given, instructions="s")
    assert answer.usage is not None
    assert answer.usage.input_tokens == len("<system>s<user>a<assistant>b<user>c")


async def test_a_silent_stream_is_kept_alive_with_events() -> None:
    async with running(QUICK) as service:
        async with service.http.post(
            "/v1/responses", json={"input": "hi", "stream": True}
        ) as response:
            body = b""
            while body.count(b"event: response.in_progress\n") < 3:
                body += await response.content.readany()
            service.fleet.start_worker()
            body += await response.read()
        names = types(parsed(body))
        n_waiting = names.count("in_progress")
        assert n_waiting >= 3
        assert names[: n_waiting + 2] == [
            "created",
            *["in_progress"] * n_waiting,
            "output_item.added",
        ]


async def test_a_conversation_that_is_too_long_fails_in_the_stream() -> None:
    async with running() as service:
        service.fleet.start_worker()
        answer = await respond(service, "x" * N_CTX, stream=True)
        assert answer.status == 200
        frames = [frame.split("\n")[1][6:] for frame in answer.body.decode().split("\n\n")[:-1]]
        events = [msgspec.json.decode(frame) for frame in frames]
        assert [event["type"] for event in events] == [
            "response.created",
            "response.in_progress",
            "response.failed",
        ]
        assert [event["sequence_number"] for event in events] == [0, 1, 2]
        failed = events[-1]["response"]
        assert (failed["status"], failed["id"]) == ("failed", events[0]["response"]["id"])
        assert failed["error"]["code"] == "context_length_exceeded"
        refused = await respond(service, "x" * N_CTX)
        assert refused.status == 400
        assert refused.error["code"] == "context_length_exceeded"
        assert refused.error["param"] == "input"


async def test_a_conversation_that_may_be_cut_loses_its_beginning(speaking: Speaker) -> None:
    service = speaking("x")
    given = [{"role": "user", "content": letter * (N_CTX // 3)} for letter in "abcdef"]
    answer = await whole(service, given, truncation="auto", instructions="s")
    assert answer.usage is not None
    assert answer.usage.input_tokens == len("<system>s") + 2 * (len("<user>") + N_CTX // 3)
    assert (await respond(service, given, truncation="disabled")).status == 400
    long = [{"role": "user", "content": "x" * N_CTX}]
    assert (await respond(service, long, truncation="auto")).status == 400


async def test_a_durable_conversation_that_was_cut_is_found_again(speaking: Speaker) -> None:
    service = speaking("x")
    given = [{"role": "user", "content": letter * (N_CTX // 3)} for letter in "abcdef"]
    body = {"input": given, "truncation": "auto"}
    sent = {"Idempotency-Key": "cut", "Content-Type": "application/json"}
    first, again = [await service.post("/v1/responses", body, headers=sent) for _ in range(2)]
    assert (first.status, again.status) == (200, 200)
    assert first.json["id"] == again.json["id"]
    other = await service.post("/v1/responses", body | {"input": given[1:]}, headers=sent)
    assert (other.status, other.error["param"]) == (400, "Idempotency-Key")


async def test_an_error_after_the_headers_is_the_end_of_the_stream() -> None:
    async with running(QUICK) as service:
        worker = service.fleet.start_worker(auto=False)
        async with service.http.post(
            "/v1/responses", json={"input": "hi", "stream": True}
        ) as response:
            await until(lambda: worker.active)
            worker.step()
            body = b""
            while b"output_text.delta" not in body:
                body += await response.content.readany()
            worker.die()
            service.fleet.change(FAILED)
            body += await response.read()
    failed = final(parsed(body))
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error.code == "rate_limit_exceeded"
    assert failed.error.message.endswith(". Please try again in 60s.")


@pytest.mark.parametrize(
    ("fields", "n_top"), [({"include": [LOGPROBS]}, 0), ({"top_logprobs": 2}, 2)]
)
@pytest.mark.parametrize("said", [("Hel", "lo"), ("<think>hm</think>", "Yes", ".")])
async def test_a_text_has_the_log_probabilities_of_all_tokens_up_to_its_end(
    speaking: Speaker, said: tuple[str, ...], fields: dict[str, Any], n_top: int
) -> None:
    events = await events_of(speaking(*said), **fields)
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    streamed = [entry.token for event in deltas for entry in event.logprobs]
    assert streamed == list(said)
    (done,) = [event for event in events if event.type == "response.output_text.done"]
    assert [len(entry.top_logprobs) for entry in done.logprobs] == [n_top] * len(said)
    whole = final(events)
    assert whole.top_logprobs == n_top
    alone = (await respond(speaking.service, **fields)).json
    for output in (whole.model_dump(mode="json")["output"], alone["output"]):
        assert [entry["token"] for entry in output[-1]["content"][0]["logprobs"]] == streamed
