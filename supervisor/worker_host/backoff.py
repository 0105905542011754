"""Pauses between two attempts to reach the front. Pure."""

import random

FIRST_S = 0.2
MOST_S = 15.0
HOLDING_S = 1.0
"""The longest pause while workers are held: each second counts, until the lease is over."""
FACTOR = 2.0


class Backoff:
    """Grows from `FIRST_S` to `MOST_S`. Each pause is random between half and the whole of that, so
    that the hosts of a front which comes back do not all dial at once."""

    def __init__(self, dice: random.Random | None = None) -> None:
        self._dice = dice or random.Random()  # noqa: S311 - no secret
        self._limit_s = FIRST_S

    def next_s(self, *, is_holding: bool = False) -> float:
        """The next pause. `is_holding` while workers wait for the front to come back."""
        most_s = HOLDING_S if is_holding else MOST_S
        pause_s = min(most_s, self._limit_s) * self._dice.uniform(0.5, 1.0)
        self._limit_s = min(most_s, self._limit_s * FACTOR)
        return pause_s

    def reset(self) -> None:
        """The front has been reached."""
        self._limit_s = FIRST_S
