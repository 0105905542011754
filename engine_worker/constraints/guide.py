"""The state of a constraint in one sequence: the tokens that may come next. Pure."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from engine_worker.backend.candidates import MaskWords


class Matcher(Protocol):
    """A grammar's state (`llg.Matcher`)."""

    @property
    def is_complete(self) -> bool: ...
    def consume(self, tokens: Sequence[int]) -> int: ...
    def allows(self, token: int) -> bool: ...
    def rollback(self, n_tokens: int) -> None: ...
    def forced(self) -> list[int]: ...
    def mask(self) -> MaskWords: ...
    def find_limit(self) -> None: ...


class Guide:
    """Invariant: the matcher has read exactly the generated tokens of one sequence.

    Where the grammar leaves one continuation, its tokens are `forced`: the model's own way to cut
    that text. They are chosen by the mask as well, so that an answer does not depend on whether its
    forced tokens were computed in one pass or one by one.
    """

    def __init__(self, matcher: Matcher, n_words: int) -> None:
        self._matcher = matcher
        self._n_words = n_words
        self._forced: list[int] | None = None
        self._is_choosing = False

    def read(self, tokens: Sequence[int]) -> bool:
        """Go on after these tokens. False if the constraint does not allow them."""
        forced, self._forced = self._forced, None
        self._is_choosing = forced is not None and not forced
        if self._matcher.consume(tokens) < len(tokens):
            self._matcher.find_limit()
            return False
        if forced and len(tokens) == 1 and forced[0] == tokens[0] and len(forced) > 1:
            self._forced = forced[1:]
        return True

    @property
    def is_complete(self) -> bool:
        """Whether the answer is whole and nothing may follow it."""
        return self._matcher.is_complete

    @property
    def forced(self) -> list[int]:
        """The tokens that come next in any case, possibly none."""
        if self._forced is None:
            self._forced = self._matcher.forced()
        return self._forced

    def allows(self, token: int) -> bool:
        """Whether the next token may be this one, as the mask says it. Reads no token. Called where
        none is forced."""
        return self._matcher.allows(token)

    @property
    def is_choosing(self) -> bool:
        """Whether the last token that was read was one of several that were allowed. Most likely
        the next one is."""
        return self._is_choosing

    @property
    def matcher(self) -> Matcher:
        """Computes the next row's mask where no token is forced. Reads no token."""
        return self._matcher

    def masks(self, draft: Sequence[int], first: MaskWords | None = None) -> list[MaskWords | None]:
        """The mask of the next row, which may be given as `first`, and of the row after each guess;
        None after a guess that is not allowed, because no token is taken from that row."""
        masks: list[MaskWords | None] = [self._mask(self.forced) if first is None else first]
        if not draft:
            return masks
        forced, n_read = self.forced, 0
        for guess in draft:
            if (forced and guess != forced[0]) or not self._matcher.consume((guess,)):
                break
            n_read += 1
            forced = forced[1:] or self._matcher.forced()
            masks.append(self._mask(forced))
        self._matcher.rollback(n_read)
        return masks + [None] * (1 + len(draft) - len(masks))

    def _mask(self, forced: Sequence[int]) -> MaskWords:
        if not forced:
            return self._matcher.mask()
        words = np.zeros(self._n_words, np.int32)
        allow_only(forced[0], words)
        return words


def allow_only(token: int, words: MaskWords) -> None:
    """Write the mask of one forced token."""
    words[:] = 0
    words.view(np.uint32)[token >> 5] = 1 << (token & 31)
