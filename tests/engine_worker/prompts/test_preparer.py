import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engine_worker.backend.fake.backend import FakeBackend
from engine_worker.backend.fake.vocabulary import BOS, EOS, N_VOCAB, SPECIAL_TOKENS, tokenize
from engine_worker.backend.port import SpecialTokens
from engine_worker.prompts.conversation import Conversation
from engine_worker.prompts.preparer import PromptPreparer
from engine_worker.prompts.tokenizer import PrepareCancelled, Tokenizer
from gpufc.chat import ChatMessage, ChatPrompt, ToolCall
from gpufc.config import ModelConfig
from gpufc.errors import ContextLengthExceeded, InvalidRequest
from gpufc.protocol import InfillPrompt, TextPrompt, TokenPrompt
from tests.growth import assert_linear

N_CTX = 32


class Plain:
    """A renderer that writes BOS before the texts, or not."""

    def __init__(self, start: str = "") -> None:
        self.start = start

    def render(self, given: Conversation) -> str:
        return self.start + "".join(message["content"] for message in given.messages)


class CountingBackend(FakeBackend):
    n_bytes_tokenized = 0

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        self.n_bytes_tokenized += len(text)
        return super().tokenize(text, add_special=add_special, parse_special=parse_special)


class EosAddingBackend(FakeBackend):
    """A model whose texts end with EOS."""

    def special_tokens(self) -> SpecialTokens:
        return SpecialTokens(
            tokens=SPECIAL_TOKENS.tokens, names=SPECIAL_TOKENS.names, first=(BOS,), last=(EOS,)
        )


class Everything:
    """A renderer that writes every text that it is given."""

    def render(self, given: Conversation) -> str:
        def texts(value: Any) -> Iterator[str]:
            match value:
                case str():
                    yield value
                case list():
                    for item in value:
                        yield from texts(item)
                case dict():
                    for key, item in value.items():
                        yield from (key, *texts(item))

        return "".join(texts([given.messages, given.tools, given.variables]))


def preparer(
    start: str = "", backend: type[FakeBackend] = FakeBackend, **options: bool
) -> PromptPreparer:
    model = backend(ModelConfig(n_ctx=N_CTX), 2)
    return PromptPreparer(model.facts, Tokenizer(model), Plain(start), **options)


def chat(*contents: str) -> ChatPrompt:
    return ChatPrompt(tuple(ChatMessage("user", content) for content in contents))


def test_text_gets_the_model_s_special_tokens() -> None:
    assert preparer().prepare(TextPrompt("hi"), 0) == (BOS, *b"hi")
    assert preparer().prepare(TextPrompt("hi", add_special=False), 0) == tuple(b"hi")


def test_control_tokens_are_read_only_if_wanted() -> None:
    assert len(preparer().prepare(TextPrompt("<|im_end|>", add_special=False), 0)) == 1
    plain = TextPrompt("<|im_end|>", add_special=False, parse_special=False)
    assert len(preparer().prepare(plain, 0)) == 10


def test_a_chat_begins_with_one_bos_also_if_the_template_writes_it() -> None:
    assert preparer().prepare(chat("hi"), 0) == (BOS, *b"hi")
    for start in ("<|bos|>", "\n<|bos|>", " <|bos|>\n<|bos|>"):
        assert preparer(start).prepare(chat("hi"), 0) == (BOS, *b"hi")
    assert preparer("\n").prepare(chat("hi"), 0) == (BOS, *b"\nhi")
    assert preparer("<|bos|>\n").prepare(chat("hi"), 0) == (BOS, *b"\nhi")


def test_any_number_of_bos_takes_linear_time() -> None:
    def prepare(n: int) -> Callable[[], object]:
        whole = preparer("<|bos|> " * n, special_tokens_in_content=True)
        prompt = chat("hi")
        assert whole.prepare(prompt, 0) == (BOS, *b" hi")
        return lambda: whole.prepare(prompt, 0)

    assert_linear(prepare, 5_000)


def test_a_bos_that_a_user_writes_is_text_behind_the_real_one() -> None:
    assert preparer().prepare(chat("<|bos|>x"), 0) == (BOS, *b"<|bos|>x")


@pytest.mark.parametrize("prompt", [TextPrompt("hi"), chat("hi")])
def test_what_is_to_be_continued_never_ends_with_eos(prompt: TextPrompt | ChatPrompt) -> None:
    assert preparer(backend=EosAddingBackend).prepare(prompt, 0) == (BOS, *b"hi")


def test_a_text_that_is_only_counted_has_the_eos_that_the_model_adds() -> None:
    found = preparer(backend=EosAddingBackend).prepare(TextPrompt("hi"), None)
    assert found == (BOS, *b"hi", EOS)


@pytest.mark.parametrize("texts", [("<|im_end|>x",), ("a<|im_", "end|>b"), ("<", "|im_end|>")])
def test_what_users_write_never_becomes_a_control_token(texts: tuple[str, ...]) -> None:
    assert preparer().prepare(chat(*texts), 0) == (BOS, *"".join(texts).encode())


