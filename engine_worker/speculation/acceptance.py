"""The acceptance rates of drafted tokens, by the evidence for them. Pure.

A sequence's rates begin with those of all sequences before it. Where texts seldom repeat
themselves, new ones need not find that out again.
"""

from collections.abc import Callable, Sequence
from typing import Self

from engine_worker.speculation.drafter import Draft

_GROUPS = (0, 1, 2, 3, 4, 5, 7, 10, 15, 23, 32)
"""The least evidence of each group. Tokens of one group share a rate."""
_MOST = _GROUPS[-1]
_GROUP_OF = tuple(sum(evidence >= least for least in _GROUPS) - 1 for evidence in range(_MOST + 1))
_PRIOR_WEIGHT = 8.0
"""The rate at first weighs as much as this many comparisons."""
_MEMORY = 0.97
"""Each comparison multiplies the weight of the earlier ones of its group by this."""
_COMMON_MEMORY = 0.995
"""The same for the rates of all sequences."""


class AcceptanceRates:
    """An exponentially weighted acceptance rate for each group of evidence."""

    def __init__(
        self,
        assumed: Callable[[int], float],
        common: Self | None = None,
        *,
        memory: float = _MEMORY,
    ) -> None:
        """`assumed` gives the rate for an evidence before anything has been compared. What is
        learnt, `common` learns, too."""
        self._right = [assumed(evidence) * _PRIOR_WEIGHT for evidence in _GROUPS]
        self._all = [_PRIOR_WEIGHT] * len(_GROUPS)
        self._common = common
        self._memory = memory

    @classmethod
    def of_all(cls, assumed: Callable[[int], float]) -> Self:
        """The rates of all sequences."""
        return cls(assumed, memory=_COMMON_MEMORY)

    def of_new_sequence(self) -> Self:
        """The rates that a sequence begins with, where these are of all sequences."""
        return type(self)(self.rate, self)

    def compare(self, draft: Draft, came: Sequence[int]) -> None:
        """Learn from the tokens that came at a draft's positions, whether it was verified or not.

        Tokens after the first wrong one say nothing about the rates and are left out.
        """
        for evidence, (drafted, token) in enumerate(
            zip(draft.tokens, came, strict=False), draft.evidence
        ):
            group = _GROUP_OF[min(evidence, _MOST)]
            self._learn(group, is_right=drafted == token)
            if self._common is not None:
                self._common._learn(group, is_right=drafted == token)
            if drafted != token:
                break

    def rate(self, evidence: int) -> float:
        """The probability that a drafted token of `evidence` ≥ 0 is right if all before it are."""
        group = _GROUP_OF[min(evidence, _MOST)]
        return self._right[group] / self._all[group]

    def _learn(self, group: int, *, is_right: bool) -> None:
        self._right[group] = self._right[group] * self._memory + is_right
        self._all[group] = self._all[group] * self._memory + 1.0
