"""Seeded requests, each alone, streamed and whole: one answer, and the tokens that are counted.

With exact replay the passes of a request do not depend on time or on other requests, so the two
answers are equal token by token.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types import CompletionUsage

from tests.e2e.repeatable import SAME_PASSES
from tests.service import Service, service

pytestmark = pytest.mark.model

WORD = {"type": "string", "maxLength": 8}
PLACE = {
    "type": "object",
    "properties": {"city": WORD, "days": {"type": "integer", "minimum": 1, "maximum": 99}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": name, "strict": True, "parameters": PLACE}}
    for name in ("visit", "leave")
]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "place", "schema": PLACE}}
NAMED = {"type": "function", "function": {"name": "visit"}}
CHATS: dict[str, dict[str, Any]] = {
    "chat": {"max_tokens": 24},
    "schema": {"response_format": SCHEMA},
    "call": {"tools": TOOLS, "tool_choice": NAMED},
    "calls": {
        "tools": TOOLS,
        "tool_choice": "required",
        "parallel_tool_calls": True,
        "extra_body": {"min_tokens": 50},
    },
}
"""No end token before so many others demands a second call."""
KINDS = ["completion", *CHATS]
SUBJECTS = ["a fox", "Lima", "the sea", "🙂 und Käse", "prime numbers", "tea", "a <b>bold</b> word"]
N_FAST = 4
N_ALL = 50
NUMBERS = [
    pytest.param(number, marks=() if number < N_FAST else pytest.mark.slow)
    for number in range(N_ALL)
]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("whole") / "run"
    arguments = ("--model-path", str(model_path), "--n-ctx", "1024")
    environ = SAME_PASSES | {"GPUFC_REPLAY": "exact"}
    with service(folder, *arguments, environ=environ) as started:
        yield started


@pytest.fixture
def client(running: Service) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as made:
        yield made


class Answer:
    """An answer as a client reads it: its text, its calls, their tokens, and what was counted."""

    def __init__(self) -> None:
        self.text = ""
        self.calls: list[list[str]] = []
        self.tokens: list[tuple[bytes, float]] = []
        self.finish: str | None = None
        self.usage: CompletionUsage | None = None

    @property
    def read(self) -> tuple[object, ...]:
        return self.text, self.calls, self.tokens, self.finish, self.usage

    def take_tokens(self, logprobs: Any) -> None:
        for one in logprobs.content or () if logprobs else ():
            self.tokens.append((bytes(one.bytes), one.logprob))

    def take_calls(self, deltas: Any) -> None:
        for at, delta in enumerate(deltas or ()):
            if getattr(delta, "index", at) == len(self.calls):
                self.calls.append(["", ""])
            call = self.calls[getattr(delta, "index", at)]
            call[0] += delta.function.name or ""
            call[1] += delta.function.arguments or ""


def chat(client: openai.OpenAI, body: dict[str, Any], *, stream: bool) -> Answer:
    found = Answer()
    if not stream:
        made = client.chat.completions.create(**body)
        [choice] = made.choices
        found.text, found.finish = choice.message.content or "", choice.finish_reason
        found.take_calls(choice.message.tool_calls)
        found.take_tokens(choice.logprobs)
        found.usage = made.usage
        return found
    options = {"stream_options": {"include_usage": True}}
    for chunk in client.chat.completions.create(**body, **options, stream=True):
        found.usage = chunk.usage
        for choice in chunk.choices:
            found.text += choice.delta.content or ""
            found.finish = choice.finish_reason
            found.take_calls(choice.delta.tool_calls)
            found.take_tokens(choice.logprobs)
    return found


def complete(client: openai.OpenAI, body: dict[str, Any], *, stream: bool) -> Answer:
    found = Answer()
    if not stream:
        made = client.completions.create(**body)
        chunks = [made]
    else:
        options = {"stream_options": {"include_usage": True}}
        chunks = list(client.completions.create(**body, **options, stream=True))
    for chunk in chunks:
        found.usage = chunk.usage
        for choice in chunk.choices:
            found.text += choice.text
            found.finish = choice.finish_reason
            logprobs = choice.logprobs
            if logprobs is not None:
                tokens = (token.encode() for token in logprobs.tokens)
                found.tokens += zip(tokens, logprobs.token_logprobs, strict=True)
    return found


def n_tokens(client: openai.OpenAI, text: str) -> int:
    """The text's tokens by `/tokenize`, with the special ones that it spells."""
    body = {"content": text, "add_special": True, "parse_special": True}
    found: Any = client.post("/tokenize", cast_to=object, body=body)
    return len(found["tokens"])


@pytest.mark.parametrize("number", NUMBERS)
def test_the_deltas_joined_are_the_whole_answer_and_usage_counts_its_tokens(
    client: openai.OpenAI, number: int
) -> None:
    """A prompt's tokens are those of `/tokenize`, an answer's those whose log probabilities came.
    Cut anew, a bound answer may have fewer: a mask allows no token across a boundary."""
    kind, subject = KINDS[number % len(KINDS)], SUBJECTS[number % len(SUBJECTS)]
    body: dict[str, Any] = {
        "model": "default",
        "seed": number,
        "temperature": 0.8,
        "max_tokens": 400,
        "logprobs": True,
    }
    root = client.with_options(base_url=str(client.base_url).removesuffix("/v1/"))
    if kind == "completion":
        prompt = f"Once upon a time {subject}"
        body |= {"prompt": prompt, "max_tokens": 24, "logprobs": 0}
        whole, joined = (complete(client, body, stream=stream) for stream in (False, True))
    else:
        messages = [{"role": "user", "content": f"Tell me of {subject}."}]
        body |= {"messages": messages} | CHATS[kind]
        applied: Any = root.post("/apply-template", cast_to=object, body=body)
        prompt = applied["prompt"]
        whole, joined = (chat(client, body, stream=stream) for stream in (False, True))
    assert joined.read == whole.read
    spelt = b"".join(token for token, _ in whole.tokens).decode()
    assert whole.calls or spelt == whole.text
    assert all(arguments in spelt for _, arguments in whole.calls)
    assert whole.usage is not None
    assert whole.usage.prompt_tokens == n_tokens(root, prompt)
    # a bound answer that can only end here ends without an end token
    has_end = whole.finish != "length" and kind not in ("schema", "call")
    assert whole.usage.completion_tokens == len(whole.tokens) + has_end
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    n_calls = len(whole.calls)
    assert n_calls == {"call": 1, "calls": max(n_calls, 2)}.get(kind, 0)
