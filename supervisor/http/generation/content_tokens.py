"""A token with its log probability, as OpenAI's newer APIs write it. Pure."""

from collections.abc import Iterable

from msgspec import Struct

from gpufc.protocol import Logprob, TokenLogprobs

LEAST = -9999.0
"""Stands for a probability of nothing: JSON has no infinity."""


class TokenObject(Struct, frozen=True, kw_only=True):
    """`bytes` are those of the token, which may be a part of a character."""

    token: str
    logprob: float
    bytes: list[int]


class ContentToken(TokenObject, frozen=True, kw_only=True):
    top_logprobs: list[TokenObject]


def content_tokens(entries: Iterable[TokenLogprobs]) -> list[ContentToken]:
    return [_content(entry) for entry in entries]


def _content(entry: TokenLogprobs) -> ContentToken:
    token = entry.token
    return ContentToken(
        token=text_of(token),
        logprob=finite(token.logprob),
        bytes=list(token.piece),
        top_logprobs=[
            TokenObject(token=text_of(one), logprob=finite(one.logprob), bytes=list(one.piece))
            for one in entry.top
        ],
    )


def text_of(token: Logprob) -> str:
    return token.piece.decode("utf-8", "replace")


def finite(logprob: float | None) -> float:
    return LEAST if logprob is None else max(logprob, LEAST)
