"""How many prompt tokens a step may compute beside running streams. Pure.

A step that also prefills takes longer, and every running stream waits for it. So prefill is paid
from an account: each step pays in as many tokens as keep it within `STALL` times a plain decode
step, or that plus `UNNOTICED_S`, and the account holds one whole batch. A short prompt is thus
computed in one step, as if it were alone; a long one makes each step a bit longer, but never stops
the others. The more prompts wait, the more they may take.
"""

from engine_worker.scheduling.step_costs import StepCosts

STALL = 2.4
"""A step with prefill, to one without: running streams' tokens come that much later."""

UNNOTICED_S = 0.04
"""What a step may always take longer: nobody reads so fast, and prompts would wait for nothing
where plain steps take a few milliseconds."""

MIN_CHUNK = 8
"""A smaller piece of a prompt costs a step nearly as much, and gets nowhere."""


class Pace:
    """The account, in tokens. The engine thread's own."""

    def __init__(self, batch_tokens: int, costs: StepCosts) -> None:
        self._batch_tokens = batch_tokens
        self._costs = costs
        self._account = batch_tokens

    def allowance(self, n_decoding: int) -> int:
        """Prompt tokens that the next step may compute beside `n_decoding` streams."""
        if not n_decoding:
            return self._batch_tokens
        return max(MIN_CHUNK, self._account)

    def spent(self, n_decoding: int, n_prefill: int, n_waiting: int) -> None:
        """A step has computed so many prompt tokens beside `n_decoding` streams, of `n_waiting`
        prompts: each of them has somebody who waits as well, so each pays in."""
        if not n_decoding:
            self._account = self._batch_tokens
            return
        left = max(0, self._account - n_prefill) + self._share(n_decoding) * max(1, n_waiting)
        self._account = min(self._batch_tokens, left)

    def _share(self, n_decoding: int) -> int:
        """What a step pays in: the most tokens that do not make it too long; all of them as long as
        nothing is known."""
        alone_s = self._costs.seconds(n_decoding, n_decoding)
        if alone_s is None:
            return self._batch_tokens
        most_s = max(STALL * alone_s, alone_s + UNNOTICED_S)
        low, high = 0, self._batch_tokens
        while low < high:
            middle = (low + high + 1) // 2
            if (self._costs.seconds(n_decoding + middle, n_decoding) or 0.0) <= most_s:
                low = middle
            else:
                high = middle - 1
        return low
