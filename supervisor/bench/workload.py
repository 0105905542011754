"""The requests of a benchmark and their times. Pure: a workload gives the same requests everywhere.

Lengths count words that common vocabularies hold as one token, because a client has no tokenizer.
The server's `usage` has the real count.
"""

import itertools
import random
from collections.abc import Iterator
from typing import Annotated, Any

from msgspec import Meta, Struct

from supervisor.bench import code_text
from supervisor.bench.words import WORDS

INDEX_WORDS = 3
"""Words at the beginning of a text that depend on its index only, so that texts are distinct."""

Count = Annotated[int, Meta(ge=1)]


class Workload(Struct, frozen=True, kw_only=True):
    """One kind of conversation. `conversation` makes the conversation of an index.

    `prompt_tokens` is the length of each turn's own text. `shared_prefix` stands before the first
    turn's text and is the same in all conversations. An answer has `output_tokens`, or with
    `varied` a quarter to seven quarters of them. With `lengths`, the answers of conversation `i`
    have `lengths[i]` tokens, and the list begins again after its end. With `copying`, a turn's text
    is source code to be repeated with one name changed. `fields` are further fields of each
    request's body. `rate` is conversations per second, arriving as a Poisson process; with None, a
    client begins one when its last one has ended.
    """

    prompt_tokens: Count = 128
    output_tokens: Count = 128
    varied: bool = False
    lengths: tuple[Count, ...] = ()
    shared_prefix: Annotated[int, Meta(ge=0)] = 0
    turns: Count = 1
    copying: bool = False
    greedy: bool = False
    fields: dict[str, Any] = {}
    rate: Annotated[float, Meta(gt=0.0)] | None = None
    seed: int = 1


class Conversation(Struct, frozen=True):
    """One user's turns. `seed` is for the server's sampling, `output_tokens` for each answer."""

    index: int
    prefix: str
    turns: tuple[str, ...]
    seed: int
    output_tokens: int


def conversation(workload: Workload, index: int) -> Conversation:
    """The conversation of this index. Different indexes begin differently.

    A negative index is a warm-up, which differs from all measured conversations.
    """
    dice = _dice(f"{workload.seed}/{index}")
    return Conversation(
        index=index,
        prefix=_shared_prefix(workload),
        turns=tuple(_text(workload, index, dice) for _ in range(workload.turns)),
        seed=dice.randrange(1, 1 << 31),
        output_tokens=_output_tokens(workload, index),
    )


def arrivals(workload: Workload) -> Iterator[float]:
    """Yield the times at which conversations begin, in seconds since the start, without end."""
    if workload.rate is None:
        raise ValueError("a closed loop has no times of arrival")
    dice = _dice(f"{workload.seed}/arrivals")
    return itertools.accumulate(dice.expovariate(workload.rate) for _ in itertools.count())


def _dice(purpose: str) -> random.Random:
    """A random generator that is the same in all processes and Python versions."""
    return random.Random(purpose)  # noqa: S311  (no secrets)


def _output_tokens(workload: Workload, index: int) -> int:
    if workload.lengths:
        return workload.lengths[index % len(workload.lengths)]
    if not workload.varied:
        return workload.output_tokens
    dice = _dice(f"{workload.seed}/{index}/length")
    return dice.randint(max(1, workload.output_tokens // 4), workload.output_tokens * 7 // 4)


def _shared_prefix(workload: Workload) -> str:
    dice = _dice(f"{workload.seed}/prefix")
    return " ".join(dice.choices(WORDS, k=workload.shared_prefix))


def _text(workload: Workload, index: int, dice: random.Random) -> str:
    n_words = workload.prompt_tokens
    first = _index_words(workload.seed, index)
    if workload.copying:
        return code_text.wish(first, n_words, dice)
    words = first[:n_words]
    words += dice.choices(WORDS, k=n_words - len(words))
    return " ".join(words)


def _index_words(seed: int, index: int) -> list[str]:
    """The index written in words, its last digit first, shifted by the seed."""
    number = index + _dice(f"{seed}/index").randrange(len(WORDS) ** INDEX_WORDS)
    words = []
    for _ in range(INDEX_WORDS):
        number, digit = divmod(number, len(WORDS))
        words.append(WORDS[digit])
    return words
