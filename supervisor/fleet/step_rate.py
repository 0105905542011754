"""How long a worker's engine steps take, learnt from what it reports of itself. Pure."""

from gpufc.protocol import EnginePhase

RISE = 0.3
FALL = 0.1
"""Weights of a new sample above and below the average. Believing in slowness sooner than in speed
costs a late verdict at most; the other way round would kill a worker whose context grows."""


class StepRate:
    """Moving averages of one place's steps, over all its processes. Seconds, tokens.

    A decode step costs `decode_s`; a prefill step that and `token_s` for each of its tokens.
    """

    def __init__(self) -> None:
        self.decode_s: float | None = None
        self.token_s: float | None = None
        self._prefill_s: float | None = None

    def learn(self, phase: EnginePhase, n_tokens: int, took_s: float) -> None:
        """A step of `n_tokens` took so long. Steps of other phases say nothing."""
        match phase:
            case EnginePhase.DECODE:
                self.decode_s = _average(self.decode_s, took_s)
            case EnginePhase.PREFILL:
                self._prefill_s = _average(self._prefill_s, took_s)
                self.token_s = _average(self.token_s, took_s / max(1, n_tokens))
            case EnginePhase.IDLE | EnginePhase.LOADING:
                pass

    def predict(self, phase: EnginePhase, n_tokens: int) -> float | None:
        """How long such a step will take; None while nothing like it has been measured.

        A decode step is a small prefill: until one has been measured, it will not take longer
        than the prefill before it did.
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
