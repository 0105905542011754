"""How many tokens the embedder may compute after a step of generation. Pure.

Every running stream waits for the embedder's pass. A pass takes at most `SHARE` times a plain
decode step, so that tokens keep coming. Without generation a pass is as large as it pays.
"""

from engine_worker.embedding.pass_sizes import ON_DEVICE, SIZES, PassSizes
from engine_worker.scheduling.step_costs import StepCosts

SHARE = 1.5
"""A pass to a plain decode step. Together they stay below three steps, with room for noise."""

LEAST = 1
"""Tokens that a pass may have in any case."""

MAX_SKIPPED = 3
"""A step that also computes prompts is long already. At most so many in a row have no pass."""


class EmbeddingBudget:
    """Learns what passes cost, and compares it with what `costs` knows of steps."""

    def __init__(self, costs: StepCosts, *, on_device: bool = False) -> None:
        sizes = ON_DEVICE if on_device else SIZES
        self._most = sizes[0]
        self._sizes = PassSizes(sizes)
        self._chosen: int | None = None
        self._costs = costs
        self._own = StepCosts()
        self._n_passes = 0
        self._n_skipped = 0

    def allowance(self, n_decoding: int, n_prefill: int) -> int:
        """Tokens for the pass after a step that decoded so many sequences and computed so many
        prompt tokens; 0: no pass now."""
        self._chosen = None
        if not (n_decoding or n_prefill):
            self._chosen = self._sizes.best()
            return self._chosen
        if not n_prefill:
            return self._share(n_decoding)
        self._n_skipped = (self._n_skipped + 1) % (MAX_SKIPPED + 1)
        return 0 if self._n_skipped else LEAST

    def computed(self, n_tokens: int, seconds: float) -> None:
        """A pass of `n_tokens` ≥ 1 took `seconds`."""
        self._n_passes += 1
        self._own.computed(n_tokens, seconds)
        if self._chosen is not None:
            self._sizes.computed(self._chosen, n_tokens, seconds)

    def _share(self, n_decoding: int) -> int:
        step_s = self._costs.seconds(n_decoding, n_decoding)
        if step_s is None:
            return LEAST
        if self._own.seconds(LEAST, 0) is None:
            return LEAST if self._n_passes % 2 == 0 else 4 * LEAST  # two sizes must be seen
        low, high = 0, self._most
        while low < high:
            middle = (low + high + 1) // 2
            if (self._own.seconds(middle, 0) or 0.0) <= SHARE * step_s:
                low = middle
            else:
                high = middle - 1
        return max(LEAST, low)
