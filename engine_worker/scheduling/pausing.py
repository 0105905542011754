"""The port for policies that let sequences wait which could gain a token. Pure."""

import collections.abc
from typing import Protocol

from engine_worker.scheduling.plan import Chunk, Plan
from engine_worker.text.sequence import Sequence


class Pausing(Protocol):
    """Decides whether ready sequences wait for the prompts of others. Asking changes nothing."""

    def arrived(self, sequence: Sequence) -> None:
        """A new sequence waits for its turn."""
        ...

    def pauses(
        self, ready: collections.abc.Sequence[Sequence], prompts: collections.abc.Sequence[Sequence]
    ) -> bool:
        """Whether all `ready` sequences wait in the next step, in which `prompts` are computed."""
        ...

    def shortened(
        self, chunks: list[Chunk], prompts: collections.abc.Sequence[Sequence]
    ) -> list[Chunk]:
        """The chunks of a step with a pause; a chunk may become shorter, to end before its last
        token."""
        ...

    def computed(self, plan: Plan, *, was_pause: bool) -> None:
        """A step is committed; in a pause, sequences were ready and none went on."""
        ...

    def ended(self, sequence: Sequence) -> None:
        """A sequence has ended."""
        ...


class NeverPause:
    """Every sequence goes on as soon as it is ready: for one sequence at a time."""

    def arrived(self, sequence: Sequence) -> None:
        pass

    def pauses(
        self, ready: collections.abc.Sequence[Sequence], prompts: collections.abc.Sequence[Sequence]
    ) -> bool:
        return False

    def shortened(
        self, chunks: list[Chunk], prompts: collections.abc.Sequence[Sequence]
    ) -> list[Chunk]:
        return chunks

    def computed(self, plan: Plan, *, was_pause: bool) -> None:
        pass

    def ended(self, sequence: Sequence) -> None:
        pass
