"""How many prompt tokens a step may compute beside running streams. Pure: it is told durations.

A step that also prefills takes longer, and every running stream waits for it. So prefill is paid
from an account: each step pays in as many tokens as keep it within `STALL` times a plain decode
step, and the account holds one whole batch. A short prompt is thus computed in one step, as if it
were alone; a long one makes each step a bit longer, but never stops the others.
"""

STALL = 2.2
"""A step with prefill, to one without: running streams' tokens come that much later."""

MIN_CHUNK = 16
"""A smaller piece of a prompt costs a step nearly as much, and gets nowhere."""

_WEIGHT = 0.2
"""Of the newest measurement in the moving averages."""


class Pace:
    """Costs of steps on this machine, and the account. The engine thread's own.

    `decode_s` is what a step without prefill takes now, `token_s` what each prompt token adds to
    it, both in seconds and None until measured; `draft_s` the same for a drafted token.
    """

    def __init__(self, batch_tokens: int) -> None:
        self.decode_s: float | None = None
        self.token_s: float | None = None
        self.draft_s: float | None = None
        self._batch_tokens = batch_tokens
        self._account = float(batch_tokens)

    def allowance(self, n_decoding: int) -> int:
        """Prompt tokens that the next step may compute beside `n_decoding` streams."""
        if not n_decoding:
            return self._batch_tokens
        return max(MIN_CHUNK, int(self._account))

    def spent(self, n_decoding: int, n_prefill: int) -> None:
        """A step has computed so many prompt tokens beside `n_decoding` streams."""
        if not n_decoding:
            self._account = float(self._batch_tokens)
            return
        left = max(0.0, self._account - n_prefill) + self._share()
        self._account = min(float(self._batch_tokens), left)

    def measured(self, seconds: float, *, n_decoding: int, n_prefill: int, n_drafted: int) -> None:
        """How long a step took that computed so many tokens of each kind."""
        if n_decoding and not n_prefill and not n_drafted:
            self.decode_s = _average(self.decode_s, seconds)
        elif n_prefill >= MIN_CHUNK and not n_drafted:
            base = (self.decode_s or 0.0) if n_decoding else 0.0
            self.token_s = _average(self.token_s, max(0.0, seconds - base) / n_prefill)
        elif n_drafted and not n_prefill and self.decode_s is not None:
            added = max(0.0, seconds - self.decode_s) / n_drafted
            self.draft_s = _average(self.draft_s, added)

    def _share(self) -> float:
        """What a step pays in."""
        if not self.decode_s or not self.token_s:
            return float(self._batch_tokens)
        return (STALL - 1.0) * self.decode_s / self.token_s


def _average(before: float | None, value: float) -> float:
    return value if before is None else before + _WEIGHT * (value - before)
