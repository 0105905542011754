"""The port between speculation and whatever guesses a sequence's next tokens.

A draft is a guess and nothing else: the engine computes the drafted tokens in the same batch as
the next one, samples every position as it would without drafts, and keeps a drafted token only
where it is the one that was sampled. So what a drafter says changes how fast a sequence goes on,
never how. Adapters: `prompt_lookup.PromptLookup` and `draft_model.DraftModel`.
"""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from gpufc.ids import RequestNo


class DraftRequest(Struct, frozen=True):
    """A sequence that decodes in the next step.

    `tokens` are all that are known, prompt first. The list is read, never kept or changed, and
    between two requests of one `key` it only grows at its end. At most `limit` tokens may be
    drafted: more have no room in the context or in the batch. At most `n_useful` of them can become
    part of the answer; a speculator decides whether longer drafts make sense, a drafter ignores it.
    """

    key: RequestNo
    tokens: list[int]
    limit: int
    n_useful: int


class Draft(Struct, frozen=True):
    """A guess at what follows a sequence's tokens, possibly empty.

    `evidence` ≥ 0 says how well founded the first token is, in the drafter's own unit (tokens
    that matched before it); token i has `evidence + i` if those before it are right.
    """

    tokens: list[int]
    evidence: int


class Drafter(Protocol):
    """Guesses for all sequences of a step at once. One thread calls it, the engine's."""

    position_s: float | None
    """What one more drafted position of all sequences costs before the step, in seconds; None if
    drafts cost nothing, and so may be asked for only to see whether they would have been right."""

    def chance(self, evidence: int) -> float:
        """The chance that a token is right, to be assumed until a sequence has shown it."""
        ...

    def draft_all(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        """A draft for each request, in their order, none longer than its request's limit."""
        ...

    def forget(self, key: RequestNo) -> None:
        """The sequence has ended, or will not be asked for soon. Unknown keys are ignored."""
        ...
