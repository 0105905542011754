"""Each client API with each shape of answer: whole, streamed, and streamed while its worker dies.

The three are one answer with one count of tokens. The readers of `tests.clients.requests` hold the
events of a stream to their order and to one end.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest

from tests.clients.requests import (
    anthropic_messages,
    chat_answers,
    llama_server,
    ollama_api,
    openai_completions,
    openai_responses,
)
from tests.clients.requests.openai_chat import objects
from tests.clients.requests.request import Answer
from tests.integration.fake_service import FAKE
from tests.service import Service, service

TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{{ message.content }}{# <think></think><tool_call></tool_call> #}<|im_end|>
{% endfor -%}
{%- if tools %}{{ tools | tojson }}{% endif -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}
"""
"""Of a model that reasons and calls tools."""
WORD = objects(word={"type": "string", "maxLength": 9})
NAMES = ("look", "find")


class Shape(NamedTuple):
    """An answer. The engine says `said` and ends, or goes on up to `limit`. It dies behind the
    token `kill`."""

    said: str = ""
    kill: int = 5
    limit: int = 400
    stop: tuple[str, ...] = ()
    tools: bool = False
    choice: str = ""
    schema: bool = False
    n: int = 1
    logprobs: bool = False

    def prompt(self, once: Path) -> str:
        end = f"[[say:{self.said}]][[stop@{len(self.said)}]]" if self.said else ""
        return f"{end}[[kill@{self.kill} once={once}]] asks"


def call(name: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {{"word": "tea"}}}}\n</tool_call>'


CALLS = "\n".join(map(call, NAMES))
SHAPES = {
    "text": Shape("Well said."),
    "cut": Shape(limit=24),
    "stop": Shape("before STOP after", kill=8, stop=("STOP", "unseen")),
    "part of a stop": Shape("before STO", kill=9, stop=("STOP",)),
    "characters": Shape("é 中文 🙂 end", kill=6),
    "schema": Shape('{"word": "tea"}', kill=11, schema=True),
    "reasoning": Shape("<think>I weigh it.</think>Well."),
    "reasoning alone": Shape("<think>I weigh it", kill=12, limit=17),
    "call": Shape(f"Look: {CALLS}", kill=60, tools=True),
    "reasoning and calls": Shape(f"<think>Hm.</think>{CALLS}", kill=70, tools=True),
    "text behind a call": Shape(f"{call('look')} Done.", kill=76, tools=True),
    "cut call": Shape(call("look"), kill=40, limit=60, tools=True),
    "demanded call": Shape(call("find"), kill=54, tools=True, choice="find"),
    "demanded calls": Shape(CALLS, kill=90, tools=True, choice="any"),
    "choices": Shape("Well said.", n=3),
    "choices with calls": Shape(f"<think>Hm.</think>Look: {CALLS}", kill=60, tools=True, n=2),
    "probabilities": Shape("Well said.", logprobs=True),
    "probabilities of calls": Shape(CALLS, kill=60, tools=True, logprobs=True),
}


def functions(*, nested: bool) -> list[dict[str, Any]]:
    described = [{"name": name, "parameters": WORD} for name in NAMES]
    if nested:
        return [{"type": "function", "function": one} for one in described]
    return [{"type": "function", **one} for one in described]


def chat(prompt: str, shape: Shape) -> dict[str, Any]:
    body: dict[str, Any] = completion(prompt, shape)
    body["messages"] = [{"role": "user", "content": body.pop("prompt")}]
    body.pop("logprobs", None)
    if shape.logprobs:
        body |= {"logprobs": True, "top_logprobs": 2}
    if shape.tools:
        body |= {"tools": functions(nested=True), "parallel_tool_calls": True}
    if shape.choice:
        named = {"type": "function", "function": {"name": shape.choice}}
        body["tool_choice"] = "required" if shape.choice == "any" else named
    return body


def completion(prompt: str, shape: Shape) -> dict[str, Any]:
    body: dict[str, Any] = {"prompt": prompt, "max_tokens": shape.limit, "n": shape.n}
    body |= {"stop": list(shape.stop), "stream_options": {"include_usage": True}}
    return body | ({"json_schema": WORD} if shape.schema else {})


