"""A request's rules about tokens as masks: the same mechanism that constraints use. Pure."""

from collections.abc import Collection, Sequence

import numpy as np

from engine_worker.backend.candidates import MaskWords
from gpufc.protocol import TokenRules


class RuleMask:
    """The masks of one sequence's rows. Immutable."""

    def __init__(self, rules: TokenRules, n_vocab: int, end_tokens: Collection[int]) -> None:
        """`end_tokens` are the model's. Raises `IndexError` for a token outside the vocabulary."""
        allowed = np.full(-(-n_vocab // 32) * 32, not rules.allowed)
        allowed[list(rules.allowed)] = True
        self._later = _words(allowed) if rules.allowed else None
        self._least_tokens = rules.min_tokens
        allowed[[*end_tokens, *rules.stop]] = False
        self._early = _words(allowed)

    @classmethod
    def of(cls, rules: TokenRules, n_vocab: int, end_tokens: Collection[int]) -> "RuleMask | None":
        """None for rules that forbid no token."""
        return cls(rules, n_vocab, end_tokens) if rules.allowed or rules.min_tokens else None

    def over(self, masks: Sequence[MaskWords | None], position: int) -> list[MaskWords | None]:
        """What these masks allow, and the rules too. The first is that of the token at `position`
        of the answer, each other one that of the next token."""
        return [self._both(mask, position + at) for at, mask in enumerate(masks)]

    def _both(self, mask: MaskWords | None, position: int) -> MaskWords | None:
        own = self._early if position < self._least_tokens else self._later
        if mask is None or own is None:
            return own if mask is None else mask
        both: MaskWords = mask.reshape(-1)[: len(own)] & own
        return both


def _words(allowed: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> MaskWords:
    return np.packbits(allowed, bitorder="little").view(np.int32)
