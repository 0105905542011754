"""The pause after a load that failed: it doubles with each failure in a row."""

from msgspec import Struct

FIRST_S = 10.0
MOST_S = 300.0


class Failure(Struct, frozen=True):
    """The last failure, the number of failures in a row, and the end of the pause."""

    reason: str
    in_a_row: int
    until: float


class Cooldowns:
    """The models whose last load failed."""

    def __init__(self) -> None:
        self._failures: dict[str, Failure] = {}

    def failed(self, model: str, reason: str, now: float) -> None:
        """A load has failed."""
        before = self._failures.get(model)
        in_a_row = 1 if before is None else before.in_a_row + 1
        pause_s = min(MOST_S, FIRST_S * 2.0 ** min(in_a_row - 1, 16))
        self._failures[model] = Failure(reason, in_a_row, now + pause_s)

    def forget(self, model: str) -> None:
        """A load has succeeded, or the model is another one now."""
        self._failures.pop(model, None)

    def last(self, model: str) -> Failure | None:
        """The last failure; its pause may be over."""
        return self._failures.get(model)

    def pausing(self, model: str, now: float) -> Failure | None:
        """The failure whose pause is not over."""
        failure = self._failures.get(model)
        return failure if failure is not None and now < failure.until else None
