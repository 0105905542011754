"""A lower bound on the tokens of a text, without tokenizing it."""

from collections.abc import Iterable

import numpy as np

_CHUNK_BYTES = 1 << 20
_SINGLE = set(range(0x20, 0x7F)) | set(range(0x80, 0xC0))
"""Bytes that are tokens of their own wherever unknown text is spelt byte by byte."""


class LeastTokens:
    """Counts the tokens that a text has at least. Immutable, for any thread.

    A token that contains a byte is at most as long as the longest token with that byte. So each
    byte of a text counts at least the reciprocal of that length. Where the vocabulary lacks single
    bytes, one token may stand for any text, and the bound is 0.
    """

    def __init__(self, spellings: Iterable[bytes], vanishing: bytes = b"") -> None:
        """`spellings` are those of all tokens. Bytes in `vanishing` may leave no token."""
        longest = np.zeros(256)
        by_length: dict[int, list[bytes]] = {}
        for spelling in spellings:
            by_length.setdefault(len(spelling), []).append(spelling)
        for length in sorted(by_length):
            longest[list(set(b"".join(by_length[length])))] = length
        single = set(b"".join(by_length.get(1, ())))
        longest[list(vanishing)] = 0
        known = single >= _SINGLE
        self._worth = np.divide(1.0, longest, out=np.zeros(256), where=known & (longest > 0))

    def of(self, data: bytes) -> int:
        """A lower bound on the number of tokens of a UTF-8 text."""
        total = 0.0
        for start in range(0, len(data), _CHUNK_BYTES):
            chunk = np.frombuffer(data, np.uint8)[start : start + _CHUNK_BYTES]
            total += float(np.bincount(chunk, minlength=256) @ self._worth)
        # sums of reciprocals are a little off: the bound must stay one
        return int(total * (1 - 1e-9))
