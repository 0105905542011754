"""Log probabilities as OpenAI writes them: for chats, and in the older form for completions."""

import math
from collections.abc import Iterable, Sequence

from msgspec import Struct

from gpufc.protocol import TokenLogprobs
from supervisor.http.generation.content_tokens import (
    ContentToken,
    content_tokens,
    finite,
    text_of,
)


class ChatLogprobs(Struct, frozen=True, kw_only=True):
    content: list[ContentToken]
    refusal: None = None


class CompletionLogprobs(Struct, frozen=True, kw_only=True):
    """Parallel lists. `top_logprobs` has the token itself as well, and is null where none are asked
    for. The first token of a prompt has no log probability."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


def chat_logprobs(entries: Iterable[TokenLogprobs]) -> ChatLogprobs:
    return ChatLogprobs(content=content_tokens(entries))


def completion_logprobs(
    entries: Sequence[TokenLogprobs], offsets: list[int], n_top: int
) -> CompletionLogprobs:
    """`offsets` says where in the text each token begins."""
    return CompletionLogprobs(
        tokens=[text_of(entry.token) for entry in entries],
        token_logprobs=[
            None if entry.token.logprob is None else finite(entry.token.logprob)
            for entry in entries
        ],
        top_logprobs=[_best(entry) for entry in entries] if n_top else None,
        text_offset=offsets,
    )


def offsets_from(start: int, entries: Sequence[TokenLogprobs]) -> list[int]:
    """Where each token begins in a text that has `start` characters before the first one."""
    found: list[int] = []
    for entry in entries:
        found.append(start)
        start += entry.n_chars
    return found


def prompt_offsets(text: str, entries: Sequence[TokenLogprobs]) -> list[int]:
    """Where each token of a prompt begins in its text. The tokens may begin with more than the text
    has: with BOS, or with a space."""
    surplus = max(0, sum(entry.n_chars for entry in entries) - len(text))
    return [max(0, offset - surplus) for offset in offsets_from(0, entries)]


def mean_logprob(entries: Sequence[TokenLogprobs]) -> float:
    """By which the best of several answers is found; an empty one is the last."""
    logprobs = [entry.token.logprob or 0.0 for entry in entries]
    return sum(logprobs) / len(logprobs) if logprobs else -math.inf


def _best(entry: TokenLogprobs) -> dict[str, float] | None:
    """By text: of tokens with the same text the best one counts."""
    if entry.token.logprob is None:
        return None
    found: dict[str, float] = {}
    for one in (*entry.top, entry.token):
        found.setdefault(text_of(one), finite(one.logprob))
    return found
