"""Texts that are slow or deadly to tokenize, drawn from a seed."""

import random
from collections.abc import Callable, Sequence

RUNS = ("A", "a", "\n", " ", "\t", "#", "=", "_", "0", "'", "\u4e2d", "\u00e9", "\U0001f642", "\0")
PAIRS = (
    "Aa",
    "a ",
    " \n",
    "\r\n",
    "1a",
    "'s",
    "a\u0301",
    "<|",
    "\u4e2d\u3002",
    "-=",
    "x_",
    "\u3000 ",
)
WORDS = tuple(
    ["the", "quick", "brown", "fox", "jumps", "over", "it's", "1,234", "f(x);", "你好", "АБВ"]
)


def text(seed: int, special: Sequence[str], least_chars: int, most_chars: int) -> str:
    """One text between the lengths, about."""
    rng = random.Random(seed)
    n_chars = rng.randint(least_chars, most_chars)
    return rng.choice(KINDS)(rng, special, n_chars)


def _unicode(rng: random.Random, _: Sequence[str], n_chars: int) -> str:
    limit = rng.choice((0x80, 0x800, 0x10000, 0x110000))
    block = "".join(map(chr, rng.choices(range(limit), k=min(n_chars, 50_000))))
    return (block * (n_chars // len(block) + 1)).encode("utf-8", "replace").decode()


def _run(rng: random.Random, _: Sequence[str], n_chars: int) -> str:
    return rng.choice(RUNS) * n_chars


def _pairs(rng: random.Random, _: Sequence[str], n_chars: int) -> str:
    return rng.choice(PAIRS) * (n_chars // 2)


def _runs_among_words(rng: random.Random, special: Sequence[str], n_chars: int) -> str:
    parts: list[str] = []
    left = n_chars
    while left > 0:
        words = " ".join(rng.choices(WORDS, k=rng.randint(1, 500)))
        run = rng.choice(RUNS) * min(left, int(10 ** rng.uniform(0, 5)))
        parts += (words, run, rng.choice(special) if rng.random() < 0.2 else "\n")
        left -= sum(map(len, parts[-3:]))
    return "".join(parts)


def _special(rng: random.Random, special: Sequence[str], n_chars: int) -> str:
    one = rng.choice(special)
    return rng.choice((one, one + "\n", one[:-1], one + "x ", one * 2 + one[:3])) * (
        n_chars // len(one)
    )


KINDS: tuple[Callable[[random.Random, Sequence[str], int], str], ...] = (
    _unicode,
    _run,
    _pairs,
    _runs_among_words,
    _special,
)
