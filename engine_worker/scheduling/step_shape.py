"""Which work goes together into a step, so that its passes suit the machine. Pure.

`StepShape` is the port; `Mixed` suits one KV cache for all sequences, and a CPU. Every other shape
has a module of its own and adds one thing to the shapes behind it: it overrides methods of `Mixed`
and calls `super()`. `policies` puts shapes together and chooses one.
"""

import collections.abc
from typing import Protocol, Self

from engine_worker.backend.profile import Profile
from engine_worker.kv.edits import KvEdit
from engine_worker.kv.prefix_cache import PrefixCache
from engine_worker.kv.slots import Slots
from engine_worker.scheduling.plan import Chunk, Decode, Decoding, Plan, Work
from engine_worker.text.sequence import Sequence
from gpufc.protocol import Started

MakeSlots = collections.abc.Callable[[], Slots]


class StepShape(Protocol):
    """Forms the work of one step. Every method but `plan` leaves all state as it is.

    `decoding` is the work for sequences' next tokens, and `chunks` are parts of prompts.
    """

    def fed_singly(
        self, running: collections.abc.Sequence[Sequence], ready: collections.abc.Sequence[Sequence]
    ) -> list[Sequence]:
        """Running sequences with more than one token to compute that compute one in this step, in
        the pass that `ready` sequences take for their next token."""
        ...

    def decoding(
        self, ready: collections.abc.Sequence[Sequence], fed: collections.abc.Sequence[Sequence]
    ) -> Decoding:
        """One token of each sequence, and the drafts of those that are ready."""
        ...

    def room(self, batch_tokens: int, decoding: Decoding) -> int:
        """The prompt tokens for which a batch has room beside `decoding`."""
        ...

    def next_chunk(
        self, sequence: Sequence, chunks: collections.abc.Sequence[Chunk], budget: int
    ) -> int:
        """The tokens of one more prompt to compute beside `chunks`; 0: none in this step. With more
        than it has pending, the tokens before those are computed again if they can be."""
        ...

    def levelled(
        self, chunks: collections.abc.Sequence[Chunk], chosen: collections.abc.Sequence[Chunk]
    ) -> list[Chunk]:
        """`chunks`, which may have become shorter since they were `chosen`, fitted to each other
        again."""
        ...

    def plan(
        self,
        edits: list[KvEdit],
        decoding: Decoding,
        chunks: list[Chunk],
        started: list[Started],
        n_prompts: int,
    ) -> Plan:
        """The complete step, with all work in its order. May give up slots that a shape holds."""
        ...


class Mixed:
    """Any chunks beside any sequences that decode."""

    @classmethod
    def with_slots(
        cls, profile: Profile, cache: PrefixCache, usual: MakeSlots
    ) -> tuple[Slots, Self]:
        """The shape with the slots that it needs: for most shapes the `usual` ones."""
        return usual(), cls()

    def fed_singly(
        self, running: collections.abc.Sequence[Sequence], ready: collections.abc.Sequence[Sequence]
    ) -> list[Sequence]:
        return []

    def decoding(
        self, ready: collections.abc.Sequence[Sequence], fed: collections.abc.Sequence[Sequence]
    ) -> Decoding:
        return decoding_of(ready, [Chunk(seq, 1, is_last=False) for seq in fed])

    def room(self, batch_tokens: int, decoding: Decoding) -> int:
        return batch_tokens - len(decoding.work) - decoding.n_drafted

    def next_chunk(
        self, sequence: Sequence, chunks: collections.abc.Sequence[Chunk], budget: int
    ) -> int:
        return sequence.next_chunk(budget) if budget > 0 else 0

    def levelled(
        self, chunks: collections.abc.Sequence[Chunk], chosen: collections.abc.Sequence[Chunk]
    ) -> list[Chunk]:
        return list(chunks)

    def plan(
        self,
        edits: list[KvEdit],
        decoding: Decoding,
        chunks: list[Chunk],
        started: list[Started],
        n_prompts: int,
    ) -> Plan:
        return Plan(
            edits,
            self.ordered(decoding.work, chunks),
            started,
            n_decoding=len(decoding.work),
            n_drafted=decoding.n_drafted,
            n_prefill=sum([chunk.count for chunk in chunks]),
            n_prompts=n_prompts,
        )

    def ordered(self, decoding: list[Work], chunks: list[Chunk]) -> list[Work]:
        """All work by rising slot: sequences with consecutive slots are computed in one pass."""
        return by_slot(decoding, chunks)


def decoding_of(
    ready: collections.abc.Sequence[Sequence], fed: collections.abc.Sequence[Chunk]
) -> Decoding:
    """The next token of each sequence with its draft, and chunks of one token beside."""
    work: list[Work] = [Decode(seq, tuple(seq.draft), 1 + seq.n_jumped) for seq in ready]
    n_drafted = sum([len(seq.draft) + seq.n_jumped for seq in ready])
    return Decoding([*work, *fed], len(ready), n_drafted)


def by_slot(decoding: list[Work], chunks: list[Chunk]) -> list[Work]:
    """All work in the order of its slots."""
    return sorted([*decoding, *chunks], key=lambda item: item.slot)
