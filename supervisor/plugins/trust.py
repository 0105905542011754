"""Whether a policy that has failed is asked again. Pure: the time is an argument."""

MOST_FAILURES = 3
"""So many failures in a row switch a policy off."""

FIRST_REST_S, LONGEST_REST_S = 10.0, 600.0


class Trust:
    """In one policy. After a rest it is asked again, and the next failure is a rest twice as long.
    A success forgets all failures."""

    def __init__(self) -> None:
        self._n_failed = 0
        self._off_until = 0.0

    def is_off(self, now: float) -> bool:
        """Whether it rests."""
        return now < self._off_until

    def failed(self, now: float) -> float:
        """It has failed. Returns the seconds for which it is off because of that; 0 for none.

        Answers that were under way when it was switched off do not count."""
        if self.is_off(now):
            return 0.0
        self._n_failed += 1
        if self._n_failed < MOST_FAILURES:
            return 0.0
        rest_s = min(LONGEST_REST_S, FIRST_REST_S * 2.0 ** min(self._n_failed - MOST_FAILURES, 16))
        self._off_until = now + rest_s
        return rest_s

    def held(self) -> None:
        """It has answered."""
        self._n_failed = 0
