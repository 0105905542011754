"""The port for policies for bursts, which may let sequences wait that could gain a token. Pure."""

import collections.abc
from typing import Protocol

from engine_worker.scheduling.plan import Chunk, Plan
from engine_worker.text.sequence import Sequence


class Pausing(Protocol):
    """Decides which ready sequences wait for the prompts of others. Asking changes nothing."""

    def arrived(self, sequence: Sequence) -> None:
        """A new sequence waits for its turn."""
        ...

    def going(
        self, ready: collections.abc.Sequence[Sequence], prompts: collections.abc.Sequence[Sequence]
    ) -> list[Sequence] | None:
        """In a burst of requests, the `ready` sequences that go on in the next step, which is one
        for its `prompts`: it is not kept short for these sequences. None where there is none."""
        ...

    def most_tokens(self, prompts: collections.abc.Sequence[Sequence], batch_tokens: int) -> int:
        """The most tokens of prompts in a step of a burst."""
        ...

    def shortened(
        self, chunks: list[Chunk], prompts: collections.abc.Sequence[Sequence]
    ) -> list[Chunk]:
        """The chunks of a step of a burst; a chunk may become shorter, to end before its last
        token."""
        ...

    def computed(self, plan: Plan) -> None:
        """A step is committed."""
        ...

    def ended(self, sequence: Sequence) -> None:
        """A sequence has ended."""
        ...


class NeverPause:
    """Every sequence goes on as soon as it is ready: for one sequence at a time."""

    def arrived(self, sequence: Sequence) -> None:
        pass

    def going(
        self, ready: collections.abc.Sequence[Sequence], prompts: collections.abc.Sequence[Sequence]
    ) -> list[Sequence] | None:
        return None

    def most_tokens(self, prompts: collections.abc.Sequence[Sequence], batch_tokens: int) -> int:
        return batch_tokens

    def shortened(
        self, chunks: list[Chunk], prompts: collections.abc.Sequence[Sequence]
    ) -> list[Chunk]:
        return chunks

    def computed(self, plan: Plan) -> None:
        pass

    def ended(self, sequence: Sequence) -> None:
        pass


def n_pending(prompts: collections.abc.Iterable[Sequence]) -> int:
    """Known tokens without cells, of all these."""
    return sum([prompt.n_pending for prompt in prompts])