def responses(prompt: str, shape: Shape) -> dict[str, Any]:
    body: dict[str, Any] = {"input": prompt, "max_output_tokens": shape.limit}
    body |= {"stop": list(shape.stop), "store": False}
    if shape.schema:
        body["text"] = {"format": {"type": "json_schema", "name": "x", "schema": WORD}}
    if shape.tools:
        body |= {"tools": functions(nested=False), "parallel_tool_calls": True}
    if shape.choice:
        named = {"type": "function", "name": shape.choice}
        body["tool_choice"] = "required" if shape.choice == "any" else named
    if shape.logprobs:
        body |= {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    return body


def messages(prompt: str, shape: Shape) -> dict[str, Any]:
    body: dict[str, Any] = {"model": "claude-x", "max_tokens": shape.limit}
    body |= {"messages": [{"role": "user", "content": prompt}], "stop_sequences": list(shape.stop)}
    if shape.schema:
        body["output_config"] = {"format": {"type": "json_schema", "schema": WORD}}
    if shape.tools:
        body["tools"] = [{"name": name, "input_schema": WORD} for name in NAMES]
    if shape.choice:
        named = {"type": "any"} if shape.choice == "any" else {"type": "tool", "name": shape.choice}
        body["tool_choice"] = named | {"disable_parallel_tool_use": False}
    return body


def ollama_chat(prompt: str, shape: Shape) -> dict[str, Any]:
    body = ollama_generate(prompt, shape)
    body["messages"] = [{"role": "user", "content": body.pop("prompt")}]
    return body | ({"tools": functions(nested=True)} if shape.tools else {})


def ollama_generate(prompt: str, shape: Shape) -> dict[str, Any]:
    options = {"num_predict": shape.limit, "stop": list(shape.stop)}
    body: dict[str, Any] = {"model": "default", "prompt": prompt, "options": options}
    body |= {"logprobs": True, "top_logprobs": 2} if shape.logprobs else {}
    return body | ({"format": WORD} if shape.schema else {})


def native(prompt: str, shape: Shape) -> dict[str, Any]:
    body: dict[str, Any] = {"prompt": prompt, "n_predict": shape.limit, "stop": list(shape.stop)}
    body |= {"n_probs": 2} if shape.logprobs else {}
    return body | ({"json_schema": WORD} if shape.schema else {})


Read = tuple[Any, int, int]
"""An answer without ids and times, and the tokens of its prompt and of its text."""


def without(value: Any, *names: str) -> Any:
    """A document without the members of these names, at every depth."""
    if isinstance(value, list):
        return [without(one, *names) for one in value]
    if isinstance(value, dict):
        return {key: without(one, *names) for key, one in value.items() if key not in names}
    return value


def read_chat(answer: Answer) -> Read:
    choices = without([one.model_dump() for one in chat_answers.chat(answer)], "id")
    for choice in choices:  # a stream begins with an empty text
        choice["message"]["content"] = choice["message"]["content"] or None
    return choices, *counted(answer)


def read_completion(answer: Answer) -> Read:
    return [one.model_dump() for one in openai_completions.completion(answer)], *counted(answer)


def counted(answer: Answer) -> tuple[int, int]:
    document = answer.events[-1] if answer.stream else answer.json
    usage = document["usage"]
    return usage["prompt_tokens"], usage["completion_tokens"]


def read_response(answer: Answer) -> Read:
    found = openai_responses.response(answer)
    assert found.usage is not None
    told = without(found.to_dict(), "id", "call_id", "usage", "created_at", "completed_at")
    return told, found.usage.input_tokens, found.usage.output_tokens


def read_message(answer: Answer) -> Read:
    found = anthropic_messages.message(answer)
    told = without(found.to_dict(), "id", "usage", "signature")
    usage = found.usage
    return told, usage.input_tokens + (usage.cache_read_input_tokens or 0), usage.output_tokens


def whole_message(streamed: Read) -> Read:
    """A whole message leaves a cut call out; a stream cannot take its beginning back."""
    told, *counts = streamed
    kept = [one for one in told["content"] if "cut" not in one.get("input", {})]
    return [told | {"content": kept}, *counts]  # type: ignore[return-value] # as JSON has it


def read_ollama_chat(answer: Answer) -> Read:
    found = ollama_api.chat(answer)
    lines = found.pop("lines")
    thinking = "".join(line["message"].get("thinking", "") for line in lines)
    told = without(found, "id") | {"thinking": thinking, "logprobs": tokens_of(lines)}
    return told, lines[-1]["prompt_eval_count"], lines[-1]["eval_count"]


def read_ollama_generate(answer: Answer) -> Read:
    text = ollama_api.text_of(answer)
    lines = answer.lines if answer.stream else [answer.json]
    thinking = "".join(line.get("thinking", "") for line in lines)
    told = (text, thinking, tokens_of(lines), lines[-1]["done_reason"])
    return told, lines[-1]["prompt_eval_count"], lines[-1]["eval_count"]


def tokens_of(lines: list[Any]) -> list[Any]:
    return [one for line in lines for one in line.get("logprobs") or ()]


def read_native(answer: Answer) -> Read:
    found = llama_server.completion(answer)
    documents = answer.events if answer.stream else [answer.json]
    told = [one for each in documents for one in each.get("completion_probabilities") or ()]
    kept = {name: found[name] for name in ("content", "stop_type", "stopping_word", "truncated")}
    return (kept, told), found["tokens_evaluated"], found["tokens_predicted"]


class Api(NamedTuple):
    """How a route is asked and read, the shapes that it has, and `whole` of a streamed answer."""

    path: str
    body: Callable[[str, Shape], dict[str, Any]]
    read: Callable[[Answer], Read]
    has: Callable[[Shape], Any] = lambda shape: shape.n == 1
    whole: Callable[[Read], Read] = lambda streamed: streamed


def is_plain(shape: Shape) -> bool:
    return shape.n == 1 and not shape.tools


APIS = {
    "chat completions": Api("/v1/chat/completions", chat, read_chat, lambda shape: True),
    "completions": Api(
        "/v1/completions",
        completion,
        read_completion,
        lambda shape: not (shape.tools or shape.logprobs),
    ),
    "responses": Api("/v1/responses", responses, read_response),
    "messages": Api(
        "/v1/messages",
        messages,
        read_message,
        lambda shape: shape.n == 1 and not shape.logprobs,
        whole_message,
    ),
    "Ollama's chat": Api(
        "/api/chat", ollama_chat, read_ollama_chat, lambda shape: shape.n == 1 and not shape.choice
    ),
    "Ollama's generate": Api("/api/generate", ollama_generate, read_ollama_generate, is_plain),
    "llama-server's completion": Api("/completion", native, read_native, is_plain),
}
FAST = {
    ("chat completions", "choices with calls"),
    ("completions", "stop"),
    ("responses", "reasoning and calls"),
    ("messages", "reasoning and calls"),
    ("Ollama's chat", "reasoning and calls"),
    ("Ollama's generate", "reasoning"),
    ("llama-server's completion", "stop"),
}
CASES = [
    pytest.param(api, shape, marks=() if (api, shape) in FAST else pytest.mark.slow)
    for api, one in APIS.items()
    for shape, wanted in SHAPES.items()
    if one.has(wanted)
]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("shapes")
    template = folder / "template.jinja"
    template.write_text(TEMPLATE)
    environ = FAKE | {
        "GPUFC_ALIASES": "claude-*",
        "GPUFC_CHAT_TEMPLATE": str(template),
        "GPUFC_FAKE_SCRIPT": "step_ms=1",
    }
    with service(folder / "run", environ=environ) as started:
        yield started


async def ask(running: Service, api: Api, body: dict[str, Any], *, stream: bool) -> Read:
    sent = body | {"stream": stream}
    if not stream:
        sent.pop("stream_options", None)
    async with (
        aiohttp.ClientSession(running.url) as session,
        session.post(api.path, json=sent) as response,
    ):
        data = await response.read()
        assert response.status == 200, data
        answer = Answer(response.status, response.headers, data, stream)
    return json.loads(json.dumps(api.read(answer)))


@pytest.mark.parametrize(("api", "shape"), CASES)
async def test_a_whole_answer_a_stream_and_one_whose_worker_dies_are_one(
    running: Service, tmp_path: Path, api: str, shape: str
) -> None:
    running.wait_idle()
    once, epoch = tmp_path / "killed", running.worker()["epoch"]
    body = APIS[api].body(SHAPES[shape].prompt(once), SHAPES[shape])
    killed = await ask(running, APIS[api], body, stream=True)
    assert once.exists()
    assert running.worker()["epoch"] > epoch
    streamed = await ask(running, APIS[api], body, stream=True)
    whole = await ask(running, APIS[api], body, stream=False)
    assert killed == streamed
    assert whole == APIS[api].whole(streamed)
