"""What a request wants of a sequence, in the types that the messages share."""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

MAX_TOP_LOGPROBS = 256
"""More than any client may ask for, and fewer than any vocabulary has."""

MAX_RULED_TOKENS = 1024

MOST_LATER = 10_000
"""Sequences that may overtake another one because a policy wants it."""

MIN_CHUNK = 8
"""A smaller piece of a prompt costs a step nearly as much, and gets nowhere."""

Tokens = tuple[int, ...]
StopStrings = Annotated[tuple[str, ...], Meta(max_length=256)]
SamplerState = Annotated[tuple[float, ...], Meta(max_length=8)]
"""The state of a sampler that has one, such as mirostat's mu. It is a function of the tokens chosen
and of their logits. A replay cannot make those again, so the state is logged with the tokens."""


class FinishReason(StrEnum):
    """The worker's reasons for the end of a sequence. Each dialect of the front has its own words
    for the end of an answer."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"


class TokenRules(Struct, frozen=True, array_like=True, omit_defaults=True):
    """vLLM's rules for an answer's tokens.

    A token of `stop` ends the answer as an end token does. Unless `allowed` is empty, no other
    token is generated. Before `min_tokens` no end token is, and no stop string counts. With
    `keeps_stop` the text has the stop string that ended it.
    """

    stop: Annotated[Tokens, Meta(max_length=MAX_RULED_TOKENS)] = ()
    allowed: Annotated[Tokens, Meta(max_length=MAX_RULED_TOKENS)] = ()
    min_tokens: Annotated[int, Meta(ge=0)] = 0
    keeps_stop: bool = False


NO_RULES = TokenRules()


class LogprobsWanted(Struct, frozen=True, array_like=True, omit_defaults=True):
    """The log probabilities that a request wants: of each generated token and the `n_top` best ones
    in its place.

    They are the model's, before masks, biases and sampling; with `after_sampling` those of the
    distribution that the token was drawn from. With `prompt` the prompt's tokens have theirs too.
    """

    n_top: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] = 0
    after_sampling: bool = False
    prompt: bool = False


class Batching(Struct, frozen=True, array_like=True, omit_defaults=True):
    """When a sequence is computed, as a policy of an operator wants it.

    It counts as if it had come `later` by so many sequences, or earlier if negative. Beside running
    streams a step computes at most `chunk_tokens` of its prompt; None: as many as the engine wants.
    """

    later: Annotated[int, Meta(ge=-MOST_LATER, le=MOST_LATER)] = 0
    chunk_tokens: Annotated[int, Meta(ge=MIN_CHUNK)] | None = None


AS_IT_CAME = Batching()
