"""How often the tokens that a sequence drew freely were refused lately. Pure."""

_WEIGHT = 0.25
"""Of the last choice; the share of the choices before it keeps the rest."""

FREQUENT = 0.5
"""A mask ahead is used about as often as not."""


class Refusals:
    """The record of one sequence. It decides when masks are computed, and never which token is
    chosen: a replay begins with an empty record."""

    def __init__(self) -> None:
        self._share = 0.0

    def note(self, *, was_refused: bool) -> None:
        self._share += _WEIGHT * (was_refused - self._share)

    @property
    def are_frequent(self) -> bool:
        """Whether the next choice is most likely refused as well."""
        return self._share > FREQUENT
