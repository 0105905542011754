"""How many prompt tokens a step may compute beside running streams. Pure.

A step that also computes prompts takes longer, and every running stream waits for it. So prompt
tokens are paid from an account. Each step pays in as many tokens as keep it within `STALL` times a
plain decode step, or within `UNNOTICED_S` of it. The account holds one whole batch: a short prompt
is computed in one step, as if it were alone; a long prompt makes each step a bit longer, and never
stops the streams. The more prompts wait, the more each step pays in.
"""

from engine_worker.scheduling.step_costs import StepCosts
from gpufc.protocol import MIN_CHUNK

STALL = 2.4
"""A step with prompts to one without. Running streams' tokens come that much later."""

UNNOTICED_S = 0.04
"""A step may always take so much longer: people do not read that fast. Where plain steps take a few
milliseconds, prompts would wait for nothing otherwise."""


class PrefillBudget:
    """The account, in tokens. Invariant: 0 ≤ account ≤ `batch_tokens`."""

    def __init__(self, batch_tokens: int, costs: StepCosts, account: int | None = None) -> None:
        """`account` is paid in at the start; a whole batch by default."""
        self._batch_tokens = batch_tokens
        self._costs = costs
        self._account = batch_tokens if account is None else account

    def allowance(self, n_decoding: int) -> int:
        """Prompt tokens that the next step may compute beside `n_decoding` streams."""
        if not n_decoding:
            return self._batch_tokens
        return max(MIN_CHUNK, self._account)

    def spent(self, n_decoding: int, n_prefill: int, n_waiting: int) -> None:
        """A step has computed so many prompt tokens beside `n_decoding` streams, of `n_waiting`
        prompts. A client waits for each of these prompts as well, so each pays in."""
        if not n_decoding:
            self._account = self._batch_tokens
            return
        left = max(0, self._account - n_prefill) + self._share(n_decoding) * max(1, n_waiting)
        self._account = min(self._batch_tokens, left)

    def _share(self, n_decoding: int) -> int:
        """The most prompt tokens that do not make a step too long; a whole batch as long as costs
        are not known."""
        alone_s = self._costs.seconds(n_decoding, n_decoding)
        if alone_s is None:
            return self._batch_tokens
        most_s = max(STALL * alone_s, alone_s + UNNOTICED_S)
        return self._costs.tokens_within(most_s, self._batch_tokens, n_decoding)
