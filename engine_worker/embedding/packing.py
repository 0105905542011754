"""How many tokens of which inputs one pass computes. Pure."""

from collections.abc import Iterable
from itertools import islice

from engine_worker.backend.embedder import PassLimits


def pack(lefts: Iterable[int], limits: PassLimits, allowance: int) -> list[int]:
    """The tokens to compute of the first inputs, of which so many are left.

    A pass has at most `allowance` tokens. Where inputs may not be split, a longer one has a pass of
    its own. Only the last input of a pass is split.
    """
    counts: list[int] = []
    room = min(allowance, limits.n_tokens)
    if room < 1:
        return counts
    for left in islice(lefts, limits.n_inputs):
        is_alone = not counts and not limits.may_split
        count = left if is_alone or left <= room else room * limits.may_split
        if not count:
            break
        counts.append(count)
        room -= count
        if room <= 0:
            break
    return counts
