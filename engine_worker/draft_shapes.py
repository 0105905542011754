"""Drafts of few lengths, for a device. Pure.

A GPU's launch is prepared for one shape of a pass: with another number of tokens than in the step
before the same pass takes some 5 ms longer, which is several tokens' time. So drafts are filled up
to one of a few lengths, equal for all sequences, and a length is kept for some steps after it was
wanted last. What they are filled with are guesses like the others, only poor ones.
"""

from collections.abc import Sequence

LENGTHS = (0, 7, 31)
"""With the token before them 8, the most that llama.cpp's kernels for few tokens take, and 32."""

PATIENCE = 4
"""Steps for which drafts stay longer than wanted: so many cost as much as to change the shape."""


class DraftShapes:
    """What the last step's drafts were like. The engine thread's own."""

    def __init__(self) -> None:
        self._length = 0
        self._n_longer = 0

    def levelled(
        self, drafts: Sequence[list[int]], fillers: Sequence[int], most: int
    ) -> list[list[int]]:
        """The drafts, all of one of `LENGTHS`, with no more than `most` tokens together.

        Each is filled up with its own of `fillers`.
        """
        lengths = [length for length in LENGTHS if length * len(drafts) <= most]
        longest = max(map(len, drafts), default=0)
        wanted = next((length for length in lengths if length >= longest), lengths[-1])
        self._n_longer = self._n_longer + 1 if wanted < self._length else 0
        if wanted > self._length or self._n_longer >= PATIENCE or self._length not in lengths:
            self._length, self._n_longer = wanted, 0
        return [
            (draft + [filler] * self._length)[: self._length]
            for draft, filler in zip(drafts, fillers, strict=True)
        ]
