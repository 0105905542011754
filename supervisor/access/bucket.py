"""A token bucket that may go into debt. Pure."""


class Bucket:
    """Holds at most `per_minute` units and gains as many in a minute. Begins full.

    A cost that is known only afterwards is taken in full, and the balance may become negative. So a
    long answer is paid back by waiting.
    """

    def __init__(self, per_minute: int, now: float) -> None:
        """`now` is monotonic seconds, here and below."""
        self.per_minute = per_minute
        self._balance = float(per_minute)
        self._at = now

    def wait_s(self, now: float) -> float:
        """Seconds until one unit is there; 0 if it is there now."""
        self._refill(now)
        return max(0.0, 1.0 - self._balance) * 60.0 / self.per_minute

    def take(self, n: int, now: float) -> None:
        """Take units, whether or not they are there."""
        self._refill(now)
        self._balance -= n

    def _refill(self, now: float) -> None:
        gained = max(0.0, now - self._at) * self.per_minute / 60.0
        self._balance = min(float(self.per_minute), self._balance + gained)
        self._at = now
