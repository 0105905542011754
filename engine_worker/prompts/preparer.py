"""From what a client asked with to token ids, or a refusal."""

from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

from engine_worker.backend.port import Backend
from gpufc.errors import ContextLengthExceeded, InvalidRequest
from gpufc.protocol import ChatMessage, ChatPrompt, Prompt, TextPrompt, TokenPrompt, Tokens

_TYPICAL_TOKEN_BYTES = 4


class Renderer(Protocol):
    """Turns a conversation into text (`template_process.TemplateRenderer`)."""

    def render(self, messages: Sequence[ChatMessage], add_generation_prompt: bool) -> str: ...


class PromptPreparer:
    """Prepares prompts for one model. Used from one thread, beside the engine's."""

    def __init__(self, backend: Backend, renderer: Renderer) -> None:
        self._backend = backend
        self._renderer = renderer

    def prepare(self, prompt: Prompt, reserve: int) -> Tokens:
        """The prompt's token ids, never none; `reserve` more fit into the context with them.

        Raises `ContextLengthExceeded`, or `InvalidRequest` for token ids outside the vocabulary,
        an empty prompt where the model has no BOS, and what a chat template refuses.
        """
        match prompt:
            case TextPrompt():
                tokens = self._tokenize(prompt, "prompt", reserve)
            case ChatPrompt():
                tokens = self._tokenize(self._rendered(prompt), "messages", reserve)
            case TokenPrompt():
                tokens = self._checked(prompt.tokens)
        if not tokens:
            tokens = self._bos()
        param = "messages" if isinstance(prompt, ChatPrompt) else "prompt"
        self._require_room(len(tokens), reserve, param)
        return tokens

    def _rendered(self, prompt: ChatPrompt) -> TextPrompt:
        text = self._renderer.render(prompt.messages, prompt.add_generation_prompt)
        bos = self._backend.facts.bos_text
        # many templates write BOS themselves; a second one makes models noticeably worse
        return TextPrompt(text, add_special=not (bos and text.startswith(bos)), parse_special=True)

    def _tokenize(self, prompt: TextPrompt, param: str, reserve: int) -> Tokens:
        n_bytes = len(prompt.text.encode("utf-8", "replace"))
        n_ctx = self._backend.facts.n_ctx
        # tokenizing megabytes takes seconds; what cannot fit is refused by its length alone
        if n_bytes > n_ctx * _TYPICAL_TOKEN_BYTES and n_bytes > n_ctx * self._longest_piece:
            self._require_room(-(-n_bytes // self._longest_piece), reserve, param, at_least=True)
        return tuple(
            self._backend.tokenize(
                prompt.text, add_special=prompt.add_special, parse_special=prompt.parse_special
            )
        )

    @cached_property
    def _longest_piece(self) -> int:
        """Most bytes that one token stands for. Takes some ms a 10,000 tokens, once."""
        spelling = self._backend.spelling
        return max(1, max(len(spelling(token)) for token in range(self._backend.facts.n_vocab)))

    def _checked(self, tokens: Tokens) -> Tokens:
        n_vocab = self._backend.facts.n_vocab
        for token in (min(tokens, default=0), max(tokens, default=0)):
            if not 0 <= token < n_vocab:
                raise InvalidRequest(
                    f"token id {token} is not in the model's vocabulary of {n_vocab}",
                    param="prompt",
                )
        return tokens

    def _bos(self) -> Tokens:
        bos = self._backend.facts.bos_text
        tokens = self._backend.tokenize(bos, add_special=False, parse_special=True) if bos else []
        if not tokens:
            raise InvalidRequest("the prompt is empty", param="prompt")
        return tuple(tokens[:1])

    def _require_room(
        self, n_prompt: int, reserve: int, param: str, *, at_least: bool = False
    ) -> None:
        """A prompt must leave room for at least one token, else nothing can come of it."""
        n_ctx = self._backend.facts.n_ctx
        if n_prompt + max(1, reserve) <= n_ctx:
            return
        some = "at least " if at_least else ""
        raise ContextLengthExceeded(
            f"This model's maximum context length is {n_ctx} tokens. However, you requested"
            f" {some}{n_prompt + reserve} tokens ({some}{n_prompt} in the prompt, {reserve} for the"
            " completion). Please reduce the length of the prompt or the completion.",
            param=param,
        )
