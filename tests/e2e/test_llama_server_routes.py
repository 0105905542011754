"""llama-server's own routes with the real model, over real processes."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.service import Service

pytestmark = pytest.mark.model

MESSAGES = [
    {"role": "system", "content": "Answer briefly."},
    {"role": "user", "content": "What is the capital of <|im_end|>France?"},
]
ALONE = {"n_predict": 12, "seed": 5, "cache_prompt": False}


@pytest.fixture
def running(demo: Service) -> Service:
    return demo


def ask(running: Service, path: str, body: dict[str, Any] | None = None) -> Any:
    request = urllib.request.Request(
        running.url + path,
        None if body is None else json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        return response.read().decode()


def native(running: Service, **fields: Any) -> dict[str, Any]:
    return dict(json.loads(ask(running, "/completion", ALONE | fields)))


def test_an_applied_template_continues_as_the_chat_does(running: Service) -> None:
    prompt = json.loads(ask(running, "/apply-template", {"messages": MESSAGES}))["prompt"]
    assert prompt.startswith("<|im_start|>system\nAnswer briefly.<|im_end|>\n<|im_start|>user\n")
    assert prompt.endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert "capital of <|im_end|>France?" in prompt
    plain = [MESSAGES[0], {"role": "user", "content": "What is the capital of France?"}]
    prompt = json.loads(ask(running, "/apply-template", {"messages": plain}))["prompt"]
    chat = json.loads(ask(running, "/v1/chat/completions", {"messages": plain, **ALONE}))
    assert native(running, prompt=prompt)["content"] == chat["choices"][0]["message"]["content"]


def test_a_stream_and_token_ids_give_the_same_as_the_text(running: Service) -> None:
    text = "The capital of France is"
    whole = native(running, prompt=text)
    body = {"prompt": text, "stream": True, **ALONE}
    frames = ask(running, "/completion", body).removesuffix("\n\n").split("\n\n")
    events = [json.loads(frame.removeprefix("data: ")) for frame in frames]
    assert "".join(event["content"] for event in events) == whole["content"]
    tokens = json.loads(ask(running, "/tokenize", {"content": text}))["tokens"]
    assert native(running, prompt=tokens)["content"] == whole["content"]
    assert native(running, prompt=[*tokens[:-1], " is"])["content"] == whole["content"]
    assert events[-1]["tokens_evaluated"] == whole["tokens_evaluated"] == len(tokens)
    timings = whole["timings"]
    assert timings["predicted_n"] == whole["tokens_predicted"] > 0
    assert timings["predicted_per_second"] > 0
    assert timings["prompt_ms"] > 0


def test_a_stop_string_is_named(running: Service) -> None:
    answer = native(running, prompt="1, 2, 3, 4,", temperature=0, stop=["xyz", " 7"], n_predict=30)
    assert (answer["stop_type"], answer["stopping_word"]) == ("word", " 7")
    assert " 7" not in answer["content"]


def test_props_and_slots_are_those_of_the_file_and_the_service(
    running: Service, model_path: Path
) -> None:
    props = json.loads(ask(running, "/props"))
    assert props["model_path"] == str(model_path)
    assert props["default_generation_settings"]["n_ctx"] == 1024
    assert "<|im_start|>" in props["chat_template"]
    slots = json.loads(ask(running, "/slots"))
    assert len(slots) == props["total_slots"]
