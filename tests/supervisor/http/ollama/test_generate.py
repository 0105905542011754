"""`/api/generate`: a prompt with and without the chat template, whole and streamed."""

from typing import Any

import pytest

from gpufc.chat import ChatMessage, ChatPrompt
from gpufc.protocol import InfillPrompt, TextPrompt
from tests.supervisor.dispatch.fakes import MODEL, text_of
from tests.supervisor.http.conftest import Service, running
from tests.supervisor.http.ollama.conftest import Speaking, ask, lines, prepared

PATH = "/api/generate"


async def prompt_of(**fields: Any) -> Any:
    async with running() as service:
        worker = service.fleet.start_worker()
        lines(await ask(service, PATH, **fields))
        return prepared(worker).prompt


async def test_a_stream_adds_up_to_the_whole_answer(speaking: Speaking) -> None:
    speaking.says("<think>let", " me</think>I ", "say")
    whole = (await ask(speaking.service, PATH, stream=False)).json
    streamed = lines(await ask(speaking.service, PATH))
    assert (whole["response"], whole["thinking"]) == ("I say", "let me")
    assert "".join(line["response"] for line in streamed) == "I say"
    assert "".join(line.get("thinking", "") for line in streamed) == "let me"
    assert (whole["model"], whole["done"], whole["done_reason"]) == (MODEL, True, "stop")
    assert (streamed[-1]["response"], streamed[-1]["done_reason"]) == ("", "stop")
    assert whole["eval_count"] == streamed[-1]["eval_count"] == 3
    assert not any("eval_count" in line for line in streamed[:-1])


@pytest.mark.parametrize("fields", [{"raw": True}, {"suffix": "s"}, {}])
async def test_a_durable_prompt_is_not_the_answer_to_another_one(fields: dict[str, Any]) -> None:
    headers = {"Idempotency-Key": "key", "Content-Type": "application/json"}
    async with running() as service:
        service.fleet.start_worker()
        asked = [{"model": MODEL, "prompt": prompt, "stream": False, **fields} for prompt in "aab"]
        first, again, other = [await service.post(PATH, body, headers=headers) for body in asked]
    assert first.json["response"] == again.json["response"]
    assert first.json["created_at"] == again.json["created_at"]
    assert other.status == 400, other.body


async def test_a_prompt_is_a_user_s_turn_and_system_stands_before_it() -> None:
    plain = await prompt_of(prompt="p")
    assert plain == ChatPrompt((ChatMessage("user", "p"),))
    told = await prompt_of(prompt="p", system="s")
    assert told == ChatPrompt((ChatMessage("system", "s"), ChatMessage("user", "p")))


async def test_a_raw_prompt_is_plain_text() -> None:
    assert await prompt_of(prompt="p", raw=True) == TextPrompt("p")
    async with running() as service:
        service.fleet.start_worker()
        whole = (await ask(service, PATH, prompt="p", raw=True, stream=False)).json
        assert whole["response"] == text_of("p")


async def test_a_suffix_asks_for_the_text_of_the_gap() -> None:
    assert await prompt_of(prompt="p", suffix="s") == InfillPrompt("p", "s")
    assert await prompt_of(prompt="", suffix="s", raw=True) == InfillPrompt("", "s")


async def test_the_empty_fields_of_the_python_client_ask_for_nothing() -> None:
    empty: dict[str, Any] = {"suffix": "", "system": "", "template": "", "raw": False}
    nothing: dict[str, Any] = {"context": None, "images": None, "format": "", "options": {}}
    assert await prompt_of(prompt="p", **empty, **nothing) == await prompt_of(prompt="p")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"images": ["aGk="]}, "images"),
        ({"template": "{{ .Prompt }}"}, "template"),
        ({"context": [1, 2]}, "context"),
        ({"raw": True, "system": "s"}, "raw"),
        ({"raw": True, "template": "t"}, "raw"),
    ],
)
async def test_a_field_that_would_change_the_answer_is_refused_by_name(
    service: Service, fields: dict[str, Any], named: str
) -> None:
    answer = await ask(service, PATH, **fields)
    assert (answer.status, list(answer.json)) == (400, ["error"])
    assert named in answer.json["error"]


@pytest.mark.parametrize("prompt", ["", None])
async def test_without_a_prompt_the_model_is_loaded_or_asked_to_unload(
    service: Service, prompt: str | None
) -> None:
    loaded = (await ask(service, PATH, prompt=prompt)).json
    assert (loaded["response"], loaded["done"], loaded["done_reason"]) == ("", True, "load")
    unloaded = (await ask(service, PATH, prompt=prompt, keep_alive=0)).json
    assert (unloaded["response"], unloaded["done_reason"]) == ("", "unload")