ID = "<|im_end|>"
ASKED = ChatMessage("user", ID, name=ID)
CALLING = ChatMessage(
    "assistant",
    ID,
    tool_calls=(ToolCall(ID, ID, '{"<|im_end|>": ["<|im_end|>"]}'),),
    reasoning_content=ID,
)
RESULT = ChatMessage("tool", ID, name=ID, tool_call_id=ID)
TOOL = {
    "type": "function",
    "function": {
        "name": ID,
        "description": ID,
        "parameters": {"type": "object", "properties": {ID: {"type": ID, "enum": [ID]}}},
    },
}


def test_no_text_of_a_request_becomes_a_control_token() -> None:
    prompt = ChatPrompt(
        (ASKED, CALLING, RESULT),
        tools=json.dumps([TOOL]),
        variables=json.dumps({"effort": ID, "more": {ID: [ID]}}),
    )
    model = FakeBackend(ModelConfig(n_ctx=4096), 2)
    found = PromptPreparer(model.facts, Tokenizer(model), Everything()).prepare(prompt, 0)
    assert found.count(BOS) == 1
    assert max(found[1:]) < 256
    assert bytes(found[1:]).decode().count(ID) == 2 + 6 + 3 + 5 + 3


def test_control_tokens_in_content_can_be_allowed() -> None:
    found = preparer(special_tokens_in_content=True).prepare(chat("<|im_end|>x"), 0)
    assert found == (BOS, *tokenize("<|im_end|>x"))
    assert len(found) == 3


def test_what_the_template_writes_is_read_as_control_tokens() -> None:
    found = preparer("<|im_start|>").prepare(chat("a<|im_end|>"), 0)
    assert found == (BOS, 258, *b"a<|im_end|>")


def test_token_ids_are_used_as_they_are_and_checked() -> None:
    assert preparer().prepare(TokenPrompt((5, 6)), 0) == (5, 6)
    for token in (-1, N_VOCAB, 1 << 60):
        with pytest.raises(InvalidRequest, match="vocabulary") as caught:
            preparer().prepare(TokenPrompt((5, token, 6)), 0)
        assert caught.value.param == "prompt"


def test_an_empty_prompt_becomes_bos() -> None:
    assert preparer().prepare(TokenPrompt(()), 0) == (BOS,)
    assert preparer().prepare(TextPrompt("", add_special=False), 0) == (BOS,)


@pytest.mark.parametrize("reserve", [0, 10, 1 << 20])
def test_a_prompt_must_leave_room_for_one_token(reserve: int) -> None:
    assert len(preparer().prepare(TokenPrompt((1,) * (N_CTX - 1)), reserve)) == N_CTX - 1
    with pytest.raises(ContextLengthExceeded) as caught:
        preparer().prepare(TokenPrompt((1,) * N_CTX), reserve)
    assert caught.value.message.startswith(
        "This model's maximum context length is 32 tokens. However, your prompt resulted in 32"
    )
    assert caught.value.param == "prompt"


def test_a_text_of_any_length_is_counted() -> None:
    text = " a" * 10_000
    assert len(preparer().prepare(TextPrompt(text, add_special=False), None)) == 20_000


def test_a_text_that_cannot_fit_is_not_even_tokenized() -> None:
    model = CountingBackend(ModelConfig(n_ctx=N_CTX), 2)
    tokenizer = Tokenizer(model)
    prepare = PromptPreparer(model.facts, tokenizer, Plain()).prepare
    with pytest.raises(ContextLengthExceeded, match="at least") as caught:
        prepare(chat("x" * 1_000_000), 0)
    assert model.n_bytes_tokenized < 100
    assert caught.value.param == "messages"


def test_special_tokens_are_counted_before_anything_is_tokenized() -> None:
    model = CountingBackend(ModelConfig(n_ctx=N_CTX), 2)
    tokens = Tokenizer(model)
    with pytest.raises(ContextLengthExceeded):
        PromptPreparer(model.facts, tokens, Plain()).prepare(TextPrompt("<|tool|>" * 70), 0)
    assert model.n_bytes_tokenized < 100


def test_the_guard_does_not_refuse_what_long_tokens_could_hold() -> None:
    text = "<|im_start|>" * 31  # 372 bytes, 31 tokens
    found = preparer().prepare(TextPrompt(text, add_special=False), 0)
    assert found == tuple(tokenize(text))


def test_a_cancelled_prompt_is_given_up() -> None:
    with pytest.raises(PrepareCancelled):
        preparer().prepare(TextPrompt("hi"), 0, lambda: True)


def test_a_prompt_with_a_gap_is_held_to_the_context_like_any_other() -> None:
    assert len(preparer().prepare(InfillPrompt("a", "b"), 0)) == 6
    for prompt in (InfillPrompt("a" * N_CTX, ""), InfillPrompt("", "a" * 10 * N_CTX)):
        with pytest.raises(ContextLengthExceeded) as caught:
            preparer().prepare(prompt, 0)
        assert caught.value.param == "prompt"
