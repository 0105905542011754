"""The port between the engine and the policies that decide which drafts are verified."""

from collections.abc import Sequence
from typing import Protocol

from engine_worker.speculation.drafter import DraftRequest
from gpufc.ids import RequestNo


class Speculator(Protocol):
    """Decides the drafts of every step. One thread calls it, the engine's.

    A speculator learns the fate of a draft from the tokens of the next request for the same
    sequence, so it is never told which drafted tokens were accepted.
    """

    max_sequences: int
    """Drafts are asked for while at most so many sequences decode; 0: never. More of them keep the
    machine busy by themselves, and drafts of different lengths take a forward pass each."""

    @property
    def is_quiet(self) -> bool:
        """Whether drafts are only compared with the tokens that came, and not verified, for now.

        The engine then calls `draft_all` while a device computes the step, and drops its drafts.
        """
        ...

    def draft_all(self, requests: Sequence[DraftRequest], *, n_decoding: int) -> list[list[int]]:
        """The tokens to verify in the next step: one draft for each request, possibly empty.

        `n_decoding` ≥ `len(requests)` sequences gain a token in that step. Raises `DecodeFailed`
        when a draft model fails: the process must not go on.
        """
        ...

    def pause(self) -> None:
        """Announce a step for which no drafts are asked."""
        ...

    def forget(self, key: RequestNo) -> None:
        """Drop the state of a sequence that has ended. An unknown key is ignored."""
        ...


class NoSpeculation:
    """Drafts nothing: for engines without a drafter and for states that cannot be cut."""

    max_sequences = 0
    is_quiet = True

    def draft_all(self, requests: Sequence[DraftRequest], *, n_decoding: int) -> list[list[int]]:
        return [[] for _ in requests]

    def pause(self) -> None:
        pass

    def forget(self, key: RequestNo) -> None:
        pass
