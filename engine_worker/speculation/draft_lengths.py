"""Which drafted tokens of all sequences' drafts are worth their cost in one step. Pure.

A step in which sequence i gains e_i tokens and that takes t seconds has the sequences at rates
e_i / t. A further drafted token raises one e_i by its chance and t for everybody; taken are those
that maximise the product of all rates. For one sequence that is its tokens per second; among many
it keeps one that copies from slowing those that do not, as their sum would not.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import expm1, log, log1p

from msgspec import Struct

from engine_worker.speculation.acceptance import AcceptanceRates

MAX_DRAFT = 32
"""Tokens drafted for one sequence; beyond, a step is little cheaper per token, a miss dearer."""
MAX_DRAFTED = 128
"""Tokens drafted in one step, over all sequences."""
LEAST_GAIN = 0.1
"""By how much the logarithm of the product of rates must be expected to grow. A step with drafts
takes several times as long: for a small gain, what is read would only come less evenly."""


class Offer(Struct, frozen=True):
    """A draft of `length` tokens, the first of which has that `evidence`."""

    rates: AcceptanceRates
    evidence: int
    length: int


class Prices(Struct, frozen=True):
    """What each further token of a step takes from the logarithm of the product of rates.

    `least` is the cheapest of them; `hopeless` if no drafts pay even when all of them are right.
    """

    each: list[float]
    least: float
    hopeless: bool

    @classmethod
    def of(cls, seconds: Sequence[float], n_decoding: int) -> "Prices":
        """`seconds`: of a step with 0, 1, 2… drafted tokens beside those of `n_decoding` ≥ 1
        sequences; at least two of them, all above 0."""
        each = [n_decoding * log(after / before) for before, after in pairwise(seconds)]
        hopeless = all(
            n_decoding * log1p(n_drafted / n_decoding) <= price
            for n_drafted, price in enumerate(accumulate(each), 1)
        )
        return cls(each, min(each), hopeless)


def worthwhile(offers: Sequence[Offer], prices: Prices) -> list[int]:
    """How many tokens of each draft to take.

    A sequence's next drafted token gains less than the one before it, so the n best tokens of all
    never leave one out; how many they should be, the sums of gains and prices tell.
    """
    tokens = []
    least = expm1(prices.least)
    for at, offer in enumerate(offers):
        reached, expected = 1.0, 1.0
        for evidence in range(offer.evidence, offer.evidence + offer.length):
            reached *= offer.rates.rate(evidence)
            if reached <= least * expected:  # not worth the cheapest token of all
                break
            tokens.append((-log1p(reached / expected), at))
            expected += reached
    tokens.sort()
    best, total, n_best = LEAST_GAIN, 0.0, 0
    for n, ((loss, _), price) in enumerate(zip(tokens, prices.each, strict=False), 1):
        total -= loss + price
        if total > best:
            best, n_best = total, n
    lengths = [0] * len(offers)
    for _, at in tokens[:n_best]:
        lengths[at] += 1
    return lengths
