"""How many tokens of each sequence's draft one step should verify. Pure.

A step of t seconds in which sequence i is expected to gain e_i tokens gives it the rate e_i / t. A
further drafted token raises one e_i by its acceptance probability, and raises t for all sequences.
The chosen lengths maximise the product of all rates. For one sequence the product is its tokens per
second. Among many, a product (unlike a sum) keeps one copying sequence from slowing the other ones.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import expm1, log, log1p

from msgspec import Struct

from engine_worker.speculation.acceptance import AcceptanceRates

MAX_DRAFT = 32
"""The longest draft of one sequence. A longer one saves little more and risks more."""
MAX_DRAFTED = 128
"""The most drafted tokens in one step, over all sequences."""
LEAST_GAIN = 0.1
"""Drafts must be expected to raise the logarithm of the product of rates by this much.

A step with drafts takes several times as long, so a smaller gain only makes a stream uneven."""


class Offer(Struct, frozen=True):
    """A draft of `length` tokens: its first token has `evidence`, each next one has one more."""

    rates: AcceptanceRates
    evidence: int
    length: int


class Prices(Struct, frozen=True):
    """The cost of each further drafted token, in the logarithm of the product of rates.

    `each[n]` is the cost of token n + 1 of a step, and `least` the smallest of them. `hopeless`
    means that no number of drafted tokens pays, even if all of them are right.
    """

    each: list[float]
    least: float
    hopeless: bool

    @classmethod
    def of(cls, seconds: Sequence[float], n_decoding: int) -> "Prices":
        """Prices for a step in which `n_decoding` ≥ 1 sequences decode.

        `seconds[n]` > 0 is the duration of that step with n drafted tokens; at least two are given.
        """
        each = [n_decoding * log(after / before) for before, after in pairwise(seconds)]
        hopeless = all(
            n_decoding * log1p(n_drafted / n_decoding) <= price
            for n_drafted, price in enumerate(accumulate(each), 1)
        )
        return cls(each, min(each), hopeless)


def worthwhile(offers: Sequence[Offer], prices: Prices) -> list[int]:
    """The number of tokens to verify of each draft.

    Gains shrink along a draft. So the n tokens with the largest gains are always a beginning of
    each draft, and only n has to be found: it is where the gains exceed the prices by most.
    """
    gains = []  # negative, so that sorting puts the largest gain first
    least = expm1(prices.least)
    for at, offer in enumerate(offers):
        # the probability that all tokens so far are right; the tokens that the step then gains
        reached, expected = 1.0, 1.0
        for evidence in range(offer.evidence, offer.evidence + offer.length):
            reached *= offer.rates.rate(evidence)
            if reached <= least * expected:  # gains less than the cheapest token costs
                break
            gains.append((-log1p(reached / expected), at))
            expected += reached
    gains.sort()
    best, total, n_best = LEAST_GAIN, 0.0, 0
    for n, ((negative, _), price) in enumerate(zip(gains, prices.each, strict=False), 1):
        total -= negative + price
        if total > best:
            best, n_best = total, n
    lengths = [0] * len(offers)
    for _, at in gains[:n_best]:
        lengths[at] += 1
    return lengths
