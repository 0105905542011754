"""Log probabilities as Ollama writes them."""

from collections.abc import Iterable

from msgspec import UNSET, Struct, UnsetType

from gpufc.protocol import Logprob, TokenLogprobs

LEAST = -9999.0
"""Stands for a probability of nothing: JSON has no infinity."""


class TokenObject(Struct, frozen=True, kw_only=True):
    """`bytes` are those of the token, which may be a part of a character."""

    token: str
    logprob: float
    bytes: list[int]


class LogprobObject(TokenObject, frozen=True, kw_only=True):
    top_logprobs: list[TokenObject] | UnsetType = UNSET


def logprobs_of(entries: Iterable[TokenLogprobs]) -> list[LogprobObject]:
    """An entry for each token, with the best ones in its place if they were asked for."""
    return [
        LogprobObject(
            token=_text(entry.token),
            logprob=_finite(entry.token),
            bytes=list(entry.token.piece),
            top_logprobs=[
                TokenObject(token=_text(one), logprob=_finite(one), bytes=list(one.piece))
                for one in entry.top
            ]
            or UNSET,
        )
        for entry in entries
    ]


def _text(token: Logprob) -> str:
    return token.piece.decode("utf-8", "replace")


def _finite(token: Logprob) -> float:
    return LEAST if token.logprob is None else max(token.logprob, LEAST)
