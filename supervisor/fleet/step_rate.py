"""Moving averages of a worker's engine steps, from its own reports. Pure."""

from gpufc.protocol import EnginePhase

RISE = 0.3
FALL = 0.1
"""Weights of a new sample above and below the average. A fast rise costs a late verdict at most; a
slow rise would kill a worker when the context grows."""


class StepRate:
    """Moving averages of the steps of one line of processes. Seconds, tokens.

    A decode step costs `decode_s`; a prefill step that and `token_s` for each of its tokens.
    """

    def __init__(self) -> None:
        self.decode_s: float | None = None
        self.token_s: float | None = None
        self._prefill_s: float | None = None

    def learn(self, phase: EnginePhase, n_tokens: int, took_s: float) -> None:
        """Learn from one step. Only prefill and decode steps count."""
        match phase:
            case EnginePhase.DECODE:
                self.decode_s = _average(self.decode_s, took_s)
            case EnginePhase.PREFILL:
                self._prefill_s = _average(self._prefill_s, took_s)
                self.token_s = _average(self.token_s, took_s / max(1, n_tokens))
            case EnginePhase.IDLE | EnginePhase.LOADING:
                pass

    def predict(self, phase: EnginePhase, n_tokens: int) -> float | None:
        """The expected duration of such a step; None while no similar one has been measured.

        A decode step is a small prefill: until one was measured, the prefill is its upper bound.
        """
        of_tokens = None if self.token_s is None else n_tokens * self.token_s
        if phase is EnginePhase.DECODE:
            known = self._prefill_s if self.decode_s is None else self.decode_s
            return None if known is None else max(known, of_tokens or 0.0)
        return None if of_tokens is None else of_tokens + (self.decode_s or 0.0)


def _average(before: float | None, sample: float) -> float:
    if before is None:
        return sample
    return before + (RISE if sample > before else FALL) * (sample - before)
