"""How often the tokens that a sequence drew freely were refused lately. Pure."""

_WEIGHT = 1 / 16
"""Of the last choice; the share of the choices before it keeps the rest."""

FREQUENT = 0.15
"""Beside a device, a mask ahead takes time of other threads alone, and one at once takes all of its
own. With the demo model a regex has 0.22 of its free choices refused, JSON 0.06 to 0.12."""


class Refusals:
    """The record of one sequence. It decides when masks are computed, and not which token is
    chosen: a replay begins with an empty record.

    There is one exception. A mask meets more of the lexer's states than the check of one token. So
    a mask ahead may meet a limit, and end the sequence, where the check alone would not.
    """

    def __init__(self) -> None:
        self._share = 0.0

    def note(self, *, was_refused: bool) -> None:
        self._share += _WEIGHT * (was_refused - self._share)

    @property
    def are_frequent(self) -> bool:
        """Whether it pays to have the mask of the next choice, if it takes no time."""
        return self._share > FREQUENT
