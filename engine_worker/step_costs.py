"""How long a step takes by the number of its tokens, learnt from the steps that there were.

Pure: who has a clock calls `observe`. Nothing is computed for the sake of measuring; prefills give
the slope for many tokens, decoding steps the cost of few, drafts what lies between.
"""


class StepCosts:
    """Seconds of a step as a function of its tokens: measured points, straight lines between."""

    def observe(self, n_tokens: int, seconds: float) -> None:
        """A step of `n_tokens` (all of its batch) took `seconds`, device and host."""
        raise NotImplementedError

    def seconds(self, n_tokens: int) -> float | None:
        """The expected seconds of a step of `n_tokens`; None while nothing is known."""
        raise NotImplementedError
