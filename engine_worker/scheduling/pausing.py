"""The port for policies for bursts, which may let sequences wait that could gain a token. Pure."""

import collections.abc
from typing import NamedTuple, Protocol

from engine_worker.scheduling.plan import Chunk, Plan
from engine_worker.text.sequence import Sequence


class Limits(NamedTuple):
    """The most prompts that end in a step, and the most tokens of prompts in it; None: as many as
    there is room for."""

    prompts: int | None = None
    tokens: int | None = None


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

    def limits(
        self, ready: collections.abc.Sequence[Sequence], prompts: collections.abc.Sequence[Sequence]
    ) -> Limits:
        """Of a step of a burst. Here and in `shortened`, `ready` are all sequences that `going` was
        asked about."""
        ...

    def shortened(
        self,
        chunks: list[Chunk],
        ready: collections.abc.Sequence[Sequence],
        prompts: collections.abc.Sequence[Sequence],
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

    def limits(
        self, ready: collections.abc.Sequence[Sequence], prompts: collections.abc.Sequence[Sequence]
    ) -> Limits:
        return Limits()

    def shortened(
        self,
        chunks: list[Chunk],
        ready: collections.abc.Sequence[Sequence],
        prompts: collections.abc.Sequence[Sequence],
    ) -> list[Chunk]:
        return chunks

    def computed(self, plan: Plan) -> None:
        pass

    def ended(self, sequence: Sequence) -> None:
        pass


def n_pending(prompts: collections.abc.Iterable[Sequence]) -> int:
    """Known tokens without cells, of all these. The prefix that a waiting sequence shares will be
    copied, and does not count."""
    return sum([n_left(prompt) for prompt in prompts])


def n_left(prompt: Sequence) -> int:
    """The same of one sequence."""
    n_tokens = prompt.n_pending
    return n_tokens if prompt.slot is not None else max(1, n_tokens - prompt.n_shared)
