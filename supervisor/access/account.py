"""One key's use of the service, held to the key's limits. Pure: the clock is given."""

from collections.abc import Callable

from gpufc.errors import InvalidRequest, RateLimited
from supervisor.access.bucket import Bucket
from supervisor.access.keys import Key

_FIRST_GUESS_S = 2.0
_WEIGHT = 0.1
"""Weight of one request in the moving average of durations: it covers about ten requests."""


class KeyAccount:
    """Implements `dispatch.request.Account`. Lives as long as its key is listed."""

    def __init__(self, key: Key, clock: Callable[[], float]) -> None:
        """`clock` gives monotonic seconds."""
        self._clock = clock
        self._requests: Bucket | None = None
        self._tokens: Bucket | None = None
        self._most: int | None = None
        self._n_open = 0
        self._duration_s = _FIRST_GUESS_S
        self.hold_to(key)

    def hold_to(self, key: Key) -> None:
        """Apply the limits of the key as it is listed now. A limit that has changed begins anew."""
        self._requests = self._bucket(self._requests, key.requests_per_minute)
        self._tokens = self._bucket(self._tokens, key.tokens_per_minute)
        self._most = key.concurrent

    def _bucket(self, known: Bucket | None, per_minute: int | None) -> Bucket | None:
        if per_minute is None:
            return None
        if known is not None and known.per_minute == per_minute:
            return known
        return Bucket(per_minute, self._clock())

    def note_request(self) -> None:
        now = self._clock()
        for bucket, unit in ((self._requests, "requests"), (self._tokens, "tokens")):
            wait_s = 0.0 if bucket is None else bucket.wait_s(now)
            if bucket is not None and wait_s > 0.0:
                raise RateLimited(
                    f"This key may use {bucket.per_minute} {unit} a minute", retry_after_s=wait_s
                )
        if self._requests is not None:
            self._requests.take(1, now)

    def require_room(self, n_sequences: int) -> None:
        most = self._most
        if most is not None and n_sequences > most:
            raise InvalidRequest(
                f"the request asks for {n_sequences} sequences; this key may run {most} at once",
                param="n",
            )
        if most is not None and self._n_open + n_sequences > most:
            missing = self._n_open + n_sequences - most
            raise RateLimited(
                f"This key may run {most} sequences at once, and has {self._n_open}",
                retry_after_s=self._duration_s * missing / most,
            )

    def open(self, n_sequences: int) -> None:
        self._n_open += n_sequences

    def close(self, n_sequences: int, n_tokens: int, seconds: float) -> None:
        self._n_open -= n_sequences
        self._duration_s += _WEIGHT * (seconds - self._duration_s)
        if self._tokens is not None:
            self._tokens.take(n_tokens, self._clock())
