"""Log probabilities, echo and the best of several, in OpenAI's shapes."""

from typing import Any

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from gpufc.protocol import LogprobsWanted
from tests.supervisor.dispatch.fakes import N_TOKENS, generates, text_of
from tests.supervisor.http.conftest import Service, running


def content_of(choice: dict[str, Any]) -> list[Any]:
    content: list[Any] = (choice["logprobs"] or {}).get("content", [])
    return content


async def test_a_chat_has_an_entry_for_each_token_of_its_content(service: Service) -> None:
    body = (await service.chat(logprobs=True, top_logprobs=2)).json
    (choice,) = ChatCompletion.model_validate(body, strict=True).choices
    assert choice.logprobs is not None
    content = choice.logprobs.content or []
    assert "".join(entry.token for entry in content) == choice.message.content
    assert [entry.logprob for entry in content] == [-0.125 * n for n in range(1, N_TOKENS + 1)]
    for entry in content:
        assert bytes(entry.bytes or ()).decode() == entry.token
        assert [(top.token, top.logprob) for top in entry.top_logprobs] == [
            ("<0>", -1.0),
            ("<1>", -2.0),
        ]


async def test_the_chunks_of_a_chat_have_the_entries_of_their_text(service: Service) -> None:
    whole = (await service.chat(logprobs=True, top_logprobs=1)).json["choices"][0]
    events = (await service.chat(logprobs=True, top_logprobs=1, stream=True)).events
    joined: list[Any] = []
    for event in events:
        ChatCompletionChunk.model_validate(event, strict=True)
        (choice,) = event["choices"]
        text = choice["delta"].get("content") or ""
        assert "".join(entry["token"] for entry in content_of(choice)) == text
        joined += content_of(choice)
    assert joined == whole["logprobs"]["content"]


async def test_no_alternatives_are_given_unless_asked_for(service: Service) -> None:
    choice = (await service.chat(logprobs=True)).json["choices"][0]
    assert [entry["top_logprobs"] for entry in content_of(choice)] == [[]] * N_TOKENS
    assert (await service.chat()).json["choices"][0]["logprobs"] is None
    events = (await service.chat(stream=True)).events
    assert all(event["choices"][0]["logprobs"] is None for event in events)


async def test_a_completion_has_parallel_lists(service: Service) -> None:
    body = (await service.complete(logprobs=1)).json
    (choice,) = Completion.model_validate(body, strict=True).choices
    found = choice.logprobs
    assert found is not None
    tokens, offsets = found.tokens or [], found.text_offset or []
    assert "".join(tokens) == choice.text
    for token, at in zip(tokens, offsets, strict=True):
        assert choice.text[at:].startswith(token)
    assert found.token_logprobs == [-0.125 * n for n in range(1, N_TOKENS + 1)]
    assert (found.top_logprobs or [])[0] == {"<0>": -1.0, tokens[0]: -0.125}


async def test_zero_asks_for_the_chosen_tokens_alone(service: Service) -> None:
    found = (await service.complete(logprobs=0)).json["choices"][0]["logprobs"]
    assert len(found["token_logprobs"]) == N_TOKENS
    assert found["top_logprobs"] is None


@pytest.mark.parametrize("fields", [{"logprobs": 2}, {"logprobs": 2, "echo": True}, {"echo": True}])
async def test_the_chunks_of_a_completion_joined_are_the_whole(
    service: Service, fields: dict[str, Any]
) -> None:
    whole = (await service.complete(n=2, **fields)).json["choices"]
    texts, lists = ["", ""], [{}, {}]
    for event in (await service.complete(n=2, stream=True, **fields)).events:
        (choice,) = event["choices"]
        texts[choice["index"]] += choice["text"]
        for name, values in (choice["logprobs"] or {}).items():
            lists[choice["index"]].setdefault(name, []).extend(values)
    assert texts == [choice["text"] for choice in whole]
    assert lists == [choice["logprobs"] or {} for choice in whole]


