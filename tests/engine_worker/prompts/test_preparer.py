from collections.abc import Sequence

import pytest

from engine_worker.backend.fake.backend import FakeBackend
from engine_worker.backend.fake.vocabulary import BOS, N_VOCAB, tokenize
from engine_worker.prompts.preparer import PromptPreparer
from gpufc.config import ModelConfig
from gpufc.errors import ContextLengthExceeded, InvalidRequest
from gpufc.protocol import ChatMessage, ChatPrompt, TextPrompt, TokenPrompt


class Plain:
    """A renderer that writes BOS before the text, or not."""

    def __init__(self, start: str = "") -> None:
        self.start = start

    def render(self, messages: Sequence[ChatMessage], add_generation_prompt: bool) -> str:
        return self.start + "".join(message.content for message in messages)


class CountingBackend(FakeBackend):
    n_tokenized = 0

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        self.n_tokenized += 1
        return super().tokenize(text, add_special=add_special, parse_special=parse_special)


def preparer(start: str = "", n_ctx: int = 32) -> PromptPreparer:
    return PromptPreparer(CountingBackend(ModelConfig(n_ctx=n_ctx), 2), Plain(start))


CHAT = ChatPrompt((ChatMessage("user", "hi"),))


def test_text_gets_the_model_s_special_tokens() -> None:
    assert preparer().prepare(TextPrompt("hi"), 0) == (BOS, *b"hi")
    assert preparer().prepare(TextPrompt("hi", add_special=False), 0) == tuple(b"hi")


def test_control_tokens_are_read_only_if_wanted() -> None:
    assert len(preparer().prepare(TextPrompt("<|im_end|>", add_special=False), 0)) == 1
    plain = TextPrompt("<|im_end|>", add_special=False, parse_special=False)
    assert len(preparer().prepare(plain, 0)) == 10


def test_a_chat_begins_with_one_bos_whoever_writes_it() -> None:
    assert preparer().prepare(CHAT, 0) == (BOS, *b"hi")
    assert preparer("<|bos|>").prepare(CHAT, 0) == (BOS, *b"hi")


def test_token_ids_are_used_as_they_are_and_checked() -> None:
    assert preparer().prepare(TokenPrompt((5, 6)), 0) == (5, 6)
    for token in (-1, N_VOCAB, 1 << 60):
        with pytest.raises(InvalidRequest, match="vocabulary") as caught:
            preparer().prepare(TokenPrompt((5, token, 6)), 0)
        assert caught.value.param == "prompt"


def test_an_empty_prompt_becomes_bos() -> None:
    assert preparer().prepare(TokenPrompt(()), 0) == (BOS,)
    assert preparer().prepare(TextPrompt("", add_special=False), 0) == (BOS,)


def test_prompt_and_completion_must_fit_the_context() -> None:
    assert len(preparer().prepare(TokenPrompt((1,) * 22), 10)) == 22
    with pytest.raises(ContextLengthExceeded) as caught:
        preparer().prepare(TokenPrompt((1,) * 23), 10)
    assert caught.value.message.startswith(
        "This model's maximum context length is 32 tokens. However, you requested 33 tokens"
        " (23 in the prompt, 10 for the completion)."
    )
    assert caught.value.param == "prompt"


def test_a_prompt_must_leave_room_for_a_token() -> None:
    assert preparer().prepare(TokenPrompt((1,) * 31), 0)
    with pytest.raises(ContextLengthExceeded):
        preparer().prepare(TokenPrompt((1,) * 32), 0)


def test_a_text_that_cannot_fit_is_not_even_tokenized() -> None:
    backend = CountingBackend(ModelConfig(n_ctx=32), 2)
    with pytest.raises(ContextLengthExceeded, match="at least") as caught:
        PromptPreparer(backend, Plain()).prepare(
            ChatPrompt((ChatMessage("user", "x" * 1_000_000),)), 0
        )
    assert backend.n_tokenized == 0
    assert caught.value.param == "messages"


def test_the_guard_does_not_refuse_what_long_tokens_could_hold() -> None:
    text = "<|im_start|>" * 31  # 372 bytes, 31 tokens
    tokens = preparer().prepare(TextPrompt(text, add_special=False), 0)
    assert tokens == tuple(tokenize(text))
