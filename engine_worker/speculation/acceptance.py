"""How often a drafted token was right in one sequence, by how well founded it was. Pure."""

from collections.abc import Callable

_GROUPS = (0, 1, 2, 3, 4, 5, 7, 10, 15, 23, 32)
"""Evidence from which on tokens are counted apart."""
_MOST = _GROUPS[-1]
_GROUP_OF = tuple(sum(evidence >= least for least in _GROUPS) - 1 for evidence in range(_MOST + 1))
_PRIOR_WEIGHT = 8.0
"""Comparisons that the assumed chances count for."""
_MEMORY = 0.97
"""What one more comparison leaves of the weight of those before it in its group."""


class AcceptanceRates:
    """Weighted counts for each group of evidence, the latest comparisons weighing most."""

    def __init__(self, assumed: Callable[[int], float]) -> None:
        """`assumed` gives the chance by evidence for as long as nothing is known."""
        self._right = [assumed(evidence) * _PRIOR_WEIGHT for evidence in _GROUPS]
        self._all = [_PRIOR_WEIGHT] * len(_GROUPS)

    def learn(self, evidence: int, right: bool) -> None:
        """A drafted token of that evidence ≥ 0 was right or not; those before it were."""
        group = _GROUP_OF[min(evidence, _MOST)]
        self._right[group] = self._right[group] * _MEMORY + right
        self._all[group] = self._all[group] * _MEMORY + 1.0

    def rate(self, evidence: int) -> float:
        """The chance that a drafted token of that evidence ≥ 0 is right if those before it are."""
        group = _GROUP_OF[min(evidence, _MOST)]
        return self._right[group] / self._all[group]
