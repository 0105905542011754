"""The models whose requests wait, in the order in which they are served."""

from collections.abc import Iterable, Mapping

from supervisor.residency.port import Terms

PRIORITY_STEP_S = 30.0
"""The waiting that one unit of priority is worth. So a low priority delays, and never starves."""


class Wanted:
    """Model → since when requests of it wait. Only the `Residency` changes it."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def __contains__(self, model: str) -> bool:
        return model in self._since

    def set(self, model: str, n_waiting: int, now: float) -> None:
        """So many requests wait now."""
        if n_waiting:
            self._since.setdefault(model, now)
        else:
            self._since.pop(model, None)

    def age_s(self, model: str, now: float) -> float:
        """How long the model has been waited for; 0 if it is not."""
        return now - self._since.get(model, now)

    def in_order(self, terms: Mapping[str, Terms]) -> Iterable[str]:
        """The registered models that are waited for, the next one first."""

        def turn(model: str) -> float:
            return self._since[model] - PRIORITY_STEP_S * terms[model].priority

        return sorted((model for model in self._since if model in terms), key=turn)
