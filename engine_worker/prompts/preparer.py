"""From a request's prompt to token ids, or a refusal."""

import re
from collections.abc import Callable
from functools import partial
from typing import Protocol

from engine_worker.prompts.conversation import Conversation, conversation, marked
from engine_worker.prompts.embedding_inputs import require_generation
from engine_worker.prompts.infill import infill_tokens
from engine_worker.prompts.known_tokens import require_known
from engine_worker.prompts.special_tokens import unused_mark
from engine_worker.prompts.tokenizer import Apart, Tokenizer, TooManyTokens
from gpufc.chat import ChatPrompt
from gpufc.errors import ContextLengthExceeded, InvalidRequest
from gpufc.facts import ModelFacts
from gpufc.protocol import InfillPrompt, Prompt, TextPrompt, TokenPrompt, Tokens

COUNTED_CONTEXTS = 2
"""The tokens of a prompt that is too long are counted up to this many contexts."""


class Renderer(Protocol):
    """Turns a conversation into text (`template_process.TemplateRenderer`)."""

    def render(self, given: Conversation) -> str: ...


class PromptPreparer:
    """Prepares prompts for one model. Used from one thread, beside the engine's."""

    def __init__(
        self,
        facts: ModelFacts,
        tokenizer: Tokenizer,
        renderer: Renderer,
        apart: Apart | None = None,
        *,
        special_tokens_in_content: bool = False,
    ) -> None:
        """Without `apart`, texts that need one raise `tokenizer.NeedsApart`."""
        self._facts, self._tokenizer = facts, tokenizer
        self._renderer, self._apart = renderer, apart
        self._marks_content = not special_tokens_in_content

    def prepare(
        self, prompt: Prompt, reserve: int | None, cancelled: Callable[[], bool] = lambda: False
    ) -> Tokens:
        """The prompt's token ids, never none, with room for one more in the context.

        `reserve` None: the text is only counted, so any length will do, and EOS follows where the
        model wants it. Raises `ContextLengthExceeded`, or `InvalidRequest` for token ids outside
        the vocabulary, an empty prompt where the model has no BOS, and what a chat template
        refuses, and any prompt with `reserve` for a model that generates no text; also `NeedsApart`
        and `PrepareCancelled`.
        """
        if reserve is not None:
            require_generation(self._facts)
        param = "messages" if isinstance(prompt, ChatPrompt) else "prompt"
        n_ctx = self._facts.n_ctx
        limit = None if reserve is None else COUNTED_CONTEXTS * n_ctx
        try:
            tokens = self._tokens(prompt, limit, cancelled, is_counted=reserve is None)
        except TooManyTokens as err:
            raise _too_long(n_ctx, f"at least {err.n_tokens}", param) from None
        if limit is not None and len(tokens) >= n_ctx:
            raise _too_long(n_ctx, str(len(tokens)), param)
        return tokens

    def _tokens(
        self,
        prompt: Prompt,
        limit: int | None,
        cancelled: Callable[[], bool],
        *,
        is_counted: bool,
    ) -> Tokens:
        match prompt:
            case TextPrompt(text, add_special, parse_special):
                first = self._tokenizer.first if add_special else ()
                last = self._tokenizer.last if add_special and is_counted else ()
                tokens = self._tokenizer.tokenize(
                    text,
                    parse_special=parse_special,
                    limit=limit,
                    apart=self._apart,
                    cancelled=cancelled,
                )
                found = (*first, *tokens, *last)
            case ChatPrompt():
                found = self._chat_tokens(prompt, limit, cancelled)
            case InfillPrompt():
                found = self._infill_tokens(prompt, limit, cancelled)
            case TokenPrompt(found):
                require_known(found, self._facts.n_vocab, "prompt")
        return found or self._bos()

    def _infill_tokens(
        self, prompt: InfillPrompt, limit: int | None, cancelled: Callable[[], bool]
    ) -> Tokens:
        tokenize = partial(
            self._tokenizer.tokenize,
            parse_special=False,
            limit=limit,
            apart=self._apart,
            cancelled=cancelled,
        )
        return infill_tokens(prompt, self._tokenizer.infill, self._tokenizer.first, tokenize)

    def _chat_tokens(
        self, prompt: ChatPrompt, limit: int | None, cancelled: Callable[[], bool]
    ) -> Tokens:
        given, mark = self._marked(conversation(prompt))
        tokens = self._tokenizer.tokenize(
            self._with_one_bos(self._renderer.render(given)),
            parse_special=True,
            mark=mark,
            limit=limit,
            apart=self._apart,
            cancelled=cancelled,
        )
        # many templates write BOS themselves; a second one makes models noticeably worse
        first = self._tokenizer.first
        return tuple(tokens) if tuple(tokens[: len(first)]) == first else (*first, *tokens)

    def _with_one_bos(self, text: str) -> str:
        """A rendered text that begins with BOS once if it begins with it at all: not behind a line
        break, and not again, where the model wants one."""
        bos = self._facts.bos_text if self._tokenizer.first else None
        if not bos:
            return text
        # possessive: without a way back, any number of them takes linear time and no memory
        begun = re.match(rf"(?:\s*+{re.escape(bos)})*+", text)
        n_begun = begun.end() if begun else 0
        return bos + text[n_begun:] if n_begun else text

    def _marked(self, given: Conversation) -> tuple[Conversation, str]:
        """The conversation with marks in control tokens that it spells, and the mark."""
        if not self._marks_content:
            return given, ""
        mark = unused_mark([given.messages, given.tools, given.variables])
        special = self._tokenizer.special
        found = marked(given, lambda value: special.marked(value, mark))
        return (given, "") if found == given else (found, mark)

    def _bos(self) -> Tokens:
        """What an empty prompt becomes: there must be a token to go on from."""
        bos = self._facts.bos_text
        tokens = self._tokenizer.tokenize(bos, parse_special=True) if bos else []
        if not tokens:
            raise InvalidRequest("the prompt is empty", param="prompt")
        return tuple(tokens[:1])


def _too_long(n_ctx: int, n_tokens: str, param: str) -> ContextLengthExceeded:
    return ContextLengthExceeded(
        f"This model's maximum context length is {n_ctx} tokens. However, your {param} resulted in"
        f" {n_tokens} tokens, and one more must fit. Please reduce the length of the {param}.",
        param=param,
    )
