"""The acceptance rates of one sequence's drafted tokens, by the evidence for them. Pure."""

from collections.abc import Callable, Sequence

from engine_worker.speculation.drafter import Draft

_GROUPS = (0, 1, 2, 3, 4, 5, 7, 10, 15, 23, 32)
"""The least evidence of each group. Tokens of one group share a rate."""
_MOST = _GROUPS[-1]
_GROUP_OF = tuple(sum(evidence >= least for least in _GROUPS) - 1 for evidence in range(_MOST + 1))
_PRIOR_WEIGHT = 8.0
"""The assumed rate weighs as much as this many comparisons."""
_MEMORY = 0.97
"""Each comparison multiplies the weight of the earlier ones of its group by this."""


class AcceptanceRates:
    """An exponentially weighted acceptance rate for each group of evidence."""

    def __init__(self, assumed: Callable[[int], float]) -> None:
        """`assumed` gives the rate for an evidence before anything has been compared."""
        self._right = [assumed(evidence) * _PRIOR_WEIGHT for evidence in _GROUPS]
        self._all = [_PRIOR_WEIGHT] * len(_GROUPS)

    def compare(self, draft: Draft, came: Sequence[int]) -> None:
        """Learn from the tokens that came at a draft's positions, whether it was verified or not.

        Tokens after the first wrong one say nothing about the rates and are left out.
        """
        for evidence, (drafted, token) in enumerate(
            zip(draft.tokens, came, strict=False), draft.evidence
        ):
            group = _GROUP_OF[min(evidence, _MOST)]
            self._right[group] = self._right[group] * _MEMORY + (drafted == token)
            self._all[group] = self._all[group] * _MEMORY + 1.0
            if drafted != token:
                break

    def rate(self, evidence: int) -> float:
        """The probability that a drafted token of `evidence` ≥ 0 is right if all before it are."""
        group = _GROUP_OF[min(evidence, _MOST)]
        return self._right[group] / self._all[group]