async def test_echo_puts_the_prompt_before_the_answer(service: Service) -> None:
    prompts = ["ab", "c"]
    choices = (await service.complete(prompt=prompts, n=2, echo=True)).json["choices"]
    assert [choice["text"] for choice in choices] == [
        prompt + text_of(prompt, choice=number) for prompt in prompts for number in (0, 1)
    ]
    (choice,) = (await service.complete(prompt=[104, 105], echo=True)).json["choices"]
    assert choice["text"] == "hi" + text_of("hi")


async def test_a_prompt_can_be_scored_without_an_answer(service: Service) -> None:
    body = (await service.complete(prompt="abc", echo=True, logprobs=1, max_tokens=0)).json
    (choice,) = body["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("abc", "length")
    assert choice["logprobs"] == {
        "tokens": ["a", "b", "c"],
        "token_logprobs": [None, -0.5, -0.5],
        "top_logprobs": [None, {"b": -0.5}, {"c": -0.5}],
        "text_offset": [0, 1, 2],
    }
    assert body["usage"]["completion_tokens"] == 0


async def test_the_prompt_s_entries_come_before_the_answer_s(service: Service) -> None:
    choice = (await service.complete(prompt="ab", echo=True, logprobs=0)).json["choices"][0]
    found = choice["logprobs"]
    assert "".join(found["tokens"]) == choice["text"]
    assert found["token_logprobs"][:3] == [None, -0.5, -0.125]
    assert found["text_offset"][:3] == [0, 1, 2]


async def test_the_best_of_several_is_the_most_likely_one(service: Service) -> None:
    """The fake model's choices are the less likely, the higher their number modulo 3."""
    body = (await service.complete(n=2, best_of=6)).json
    assert [choice["text"] for choice in body["choices"]] == [
        text_of("hello", choice=choice) for choice in (0, 3)
    ]
    assert [choice["index"] for choice in body["choices"]] == [0, 1]
    assert [choice["logprobs"] for choice in body["choices"]] == [None, None]
    assert body["usage"]["completion_tokens"] == 6 * N_TOKENS
    several = (await service.complete(prompt=["a", "b"], best_of=3, logprobs=0)).json["choices"]
    assert [choice["text"] for choice in several] == [text_of("a"), text_of("b")]
    assert [len(choice["logprobs"]["tokens"]) for choice in several] == [N_TOKENS] * 2


async def test_the_worker_is_asked_for_what_the_request_wants() -> None:
    async with running() as service:
        worker = service.fleet.start_worker()
        await service.chat(logprobs=True, top_logprobs=20)
        await service.complete(logprobs=3, echo=True)
        await service.complete(n_probs=4, post_sampling_probs=True)
        await service.complete(n=1, best_of=2)
        await service.complete(n=2, best_of=2)
        await service.complete(echo=True)
        wanted = [message.logprobs for message in generates(worker.sent)]
        assert wanted == [
            LogprobsWanted(20),
            LogprobsWanted(3, prompt=True),
            LogprobsWanted(4, after_sampling=True),
            *[LogprobsWanted()] * 2,
            *[None] * 3,
        ]


async def test_a_durable_stream_resumes_between_entries(service: Service) -> None:
    headers = {"Content-Type": "application/json", "Idempotency-Key": "k"}
    body = {"prompt": "hello", "stream": True, "logprobs": 1}

    async def frames(**more: str) -> list[tuple[str, str]]:
        answer = await service.post("/v1/completions", body, headers={**headers, **more})
        events = [frame.split("\n") for frame in answer.body.decode().split("\n\n")]
        return [(event[0], event[1]) for event in events if len(event) == 2]

    whole = await frames()
    assert len(whole) > N_TOKENS
    for number, (event, _) in enumerate(whole, 1):
        rest = await frames(**{"Last-Event-ID": event.removeprefix("id: ")})
        assert rest == whole[number:]
