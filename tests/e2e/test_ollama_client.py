"""Ollama's own client against the real model, over real processes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ollama
import pytest

from tests.service import Service

pytestmark = pytest.mark.model

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
MODEL = "SmolLM2-135M-Instruct.Q4_1:latest"


@pytest.fixture
def running(demo: Service) -> Service:
    return demo


@pytest.fixture
def client(running: Service) -> Iterator[ollama.Client]:
    with ollama.Client(host=running.url) as made:
        yield made


def test_a_seeded_chat_says_the_same_streamed_and_whole(client: ollama.Client) -> None:
    # a cached prefix could change the last bits of the logits
    options: Any = {"seed": 7, "num_predict": 24, "num_ctx": 8192, "cache_prompt": False}
    whole = client.chat(MODEL, QUESTION, options=options)
    pieces = list(client.chat(MODEL, QUESTION, options=options, stream=True))
    assert whole.message.content
    assert "".join(piece.message.content or "" for piece in pieces) == whole.message.content
    last = pieces[-1]
    assert (last.done, last.done_reason) == (True, whole.done_reason)
    assert last.eval_count == whole.eval_count
    assert last.total_duration is not None
    assert 0 < (last.eval_duration or 0) < last.total_duration < 60e9


def test_a_generation_continues_a_raw_prompt(client: ollama.Client) -> None:
    options: Any = {"temperature": 0, "num_predict": 8}
    answer = client.generate(MODEL, "The capital of France is", raw=True, options=options)
    assert "Paris" in answer.response
    assert (answer.done_reason, answer.eval_count) == ("length", 8)


def test_an_answer_keeps_to_the_schema_of_its_format(client: ollama.Client) -> None:
    schema = {
        "title": "Person",
        "type": "object",
        "properties": {
            "name": {"title": "Name", "type": "string", "maxLength": 20},
            "age": {"title": "Age", "type": "integer", "minimum": 0, "maximum": 150},
        },
        "required": ["name", "age"],
    }
    said = [{"role": "user", "content": "Ann is 31."}]
    answer = client.chat(MODEL, said, format=schema, options={"temperature": 0.0})
    found = json.loads(answer.message.content or "")
    assert set(found) == {"name", "age"}
    assert isinstance(found["age"], int)


def test_a_model_is_described_from_its_file(client: ollama.Client, model_path: Path) -> None:
    (listed,) = client.list().models
    assert listed.model == MODEL
    assert listed.size == model_path.stat().st_size
    assert listed.details is not None
    assert listed.details.family == "llama"
    assert listed.details.parameter_size == "134.52M"
    assert listed.details.quantization_level == "Q4_1"
    shown = client.show(MODEL)
    assert shown.modelinfo is not None
    assert shown.modelinfo["llama.block_count"] == 30
    assert shown.modelinfo["llama.context_length"] == 1024
    assert shown.capabilities is not None
    assert "tools" in shown.capabilities
    assert shown.license == "apache-2.0"


def test_a_suffix_is_refused_for_a_model_that_cannot_fill_gaps(client: ollama.Client) -> None:
    shown = client.show(MODEL)
    if "insert" in (shown.capabilities or ()):
        answer = client.generate(MODEL, "def f(", suffix="return 1", options={"num_predict": 4})
        assert answer.done
    else:
        with pytest.raises(ollama.ResponseError, match="fill-in-the-middle"):
            client.generate(MODEL, "def f(", suffix="return 1")
